"""Helianthus: network services on sans-I/O protocol machines with swappable drivers."""

from .drivers.base import Driver
from .drivers.choose import driver, run
from .protocols.rpc import KeepAlive, RpcLimits, StatusCode
from .services.rpc import (
    BlockingClient,
    CallContext,
    CancelToken,
    Client,
    Middleware,
    Peer,
    Proceed,
    Request,
    Response,
    RpcError,
    Server,
    Service,
    StreamCall,
    connect,
    connect_sync,
    current_call,
    method,
)

__version__ = "0.1.0"

__all__ = [
    "BlockingClient",
    "CallContext",
    "CancelToken",
    "Client",
    "Driver",
    "KeepAlive",
    "Middleware",
    "Peer",
    "Proceed",
    "Request",
    "Response",
    "RpcError",
    "RpcLimits",
    "Server",
    "Service",
    "StatusCode",
    "StreamCall",
    "connect",
    "connect_sync",
    "current_call",
    "driver",
    "method",
    "run",
]
