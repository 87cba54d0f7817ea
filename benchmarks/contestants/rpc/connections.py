"""Ten thousand connections: what each takes of the server's memory, idle and busy.

A few connections come first, so that what the server needs only once is not counted. Each
connection has made one checked call, so that both ends have really taken it up, before the memory
of the server's process is read again. Then all are idle, and the processor time of the server is
read before and after; then a call is in flight on each.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from time import perf_counter
from typing import Protocol

import attrs

from benchmarks.contestants.rpc.program import Findings, Load, WrongAnswer
from benchmarks.contestants.serving import files_allowed

FIRST = 8
"""Connections that are opened before the first look."""

OPENING = 64
"""Connections that are being opened at once."""

SPARE_FILES = 100
"""Files of either process that are no connections."""

IDLE_FACTOR = 3
"""How long connections are idle, as a multiple of the time measured."""


@attrs.frozen
class Room:
    """How many connections a contestant's client can have.

    Attributes:
        files_each: Descriptors that each takes in the client.
        most: Beyond which the library fails.
        why: What happens then.
    """

    files_each: int = 1
    most: int | None = None
    why: str = ""

    def of(self, wanted: int) -> tuple[int, list[str]]:
        """How many to open, and what to say where that is fewer than wanted."""
        limit = files_allowed()
        if self.most is not None and self.most < wanted:
            return self.most, [f"{self.most:,} connections: {self.why}"]
        if limit is None or wanted * self.files_each + SPARE_FILES <= limit:
            return wanted, []
        number = (limit - SPARE_FILES) // self.files_each
        return number, [
            f"{number:,} connections: {limit:,} open files are allowed, and each takes {self.files_each}"
        ]


class Adder(Protocol):
    """As much of a client as is needed here."""

    async def add(self, a: float, b: float, /) -> float:
        """The sum."""


async def hold(connect: Callable[[], AbstractAsyncContextManager[Adder]], load: Load, room: Room) -> Findings:
    """Open the connections, leave them idle, use them all at once."""
    number, notes = room.of(load.connections)
    pid = load.server_pid
    async with AsyncExitStack() as stack:
        await open_clients(stack, connect, FIRST)
        before = resident(pid)
        clients = await open_clients(stack, connect, number)
        memory = (resident(pid) - before) / number
        await asyncio.sleep(load.warm_up)
        used, started = processor_time(pid), perf_counter()
        await asyncio.sleep(load.seconds * IDLE_FACTOR)
        idle = (processor_time(pid) - used) / (perf_counter() - started)
        active = await use(clients, load)
        stack.pop_all()  # the end of the process closes them
    return Findings({"memory": memory, "idle": idle, "active": active}, notes)


async def open_clients(
    stack: AsyncExitStack, connect: Callable[[], AbstractAsyncContextManager[Adder]], number: int
) -> list[Adder]:
    """Open so many, a few at a time, and make one call on each."""
    clients: list[Adder] = []
    numbers = iter(range(number))

    async def opener() -> None:
        for n in numbers:
            client = await stack.enter_async_context(connect())
            await _add(client, float(n), 1.0)
            clients.append(client)

    async with asyncio.TaskGroup() as group:
        for _ in range(OPENING):
            group.create_task(opener())
    return clients


async def use(clients: Sequence[Adder], load: Load) -> float:
    """Have a call in flight on each; gives the calls per second of all."""
    done = 0
    stopping = False

    async def work(client: Adder, a: float) -> None:
        nonlocal done
        b = 0.0
        while not stopping:
            b += 1.0
            await _add(client, a, b)
            done += 1

    async with asyncio.TaskGroup() as group:
        for number, client in enumerate(clients):
            group.create_task(work(client, float(number)))
        while done < len(clients):  # the first round of all is the warm-up
            await asyncio.sleep(load.warm_up)
        started, before = perf_counter(), done
        await asyncio.sleep(load.seconds)
        while done < before + len(clients):  # a round of all at least
            await asyncio.sleep(load.warm_up)
        ended, after = perf_counter(), done
        stopping = True
    return (after - before) / (ended - started)


async def _add(client: Adder, a: float, b: float) -> None:
    answer = await client.add(a, b)
    if answer != a + b:
        raise WrongAnswer(f"add({a}, {b}) gave {answer!r}")


def resident(pid: int) -> int:
    """Bytes of a process that are in memory (Linux: /proc/PID/statm)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def processor_time(pid: int) -> float:
    """Seconds that a process's threads have run (Linux: /proc/PID/task/TID/schedstat, in ns)."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9
