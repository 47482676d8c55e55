"""The comparison suite: one contract, proven or disproved on any broker."""
