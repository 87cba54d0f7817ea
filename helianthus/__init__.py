"""Helianthus: network services on sans-I/O protocol machines with swappable drivers."""

from typing import TYPE_CHECKING, Any

from .drivers.base import Driver
from .drivers.buffer_statistics import BufferLeak, BufferStatistics
from .drivers.buffers import BufferPool
from .drivers.choose import driver, run
from .drivers.lease import Lease
from .drivers.link_options import Fairness, LinkOptions
from .drivers.link_statistics import DriverStatistics, LinkStatistics
from .drivers.recordings import Recordings
from .drivers.unix_socket import PeerCredentials
from .protocols.auth import Identity, Rules
from .protocols.policies import (
    AdmissionLimits,
    ConcurrencyLimit,
    HedgingPolicy,
    IdempotencyLimits,
    Rate,
    RetryPolicy,
    RetryThrottle,
)
from .protocols.pool import PoolOptions
from .protocols.rpc import CallStatistics, KeepAlive, RpcLimits, StatisticsTable, StatusCode, TypeRegistry
from .protocols.slow_consumer import SlowConsumerPolicy
from .protocols.tls import Certificate
from .services.cancel import CancelToken
from .services.rpc import (
    Authentication,
    Authenticator,
    BearerToken,
    BlockingClient,
    CallContext,
    CallLog,
    CallMetrics,
    CallPolicy,
    Client,
    ConnectionInfo,
    Credentials,
    Evidence,
    Middleware,
    Peer,
    PeerStatistics,
    Proceed,
    RateLimit,
    Request,
    Response,
    ResponseCache,
    RpcError,
    Server,
    ServerStatistics,
    Service,
    SharedSecret,
    StreamCall,
    TokenAuthenticator,
    connect,
    connect_sync,
    current_call,
    method,
)
from .services.scope import CancelScope, cancel_scope
from .services.tls import ClientTls, ServerTls, TlsFilesUnusable

if TYPE_CHECKING:
    from .services.rpc.prometheus import RpcCollector

__version__ = "0.1.0"

__all__ = [
    "AdmissionLimits",
    "Authentication",
    "Authenticator",
    "BearerToken",
    "BlockingClient",
    "BufferLeak",
    "BufferPool",
    "BufferStatistics",
    "CallContext",
    "CallLog",
    "CallMetrics",
    "CallPolicy",
    "CallStatistics",
    "CancelScope",
    "CancelToken",
    "Certificate",
    "Client",
    "ClientTls",
    "ConcurrencyLimit",
    "ConnectionInfo",
    "Credentials",
    "Driver",
    "DriverStatistics",
    "Evidence",
    "Fairness",
    "HedgingPolicy",
    "IdempotencyLimits",
    "Identity",
    "KeepAlive",
    "Lease",
    "LinkOptions",
    "LinkStatistics",
    "Middleware",
    "Peer",
    "PeerCredentials",
    "PeerStatistics",
    "PoolOptions",
    "Proceed",
    "Rate",
    "RateLimit",
    "Recordings",
    "Request",
    "Response",
    "ResponseCache",
    "RetryPolicy",
    "RetryThrottle",
    "RpcCollector",
    "RpcError",
    "RpcLimits",
    "Rules",
    "Server",
    "ServerStatistics",
    "ServerTls",
    "Service",
    "SharedSecret",
    "SlowConsumerPolicy",
    "StatisticsTable",
    "StatusCode",
    "StreamCall",
    "TlsFilesUnusable",
    "TokenAuthenticator",
    "TypeRegistry",
    "cancel_scope",
    "connect",
    "connect_sync",
    "current_call",
    "driver",
    "method",
    "run",
]


def __getattr__(name: str) -> Any:
    """Import what few use and what is slow to load."""
    if name == "RpcCollector":
        from .services.rpc.prometheus import RpcCollector

        return RpcCollector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
