"""Bytes go both ways, whole and in order, and no faster than they are taken."""

from __future__ import annotations

import random
import zlib
from typing import Any

import pytest
from machines import BulkMachine, EchoMachine, Taken, TalkingMachine
from pairs import pair
from peers import Peers, read_exactly
from platforms import Platform
from recording import Accepting, RecordingHandler, in_time

from helianthus.protocols.machine import Closing

PIECE = 256 * 1024


def offering(handler: RecordingHandler, events: list[Any]) -> None:
    """Offer the bulk machine's next piece whenever the last one was taken."""
    assert handler.link is not None
    if Taken() in events:
        handler.link.machine.offer()
        handler.link.wake()


def test_echo(platform: Platform) -> None:
    """What one end sends, the other receives; and back."""
    client, _ = pair(platform, TalkingMachine(), EchoMachine())
    client.say(b"sunflower")
    platform.turn_until(lambda: client.machine.received == b"sunflower")
    client.say(b" seeds")
    platform.turn_until(lambda: client.machine.received == b"sunflower seeds")


def test_the_echo_of_a_foreign_peer(socket_platform: Platform, peers: Peers) -> None:
    """A peer that is no driver is served as well."""
    listener = socket_platform.driver.listen(socket_platform.address(), Accepting(EchoMachine))
    peer = peers.dial(listener.address)
    peer.sendall(b"hello")
    answer = peers.work(read_exactly, peer, 5)
    socket_platform.turn_until(answer.done)
    assert answer.result() == b"hello"
    listener.close()


def test_many_writes_in_one_tick_are_one_flush(platform: Platform) -> None:
    """A link that is woken many times during a tick is flushed once."""
    client, server = pair(platform, TalkingMachine(), TalkingMachine())
    for number in range(100):
        client.say(b"%d " % number)
    platform.turn_until(lambda: server.machine.received.endswith(b"99 "))
    assert client.machine.takes == 1
    assert server.machine.received == b"".join(b"%d " % number for number in range(100))


def test_replies_made_in_one_tick_share_a_flush(platform: Platform) -> None:
    """Commands that a handler gives in answer to events wait for the end of the tick, too."""
    server = TalkingMachine()

    def answer(handler: RecordingHandler, events: list[Any]) -> None:
        for piece in (b"one ", b"and ", b"two"):
            server.say(piece)
            handler.link.wake()

    client, _ = pair(platform, TalkingMachine(), server, server_handler=RecordingHandler(on_events=answer))
    client.say(b"?")
    platform.turn_until(lambda: client.machine.received == b"one and two")
    assert server.takes == 1


def test_data_that_the_machine_has_from_the_start_is_sent(platform: Platform) -> None:
    """Nobody has to wake a link for what its machine had to say before it was connected."""
    client, server = pair(platform, TalkingMachine(b"from client"), TalkingMachine(b"from server"))
    platform.turn_until(lambda: client.machine.received == b"from server")
    platform.turn_until(lambda: server.machine.received == b"from client")


def test_large_transfer_both_ways(platform: Platform) -> None:
    """Both directions are full at once, and both streams arrive whole and in order."""
    client, server = pair(
        platform,
        BulkMachine(platform.bulk, PIECE, seed=1),
        BulkMachine(platform.bulk, PIECE, seed=2),
        client_handler=RecordingHandler(on_events=offering),
        server_handler=RecordingHandler(on_events=offering),
    )
    for end in (client, server):
        end.machine.offer()
        end.link.wake()
    platform.turn_until(lambda: client.machine.ended and server.machine.ended)
    for sender, receiver in ((client, server), (server, client)):
        assert sender.machine.sent == receiver.machine.received == platform.bulk
        assert sender.machine.checksum_sent == receiver.machine.checksum_received
    platform.turn_until(lambda: client.handler.closed and server.handler.closed)


@pytest.mark.parametrize("mixture", ["large", "small", "mixed"])
def test_buffers_of_every_size_and_type_keep_their_order(platform: Platform, mixture: str) -> None:
    """Joined or gathered, as bytes, bytearray or memoryview, empty ones among them: one stream."""
    rng = random.Random(mixture)
    sizes = {
        "large": [70_000, 5_000, 0, 300_000, 0],
        "small": [1, 2, 3, 0, 50],
        "mixed": [1, 200_000, 0, 3, 90_000, 7, 0],
    }[mixture]
    kinds = [bytes, bytearray, memoryview]
    pieces = [rng.randbytes(size) for size in sizes * 5]
    client, server = pair(platform, TalkingMachine(), TalkingMachine())
    for number, piece in enumerate(pieces):
        client.machine.say(kinds[number % 3](piece))
    client.link.wake()
    whole = b"".join(pieces)
    platform.turn_until(lambda: len(server.machine.received) >= len(whole))
    assert zlib.crc32(server.machine.received) == zlib.crc32(whole)
    assert client.link.unsent == 0


def test_a_clogged_pair_holds_little_and_flows_again(platform: Platform) -> None:
    """While the receiver does not want to read, the sender's machine is not asked for more."""
    client, server = pair(
        platform,
        BulkMachine(platform.bulk, PIECE, seed=1),
        BulkMachine(0, PIECE, seed=2),
        client_handler=RecordingHandler(on_events=offering),
    )
    server.machine.wants_read = False
    server.link.wake()
    platform.turn_until(in_time(platform.driver, 0.01))
    received = server.machine.received

    client.machine.offer()
    client.link.wake()
    takes = -1
    while takes != client.machine.takes:  # until the system's own buffers have stopped growing, too
        takes = client.machine.takes
        platform.turn_until(in_time(platform.driver, 0.05))
    assert client.machine.sent < platform.bulk, "data was taken although the transport was full"
    assert 0 < client.link.unsent <= PIECE
    assert server.machine.received == received, "the receiver was fed although it did not want to read"
    writable = client.handler.writable

    server.machine.wants_read = True
    server.link.wake()
    platform.turn_until(lambda: server.machine.received == platform.bulk and server.machine.ended)
    assert client.handler.writable > writable
    assert server.machine.checksum_received == client.machine.checksum_sent


def test_a_machine_that_does_not_want_to_read_is_fed_nothing(platform: Platform) -> None:
    """Not even when it has not wanted to since before it was connected."""
    server = TalkingMachine()
    server.wants_read = False
    client, far = pair(platform, TalkingMachine(b"first"), server)
    client.say(b" second")
    platform.turn_until(in_time(platform.driver, 0.05))
    assert server.received == b""
    server.wants_read = True
    far.link.wake()
    platform.turn_until(lambda: server.received == b"first second")


def test_reading_stops_as_soon_as_the_machine_has_enough(platform: Platform) -> None:
    """`wants_read` is looked at after every piece, not once per tick."""
    if hasattr(platform.driver, "receive_buffer"):  # so that a tick could read several pieces
        platform.driver.receive_buffer = memoryview(bytearray(4096))
    server = TalkingMachine()
    client, far = pair(platform, TalkingMachine(), server)
    plenty = bytes(40_000)

    def enough(data: Any, now: float) -> None:
        TalkingMachine.receive_data(server, data, now)
        server.wants_read = False

    server.receive_data = enough  # type: ignore[method-assign]
    client.say(plenty)
    while len(server.received) < len(plenty):
        receipts = server.receipts
        platform.turn_until(lambda before=receipts: server.receipts > before)
        platform.turn_until(in_time(platform.driver, 0.002))
        assert server.receipts == receipts + 1, "it was fed after it had stopped wanting to read"
        server.wants_read = True
        far.link.wake()
    assert not client.handler.closed


def test_the_end_behind_what_is_held(platform: Platform) -> None:
    """A machine that wants no more of one read gets the rest, and then the end, when it wants some again."""
    server = TalkingMachine()
    client, far = pair(platform, TalkingMachine(), server)

    def enough(data: Any, now: float) -> None:
        TalkingMachine.receive_data(server, data, now)
        server.wants_read = False

    server.receive_data = enough  # type: ignore[method-assign]
    plenty = bytes(30_000)
    client.say(plenty)
    client.machine.closing = Closing.HALF
    client.link.wake()
    while not server.ended:
        platform.turn_until(in_time(platform.driver, 0.002))
        assert not server.ended or len(server.received) == len(plenty), "the end came before what was held"
        server.wants_read = True
        far.link.wake()
    assert server.received == plenty
