"""First floor: drivers pump bytes, time and actions between machines and one platform."""
