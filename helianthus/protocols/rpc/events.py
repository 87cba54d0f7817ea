"""What an RPC session tells its owner. Message ids of requests are the peer's, others our own."""

from __future__ import annotations

import enum
from typing import Any, TypeAlias

import attrs

from ..machine import ConnectionFailed
from .status import StatusCode


class Flow(enum.IntFlag):
    """Which ends of a call send stream items; the value stands in the request's `meta`."""

    UNARY = 0
    FROM_CALLEE = 1
    FROM_CALLER = 2
    BOTH = 3


@attrs.define
class HelloReceived:
    """The peer understands the extensions: from now on streams, cancel, meta and pings work.

    Attributes:
        version: Of the extensions; at least 1.
        credit: Items that it takes on a new stream before it grants more.
        codecs: What it takes payloads in besides MessagePack, such as "json" and "zstd".
        codec: What it wants to be sent payloads in.
    """

    version: int
    credit: int
    codecs: tuple[str, ...] = ()
    codec: str = "msgpack"


@attrs.define
class RequestReceived:
    """The peer calls a method; answer with `respond` or `respond_error`, once.

    Attributes:
        msgid: Names the request until it is answered.
        method: As sent.
        params: Positional parameters as a list, or keyword parameters as a dict.
        meta: What else the caller sent along; None where it sent nothing.
        deadline: Monotonic seconds at which `RequestExpired` follows, or None.
        flow: Who sends stream items.
    """

    msgid: int
    method: str
    params: list[Any] | dict[str, Any]
    meta: dict[str, Any] | None
    deadline: float | None
    flow: Flow


@attrs.define
class NotificationReceived:
    """The peer calls a method and wants no answer."""

    method: str
    params: list[Any] | dict[str, Any]
    meta: dict[str, Any] | None


@attrs.define
class CancelReceived:
    """The caller has given a request up; it still wants the answer, whatever it is by now."""

    msgid: int


@attrs.define
class RequestExpired:
    """A request's deadline has come; it still wants an answer."""

    msgid: int


@attrs.define
class ResponseReceived:
    """A call of ours has succeeded.

    Attributes:
        msgid: What `call` returned.
        result: Of the method.
        size: Bytes of the answer; two answers are equal without it.
    """

    msgid: int
    result: Any
    size: int = attrs.field(default=0, eq=False)


@attrs.define
class CallFailed:
    """A call of ours has ended without a result: refused by the peer, timed out, or lost.

    Attributes:
        msgid: What `call` returned.
        code: Why.
        message: For people.
        details: Whatever the peer sent along.
        maybe_executed: False only where the peer surely never began to run it.
        sent: False where the request never left this side.
        size: Bytes of the answer, 0 without one; two failures are equal without it.
    """

    msgid: int
    code: StatusCode
    message: str
    details: Any = None
    maybe_executed: bool = True
    sent: bool = True
    size: int = attrs.field(default=0, eq=False)


@attrs.define
class ItemReceived:
    """A stream item. Tell `consumed` when it has been taken, so that the peer may send more.

    Attributes:
        msgid: The call's id, whoever made the call.
        item: The value.
        size: Bytes to give back to `consumed`.
    """

    msgid: int
    item: Any
    size: int


@attrs.define
class StreamEnded:
    """The caller of a request sends no more items."""

    msgid: int


@attrs.define
class CreditGranted:
    """A stream on which nothing could be sent takes items again."""

    msgid: int


@attrs.define
class GoawayReceived:
    """The peer takes no new calls; those it had not begun have failed, the others go on."""

    reason: str


@attrs.define
class PongReceived:
    """The peer answered a `ping`."""

    token: int


@attrs.define
class UnexpectedResponse:
    """An answer that no call awaits was dropped."""

    msgid: int


@attrs.define
class NotificationUnreadable:
    """A notification was dropped, because its parameters hold a value that cannot be read."""

    method: str
    reason: str


@attrs.define
class ItemUnreadable:
    """A stream item was dropped, because it holds a value that cannot be read; end its call.

    Attributes:
        msgid: The call's id, whoever made the call.
        size: Bytes to give back to `consumed`.
        reason: What could not be read.
    """

    msgid: int
    size: int
    reason: str


RpcEvent: TypeAlias = (
    HelloReceived
    | RequestReceived
    | NotificationReceived
    | CancelReceived
    | RequestExpired
    | ResponseReceived
    | CallFailed
    | ItemReceived
    | StreamEnded
    | CreditGranted
    | GoawayReceived
    | PongReceived
    | UnexpectedResponse
    | NotificationUnreadable
    | ItemUnreadable
    | ConnectionFailed
)
