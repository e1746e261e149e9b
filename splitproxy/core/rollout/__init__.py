"""Rollouts as pure decisions: a plan, a state, events in, commands out."""
