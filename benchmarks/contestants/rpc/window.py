"""The load of clients without an awaitable call: a window of requests, the next for each answer.

There are no workers here, since there is nothing to wait for but the next answer.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from benchmarks.contestants.rpc.program import Load, Outcome


def keep_full(load: Load, ask: Callable[[], None], take: Callable[[], None]) -> Outcome:
    """Keep `load.in_flight` requests under way.

    Args:
        load: How many and how long.
        ask: Sends a request.
        take: Waits for an answer and checks it.
    """

    def take_until(moment: float) -> tuple[int, float]:
        done = 0
        while (now := perf_counter()) < moment:
            take()
            ask()
            done += 1
        return done, now

    for _ in range(load.in_flight):
        ask()
    _, started = take_until(perf_counter() + load.warm_up)
    done, ended = take_until(started + load.seconds)
    return Outcome(done, ended - started)
