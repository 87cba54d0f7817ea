"""RPC: services, servers and clients over the MessagePack-RPC session."""

from .authentication import Authentication, Authenticator, Evidence, TokenAuthenticator
from .blocking import BlockingClient, connect_sync
from .blocking_stream import BlockingStream
from .call_log import CallLog
from .call_metrics import CallMetrics
from .call_policy import CallPolicy
from .channel import ChannelOptions, ChannelState, ConnectionInfo
from .client import Client, connect
from .context import CallContext, current_call
from .credentials import BearerToken, Credentials, SharedSecret
from .errors import RpcError
from .middleware import Middleware, Proceed, Request, Response
from .peer import Peer
from .policy_view import BlockingPolicyView, PolicyView
from .rate_limit import RateLimit
from .response_cache import ResponseCache
from .server import Server
from .server_statistics import PeerStatistics, ServerStatistics
from .service import Service, method
from .stream import StreamCall

__all__ = [
    "Authentication",
    "Authenticator",
    "BearerToken",
    "BlockingClient",
    "BlockingPolicyView",
    "BlockingStream",
    "CallContext",
    "CallLog",
    "CallMetrics",
    "CallPolicy",
    "ChannelOptions",
    "ChannelState",
    "Client",
    "ConnectionInfo",
    "Credentials",
    "Evidence",
    "Middleware",
    "Peer",
    "PeerStatistics",
    "PolicyView",
    "Proceed",
    "RateLimit",
    "Request",
    "Response",
    "ResponseCache",
    "RpcError",
    "Server",
    "ServerStatistics",
    "Service",
    "SharedSecret",
    "StreamCall",
    "TokenAuthenticator",
    "connect",
    "connect_sync",
    "current_call",
    "method",
]
