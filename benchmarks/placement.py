"""Which cores the processes of a measurement run on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from benchmarks.cases import Placement

CAN_PIN = hasattr(os, "sched_setaffinity")


@attrs.frozen
class Cores:
    """The core a server is pinned to and the core its client is; None leaves it to the scheduler."""

    server: int | None
    client: int | None


def place(placement: Placement, pin: bool) -> Cores | str:
    """The cores for a placement, or the reason why it cannot be had here.

    One core always means pinned; two cores are pinned where `pin` asks for it.
    """
    if not CAN_PIN:
        if placement is Placement.ONE_CORE:
            return "this system cannot pin a process to a core"
        return Cores(None, None) if not pin else "this system cannot pin; try --no-pin"
    usable = sorted(os.sched_getaffinity(0))
    if placement is Placement.ONE_CORE:
        return Cores(usable[0], usable[0])
    if not pin:
        return Cores(None, None)
    others = [core for core in usable if core not in _hardware_threads(usable[0])]
    if not others:
        return "only one core is usable; try --no-pin"
    return Cores(usable[0], others[0])


@contextmanager
def running_on(core: int | None) -> Iterator[None]:
    """Pin this thread while the block runs, so that the processes it starts are pinned."""
    if core is None:
        yield
        return
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, usable)


def _hardware_threads(core: int) -> set[int]:
    """The numbers that share one physical core with `core`, itself among them."""
    path = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    try:
        ranges = path.read_text().strip().split(",")
    except OSError:
        return {core}
    threads: set[int] = set()
    for text in ranges:
        first, _, last = text.partition("-")
        threads.update(range(int(first), int(last or first) + 1))
    return threads
