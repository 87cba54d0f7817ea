"""What a native reactor does in one tick is limited, and writes are gathered whatever the kernel takes."""

from __future__ import annotations

import random
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("epoll exists on Linux only", allow_module_level=True)

from helianthus.drivers.address import Address
from helianthus.drivers.epoll import EpollReactor
from helianthus.drivers.link_options import Fairness, LinkOptions
from helianthus.drivers.pump import Link
from helianthus.drivers.socket_link import SocketLink
from helianthus.protocols.framing import LengthPrefixFraming

KIB = 1024
BUFFER = 256 * KIB


class Silent:
    """A handler that takes everything in silence."""

    def __init__(self, options: LinkOptions | None = None) -> None:
        self.link_options = options
        self.writable = 0

    def on_ready(self, link: Link[Any]) -> None: ...
    def on_events(self, events: list[Any]) -> None: ...
    def on_actions(self, actions: list[Any]) -> None: ...
    def on_closed(self, error: Exception | None) -> None: ...

    def on_writable(self) -> None:
        self.writable += 1


def framing() -> LengthPrefixFraming:
    """With frames that are longer than what any test sends."""
    size = 16 * 1024 * KIB
    return LengthPrefixFraming(max_frame_size=size, max_queued_output=2 * size)


@pytest.fixture
def reactor() -> Iterator[EpollReactor]:
    made = EpollReactor()
    yield made
    made.close()


@pytest.mark.parametrize("reads", [1, 3])
def test_reads(reactor: EpollReactor, reads: int) -> None:
    reactor.fairness = Fairness(reads_per_tick=reads)
    links: list[Link[Any]] = []

    class Noting(Silent):
        def on_ready(self, link: Link[Any]) -> None:
            links.append(link)

    listener = reactor.listen(Address("127.0.0.1", 0), lambda _: (framing(), Noting()))
    with socket.create_connection((listener.address.host, listener.address.port)) as peer:
        peer.setblocking(False)
        while not links:
            reactor.poll(1.0)
        sent = most = 0
        while sent < 6 * 1024 * KIB:
            try:
                sent += peer.send(bytes(1024 * KIB))  # as far as the kernel takes it
            except BlockingIOError:
                before = links[0].bytes_in
                reactor.poll(0)
                most = max(most, links[0].bytes_in - before)
    assert BUFFER <= most <= reads * BUFFER


def test_accepts(reactor: EpollReactor) -> None:
    reactor.fairness = Fairness(accepts_per_tick=8)
    accepted: list[str] = []

    def accept(peer: str) -> tuple[Any, Any]:
        accepted.append(peer)
        return framing(), Silent()

    listener = reactor.listen(Address("127.0.0.1", 0), accept)
    peers = [socket.create_connection((listener.address.host, listener.address.port)) for _ in range(50)]
    counts = []
    while len(accepted) < 50:
        before = len(accepted)
        reactor.poll(1.0)
        counts.append(len(accepted) - before)
    assert max(counts) == 8
    for peer in peers:
        peer.close()


class Stingy:
    """A socket that takes as many bytes as it feels like, and sometimes none."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.taken = bytearray()
        self.calls: list[int] = []

    def send(self, data: Any) -> int:
        return self.sendmsg([data])

    def sendmsg(self, buffers: list[Any]) -> int:
        whole = b"".join(buffers)
        self.calls.append(len(buffers))
        if self.rng.random() < 0.3:
            raise BlockingIOError(11, "not now")
        count = self.rng.choice([1, len(buffers[0]), self.rng.randint(1, len(whole)), len(whole)])
        self.taken += whole[:count]
        return count

    def fileno(self) -> int:
        return -1

    def close(self) -> None: ...


@pytest.mark.parametrize("high", [0, 20_000])
@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_kernel_takes(reactor: EpollReactor, seed: int, high: int) -> None:
    """Cut anywhere, within a buffer or between two, joined or gathered: one stream, and true numbers."""
    sock: Any = Stingy(seed)
    rng = random.Random(seed)
    machine, handler = LengthPrefixFraming(max_frame_size=BUFFER), Silent(LinkOptions(high_water=high))
    link: SocketLink[Any] = SocketLink(reactor, machine, handler, "nobody:1")
    link._socket = sock
    link._connected("here:1", "nobody:1")
    expected = b""
    for number in range(100):
        for _ in range(rng.randint(0, 3)):
            frame = bytes([number]) * rng.choice([1, 100, 5000, 40_000])
            machine.send_frame(frame)
            expected += len(frame).to_bytes(4, "big") + frame
        link.woken = False
        link.settle()
        assert link.clogged if link.unsent > high else link.clogged <= (link.unsent > 0)
        if rng.random() < 0.7:
            link.ready(2)
        assert link.bytes_out == len(sock.taken)
        assert link.bytes_out + link.unsent + machine.queued_output == len(expected)
    while link.unsent or machine.queued_output:
        link.ready(2)
        link.woken = False
        link.settle()
    assert sock.taken == expected
    assert link.bytes_out == len(expected)
    assert max(sock.calls) > 1
    numbers = link.statistics()
    assert numbers.writes <= len(sock.calls)
    assert 0 < numbers.partial_writes <= numbers.writes
    assert numbers.stalls == handler.writable if high == 0 else numbers.stalls <= handler.writable
    link._socket = None


def test_no_more_buffers_in_one_call_than_the_system_takes(reactor: EpollReactor) -> None:
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        machine = LengthPrefixFraming(max_queued_output=64 * 1024 * KIB)
        link: SocketLink[Any] = SocketLink(reactor, machine, Silent(), "nobody:1")
        link._socket = near
        link._connected("here:1", "nobody:1")
        for _ in range(1200):
            machine.send_frame(bytes(9000))
        received = 0
        while received < 1200 * 9004:
            link.woken = False
            link.settle()
            link.ready(2)
            received += len(far.recv(1 << 22))
        assert link.bytes_out == received
        link._socket = None
