"""MessagePack-RPC: the session machine, its events, limits and status codes."""

from .events import (
    CallFailed,
    CancelReceived,
    CreditGranted,
    Flow,
    GoawayReceived,
    HelloReceived,
    ItemReceived,
    NotificationReceived,
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
from .session import RpcSession
from .session_state import SESSION_TRANSITIONS, SessionInput, SessionState
from .statistics import CallStatistics, StatisticsTable
from .status import StatusCode
from .wire import ExtensionsMissing, OversizedMessage

__all__ = [
    "CLIENT_KEEP_ALIVE",
    "COLLECT",
    "NO_KEEP_ALIVE",
    "SERVER_KEEP_ALIVE",
    "SESSION_TRANSITIONS",
    "CallFailed",
    "CallStatistics",
    "CancelReceived",
    "CreditGranted",
    "ExtensionsMissing",
    "Flow",
    "GoawayReceived",
    "HelloReceived",
    "Histogram",
    "ItemReceived",
    "KeepAlive",
    "NotificationReceived",
    "OversizedMessage",
    "Params",
    "PongReceived",
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
    "UnexpectedResponse",
]
