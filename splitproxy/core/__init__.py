"""Decisions: values in, values out. No await, socket, clock, randomness or logging in this package."""
