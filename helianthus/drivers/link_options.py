"""What users of a driver can set: how a link treats a peer that is slow, and who has how long a turn."""

from __future__ import annotations

import attrs
from attrs.validators import ge, gt, optional


@attrs.frozen
class LinkOptions:
    """How one link writes. A value out of range raises `ValueError`.

    A link takes output from its machine until more than `high_water` bytes wait for the transport; it
    is *clogged* then, and what else the machine has stays there, under the machine's own limits. When
    the transport has taken all but `low_water` bytes, the handler hears `on_writable`, and the link
    takes output again. What waits in a link is at most `high_water` bytes and what the machine gave at
    once, besides what the operating system buffers.

    Attributes:
        high_water: Bytes. At 0, the default, a link takes nothing as long as anything waits.
        low_water: Bytes, at most `high_water`.
        write_deadline: Seconds after which a peer that takes nothing is dropped; None for the
            driver's `write_deadline`.
    """

    high_water: int = attrs.field(default=0, validator=ge(0))
    low_water: int = attrs.field(default=0, validator=ge(0))
    write_deadline: float | None = attrs.field(default=None, validator=optional(gt(0)))

    def __attrs_post_init__(self) -> None:
        if self.low_water > self.high_water:
            raise ValueError(f"low_water ({self.low_water}) is more than high_water ({self.high_water})")


DEFAULT_LINK_OPTIONS = LinkOptions()


@attrs.frozen
class Fairness:
    """How much one link or listener does in a tick before the others have their turn.

    A value out of range raises `ValueError`.

    Attributes:
        reads_per_tick: Receive buffers (256 KiB on the native drivers) that one link may fill. An
            asyncio loop decides that by itself: it reads once, at most 256 KiB.
        accepts_per_tick: Connections that one listener may accept.
        file_bytes_per_tick: Bytes of files that one link may send; by default as many as it may read.
    """

    reads_per_tick: int = attrs.field(default=4, validator=ge(1))
    accepts_per_tick: int = attrs.field(default=128, validator=ge(1))
    file_bytes_per_tick: int = attrs.field(default=1024 * 1024, validator=ge(1))
    turns: range = attrs.field(init=False, repr=False, eq=False)
    """As many as `reads_per_tick`; made once."""

    @turns.default
    def _turns(self) -> range:
        return range(self.reads_per_tick)
