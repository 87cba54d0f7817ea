"""A peer that never reads: what it costs the server in memory, and its neighbours in calls.

Some neighbours call one thing after the other, all the time. After a while somebody connects, asks for
a stream of large items, and takes nothing of it: the socket is never read. The server offers items at a
steady rate all the same. Meanwhile its resident memory is looked at again and again, and the
neighbours' calls are counted, to be compared with those of the time before.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from time import perf_counter
from typing import Any

import msgpack

from benchmarks.cases import FLOOD_RATE, FLOOD_TOTAL
from benchmarks.contestants.rpc.connections import resident
from benchmarks.contestants.rpc.program import Findings, Load, WrongAnswer

LOOK_EVERY = 0.02
"""Seconds between two looks at the server's memory."""

FLOOD_FACTOR = 4
"""How long items are offered, as a multiple of the time measured: with a second, long enough for all."""

MIB = 1024 * 1024


class Neighbours:
    """Clients that call all the time, one call in flight each."""

    def __init__(self, clients: list[Any]) -> None:
        self._clients = clients
        self._stopping = False
        self.done = 0

    async def work(self, number: int) -> None:
        """One client's calls."""
        a, b = float(number), 0.0
        add = self._clients[number].add
        while not self._stopping:
            b += 1.0
            answer = await add(a, b)
            if answer != a + b:
                raise WrongAnswer(f"add({a}, {b}) gave {answer!r}")
            self.done += 1

    def stop(self) -> None:
        """Let each client end with its present call."""
        self._stopping = True

    async def rate(self, seconds: float) -> float:
        """Calls a second of all of them, from now on."""
        started, before = perf_counter(), self.done
        await asyncio.sleep(seconds)
        return (self.done - before) / (perf_counter() - started)


async def watch(
    connect: Callable[[], AbstractAsyncContextManager[Any]], host: str, port: int, load: Load
) -> Findings:
    """Count the neighbours' calls without the slow reader, then with it."""
    length = load.seconds * FLOOD_FACTOR
    total = min(FLOOD_TOTAL, int(FLOOD_RATE * length))
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect()) for _ in range(load.in_flight)]
        neighbours = Neighbours(clients)
        async with asyncio.TaskGroup() as group:
            for number in range(len(clients)):
                group.create_task(neighbours.work(number))
            await asyncio.sleep(load.warm_up)
            alone = await neighbours.rate(load.seconds)
            before = resident(load.server_pid)
            looks = [before]
            looking = group.create_task(look(load.server_pid, looks))
            with ask_and_never_read(host, port, total, total / FLOOD_RATE):
                beside = await neighbours.rate(length)
                offered = await clients[0].offered()
            looking.cancel()
            neighbours.stop()
    if not offered:
        raise WrongAnswer("the server has offered nothing to the slow reader")
    notes = [
        f"{total / MIB:,.0f} MiB were offered, of which {offered / total:.0%} did not make the producer wait"
    ]
    found = {"memory": max(looks) - before, "alone": alone, "beside": beside, "kept": beside / alone}
    return Findings(found, notes)


async def look(pid: int, looks: list[int]) -> None:
    """Read a process's memory all the time."""
    while True:
        looks.append(resident(pid))
        await asyncio.sleep(LOOK_EVERY)


@contextmanager
def ask_and_never_read(host: str, port: int, total: int, seconds: float) -> Iterator[None]:
    """Connect, ask for the stream as any client would, and never read."""
    hello = [2, "helianthus.hello", [{"version": 1, "credit": 2**31}]]
    request = [0, 1, "calculator.flood", [total, seconds], {"stream": 1}]
    with socket.create_connection((host, port)) as sock:
        sock.sendall(msgpack.packb(hello) + msgpack.packb(request))
        yield
