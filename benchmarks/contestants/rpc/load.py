"""The load of the contestants with an awaitable call: the same for all of them.

Workers call, or stream, one thing after the other, and compare every answer. The arithmetic of `add`
is exact in doubles, so that an answer is either equal or wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from time import perf_counter
from typing import Any, Protocol

from benchmarks.cases import PAYLOAD, Work
from benchmarks.contestants.rpc import connections, slow_reader
from benchmarks.contestants.rpc.connections import Room
from benchmarks.contestants.rpc.program import (
    Findings,
    Load,
    Outcome,
    Role,
    WrongAnswer,
    parse_role,
    report,
    report_and_end,
)

ONE_FILE_EACH = Room()

ITEMS = 1000
"""Of one stream; then comes the next, so that opening one hardly shows."""


class Client(Protocol):
    """What a contestant's client does; it leaves out what its library cannot."""

    def add(self, a: float, b: float, /) -> Awaitable[float]:
        """The sum."""

    def mirror(self, data: bytes, /) -> Awaitable[bytes]:
        """The same bytes."""

    def count(self, n: int, /) -> AsyncIterator[int]:
        """A stream of the numbers below `n`, from the server."""

    def total(self, items: Iterable[int], /) -> Awaitable[int]:
        """Streams the numbers to the server; gives their sum."""

    def echo_items(self, items: Iterable[int], take: Callable[[int], None], /) -> Awaitable[None]:
        """Streams numbers to the server and takes them as they come back, at the same time."""


Connect = Callable[[str, int, Load], AbstractAsyncContextManager[Any]]
"""Gives a `Client`, or a part of one, with as many connections as it needs for `load.in_flight` calls."""


class Tally:
    """What the workers have done, and whether they are to stop."""

    __slots__ = ("done", "stopping")

    def __init__(self) -> None:
        self.done = 0
        self.stopping = False


async def apply(connect: Connect, host: str, port: int, load: Load, room: Room) -> Outcome | Findings:
    """Do what the load asks for."""
    if load.work is Work.CONNECTIONS:
        return await connections.hold(lambda: connect(host, port, load), load, room)
    if load.work is Work.SLOW_READER:
        return await slow_reader.watch(lambda: connect(host, port, load), host, port, load)
    async with connect(host, port, load) as client:
        tally = Tally()
        match load.work:
            case Work.ADD:
                workers = [add(client.add, float(n), tally) for n in range(load.in_flight)]
            case Work.MIRROR:
                workers = [mirror(client.mirror, n, tally) for n in range(load.in_flight)]
            case Work.COUNT:
                workers = [count(client, tally)]
            case Work.TOTAL:
                workers = [total(client, tally)]
            case Work.ECHO_ITEMS:
                workers = [echo_items(client, tally)]
        return await run(workers, tally, load)


async def run(workers: Iterable[Coroutine[Any, Any, None]], tally: Tally, load: Load) -> Outcome:
    """Let the workers run, and count what they do after the warm-up."""
    async with asyncio.TaskGroup() as group:
        for worker in workers:
            group.create_task(worker)
        await asyncio.sleep(load.warm_up)
        started, before = perf_counter(), tally.done
        await asyncio.sleep(load.seconds)
        while tally.done == before:  # a thousand slow answers may take longer than a short sample
            await asyncio.sleep(load.warm_up)
        ended, after = perf_counter(), tally.done
        tally.stopping = True
    return Outcome(after - before, ended - started)


async def add(call: Callable[[float, float], Awaitable[float]], a: float, tally: Tally) -> None:
    """Ask for one sum after the other."""
    b = 0.0
    while not tally.stopping:
        b += 1.0
        answer = await call(a, b)
        if answer != a + b:
            raise WrongAnswer(f"add({a}, {b}) gave {answer!r}")
        tally.done += 1


def payloads(number: int) -> tuple[bytes, bytes]:
    """Two large payloads of a worker, unlike those of all others, and hard to compress."""
    rng = random.Random(number)
    return rng.randbytes(PAYLOAD), rng.randbytes(PAYLOAD)


async def mirror(call: Callable[[bytes], Awaitable[bytes]], number: int, tally: Tally) -> None:
    """Send two payloads in turn and compare what comes back, byte by byte."""
    payload, next_payload = payloads(number)
    while not tally.stopping:
        if await call(payload) != payload:
            raise WrongAnswer("the payload came back changed")
        tally.done += 1
        payload, next_payload = next_payload, payload


async def count(client: Client, tally: Tally) -> None:
    """Take one stream after the other from the server."""
    while not tally.stopping:
        expected = 0
        async for item in client.count(ITEMS):
            if item != expected:
                raise WrongAnswer(f"item {expected} of the stream was {item!r}")
            expected += 1
            tally.done += 1
        _check_end(expected)


async def total(client: Client, tally: Tally) -> None:
    """Send one stream after the other to the server, each answered with its sum."""

    def items() -> Iterator[int]:
        for item in range(ITEMS):
            tally.done += 1
            yield item

    while not tally.stopping:
        answer = await client.total(items())
        if answer != ITEMS * (ITEMS - 1) // 2:
            raise WrongAnswer(f"the sum of the stream was {answer!r}")


async def echo_items(client: Client, tally: Tally) -> None:
    """Send one stream after the other to the server, and take each item as it comes back."""
    while not tally.stopping:
        expected = 0

        def take(item: int) -> None:
            nonlocal expected
            if item != expected:
                raise WrongAnswer(f"item {expected} came back as {item!r}")
            expected += 1
            tally.done += 1

        await client.echo_items(range(ITEMS), take)
        _check_end(expected)


def _check_end(count: int) -> None:
    if count != ITEMS:
        raise WrongAnswer(f"the stream ended after {count} items of {ITEMS}")


def run_program(
    about: str | None,
    serve: Callable[[], Coroutine[Any, Any, None]],
    connect: Connect,
    run_loop: Callable[[Coroutine[Any, Any, Any]], Any],
    room: Room = ONE_FILE_EACH,
) -> None:
    """A contestant's main: be its server, or load one as its client.

    Args:
        about: What the program says of itself.
        serve: Listens, announces its address and serves for ever.
        connect: Makes a client.
        run_loop: Runs a coroutine to its end.
        room: How many connections the client can have.
    """
    role = parse_role(argparse.ArgumentParser(description=about))
    be(role, serve, connect, run_loop, room)


def be(
    role: Role,
    serve: Callable[[], Coroutine[Any, Any, None]],
    connect: Connect,
    run_loop: Callable[[Coroutine[Any, Any, Any]], Any],
    room: Room = ONE_FILE_EACH,
) -> None:
    """The same for a role that has been read already."""
    if role.load is None:
        run_loop(serve())
    elif role.load.work is Work.CONNECTIONS:
        run_loop(_hold_and_end(connect, role, role.load, room))
    else:
        report(run_loop(apply(connect, role.host, role.port, role.load, room)))


async def _hold_and_end(connect: Connect, role: Role, load: Load, room: Room) -> None:
    findings = await apply(connect, role.host, role.port, load, room)
    assert isinstance(findings, Findings)
    report_and_end(findings)
