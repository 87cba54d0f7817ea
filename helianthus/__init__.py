"""Helianthus: network services on sans-I/O protocol machines with swappable drivers."""

from .drivers.base import Driver
from .drivers.choose import driver, run
from .protocols.policies import AdmissionLimits, ConcurrencyLimit, IdempotencyLimits
from .protocols.rpc import CallStatistics, KeepAlive, RpcLimits, StatisticsTable, StatusCode
from .services.rpc import (
    BlockingClient,
    CallContext,
    CancelToken,
    Client,
    Middleware,
    Peer,
    PeerStatistics,
    Proceed,
    Request,
    Response,
    RpcCollector,
    RpcError,
    Server,
    ServerStatistics,
    Service,
    StreamCall,
    connect,
    connect_sync,
    current_call,
    method,
)

__version__ = "0.1.0"

__all__ = [
    "AdmissionLimits",
    "BlockingClient",
    "CallContext",
    "CallStatistics",
    "CancelToken",
    "Client",
    "ConcurrencyLimit",
    "Driver",
    "IdempotencyLimits",
    "KeepAlive",
    "Middleware",
    "Peer",
    "PeerStatistics",
    "Proceed",
    "Request",
    "Response",
    "RpcCollector",
    "RpcError",
    "RpcLimits",
    "Server",
    "ServerStatistics",
    "Service",
    "StatisticsTable",
    "StatusCode",
    "StreamCall",
    "connect",
    "connect_sync",
    "current_call",
    "driver",
    "method",
    "run",
]
