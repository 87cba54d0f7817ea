"""Servers of `add(a, b)` and their clients."""
