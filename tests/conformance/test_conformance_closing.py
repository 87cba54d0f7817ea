"""How links end: by halves, fully with everything flushed, at once, or by the peer's reset."""

from __future__ import annotations

from typing import Any

import pytest
from machines import BulkMachine, DeadlineMachine, EchoMachine, Ended, TalkingMachine
from pairs import pair
from peers import Peers, read_all, read_exactly, reset
from platforms import FORGOTTEN_RESET, Platform
from recording import Accepting, RecordingHandler, in_time

from helianthus.drivers.errors import ConnectionReset, TransportError
from helianthus.protocols.machine import Buffer, Closing

GOODBYE = b"goodbye, " * 100_000  # more than the kernel's buffers take without a reader


class LeavingMachine(TalkingMachine):
    """Says goodbye and leaves as soon as it hears anything."""

    def receive_data(self, data: Buffer, now: float) -> None:
        super().receive_data(data, now)
        if self.closing is Closing.OPEN:
            self.say(GOODBYE)
            self.closing = Closing.FULL


class AnsweringMachine(TalkingMachine):
    """Answers only when the peer has ended its direction, then leaves."""

    def receive_eof(self, now: float) -> None:
        super().receive_eof(now)
        self.say(bytes(self.received).upper())
        self.closing = Closing.FULL


def test_half_close_and_keep_reading(platform: Platform) -> None:
    """HALF ends our direction once everything is flushed; we go on receiving."""
    client, server = pair(platform, TalkingMachine(), AnsweringMachine())
    client.machine.say(b"question" * 50_000)
    client.machine.closing = Closing.HALF
    client.link.wake()
    platform.turn_until(lambda: client.handler.closed or client.machine.ended)
    assert server.machine.ended
    assert client.machine.received == b"QUESTION" * 50_000


def test_write_after_the_peers_end_of_stream(platform: Platform) -> None:
    """The peer's end of stream ends its direction only: the machine may go on sending."""
    client, server = pair(platform, TalkingMachine(), TalkingMachine())
    client.machine.closing = Closing.HALF
    client.link.wake()
    platform.turn_until(lambda: server.machine.ended)
    server.say(b"more")
    platform.turn_until(lambda: client.machine.received == b"more")
    server.say(b" and more")
    platform.turn_until(lambda: client.machine.received == b"more and more")
    assert not server.handler.closed
    assert not client.handler.closed


def test_both_halves_closed_end_the_link(platform: Platform) -> None:
    """When each end has closed its half, the link is over, without anybody saying FULL."""
    client, server = pair(platform, TalkingMachine(), TalkingMachine())
    for end in (client, server):
        end.machine.say(b"bye")
        end.machine.closing = Closing.HALF
        end.link.wake()
    platform.turn_until(lambda: client.handler.closed and server.handler.closed)
    assert client.machine.received == server.machine.received == b"bye"
    assert client.handler.error is None
    assert server.handler.error is None


def test_half_closed_and_paused_reads_again(platform: Platform) -> None:
    """`wants_read` is heeded after HALF as before it."""
    client, server = pair(platform, TalkingMachine(), TalkingMachine())
    client.machine.closing = Closing.HALF
    client.machine.wants_read = False
    client.link.wake()
    platform.turn_until(lambda: server.machine.ended)
    server.say(b"late")
    platform.turn_until(in_time(platform.driver, 0.02))
    assert client.machine.received == b""
    client.machine.wants_read = True
    client.link.wake()
    platform.turn_until(lambda: client.machine.received == b"late")


def test_data_after_half_is_the_machines_fault(platform: Platform) -> None:
    """A machine that ends its direction and then gives data is broken: reported, link ended."""
    client, server = pair(platform, TalkingMachine(), EchoMachine())
    client.machine.closing = Closing.HALF
    client.machine.wants_read = False  # keep the echo's own end of stream out of this
    client.link.wake()
    platform.turn_until(lambda: server.handler.closed or server.machine.closing is Closing.FULL)
    client.say(b"one more thing")
    platform.turn_until(lambda: client.handler.closed)
    (error,) = platform.take_errors()
    assert "after it had closed its half" in str(error)
    assert client.handler.error is error


def test_full_close_flushes_everything_first(platform: Platform) -> None:
    """FULL sends all that is queued, however much, before the end of stream."""
    client, server = pair(platform, TalkingMachine(b"leave"), LeavingMachine())
    platform.turn_until(lambda: client.machine.ended)
    assert client.machine.received == GOODBYE
    client.machine.closing = Closing.FULL
    client.link.wake()
    platform.turn_until(lambda: client.handler.closed and server.handler.closed)
    assert client.handler.error is None
    assert server.handler.error is None


def test_goodbye_arrives_although_the_peer_still_sends(socket_platform: Platform, peers: Peers) -> None:
    """Unread input must not turn our close into a reset, which would destroy the goodbye."""
    accepting = Accepting(LeavingMachine)
    listener = socket_platform.driver.listen(socket_platform.address(), accepting)
    peer = peers.dial(listener.address)

    def talk_on() -> bytes:
        peer.sendall(bytes(8 * 1024 * 1024))  # much more than it takes to make the machine leave
        return read_all(peer)

    talking = peers.work(talk_on)
    socket_platform.turn_until(talking.done)
    assert talking.result() == GOODBYE
    peer.close()
    socket_platform.turn_until(lambda: accepting.handlers[0].closed)
    assert accepting.handlers[0].error is None
    listener.close()


def test_a_peer_that_never_ends_is_not_waited_for(
    socket_platform: Platform, peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After FULL the link discards what comes for a moment only, then closes."""
    monkeypatch.setattr("helianthus.drivers.pump.LINGER", 0.2)
    accepting = Accepting(LeavingMachine)
    listener = socket_platform.driver.listen(socket_platform.address(), accepting)
    peer = peers.dial(listener.address)

    def talk_for_ever() -> None:
        peer.sendall(b"x")
        read_exactly(peer, len(GOODBYE))
        try:
            while True:
                peer.sendall(bytes(65536))
        except ConnectionError:
            return

    talking = peers.work(talk_for_ever)
    socket_platform.turn_until(lambda: accepting.handlers and accepting.handlers[0].closed)
    assert accepting.handlers[0].error is None
    socket_platform.turn_until(talking.done)
    talking.result()
    listener.close()


def test_abort_ends_the_link_at_once(platform: Platform) -> None:
    """ABORT drops what is queued, although the peer takes nothing of it."""
    client, server = pair(platform, BulkMachine(platform.bulk, platform.bulk, seed=1), TalkingMachine())
    server.machine.wants_read = False
    server.link.wake()
    client.machine.offer()
    client.link.wake()
    platform.turn_until(lambda: client.link.unsent > 0)
    client.machine.closing = Closing.ABORT
    client.link.wake()
    platform.turn_until(lambda: client.handler.closed)
    assert client.handler.error is None
    assert client.link.unsent == 0
    server.machine.wants_read = True
    server.link.wake()
    platform.turn_until(lambda: server.machine.ended or server.handler.closed)
    assert len(server.machine.received) < platform.bulk


def test_abort_with_a_reason(platform: Platform) -> None:
    """`abort(error)` tells machine and handler why."""
    client, server = pair(platform, TalkingMachine(), EchoMachine())
    reason = TransportError("drained away")
    client.link.abort(reason)
    platform.turn_until(lambda: client.handler.closed)
    assert client.handler.error is reason
    assert client.machine.lost == [reason]
    platform.turn_until(lambda: server.handler.closed)


@pytest.mark.parametrize("error", [None, TransportError("drained away")])
def test_abort_with_a_reset_is_no_end_of_stream(platform: Platform, error: Exception | None) -> None:
    """The peer hears `ConnectionReset`, although nothing was unread and nothing unsent."""
    if not platform.hears_resets:
        pytest.skip(FORGOTTEN_RESET)
    client, server = pair(platform, TalkingMachine(b"hello"), TalkingMachine())
    platform.turn_until(lambda: server.machine.received == b"hello")
    client.link.abort(error, reset=error is None)
    platform.turn_until(lambda: client.handler.closed and server.handler.closed)
    assert client.handler.error is error
    assert isinstance(server.handler.error, ConnectionReset)
    assert not server.machine.ended


def test_reset_in_mid_frame(socket_platform: Platform, peers: Peers) -> None:
    """A reset is loss of the connection with `ConnectionReset`, never an end of stream."""
    if not socket_platform.hears_resets:
        pytest.skip(FORGOTTEN_RESET)
    accepting = Accepting(TalkingMachine)
    listener = socket_platform.driver.listen(socket_platform.address(), accepting)
    peer = peers.dial(listener.address)
    peer.sendall(b"\x00\x00\x00\x10half a fr")
    socket_platform.turn_until(lambda: accepting.machines and accepting.machines[0].received)
    reset(peer)
    socket_platform.turn_until(lambda: accepting.handlers[0].closed)
    error = accepting.handlers[0].error
    assert isinstance(error, ConnectionReset)
    assert error.errno is not None, "the platform's code is kept"
    assert accepting.machines[0].lost == [error]
    assert not accepting.machines[0].ended
    listener.close()


def test_a_peer_that_dies_while_we_write(socket_platform: Platform, peers: Peers) -> None:
    """A failed write is the loss of the connection, as a failed read is."""
    accepting = Accepting(TalkingMachine)
    listener = socket_platform.driver.listen(socket_platform.address(), accepting)
    peer = peers.dial(listener.address)
    peer.sendall(b"x")
    socket_platform.turn_until(lambda: accepting.machines and accepting.machines[0].received)
    handler = accepting.handlers[0]
    accepting.machines[0].wants_read = False
    handler.link.wake()
    socket_platform.turn_until(in_time(socket_platform.driver, 0.01))
    reset(peer)
    accepting.machines[0].say(GOODBYE)
    handler.link.wake()
    socket_platform.turn_until(lambda: handler.closed)
    assert isinstance(handler.error, ConnectionReset)
    listener.close()


@pytest.mark.parametrize("closing", [Closing.FULL, Closing.ABORT])
def test_a_machine_may_want_to_close_before_it_is_connected(platform: Platform, closing: Closing) -> None:
    """The link becomes ready and then ends as the machine wants."""
    machine = TalkingMachine(b"bye")
    machine.closing = closing
    client, server = pair(platform, machine, EchoMachine())
    platform.turn_until(lambda: client.handler.closed and server.handler.closed)
    assert client.handler.journal == ["on_ready", "on_closed"]


def test_closing_from_a_handler(platform: Platform) -> None:
    """A handler that tells its machine to close, and wakes the link, closes it."""

    def close(handler: RecordingHandler, _: Any) -> None:
        handler.link.machine.closing = Closing.FULL
        handler.link.wake()

    client, server = pair(
        platform, TalkingMachine(b"x"), TalkingMachine(), server_handler=RecordingHandler(on_events=close)
    )
    platform.turn_until(lambda: client.machine.ended)
    client.machine.closing = Closing.FULL
    client.link.wake()
    platform.turn_until(lambda: client.handler.closed and server.handler.closed)
    assert server.handler.error is None


def test_last_words_are_not_held_back_while_the_link_lingers(platform: Platform) -> None:
    """A machine that gives up says so at once, although its peer is slow to close, or dead."""

    class GivingUp(DeadlineMachine):
        def handle_timeout(self, now: float) -> None:
            super().handle_timeout(now)
            self.closing = Closing.FULL

    client, server = pair(platform, GivingUp(platform.driver.now() + 0.02), TalkingMachine())
    server.machine.wants_read = False
    server.link.wake()
    platform.turn_until(lambda: client.handler.events)
    assert client.handler.events == [Ended()]
    assert not client.handler.closed
    server.link.abort()
    platform.turn_until(lambda: client.handler.closed and server.handler.closed)
