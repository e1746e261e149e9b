"""Rollouts played thousands of times on invented or recorded traffic, to see what a policy does. Needs numpy."""
