"""Kombu transports: the leased transport, its stores, and what other transports need."""
