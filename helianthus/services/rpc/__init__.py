"""RPC: services, servers and clients over the MessagePack-RPC session."""

from .blocking import BlockingClient, BlockingStream, connect_sync
from .cancel import CancelToken
from .channel import ChannelOptions, ChannelState
from .client import Client, connect
from .context import CallContext, current_call
from .errors import RpcError
from .middleware import Middleware, Proceed, Request, Response
from .peer import Peer
from .prometheus import RpcCollector
from .server import Server
from .server_statistics import PeerStatistics, ServerStatistics
from .service import Service, method
from .stream import StreamCall

__all__ = [
    "BlockingClient",
    "BlockingStream",
    "CallContext",
    "CancelToken",
    "ChannelOptions",
    "ChannelState",
    "Client",
    "Middleware",
    "Peer",
    "PeerStatistics",
    "Proceed",
    "Request",
    "Response",
    "RpcCollector",
    "RpcError",
    "Server",
    "ServerStatistics",
    "Service",
    "StreamCall",
    "connect",
    "connect_sync",
    "current_call",
    "method",
]
