"""Sockets for people.

    from helianthus.sockets import connect, listen

    async with await connect("tcp://127.0.0.1:7", timeout=5) as sock:
        await sock.send_all(b"hello\n")
        answer = await sock.recv_until(b"\n", timeout=1)

    async with await connect("tls://example.org:443", tls=ClientTls(ca="ca.pem")) as sock:
        print(sock.tls.version, sock.tls.certificate)

They run on every driver, and each operation can be bounded by a time, a token and the scopes around it.
"""

from __future__ import annotations

from .drivers.datagram_options import DatagramOptions, MulticastGroup
from .protocols.byte_stream import ByteStreamLimits
from .protocols.datagram_queue import DatagramQueueLimits
from .protocols.tls import TlsError, TlsEstablished, TlsHandshakeFailed, TlsTruncated
from .services.cancel import CancelToken
from .services.scope import CancelScope, cancel_scope
from .services.sockets import (
    IncompleteRead,
    OperationCancelled,
    OperationTimedOut,
    SocketBusy,
    SocketClosed,
    TcpListener,
    TcpSocket,
    UdpSocket,
    listen,
)
from .services.tls import ClientTls, ServerTls, TlsFilesUnusable

connect = TcpSocket.connect

__all__ = [
    "ByteStreamLimits",
    "CancelScope",
    "CancelToken",
    "ClientTls",
    "DatagramOptions",
    "DatagramQueueLimits",
    "IncompleteRead",
    "MulticastGroup",
    "OperationCancelled",
    "OperationTimedOut",
    "ServerTls",
    "SocketBusy",
    "SocketClosed",
    "TcpListener",
    "TcpSocket",
    "TlsError",
    "TlsEstablished",
    "TlsFilesUnusable",
    "TlsHandshakeFailed",
    "TlsTruncated",
    "UdpSocket",
    "cancel_scope",
    "connect",
    "listen",
]
