"""Libraries with sockets to await: one program each, a server and its client."""
