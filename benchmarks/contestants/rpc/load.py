"""The load of the RPC family: workers that call `add` and compare every answer.

The same for all contestants with an awaitable call; the arithmetic is exact in doubles, so an answer
is either equal or wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Awaitable, Callable
from time import perf_counter

import attrs

from benchmarks.contestants.serving import bound_lifetime

Call = Callable[[float, float], Awaitable[float]]


class WrongAnswer(Exception):
    """A reply was not the sum of what was sent."""


@attrs.frozen
class Load:
    """How hard and how long to call; `warm_up` and `seconds` in seconds."""

    in_flight: int
    warm_up: float
    seconds: float


@attrs.frozen
class Outcome:
    """How many checked answers came within how many seconds."""

    count: int
    seconds: float


async def run(call: Call, load: Load) -> Outcome:
    """Call from `load.in_flight` workers at once, each waiting for its answer before its next call."""
    done = 0
    stopping = False

    async def work(a: float) -> None:
        nonlocal done
        b = 0.0
        while not stopping:
            b += 1.0
            answer = await call(a, b)
            if answer != a + b:
                raise WrongAnswer(f"add({a}, {b}) gave {answer!r}")
            done += 1

    async with asyncio.TaskGroup() as workers:
        for number in range(load.in_flight):
            workers.create_task(work(float(number)))
        await asyncio.sleep(load.warm_up)
        started, before = perf_counter(), done
        await asyncio.sleep(load.seconds)
        ended, after = perf_counter(), done
        stopping = True
    return Outcome(after - before, ended - started)


def report(outcome: Outcome) -> None:
    """Tell whoever started this process."""
    print(json.dumps(attrs.asdict(outcome)), flush=True)


@attrs.frozen
class Role:
    """What a contestant's program is to be: a server, or a client of the one at `host` and `port`."""

    load: Load | None
    host: str
    port: int
    options: argparse.Namespace


def parse_role(parser: argparse.ArgumentParser) -> Role:
    """Read the command line every RPC contestant has, and bound this process's life."""
    roles = parser.add_subparsers(dest="role", required=True)
    server = roles.add_parser("server")
    client = roles.add_parser("client")
    client.add_argument("address")
    client.add_argument("in_flight", type=int)
    client.add_argument("warm_up", type=float)
    client.add_argument("seconds", type=float)
    for role in (server, client):
        role.add_argument("--lifetime", type=int, required=True)
    options = parser.parse_args()
    bound_lifetime(options.lifetime)
    if options.role == "server":
        return Role(None, "", 0, options)
    host, _, port = options.address.rpartition(":")
    return Role(Load(options.in_flight, options.warm_up, options.seconds), host, int(port), options)
