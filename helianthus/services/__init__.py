"""Top floor: what users call. Knows machines, the Driver interface and coroutines, no socket."""
