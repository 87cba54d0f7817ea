"""Runs a load test: callers that take one call after the other from its plan."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ..protocols.rpc import StatusCode
from ..protocols.rpc.load import Load
from ..services.rpc import RpcError

PAUSE = 0.01
"""Seconds that a caller waits after it found no connection: such a call fails at once."""

SPIN = 0.0015
"""Seconds before a call during which its caller only lets others run, where timers wake it too late:
those of epoll count in milliseconds."""


async def run_load(
    load: Load,
    calls: Sequence[Callable[[], Awaitable[object]]],
    stop: asyncio.Event,
    *,
    now: Callable[[], float] = time.monotonic,
    spin: float = SPIN,
) -> None:
    """Make calls until the plan's end, and wait for theirs.

    Args:
        load: The plan.
        calls: One for each caller: makes a call.
        stop: Ends it early; calls that are under way then are cancelled.
        now: The plan's clock. Not the loop's, where a loop is real: uvloop's counts in milliseconds.
        spin: As `SPIN`; 0 on a virtual clock, which waits for those who wait.
    """
    callers = [asyncio.create_task(_caller(load, call, now, spin)) for call in calls]
    working = asyncio.gather(*callers)
    stopping = asyncio.create_task(stop.wait())
    either: list[asyncio.Future[Any]] = [working, stopping]
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()  # raises what was no answer
        else:
            load.stop(now())
    finally:
        for task in (stopping, *callers):
            task.cancel()
        await asyncio.gather(*callers, working, return_exceptions=True)


async def _caller(
    load: Load, call: Callable[[], Awaitable[object]], now: Callable[[], float], spin: float
) -> None:
    while (intended := load.claim(now())) is not None:
        if intended > now():
            await _sleep_until(intended, now, spin)
        load.began(intended, now())
        try:
            await call()
        except RpcError as error:
            load.ended(intended, now(), error.code)
            await asyncio.sleep(PAUSE if error.code is StatusCode.UNAVAILABLE and load.rate is None else 0)
        else:
            load.ended(intended, now(), StatusCode.OK)


async def _sleep_until(when: float, now: Callable[[], float], spin: float) -> None:
    early = when - now() - spin
    if early > 0 or not spin:
        await asyncio.sleep(early)
    while spin and now() < when:
        await asyncio.sleep(0)
