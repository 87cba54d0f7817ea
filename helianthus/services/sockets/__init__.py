"""Sockets for people: streams, listeners and datagrams, with bounds on each operation, on every driver."""

from .errors import IncompleteRead, OperationCancelled, OperationTimedOut, SocketBusy, SocketClosed
from .tcp_listener import TcpListener, listen
from .tcp_socket import TcpSocket
from .udp_socket import UdpSocket

__all__ = [
    "IncompleteRead",
    "OperationCancelled",
    "OperationTimedOut",
    "SocketBusy",
    "SocketClosed",
    "TcpListener",
    "TcpSocket",
    "UdpSocket",
    "listen",
]
