"""MessagePack-RPC: the session machine, its events, limits, codec and status codes."""

from .codec import COMPRESS_ABOVE, Codec
from .events import (
    CallFailed,
    CancelReceived,
    CreditGranted,
    Flow,
    GoawayReceived,
    HelloReceived,
    ItemReceived,
    ItemUnreadable,
    NotificationReceived,
    NotificationUnreadable,
    PongReceived,
    RequestExpired,
    RequestReceived,
    ResponseReceived,
    RpcEvent,
    StreamEnded,
    UnexpectedResponse,
)
from .histogram import COLLECT, Histogram
from .limits import CLIENT_KEEP_ALIVE, NO_KEEP_ALIVE, SERVER_KEEP_ALIVE, KeepAlive, RpcLimits
from .messages import Params
from .protobuf import is_message_class
from .session import RpcSession
from .session_state import SESSION_TRANSITIONS, SessionInput, SessionState
from .statistics import CallStatistics, StatisticsTable
from .status import StatusCode
from .type_registry import RegisteredType, TypeRegistry
from .wire import ExtensionsMissing, OversizedMessage

__all__ = [
    "CLIENT_KEEP_ALIVE",
    "COLLECT",
    "COMPRESS_ABOVE",
    "NO_KEEP_ALIVE",
    "SERVER_KEEP_ALIVE",
    "SESSION_TRANSITIONS",
    "CallFailed",
    "CallStatistics",
    "CancelReceived",
    "Codec",
    "CreditGranted",
    "ExtensionsMissing",
    "Flow",
    "GoawayReceived",
    "HelloReceived",
    "Histogram",
    "ItemReceived",
    "ItemUnreadable",
    "KeepAlive",
    "NotificationReceived",
    "NotificationUnreadable",
    "OversizedMessage",
    "Params",
    "PongReceived",
    "RegisteredType",
    "RequestExpired",
    "RequestReceived",
    "ResponseReceived",
    "RpcEvent",
    "RpcLimits",
    "RpcSession",
    "SessionInput",
    "SessionState",
    "StatisticsTable",
    "StatusCode",
    "StreamEnded",
    "TypeRegistry",
    "UnexpectedResponse",
    "is_message_class",
]
