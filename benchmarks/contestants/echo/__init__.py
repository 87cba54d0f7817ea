"""Echo servers over TCP; all are loaded by `echo_load.c`."""
