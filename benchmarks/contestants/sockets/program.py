"""What every contestant with sockets does: echo, or one way, with its own library at both ends.

The first byte of a connection says which. One way, the client ends its direction when its time is up,
and the server answers with how many bytes it got: only what has really arrived counts.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Awaitable, Callable, Coroutine
from time import perf_counter
from typing import Any, Protocol

import attrs

from benchmarks.cases import SocketWork
from benchmarks.contestants.rpc.program import Outcome, WrongAnswer, report
from benchmarks.contestants.serving import bound_lifetime

ECHO, ONE_WAY = b"e", b"o"
RECEIVE = 64 * 1024
COUNT = 8  # bytes of the server's answer


class Stream(Protocol):
    """A connection, by whatever names its library has for these."""

    @property
    def send(self) -> Callable[[bytes], Awaitable[object]]:
        """Send all of something."""

    @property
    def receive(self) -> Callable[[int], Awaitable[bytes]]:
        """Receive what there is, up to a limit; nothing at the end of the stream."""

    @property
    def receive_exactly(self) -> Callable[[int], Awaitable[bytes]]:
        """Receive so many bytes."""

    @property
    def end(self) -> Callable[[], Awaitable[object]]:
        """End this direction."""


@attrs.frozen
class Ways:
    """A stream whose operations are functions."""

    send: Callable[[bytes], Awaitable[object]]
    receive: Callable[[int], Awaitable[bytes]]
    receive_exactly: Callable[[int], Awaitable[bytes]]
    end: Callable[[], Awaitable[object]]


@attrs.frozen
class Load:
    """What a client does."""

    host: str
    port: int
    work: SocketWork
    size: int
    warm_up: float
    seconds: float


Connect = Callable[[str, int], Awaitable[tuple[Stream, Callable[[], Awaitable[object]]]]]
"""Gives a stream, and what closes it."""


async def serve_stream(stream: Stream) -> None:
    """Be the server of one connection."""
    if await stream.receive_exactly(1) == ECHO:
        while data := await stream.receive(RECEIVE):
            await stream.send(data)
        return
    count = 0
    while data := await stream.receive(RECEIVE):
        count += len(data)
    await stream.send(count.to_bytes(COUNT, "big"))


async def apply(connect: Connect, load: Load) -> Outcome:
    """Be a client: once to warm up, once to be measured."""
    work = echo if load.work is SocketWork.ECHO else one_way
    for seconds in (load.warm_up, load.seconds):
        stream, close = await connect(load.host, load.port)
        outcome = await work(stream, load.size, seconds)
        await close()
    return outcome


async def echo(stream: Stream, size: int, seconds: float) -> Outcome:
    """Send one message after the other, and compare what comes back."""
    await stream.send(ECHO)
    messages = (os.urandom(size), os.urandom(size))
    send, receive_exactly = stream.send, stream.receive_exactly
    count = 0
    started = perf_counter()
    end = started + seconds
    while (now := perf_counter()) < end:
        message = messages[count & 1]
        await send(message)
        if await receive_exactly(size) != message:
            raise WrongAnswer("a message came back changed")
        count += 1
    return Outcome(count, now - started)


async def one_way(stream: Stream, size: int, seconds: float) -> Outcome:
    """Send for some time, and have the server tell how much has arrived."""
    await stream.send(ONE_WAY)
    message = os.urandom(size)
    send = stream.send
    count = 0
    started = perf_counter()
    end = started + seconds
    while perf_counter() < end:
        await send(message)
        count += 1
    await stream.end()
    arrived = int.from_bytes(await stream.receive_exactly(COUNT), "big")
    if arrived != count * size:
        raise WrongAnswer(f"of {count * size} bytes {arrived} have arrived")
    return Outcome(count, perf_counter() - started)


def run_program(
    about: str | None,
    serve: Callable[[argparse.Namespace], Coroutine[Any, Any, None]],
    connect: Connect,
    run_loop: Callable[[argparse.Namespace, Callable[[], Coroutine[Any, Any, Any]]], Any],
    *options: str,
) -> None:
    """A contestant's main: be its server, or load one as its client.

    Args:
        about: What the program says of itself.
        serve: Listens, announces its address and serves for ever.
        connect: Connects to a server.
        run_loop: Runs a coroutine function to its end.
        options: Names of options with a value, for the last two and `serve`.
    """
    parser = argparse.ArgumentParser(description=about)
    for option in options:
        parser.add_argument(f"--{option}", required=True)
    roles = parser.add_subparsers(dest="role", required=True)
    server, client = roles.add_parser("server"), roles.add_parser("client")
    client.add_argument("address")
    client.add_argument("work", type=SocketWork)
    client.add_argument("size", type=int)
    client.add_argument("warm_up", type=float)
    client.add_argument("seconds", type=float)
    for role in (server, client):
        role.add_argument("--lifetime", type=int, required=True)
    given = parser.parse_args()
    bound_lifetime(given.lifetime)
    if given.role == "server":
        run_loop(given, lambda: serve(given))
        return
    host, _, port = given.address.rpartition(":")
    load = Load(host, int(port), given.work, given.size, given.warm_up, given.seconds)
    report(run_loop(given, lambda: apply(connect, load)))
