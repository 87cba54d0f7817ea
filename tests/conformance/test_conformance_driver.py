"""The driver as a whole: fairness, its end, re-entry, many in one process, and fork."""

from __future__ import annotations

import itertools
import os
import warnings
from typing import Any

import pytest
from machines import BulkMachine, DeadlineMachine, EchoMachine, TalkingMachine
from pairs import connect, pair
from peers import Peers
from platforms import PLATFORMS, Platform, new_descriptors, open_descriptors
from recording import Accepting, RecordingHandler, in_time

from helianthus.drivers.address import Address


def test_a_flooding_peer_does_not_starve_the_others(socket_platform: Platform, peers: Peers) -> None:
    """Work per link and tick is capped: others are answered while one peer never stops."""
    flooded = Accepting(lambda: BulkMachine(0, 1, seed=1))
    flood_at = socket_platform.driver.listen(socket_platform.address(), flooded)
    peer = peers.dial(flood_at.address)
    over: list[bool] = []

    def flood() -> None:
        block = bytes(1 << 20)
        while not over:
            peer.sendall(block)

    flooding = peers.work(flood)
    client, _ = pair(socket_platform, TalkingMachine(), EchoMachine())
    socket_platform.turn_until(lambda: flooded.machines and flooded.machines[0].received > 1 << 22)
    for number in range(50):
        client.say(b"x")
        socket_platform.turn_until(lambda number=number: len(client.machine.received) > number)
    assert not flooding.done()
    over.append(True)
    socket_platform.turn_until(flooding.done)
    flooding.result()
    flood_at.close()


def test_work_per_tick_is_capped(socket_platform: Platform, peers: Peers) -> None:
    """Between two turns of the others a link is given a few pieces, however much has come for it."""
    driver = socket_platform.driver
    if hasattr(driver, "receive_buffer"):  # small pieces, of which the system then holds very many
        driver.receive_buffer = memoryview(bytearray(1024))
    accepting = Accepting(TalkingMachine)
    listener = driver.listen(socket_platform.address(), accepting)
    peer = peers.dial(listener.address)
    socket_platform.turn_until(lambda: accepting.handlers and accepting.handlers[0].ready)
    total = 4 * 1024 * 1024
    peers.work(peer.sendall, bytes(total))
    (machine,) = accepting.machines
    receipts = [0]

    def look() -> None:
        receipts.append(machine.receipts)
        if len(machine.received) < total:
            driver.post(look)

    driver.post(look)
    socket_platform.turn_until(lambda: len(machine.received) == total)
    assert max(after - before for before, after in itertools.pairwise(receipts)) <= 64
    listener.close()


def test_a_link_that_is_always_woken_does_not_starve_the_others(platform: Platform) -> None:
    """A handler that wakes its link at every event, for ever, leaves the others their turn."""
    over: list[bool] = []

    def again(handler: RecordingHandler, _: Any) -> None:
        if not over:
            handler.link.machine.events.append(None)
            handler.link.wake()

    handler = RecordingHandler(on_events=again)
    busy, _ = pair(platform, TalkingMachine(), EchoMachine(), client_handler=handler)
    client, _ = pair(platform, TalkingMachine(), EchoMachine())
    busy.machine.events.append(None)
    busy.link.wake()
    client.say(b"x")
    if platform.sockets:  # virtual time stands still for as long as somebody is busy
        platform.turn_until(lambda: client.machine.received == b"x")
    over.append(True)
    platform.turn_until(lambda: client.machine.received == b"x")


def test_close_ends_everything(platform: Platform) -> None:
    """Links hear `on_closed` once, listeners stop, timers and hosts fall silent; twice is fine."""
    driver = platform.driver
    rung: list[int] = []
    listener = driver.listen(platform.address(), Accepting(EchoMachine))
    connecting = connect(platform, listener, TalkingMachine())
    client, server = pair(platform, TalkingMachine(), EchoMachine())
    looking_up = RecordingHandler()
    driver.connect(Address("localhost", 1), TalkingMachine(), looking_up)
    pending = RecordingHandler()
    driver.connect(listener.address, TalkingMachine(), pending)
    hosted = DeadlineMachine(driver.now() + 0.001)
    driver.host(hosted, RecordingHandler())
    driver.call_at(driver.now(), lambda: rung.append(1))
    driver.close()
    for handler in (client.handler, server.handler, pending, looking_up, connecting.handler):
        assert handler.closed
        assert handler.error is None
        assert handler.journal.count("on_closed") == 1
    driver.close()
    assert rung == []
    assert hosted.told == []


def test_a_closed_driver_refuses_work(platform: Platform) -> None:
    """With an error that says so."""
    driver = platform.driver
    driver.close()
    for use in (
        lambda: driver.listen(platform.address(), Accepting(EchoMachine)),
        lambda: driver.connect(Address("127.0.0.1", 1), TalkingMachine(), RecordingHandler()),
        lambda: driver.in_thread(lambda: None, lambda *_: None),
        lambda: driver.poll(0.0),
    ):
        with pytest.raises(RuntimeError, match="closed"):
            use()


def test_close_from_within_a_handler(platform: Platform) -> None:
    """It takes effect when the handler has returned, and nobody is called within a call."""
    driver = platform.driver
    inside: list[bool] = []

    def close(handler: RecordingHandler, _: Any) -> None:
        driver.close()
        inside.append(handler.closed)

    client, server = pair(
        platform, TalkingMachine(), EchoMachine(), client_handler=RecordingHandler(on_events=close)
    )
    client.say(b"x")
    try:
        platform.turn_until(lambda: client.handler.closed and server.handler.closed)
    except RuntimeError as error:  # the driver was what turned
        assert "closed" in str(error)
    assert inside == [False]
    assert client.handler.closed
    assert server.handler.closed


def test_connect_from_on_closed_while_the_driver_closes(platform: Platform) -> None:
    """Whoever reconnects by reflex is refused, and reported; the driver closes all the same."""
    driver = platform.driver
    listener = driver.listen(platform.address(), Accepting(EchoMachine))

    def reconnect(_: RecordingHandler, __: Any) -> None:
        driver.connect(listener.address, TalkingMachine(), RecordingHandler())

    pair(platform, TalkingMachine(), EchoMachine(), client_handler=RecordingHandler(on_closed=reconnect))
    driver.close()
    (error,) = platform.take_errors()
    assert isinstance(error, RuntimeError)
    assert "closed" in str(error)


def test_poll_cannot_be_nested(platform: Platform) -> None:
    """A callback that turns the driver is a mistake, and hears so; the driver goes on."""
    heard: list[RuntimeError] = []

    def turn() -> None:
        with pytest.raises(RuntimeError) as caught:
            platform.driver.poll(0.0)
        heard.append(caught.value)

    platform.driver.post(turn)
    platform.turn_until(lambda: heard)
    platform.turn_until(in_time(platform.driver, 0.001))


def test_an_interrupted_tick_loses_nothing(socket_platform: Platform, peers: Peers) -> None:
    """A KeyboardInterrupt leaves `poll`; whoever catches it and goes on misses no event."""
    if not socket_platform.interruptible:
        pytest.skip("uvloop keeps what a protocol lets out, and ends that connection")
    accepting = Accepting(EchoMachine)
    listener = socket_platform.driver.listen(socket_platform.address(), accepting)
    visitors = [peers.dial(listener.address) for _ in range(5)]
    socket_platform.turn_until(lambda: sum(handler.ready for handler in accepting.handlers) == 5)

    def interrupt(data: Any, now: float) -> None:
        del accepting.machines[2].receive_data
        accepting.machines[2].receive_data(data, now)
        raise KeyboardInterrupt

    accepting.machines[2].receive_data = interrupt
    for visitor in visitors:
        visitor.sendall(b"x")
    with pytest.raises(KeyboardInterrupt):
        socket_platform.turn_until(lambda: accepting.machines[2].closing is None)
    visitors[2].sendall(b"y")
    answers = [peers.work(visitor.recv, 10) for visitor in visitors]
    socket_platform.turn_until(lambda: all(answer.done() for answer in answers))
    assert [answer.result()[:1] for answer in answers] == [b"x"] * 5
    listener.close()


@pytest.mark.parametrize("kind", [kind for kind in PLATFORMS if kind.sockets], ids=lambda kind: kind.name)
def test_many_drivers_in_one_process(kind: type[Platform]) -> None:
    """They share nothing: each serves its own, and one's end is no other's."""
    if kind.missing():
        pytest.skip(kind.missing())
    platforms = [kind() for _ in range(4)]
    try:
        listeners = [one.driver.listen(one.address(), Accepting(EchoMachine)) for one in platforms]
        ends = []
        for number, one in enumerate(platforms):
            machine, handler = TalkingMachine(b"%d" % number), RecordingHandler()
            one.driver.connect(listeners[number - 1].address, machine, handler)
            ends.append((machine, handler))
        for _ in range(10_000):
            if all(machine.received for machine, _ in ends):
                break
            for one in platforms:
                one.turn(0.0)
        assert [machine.received for machine, _ in ends] == [b"0", b"1", b"2", b"3"]
        platforms[0].driver.close()
        survivor, echo = pair(platforms[2], TalkingMachine(b"x"), EchoMachine())
        platforms[2].turn_until(lambda: survivor.machine.received == b"x")
        assert not echo.handler.closed
    finally:
        for one in platforms:
            one.close()
    assert all(one.errors == [] for one in platforms)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows does not fork")
def test_a_forked_child_starts_clean(socket_platform: Platform) -> None:
    """The parent's driver is of no use in the child, which cannot harm the parent's links."""
    client, server = pair(socket_platform, TalkingMachine(), EchoMachine())
    listener = socket_platform.driver.listen(socket_platform.address(), Accepting(EchoMachine))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork() where threads may exist
        child = os.fork()
    if child == 0:
        os._exit(_use_in_child(socket_platform, client.link, server.link))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    client.say(b"still here")
    socket_platform.turn_until(lambda: client.machine.received == b"still here")
    other = connect(socket_platform, listener, TalkingMachine(b"x"))
    socket_platform.turn_until(lambda: other.machine.received == b"x")
    ran: list[int] = []
    socket_platform.driver.post(lambda: ran.append(1))
    socket_platform.turn_until(lambda: ran)
    listener.close()


def _use_in_child(platform: Platform, *links: Any) -> int:
    """What a forked child does with its parent's driver; gives its exit code."""
    driver = platform.driver
    for number, use in enumerate(
        (
            lambda: driver.poll(0.0),
            lambda: driver.listen(platform.address(), Accepting(EchoMachine)),
            lambda: driver.connect(Address("127.0.0.1", 1), TalkingMachine(), RecordingHandler()),
        )
    ):
        try:
            use()
        except RuntimeError as error:
            if "fork" not in str(error):
                return 10 + number
        else:
            return 20 + number
    driver.post(lambda: None)
    for link in links:
        link.abort()
    driver.close()
    fresh = type(platform)()  # the child's own works
    client, _ = pair(fresh, TalkingMachine(b"x"), EchoMachine())
    fresh.turn_until(lambda: client.machine.received == b"x")
    fresh.close()
    return 0


def test_the_driver_holds_nothing_once_it_is_closed(socket_platform: Platform) -> None:
    """Not a descriptor, although links, a listener and a lookup were under way."""
    before = open_descriptors()
    other = type(socket_platform)()
    listener = other.driver.listen(other.address(), Accepting(EchoMachine))
    for _ in range(5):
        connect(other, listener, TalkingMachine(b"x"))
    other.driver.connect(Address("localhost", listener.address.port), TalkingMachine(), RecordingHandler())
    other.turn(0.0)
    other.turn(0.0)
    other.close()
    assert new_descriptors(before) == set()
