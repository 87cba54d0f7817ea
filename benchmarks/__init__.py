"""Side-by-side measurements of Helianthus and its peers: `python -m benchmarks`."""
