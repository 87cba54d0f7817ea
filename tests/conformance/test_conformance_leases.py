"""Machines that keep what they receive without copying it: reads into leased memory."""

from __future__ import annotations

import zlib
from collections import deque
from typing import Any

from machines import BulkMachine, EchoMachine, TalkingMachine
from pairs import pair
from platforms import Platform
from recording import RecordingHandler

from helianthus.drivers.lease import Lease
from helianthus.protocols.machine import Closing


class KeepingMachine(TalkingMachine):
    """Keeps the leases themselves; bytes that come as a mere view are a fault.

    Attributes:
        leases: What has come and has not been released.
    """

    def __init__(self) -> None:
        super().__init__()
        self.leases: deque[Lease] = deque()

    def receive_data(self, data: Any, now: float) -> None:
        raise AssertionError("a machine that takes leases was given a view")

    def receive_lease(self, lease: Lease, now: float) -> None:
        self.leases.append(lease)

    @property
    def kept(self) -> bytes:
        return b"".join(map(bytes, self.leases))

    def release(self) -> None:
        while self.leases:
            self.leases.popleft().release()


class PassingMachine(KeepingMachine):
    """Gives its handler a lease of each half of what came."""

    def receive_lease(self, lease: Lease, now: float) -> None:
        middle = len(lease) // 2
        self.events += [lease.slice(0, middle), lease.slice(middle, len(lease))]
        lease.release()


class HungryMachine(KeepingMachine):
    """Wants no more once it has had `enough` bytes."""

    def __init__(self, enough: int) -> None:
        super().__init__()
        self.enough = enough

    def receive_lease(self, lease: Lease, now: float) -> None:
        super().receive_lease(lease, now)
        self.wants_read = sum(map(len, self.leases)) < self.enough


class SumMachine(KeepingMachine):
    """Adds up what comes, and keeps the last few pieces for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.sum = 0
        self.count = 0

    def receive_lease(self, lease: Lease, now: float) -> None:
        self.leases.append(lease)
        self.count += len(lease)
        if len(self.leases) > 5:
            oldest = self.leases.popleft()
            self.sum = zlib.crc32(oldest.view, self.sum)
            oldest.release()


def leased(platform: Platform) -> int:
    """Leases that a machine holds; not those which the kernel has, to put into them what comes next."""
    links: list[Any] = list(platform.driver._live_links())
    being_read = sum(getattr(link, "_buffer", None) is not None for link in links)
    return platform.driver.buffers.statistics().leased - being_read


def test_what_is_kept_stays_as_it_came(platform: Platform) -> None:
    """Later reads, of this link and of others, go elsewhere."""
    client, server = pair(platform, TalkingMachine(), KeepingMachine())
    other, witness = pair(platform, TalkingMachine(), KeepingMachine())
    sent = b""
    for number in range(20):
        piece = bytes([number]) * (number + 1)
        sent += piece
        client.say(piece)
        other.say(b"?" * 50)
        platform.turn_until(lambda: server.machine.kept.endswith(piece))  # noqa: B023 - called at once
    platform.turn_until(lambda: len(witness.machine.kept) == 1000)
    assert server.machine.kept == sent
    assert witness.machine.kept == b"?" * 1000
    server.machine.release()
    witness.machine.release()
    numbers = platform.driver.buffers.statistics()
    assert (leased(platform), numbers.stranded, numbers.leaked) == (0, 0, 0)


def test_leases_outlive_the_link(platform: Platform) -> None:
    client, server = pair(platform, TalkingMachine(), KeepingMachine())
    client.say(b"the last words")
    client.machine.closing = Closing.FULL
    platform.turn_until(lambda: server.machine.ended)
    server.link.abort()
    platform.turn_until(lambda: server.handler.closed)
    assert server.machine.kept == b"the last words"
    server.machine.release()
    assert leased(platform) == 0


def test_slices_go_to_the_handler(platform: Platform) -> None:
    client, server = pair(platform, TalkingMachine(), PassingMachine())
    client.say(b"left right")
    platform.turn_until(lambda: sum(map(len, server.handler.events)) == 10)
    assert b"".join(map(bytes, server.handler.events)) == b"left right"
    assert leased(platform) >= 1
    for part in server.handler.events:
        part.release()
    assert leased(platform) == 0


def test_reading_pauses_and_goes_on(platform: Platform) -> None:
    client, server = pair(platform, TalkingMachine(), HungryMachine(1000))
    sent = bytes(range(256)) * (platform.bulk // 16 // 256)
    client.say(sent)
    received = b""
    while len(received) < len(sent):
        platform.turn_until(lambda: not server.machine.wants_read or server.machine.leases)
        received += server.machine.kept
        server.machine.release()
        server.machine.wants_read = True
        server.link.wake()
    assert received == sent
    assert leased(platform) == 0


def test_a_long_stream(platform: Platform) -> None:
    """Into buffers that grow with what comes; each goes back to the pool, and only few are in use."""
    total = platform.bulk // 2

    def offer(handler: RecordingHandler, _: Any) -> None:
        client.offer()
        if handler.link is not None:
            handler.link.wake()

    client, server = BulkMachine(total, 128 * 1024, seed=3), SumMachine()
    client.offer()
    pair(platform, client, server, client_handler=RecordingHandler(on_events=offer))
    platform.turn_until(lambda: server.ended)
    assert server.count == total
    while server.leases:
        server.sum = zlib.crc32(server.leases[0].view, server.sum)
        server.leases.popleft().release()
    assert server.sum == client.checksum_sent
    numbers = platform.driver.buffers.statistics()
    assert (leased(platform), numbers.stranded) == (0, 0)
    assert numbers.high_mark < 16 * 1024 * 1024


def test_a_view_of_a_lease_can_be_sent(platform: Platform) -> None:
    client, server = pair(platform, TalkingMachine(), KeepingMachine())
    back, echo = pair(platform, TalkingMachine(), EchoMachine())
    client.say(b"there and back")
    platform.turn_until(lambda: len(server.machine.kept) == 14)
    for lease in server.machine.leases:
        back.say(lease.view)
    platform.turn_until(lambda: len(back.machine.received) == 14)
    assert bytes(back.machine.received) == b"there and back"
    server.machine.release()
    assert leased(platform) == 0
    echo.link.abort()
