"""Framing machines."""
