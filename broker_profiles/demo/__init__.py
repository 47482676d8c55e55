"""The demonstration: real work on the profile of the environment, from nothing to a checked result."""
