"""Measurements; no test depends on one."""
