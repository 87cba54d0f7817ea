"""The programs that are measured: a server, and for RPC a client, for each contestant."""
