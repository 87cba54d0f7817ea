"""Echo servers over UDP; all are loaded by `datagram_load.c`."""
