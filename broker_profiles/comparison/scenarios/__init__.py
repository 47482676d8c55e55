"""One file a promise of the contract; see `comparison.scenario`."""
