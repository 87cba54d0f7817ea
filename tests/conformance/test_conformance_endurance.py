"""Ten thousand connections, one group after the other, leave nothing behind."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from collections.abc import Callable
from pathlib import Path

from machines import EchoMachine, TalkingMachine
from pairs import End, connect
from platforms import Platform, open_descriptors, open_handles
from recording import Accepting, in_time

from helianthus.drivers.base import Listener
from helianthus.drivers.lease import Lease
from helianthus.drivers.pump import Link
from helianthus.protocols.machine import Closing

GROUP = 100
GROUPS = 100
WARM_UP = 20  # groups after which nothing may grow any more
TIDY = 10  # groups after which cyclic garbage is collected, which takes memory as leaks would

BLOCKS_PER_CONNECTION = 0.5
"""Allocated blocks that may be added; a single object that is kept for each connection is one."""

GROWTH = 4 * 1024 * 1024
"""Bytes by which the process may grow: half a KiB for each connection after the warm-up."""


class LeasingMachine(TalkingMachine):
    """Receives in leased memory, and gives it back."""

    def receive_lease(self, lease: Lease, now: float) -> None:
        self.receive_data(bytes(lease), now)
        lease.release()


def test_ten_thousand_connections_leave_nothing(thorough_platform: Platform) -> None:
    """No descriptor, no link, no buffer, no memory: whoever ends it, in good order or not."""
    platform = thorough_platform
    accepting = Accepting(EchoMachine)
    listener = platform.driver.listen(platform.address(), accepting)
    descriptors, blocks, size = after(WARM_UP, platform, listener, accepting)
    descriptors_then, blocks_then, size_then = after(GROUPS - WARM_UP, platform, listener, accepting)
    assert descriptors_then - descriptors == set()
    assert links_of(platform) == 0
    buffers = platform.driver.buffers.statistics()
    assert buffers.hits + buffers.misses + buffers.unpooled >= GROUP * GROUPS / 2
    assert (buffers.leased, buffers.leaked) == (0, 0)
    assert blocks_then - blocks < BLOCKS_PER_CONNECTION * GROUP * (GROUPS - WARM_UP)
    assert size_then - size < GROWTH
    listener.close()


def after(
    groups: int, platform: Platform, listener: Listener, accepting: Accepting
) -> tuple[set[str], int, int]:
    """Descriptors, allocated blocks, and bytes of memory in use after so many groups."""
    for number in range(groups):
        come_and_go(platform, listener, accepting)
        if number % TIDY == 0:
            gc.collect()
    platform.turn_until(in_time(platform.driver, 0.05))
    gc.collect()
    numbers = {name.partition(" ")[0] for name in open_descriptors()} or open_handles()
    return numbers, sys.getallocatedblocks(), resident()


def come_and_go(platform: Platform, listener: Listener, accepting: Accepting) -> None:
    """A group of connections: each says a word and hears it, then they end in four ways."""
    kinds = (TalkingMachine, LeasingMachine)
    ends = [connect(platform, listener, kinds[number % 2](b"x")) for number in range(GROUP)]
    platform.turn_until(lambda: all(end.machine.received for end in ends))
    for number, end in enumerate(ends):
        WAYS[number // 2 % len(WAYS)](end)
    platform.turn_until(
        lambda: all(end.handler.closed for end in ends) and all(one.closed for one in accepting.handlers)
    )
    if not platform.sockets:  # its network would repeat a SYN after a second, and knows the link until then
        platform.turn_until(in_time(platform.driver, 2.0))
    for kept in (accepting.machines, accepting.handlers, accepting.peers):
        kept.clear()


def abort(end: End) -> None:
    end.link.abort()


def close_in_full(end: End) -> None:
    end.machine.closing = Closing.FULL
    end.link.wake()


def half_close(end: End) -> None:
    """The echo closes then, and so both halves are."""
    end.machine.closing = Closing.HALF
    end.link.wake()


def abort_with_words_unsaid(end: End) -> None:
    end.machine.say(bytes(100_000))
    end.link.wake()
    end.link.abort()


WAYS: list[Callable[[End], None]] = [abort, close_in_full, half_close, abort_with_words_unsaid]


def links_of(platform: Platform) -> int:
    """Links of the driver that are still held by somebody."""
    gc.collect()
    return sum(
        1 for found in gc.get_objects() if isinstance(found, Link) and found._driver is platform.driver
    )


def resident() -> int:
    """Bytes of memory that the process has, or has had at most; zero where nobody tells."""
    if sys.platform == "win32":
        return 0
    statm = Path("/proc/self/statm")
    if statm.exists():
        with contextlib.suppress(AttributeError):  # only glibc keeps what was freed in such quantities
            ctypes.CDLL(None).malloc_trim(0)
        return int(statm.read_text().split()[1]) * 4096
    import resource

    peak: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
