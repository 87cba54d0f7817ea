"""Ground floor: pure protocol machines. No I/O, no clock, no global randomness, no threads."""
