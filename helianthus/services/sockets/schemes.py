"""Which addresses sockets go to."""

from __future__ import annotations

SOCKET_SCHEMES = ("tcp", "tls", "unix", "pipe")
"""Schemes of `Address` that `listen` listens at and `connect` connects to."""

DATAGRAM_SOCKET_SCHEMES = ("udp",)
"""Schemes of `Address` that a `UdpSocket` can have."""
