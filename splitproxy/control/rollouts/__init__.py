"""Rollouts as they run: the machine of `core` with its clock, its store, its measurements and its news."""
