"""Watermarks, write deadlines of single links, numbers, and who has how long a turn."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from machines import BulkMachine, EchoMachine, Taken, TalkingMachine
from pairs import End, connect, pair
from peers import Peers, read_exactly
from platforms import Platform
from recording import Accepting, RecordingHandler, in_time

from helianthus.drivers.errors import WriteTimeout
from helianthus.drivers.link_options import Fairness, LinkOptions
from helianthus.protocols.machine import Closing

KIB = 1024
MIB = 1024 * KIB
PIECE = 64 * KIB


class Optioned(RecordingHandler):
    """A handler that says how its link writes."""

    def __init__(self, options: LinkOptions, **reactions: Any) -> None:
        super().__init__(**reactions)
        self.link_options = options


def offering(handler: RecordingHandler, events: list[Any]) -> None:
    """Offer the next piece whenever the last one was taken."""
    assert handler.link is not None
    if Taken() in events:
        handler.link.machine.offer()
        handler.link.wake()


def stop_reading(platform: Platform, end: End) -> None:
    end.machine.wants_read = False
    end.link.wake()
    platform.turn_until(in_time(platform.driver, 0.01))


def read_on(end: End) -> None:
    end.machine.wants_read = True
    end.link.wake()


# -- watermarks -----------------------------------------------------------------------------------------


def bulk_pair(platform: Platform, total: int, options: LinkOptions) -> tuple[End, End]:
    machine = BulkMachine(total, PIECE, seed=1)
    near, far = pair(
        platform,
        machine,
        BulkMachine(0, 1, seed=2),
        client_handler=Optioned(options, on_events=offering),
    )
    stop_reading(platform, far)
    machine.offer()
    near.link.wake()
    return near, far


def until_still(platform: Platform, end: End) -> None:
    """Turn until nothing has been taken of an end's output for a while."""
    before = None
    while before != (now := (end.machine.takes, end.link.unsent)):
        before = now
        platform.turn_until(in_time(platform.driver, 0.1))


@pytest.mark.parametrize(("high", "low"), [(0, 0), (256 * KIB, 0), (512 * KIB, 128 * KIB)])
def test_output_waits_between_the_watermarks(platform: Platform, high: int, low: int) -> None:
    total = platform.bulk // 2
    near, far = bulk_pair(platform, total, LinkOptions(high_water=high, low_water=low))
    platform.turn_until(lambda: near.link.clogged)
    platform.turn_until(in_time(platform.driver, 0.01))
    if platform.completes:  # the kernel goes on taking after it has not taken all at once
        until_still(platform, near)
        assert low < near.link.unsent <= high + PIECE
    else:
        assert high < near.link.unsent <= high + PIECE
        assert near.handler.writable == 0
    taken, writable = near.machine.takes, near.handler.writable
    near.link.wake()
    platform.turn_until(in_time(platform.driver, 0.01))
    assert near.machine.takes == taken
    assert near.handler.writable == writable
    read_on(far)
    platform.turn_until(lambda: far.machine.ended)
    assert far.machine.received == total
    assert far.machine.checksum_received == near.machine.checksum_sent
    assert near.handler.writable >= 1
    assert near.link.high_mark <= high + PIECE
    assert near.link.unsent == 0


def test_the_end_waits_for_what_is_below_the_high_watermark(platform: Platform) -> None:
    near, far = pair(
        platform,
        TalkingMachine(),
        TalkingMachine(),
        client_handler=Optioned(LinkOptions(high_water=platform.bulk, low_water=platform.bulk)),
    )
    stop_reading(platform, far)
    sent = 0
    for _ in range(8):
        near.say(bytes(platform.bulk // 16))
        sent += platform.bulk // 16
        platform.turn_until(lambda: near.machine.takes)
    assert not near.link.clogged
    assert near.link.unsent > 0
    near.machine.closing = Closing.FULL
    near.link.wake()
    platform.turn_until(in_time(platform.driver, 0.01))
    read_on(far)
    platform.turn_until(lambda: far.machine.ended)
    assert len(far.machine.received) == sent


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"high_water": -1}, "high_water"),
        ({"low_water": 1}, r"low_water \(1\) is more than high_water \(0\)"),
        ({"write_deadline": 0}, "write_deadline"),
    ],
)
def test_bad_link_options(options: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        LinkOptions(**options)


# -- a peer that takes nothing ---------------------------------------------------------------------------


@pytest.mark.parametrize("high", [0, 64 * MIB])
def test_a_link_has_a_write_deadline_of_its_own(platform: Platform, high: int) -> None:
    """Also for what is below its high watermark."""
    options = LinkOptions(high_water=high, write_deadline=0.1)
    near, far = pair(platform, TalkingMachine(), TalkingMachine(), client_handler=Optioned(options))
    other, still = pair(platform, TalkingMachine(), TalkingMachine())
    stop_reading(platform, far)
    stop_reading(platform, still)
    near.say(bytes(platform.bulk // 2))
    other.say(bytes(platform.bulk // 2))
    platform.turn_until(lambda: near.handler.closed)
    assert isinstance(near.handler.error, WriteTimeout)
    assert "took nothing for 0.1 s (write_deadline)" in str(near.handler.error)
    assert not other.handler.closed
    for end in (other, far, still):
        end.link.abort()


# -- numbers -----------------------------------------------------------------------------------------------


def test_what_went_through_is_counted(platform: Platform) -> None:
    near, far = pair(platform, TalkingMachine(), TalkingMachine())
    size = platform.bulk // 2
    near.say(b"hello")
    platform.turn_until(lambda: far.machine.received)
    first = near.link.statistics()
    assert (first.bytes_out, first.writes, first.partial_writes, first.stalls) == (5, 1, 0, 0)
    assert (first.links, first.high_mark, first.stalled_time) == (1, 0, 0.0)
    stop_reading(platform, far)
    near.say(bytes(size))
    platform.turn_until(lambda: near.link.clogged)
    begun = platform.driver.now()
    platform.turn_until(in_time(platform.driver, 0.05))
    waited = platform.driver.now() - begun
    stalled = near.link.statistics()
    assert stalled.stalls == 1
    assert stalled.partial_writes >= 1
    assert 0 < stalled.high_mark <= size
    assert stalled.stalled_time >= waited
    read_on(far)
    platform.turn_until(lambda: len(far.machine.received) == size + 5)
    platform.turn_until(lambda: not near.link.clogged)
    done = near.link.statistics()
    assert done.bytes_out == far.link.bytes_in == size + 5
    assert far.link.bytes_out == near.link.bytes_in == 0
    assert done.stalls == 1
    assert done.stalled_time >= stalled.stalled_time
    assert near.link.statistics() == done


def test_a_driver_sums_up_its_links(platform: Platform) -> None:
    """Those that are open and those that have ended."""
    near, far = pair(platform, TalkingMachine(), TalkingMachine())
    other, echo = pair(platform, TalkingMachine(), EchoMachine())
    near.say(b"12345")
    other.say(b"123")
    platform.turn_until(lambda: far.machine.received and other.machine.received)
    numbers = platform.driver.statistics()
    assert numbers.open_links == numbers.links.links == 4
    assert numbers.links.bytes_in == numbers.links.bytes_out == 11
    for end in (near, far):
        end.link.abort()
    platform.turn_until(lambda: near.handler.closed and far.handler.closed)
    numbers = platform.driver.statistics()
    assert (numbers.open_links, numbers.links.links) == (2, 4)
    assert numbers.links.bytes_in == numbers.links.bytes_out == 11
    assert numbers.links.writes == 3
    assert numbers.buffers == platform.driver.buffers.statistics()
    for end in (other, echo):
        end.link.abort()


def test_a_failed_connection_is_no_link(socket_platform: Platform) -> None:
    listener = socket_platform.driver.listen(socket_platform.address(), Accepting(EchoMachine))
    listener.close()
    end = connect(socket_platform, listener, TalkingMachine())
    socket_platform.turn_until(lambda: end.handler.closed)
    assert socket_platform.driver.statistics().links.links == 0


# -- fairness ----------------------------------------------------------------------------------------------


def test_a_greedy_link_does_not_starve_others(socket_platform: Platform, peers: Peers) -> None:
    """Somebody sends as fast as it can; another one's echoes come back all the same."""
    accepting = Accepting(EchoMachine)
    listener = socket_platform.driver.listen(socket_platform.address(), accepting)
    sink = socket_platform.driver.listen(socket_platform.address(), Accepting(lambda: BulkMachine(0, 1, 0)))
    greedy, modest = peers.dial(sink.address), peers.dial(listener.address)
    enough = threading.Event()

    def flood() -> int:
        sent = 0
        while not enough.is_set():
            sent += greedy.send(bytes(MIB))
        return sent

    def converse() -> bool:
        try:
            return all(ask(b"%4d" % number) for number in range(200))
        finally:
            enough.set()

    def ask(question: bytes) -> bool:
        modest.sendall(question)
        return read_exactly(modest, 4) == question

    flooding, conversing = peers.work(flood), peers.work(converse)
    socket_platform.turn_until(lambda: conversing.done() and flooding.done())
    assert conversing.result()
    assert flooding.result() > 0
    listener.close()
    sink.close()


@pytest.mark.parametrize("option", ["reads_per_tick", "accepts_per_tick", "file_bytes_per_tick"])
def test_nobody_can_be_given_no_turn(option: str) -> None:
    with pytest.raises(ValueError, match=option):
        Fairness(**{option: 0})
