"""Listeners: what they accept, and what must not stop them from accepting."""

from __future__ import annotations

import errno
import gc
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
from machines import EchoMachine, Fault, TalkingMachine
from pairs import End, connect, pair
from peers import Peers, read_exactly, reset
from platforms import Platform, descriptor_numbers, open_descriptors
from recording import Accepting, RecordingHandler, in_time

from helianthus.drivers.address import Address
from helianthus.drivers.errors import (
    AcceptPaused,
    AddressInUse,
    AddressNotAvailable,
    ConnectionRefused,
    TooManyFiles,
    TransportError,
)
from helianthus.drivers.pump import Link
from helianthus.protocols.machine import Closing

BURST = 500


def echoes(platform: Platform, peers: Peers, peer: Any) -> bool:
    """Whether a raw peer gets back what it sends; false if it is turned away."""

    def ask() -> bool:
        try:
            peer.sendall(b"?")
            return bool(peer.recv(1) == b"?")
        except ConnectionError:
            return False

    asking = peers.work(ask)
    platform.turn_until(asking.done)
    return bool(asking.result())


def test_the_bound_port_is_known_at_once(platform: Platform) -> None:
    """Port 0 takes any free port, and the listener says which before it is ever turned."""
    first = platform.driver.listen(platform.address(), Accepting(EchoMachine))
    second = platform.driver.listen(platform.address(), Accepting(EchoMachine))
    assert first.address.port > 0
    assert second.address.port > 0
    assert first.address.port != second.address.port
    first.close()
    second.close()


def test_address_in_use(platform: Platform) -> None:
    """Listening where somebody listens raises at once, and leaves the first listener alone."""
    first = platform.driver.listen(platform.address(), Accepting(EchoMachine))
    with pytest.raises(AddressInUse) as caught:
        platform.driver.listen(first.address, Accepting(EchoMachine))
    assert str(first.address.port) in str(caught.value)
    end = connect(platform, first, TalkingMachine(b"x"))
    platform.turn_until(lambda: end.machine.received == b"x")
    first.close()


def test_an_address_that_is_not_ours(platform: Platform) -> None:
    """Listening at another machine's address, or at no known name, raises at once."""
    for host in ("192.0.2.1", "no-such-host.invalid"):  # RFC 5737: for documentation only
        with pytest.raises(AddressNotAvailable):
            platform.driver.listen(Address(host, 0), Accepting(EchoMachine))


def test_the_address_is_free_after_close(platform: Platform) -> None:
    """Who closes a listener may listen there again, although accepted links live on."""
    accepting = Accepting(EchoMachine)
    first = platform.driver.listen(platform.address(), accepting)
    end = connect(platform, first, TalkingMachine(b"x"))
    platform.turn_until(lambda: end.machine.received == b"x")
    first.close()
    first.close()
    platform.turn_until(in_time(platform.driver, 0.01))
    second = platform.driver.listen(first.address, Accepting(EchoMachine))
    end.say(b"y")
    platform.turn_until(lambda: end.machine.received == b"xy")
    second.close()


def test_a_closed_listener_accepts_nothing(platform: Platform) -> None:
    """After `close()` nobody is accepted, not even who was waiting."""
    accepting = Accepting(EchoMachine)
    listener = platform.driver.listen(platform.address(), accepting)
    listener.close()
    refused = connect(platform, listener, TalkingMachine())
    platform.turn_until(lambda: refused.handler.closed)
    assert isinstance(refused.handler.error, ConnectionRefused)
    assert not accepting.machines


def test_a_listener_closed_by_its_first_connection(platform: Platform) -> None:
    """`accept` may close its own listener: the connection at hand is served, no other."""
    listeners = []

    def only_one() -> EchoMachine:
        listeners[0].close()
        return EchoMachine()

    accepting = Accepting(only_one)
    listeners.append(platform.driver.listen(platform.address(), accepting))
    ends = [connect(platform, listeners[0], TalkingMachine(b"x")) for _ in range(3)]
    platform.turn_until(lambda: any(end.machine.received == b"x" for end in ends))
    platform.turn_until(lambda: sum(end.handler.closed for end in ends) == 2)
    assert len(accepting) == 1


def test_a_burst_of_connections(platform: Platform) -> None:
    """Many connections at once are all accepted and all served."""
    accepting = Accepting(EchoMachine)
    listener = platform.driver.listen(platform.address(), accepting)
    with room_for_descriptors(2 * BURST + 200):
        ends = [connect(platform, listener, TalkingMachine(b"%d" % number)) for number in range(BURST)]
        platform.turn_until(lambda: all(end.machine.received for end in ends))
        assert [end.machine.received for end in ends] == [b"%d" % number for number in range(BURST)]
        assert len(accepting) == BURST
        platform.driver.close()


def test_connections_leave_no_descriptors(socket_platform: Platform) -> None:
    """A thousand connections, opened and closed by either end, leave none open."""
    listener = socket_platform.driver.listen(socket_platform.address(), Accepting(EchoMachine))
    before: set[str] = set()
    for round_ in range(11):
        ends = [connect(socket_platform, listener, TalkingMachine(b"x")) for _ in range(100)]
        socket_platform.turn_until(lambda now=ends: all(end.machine.received for end in now))
        for number, end in enumerate(ends):
            if number % 2:
                end.link.abort()
            else:
                end.machine.closing = Closing.FULL
                end.link.wake()
        socket_platform.turn_until(lambda now=ends: all(end.handler.closed for end in now))
        socket_platform.turn_until(in_time(socket_platform.driver, 0.02))
        if round_ == 0:
            before = open_descriptors()
    assert len(open_descriptors()) <= len(before)
    listener.close()


def test_a_peer_that_closes_at_once(socket_platform: Platform, peers: Peers) -> None:
    """It was a connection: ready, then closed without an error."""
    accepting = Accepting(EchoMachine)
    listener = socket_platform.driver.listen(socket_platform.address(), accepting)
    peers.dial(listener.address).close()
    socket_platform.turn_until(lambda: accepting.handlers and accepting.handlers[0].closed)
    assert accepting.handlers[0].journal == ["on_ready", "on_closed"]
    assert accepting.handlers[0].error is None
    listener.close()


def test_a_reset_before_accept_does_not_close_the_listener(socket_platform: Platform, peers: Peers) -> None:
    """Those who come after one who has gone already are served."""
    accepting = Accepting(EchoMachine)
    listener = socket_platform.driver.listen(socket_platform.address(), accepting)
    for _ in range(3):
        reset(peers.dial(listener.address))
    peer = peers.dial(listener.address)
    reset(peers.dial(listener.address))
    assert echoes(socket_platform, peers, peer)
    socket_platform.turn_until(lambda: sum(not handler.closed for handler in accepting.handlers) == 1)
    assert echoes(socket_platform, peers, peers.dial(listener.address))
    listener.close()


class Abandoned(socket.socket):
    """A listening socket whose first visitors have reset their connections before they are accepted.

    Linux accepts those and tells later; other systems, and Linux for some errors of the network, let
    `accept` itself fail.
    """

    failures: ClassVar[list[int]] = []

    def accept(self) -> tuple[socket.socket, Any]:
        if self.failures:
            code = self.failures.pop(0)
            raise OSError(code, os.strerror(code))
        return super().accept()


def test_accept_that_fails_with_a_visitors_error(
    socket_platform: Platform, peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not close the listener, nor is whoever comes next forgotten until somebody else comes."""
    if socket_platform.completes:
        pytest.skip("accept() is never called; tests/drivers/test_iocp.py has such visitors")
    with monkeypatch.context() as patched:
        patched.setattr(socket, "socket", Abandoned)
        listener = socket_platform.driver.listen(socket_platform.address(), Accepting(EchoMachine))
    Abandoned.failures[:] = [errno.ECONNABORTED, errno.EPROTO, errno.ECONNABORTED]
    assert echoes(socket_platform, peers, peers.dial(listener.address))
    assert Abandoned.failures == [], "the failures have not been met"
    assert echoes(socket_platform, peers, peers.dial(listener.address))
    listener.close()


def test_accept_that_raises_turns_one_connection_away(platform: Platform) -> None:
    """The listener lives on, and the fault is reported."""
    refusals = [True, True, False]

    def choosy() -> EchoMachine:
        if refusals.pop(0):
            raise Fault("no machine today")
        return EchoMachine()

    listener = platform.driver.listen(platform.address(), Accepting(choosy))
    for _ in range(2):
        turned_away = connect(platform, listener, TalkingMachine())
        platform.turn_until(lambda end=turned_away: end.handler.closed or end.machine.ended)
    served = connect(platform, listener, TalkingMachine(b"x"))
    platform.turn_until(lambda: served.machine.received == b"x")
    assert [str(error) for error in platform.take_errors()] == ["no machine today"] * 2
    listener.close()


def test_accept_that_closes_the_driver(platform: Platform) -> None:
    """The connection at hand ends with all the others, and its handler hears so."""

    def close() -> TalkingMachine:
        platform.driver.close()
        return TalkingMachine()

    accepting = Accepting(close)
    listener = platform.driver.listen(platform.address(), accepting)
    end = connect(platform, listener, TalkingMachine())
    try:
        platform.turn_until(lambda: accepting.handlers and accepting.handlers[0].closed)
    except RuntimeError as error:  # the driver was what turned
        assert "closed" in str(error)
    assert accepting.handlers[0].closed
    assert end.handler.closed


def test_out_of_descriptors(socket_platform: Platform, peers: Peers) -> None:
    """A listener that cannot accept for want of descriptors does so when there are some again."""
    listener = socket_platform.driver.listen(socket_platform.address(), Accepting(EchoMachine))
    early = peers.dial(listener.address)
    assert echoes(socket_platform, peers, early)
    waiting = peers.socket()
    without_descriptors(
        socket_platform,
        lambda: waiting.connect((listener.address.host, listener.address.port)),
        in_time(socket_platform.driver, 0.35),  # several attempts
    )
    assert echoes(socket_platform, peers, early), "links are served all the while"
    late = peers.dial(listener.address)
    assert echoes(socket_platform, peers, late)
    assert echoes(socket_platform, peers, waiting), "who had to wait is served in the end"
    (error,) = socket_platform.take_errors()  # one for all attempts
    assert isinstance(error, AcceptPaused)
    assert isinstance(error, TooManyFiles)
    assert error.address == str(listener.address)
    assert re.search(r"connections wait .* all \d+ file descriptors .* raise the limit", str(error))
    listener.close()


def test_a_connection_that_cannot_be_made_for_want_of_descriptors(socket_platform: Platform) -> None:
    """It fails like any other."""
    handler = RecordingHandler()
    without_descriptors(
        socket_platform,
        lambda: socket_platform.driver.connect(Address("127.0.0.1", 9), TalkingMachine(), handler),
        lambda: handler.closed,
    )
    assert isinstance(handler.error, TransportError)


def test_a_descriptor_that_is_used_again_at_once(socket_platform: Platform, peers: Peers) -> None:
    """What was waiting for a link that is aborted does not reach the one that gets its number.

    Several links have input at the same moment. The first to be served aborts all the others and
    connects as many new ones, which the system is free to give the numbers of the old ones.
    """
    accepting = Accepting(TalkingMachine)
    listener = socket_platform.driver.listen(socket_platform.address(), accepting)
    visitors = [peers.dial(listener.address) for _ in range(8)]
    socket_platform.turn_until(lambda: sum(handler.ready for handler in accepting.handlers) == 8)
    listening, address = peers.listen()
    newcomers: list[End] = []

    def replace_the_others(handler: RecordingHandler, _: Any) -> None:
        if newcomers:
            return
        for other in accepting.handlers:
            if other is not handler:
                other.link.abort()
                newcomers.append(End(TalkingMachine(), RecordingHandler()))
                socket_platform.driver.connect(address, newcomers[-1].machine, newcomers[-1].handler)

    for handler in accepting.handlers:
        handler.reactions["on_events"] = replace_the_others
    for visitor in visitors:
        visitor.sendall(b"for the old link")
    socket_platform.turn_until(lambda: newcomers and all(end.handler.ready for end in newcomers))
    hosts = [peers.accept(listening) for _ in newcomers]
    socket_platform.turn_until(in_time(socket_platform.driver, 0.02))
    assert all(end.machine.received == b"" and not end.handler.closed for end in newcomers)
    for host in hosts:
        host.sendall(b"new")
    socket_platform.turn_until(lambda: all(end.machine.received == b"new" for end in newcomers))
    assert sum(handler.closed for handler in accepting.handlers) == 7
    for handler in accepting.handlers:
        handler.reactions.clear()
    listener.close()


def test_two_links_of_one_batch_abort_each_other(platform: Platform) -> None:
    """Whoever is served first ends the other, whose input then reaches nobody."""
    first, _ = pair(platform, TalkingMachine(), TalkingMachine())
    second, _ = pair(platform, TalkingMachine(), TalkingMachine())
    served: list[RecordingHandler] = []

    def abort_the_other(handler: RecordingHandler, _: Any) -> None:
        served.append(handler)
        (second if handler is first.handler else first).link.abort()

    for end in (first, second):
        end.handler.reactions["on_events"] = abort_the_other
    for end in (first, second):
        far = next(link for link in platform_links(platform) if link.peer_address == end.link.local_address)
        far.machine.say(b"x")
        far.wake()
    platform.turn_until(lambda: first.handler.closed or second.handler.closed)
    platform.turn_until(in_time(platform.driver, 0.02))
    assert len(served) == 1
    served[0].reactions.clear()


def platform_links(platform: Platform) -> Iterator[Any]:
    """Every link of the driver that is alive."""
    return (
        found
        for found in gc.get_objects()
        if isinstance(found, Link) and found._driver is platform.driver and not found.closed
    )


def test_a_peer_reads_what_was_sent_before_the_listener_closed(
    socket_platform: Platform, peers: Peers
) -> None:
    """Closing a listener says nothing to the links it has accepted."""
    greeting = Accepting(lambda: TalkingMachine(b"hi"))
    listener = socket_platform.driver.listen(socket_platform.address(), greeting)
    peer = peers.dial(listener.address)
    reading = peers.work(read_exactly, peer, 2)
    socket_platform.turn_until(reading.done)
    listener.close()
    assert reading.result() == b"hi"


def limits_of_descriptors() -> Any:
    """The module that knows how many descriptors there may be."""
    return pytest.importorskip("resource", reason="Windows does not limit descriptors")


@contextmanager
def room_for_descriptors(number: int) -> Iterator[None]:
    """Raise the soft limit where it is too low."""
    resource = limits_of_descriptors()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = len(descriptor_numbers()) + number
    if hard != resource.RLIM_INFINITY and hard < enough:
        pytest.skip(f"the system allows {hard} descriptors; this test needs {enough}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, enough), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def without_descriptors(
    platform: Platform, begin: Callable[[], object], enough: Callable[[], object]
) -> None:
    """Turn the driver until it is enough, while the process cannot open a single descriptor.

    Args:
        begin: Called by the driver, once there is no descriptor left.
        enough: As for `turn_until`.
    """
    if not platform.turns_without_descriptors:
        pytest.skip("its loop cannot begin to run without descriptors")
    resource = limits_of_descriptors()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []

    def exhaust() -> None:
        spare = os.open(os.devnull, os.O_RDONLY)
        taken.append(spare)
        highest = max(descriptor_numbers())
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
        while True:
            try:
                taken.append(os.dup(spare))
            except OSError:
                break
        begin()

    platform.driver.post(exhaust)
    try:
        platform.turn_until(lambda: taken and enough())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in taken:
            os.close(number)
