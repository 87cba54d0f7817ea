"""RPC: services, servers and clients over the MessagePack-RPC session."""

from .blocking import BlockingClient, BlockingStream, connect_sync
from .cancel import CancelToken
from .channel import ChannelOptions, ChannelState
from .client import Client, connect
from .context import CallContext, current_call
from .errors import RpcError
from .middleware import Middleware, Proceed, Request, Response
from .peer import Peer
from .server import Server
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
    "Proceed",
    "Request",
    "Response",
    "RpcError",
    "Server",
    "Service",
    "StreamCall",
    "connect",
    "connect_sync",
    "current_call",
    "method",
]
