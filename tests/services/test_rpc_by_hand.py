"""A server in a loop of one's own: the driver is turned with `poll`, and asyncio has no part in it."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgpack
import pytest
from rpc_raw import HELLO, NOTIFICATION, REQUEST, RESPONSE

import helianthus
from helianthus import CallContext, Peer, Server, Service, StatusCode, method
from helianthus.drivers.base import Driver

TURN = 0.05
"""Seconds that one turn waits at most while a test waits for something."""


class Game(Service):
    """State that a game's own loop works on."""

    def __init__(self) -> None:
        self.position = 0
        self.loops: list[bool] = []

    @method
    def move(self, steps: int) -> int:
        self.loops.append(running())
        self.position += steps
        return self.position

    @method
    def callers(self, context: CallContext) -> str:
        context.peer.notify("screen.show", "seen")
        return context.method

    @method
    def fail(self) -> None:
        raise ZeroDivisionError("on purpose")

    @method
    async def think(self) -> int:
        return 42

    @method
    async def watch(self) -> AsyncIterator[int]:
        yield 1

    @method
    async def learn(self, items: AsyncIterator[int]) -> None: ...


def running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class Hand:
    """A server, and a raw client of it in the same thread."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.game = Game()
        self.errors: list[tuple[str, Exception]] = []
        self.peers: list[Peer] = []
        self.server = Server([self.game], driver=driver)
        self.server.on_error(lambda peer, name, error: self.errors.append((name, error)))
        self.server.on_connect(self.peers.append)
        self.address = self.server.open("tcp://127.0.0.1:0")
        self.sock = socket.create_connection((self.address.host, self.address.port))
        self.sock.setblocking(False)
        self.unpacker = msgpack.Unpacker()

    def turn_until(self, condition: Callable[[], object]) -> None:
        for _ in range(1000):
            if condition():
                return
            self.driver.poll(TURN)
        raise AssertionError("nothing came of it")

    def say(self, *messages: Any) -> None:
        self.sock.sendall(b"".join(map(msgpack.packb, messages)))

    def hear(self) -> Any:
        heard: list[Any] = []

        def arrived() -> bool:
            try:
                heard.append(next(self.unpacker))
            except StopIteration:
                try:
                    self.unpacker.feed(self.sock.recv(65536))
                except BlockingIOError:
                    return False
                return arrived()
            return True

        self.turn_until(arrived)
        return heard[0]

    def close(self) -> None:
        self.sock.close()
        self.server.close_now()
        self.turn_until(lambda: not self.server.peers)


@contextmanager
def hand(name: str) -> Iterator[Hand]:
    driver = helianthus.driver(name)
    faults: list[Exception] = []
    driver.on_error = faults.append
    try:
        held = Hand(driver)
        yield held
        held.close()
    finally:
        driver.close()
    assert faults == []


DRIVERS = pytest.mark.parametrize("name", ["auto", "asyncio"])


@DRIVERS
def test_plain_functions_are_served(name: str) -> None:
    threads = threading.active_count()
    with hand(name) as held:
        held.say([REQUEST, 1, "game.move", [3]], [REQUEST, 2, "game.move", [4]])
        assert held.hear() == [RESPONSE, 1, None, 3]
        assert held.hear() == [RESPONSE, 2, None, 7]
        assert held.game.position == 7
        held.say([NOTIFICATION, "game.move", [10]], [REQUEST, 3, "game.move", [0]])
        assert held.hear() == [RESPONSE, 3, None, 17]
        held.say([REQUEST, 4, "node.services", []])
        assert [one["name"] for one in held.hear()[3]] == ["game", "node"]
        assert held.errors == []
        assert threading.active_count() == threads


@pytest.mark.skipif(sys.platform != "linux", reason="there is no native driver here yet")
def test_the_native_driver_needs_no_event_loop() -> None:
    with hand("auto") as held:
        held.say([REQUEST, 1, "game.move", [1]])
        held.hear()
        assert held.game.loops == [False]
        assert not running()


@DRIVERS
def test_coroutines_are_unimplemented(name: str) -> None:
    with hand(name) as held:
        for number, called in enumerate(("think", "watch", "learn")):
            held.say(HELLO, [REQUEST, 2 * number + 1, f"game.{called}", [], {"stream": 3}])
        answers = [message for message in (held.hear() for _ in range(4)) if message[0] == RESPONSE]
        assert len(answers) == 3
        for _, _, (code, message, _, executed), _ in answers:
            assert code == StatusCode.UNIMPLEMENTED
            assert "without an event loop" in message
            assert executed is False
        held.say([NOTIFICATION, "game.think", []], [REQUEST, 9, "game.move", [1]])
        assert held.hear() == [RESPONSE, 9, None, 1]
        ((called, error),) = held.errors  # nobody else hears of a notification
        assert called == "game.think"
        assert "without an event loop" in str(error)


@DRIVERS
def test_errors_and_pushes(name: str) -> None:
    with hand(name) as held:
        held.say([REQUEST, 1, "game.fail", []])
        kind, _, (code, _, _), _ = held.hear()
        assert (kind, code) == (RESPONSE, StatusCode.UNKNOWN)
        assert [called for called, _ in held.errors] == ["game.fail"]
        held.say([REQUEST, 2, "game.callers", []])
        assert held.hear() == [NOTIFICATION, "screen.show", ["seen"]]
        assert held.hear() == [RESPONSE, 2, None, "game.callers"]
        (peer,) = held.peers
        peer.notify("screen.show", "between two turns")
        assert held.hear() == [NOTIFICATION, "screen.show", ["between two turns"]]


@DRIVERS
def test_a_turn_without_time_returns_at_once(name: str) -> None:
    with hand(name) as held:
        for _ in range(50):
            held.driver.poll(0)
        held.say([REQUEST, 1, "game.move", [1]])
        heard: list[Any] = []
        for _ in range(1_000_000):  # a game's loop: never waits, sees to its network once a frame
            held.driver.poll(0)
            try:
                held.unpacker.feed(held.sock.recv(65536))
            except BlockingIOError:
                continue
            heard.extend(held.unpacker)
            break
        assert heard == [[RESPONSE, 1, None, 1]]


@DRIVERS
def test_many_requests_in_few_turns(name: str) -> None:
    with hand(name) as held:
        held.say(*([REQUEST, number, "game.move", [1]] for number in range(1000)))
        assert [held.hear() for _ in range(1000)] == [
            [RESPONSE, number, None, number + 1] for number in range(1000)
        ]


@DRIVERS
def test_a_client_that_leaves_is_noticed(name: str) -> None:
    with hand(name) as held:
        gone: list[Exception | None] = []
        held.server.on_disconnect(lambda peer, error: gone.append(error))
        held.turn_until(lambda: held.peers)
        held.sock.close()
        held.turn_until(lambda: gone)
        assert gone == [None]
        assert not held.server.peers


def test_a_server_without_driver_or_loop_says_what_it_needs() -> None:
    with pytest.raises(RuntimeError):
        Server([Game()]).open("tcp://127.0.0.1:0")
