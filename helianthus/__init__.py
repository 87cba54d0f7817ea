"""Helianthus: network services on sans-I/O protocol machines with swappable drivers."""

__version__ = "0.1.0"
