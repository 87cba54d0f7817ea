"""What one RPC session may hold, and how it keeps its connection alive."""

from __future__ import annotations

import math

import attrs
from attrs.validators import ge, gt, le

from ..slow_consumer import BLOCK, SlowConsumerPolicy, slow_consumer_policy
from .wire import MAX_MSGID

MIB = 1024 * 1024


@attrs.frozen
class RpcLimits:
    """Bounds of one session. Sizes are in bytes; a value out of range raises `ValueError`.

    Attributes:
        max_message_size: One encoded message, either way; gRPC's default for receiving. Messages
            of the library's own must fit, therefore at least 1024.
        max_elements: Of one array or map in a message, either way: memory for them is taken when
            their number has come, five bytes after which nothing need follow.
        max_calls: Calls of ours without an answer, and requests of the peer's without one.
        max_streams: How many of each of these may be streams; the advice of RFC 9113, 6.5.2.
        stream_window: Items that the peer may send on a stream before we have consumed any. With 64
            and small items, both ends waited for each other half of the time; gRPC's window of
            64 KiB is as many items of 256 bytes.
        max_request_bytes: All unanswered requests of the peer together; one beyond it is answered
            RESOURCE_EXHAUSTED.
        max_buffered_items: Stream items that nobody has consumed yet; above it reading pauses.
        pause_reading_at: Replies that the transport has not taken; above it reading pauses, unless
            we wait for replies ourselves, so that a peer which does not read cannot make us answer
            more.
        max_queued_output: Everything that the transport has not taken; the connection fails
            when replies exceed it, and our own commands are refused.
        slow_consumer: What happens to notifications and stream items that the peer is too slow for:
            whoever sends them waits or is refused ("block"), the oldest are dropped ("drop-oldest"),
            or the connection fails ("disconnect"). See `SlowConsumerPolicy`.
        max_pending: What may wait for the peer, with "drop-oldest" and "disconnect", before that
            happens: notifications and items together with all else that is queued. Named after NATS's,
            whose default is 64 MiB.
        max_cancelled: Calls of ours that were given up and whose answer is still awaited; the
            oldest are forgotten first.
    """

    max_message_size: int = attrs.field(default=4 * MIB, validator=ge(1024))
    max_elements: int = attrs.field(default=MIB, validator=ge(16))
    max_calls: int = attrs.field(default=1000, validator=ge(0))
    max_streams: int = attrs.field(default=100, validator=ge(0))
    stream_window: int = attrs.field(default=256, validator=[ge(1), le(MAX_MSGID)])
    max_request_bytes: int = attrs.field(default=64 * MIB, validator=ge(0))
    max_buffered_items: int = attrs.field(default=16 * MIB, validator=ge(0))
    pause_reading_at: int = attrs.field(default=MIB, validator=ge(0))
    max_queued_output: int = attrs.field(default=64 * MIB, validator=ge(0))
    slow_consumer: SlowConsumerPolicy = attrs.field(default=BLOCK, converter=slow_consumer_policy)
    max_pending: int = attrs.field(default=4 * MIB, validator=ge(0))
    max_cancelled: int = attrs.field(default=4096, validator=ge(0))


@attrs.frozen
class KeepAlive:
    """When to ping, and which pings to bear. Times in seconds; numbers from gRPC's proposal A8.

    A value out of range raises `ValueError`.

    Attributes:
        time: Silence after which a ping is sent; `math.inf` for never.
        timeout: How long the peer may stay silent after a ping before the connection is given up.
        without_calls: Ping also while no call is in flight, and let the peer do so as often as it
            may while there are calls; gRPC's GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS is both, too.
        min_interval: The peer's pings must be this far apart, unless replies were sent between.
        min_interval_idle: The same while no call is in flight.
        max_strikes: Pings that came too early and are forgiven; one more ends the connection.
    """

    time: float = attrs.field(validator=gt(0))
    timeout: float = attrs.field(default=20.0, validator=gt(0))
    without_calls: bool = False
    min_interval: float = attrs.field(default=300.0, validator=ge(0))
    min_interval_idle: float = attrs.field(default=7200.0, validator=ge(0))
    max_strikes: int = attrs.field(default=2, validator=ge(0))


CLIENT_KEEP_ALIVE = KeepAlive(time=300.0)
"""A8 leaves clients without keep-alive, and a call to a dead peer without deadline then hangs for
ever. Five minutes is the shortest time that a server with A8's defaults bears."""

SERVER_KEEP_ALIVE = KeepAlive(time=7200.0, without_calls=True)
"""A8's defaults for servers: dead clients are found after two hours."""

NO_KEEP_ALIVE = KeepAlive(time=math.inf)
"""Never ping."""
