"""The deterministic simulator: many nodes, a network with faults and a virtual clock, from a seed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any, TypeVar

from .chaos import Chaos
from .driver import SimDriver
from .errors import BusyLoop, NodeCrashed, NodeDown, NotSimulated, SimulationError, Stalled
from .loop import SimLoop
from .node import Node, Spawned
from .path import LinkSettings
from .world import World

T = TypeVar("T")

__all__ = [
    "BusyLoop",
    "Chaos",
    "LinkSettings",
    "Node",
    "NodeCrashed",
    "NodeDown",
    "NotSimulated",
    "SimDriver",
    "SimLoop",
    "SimulationError",
    "Spawned",
    "Stalled",
    "World",
    "new_driver",
    "new_loop",
    "run_in_simulation",
]


def new_driver(seed: int | str = 0, rng: random.Random | None = None, **settings: Any) -> SimDriver:
    """Make a world of one node, `localhost`, and give its driver, which turns the world.

    `poll(timeout)` advances the virtual clock to the next thing to do, by at most the timeout.
    Exceptions that callbacks let out are logged, as by the other drivers.

    Args:
        seed: What the world draws from.
        rng: Seeds the machines instead of one that the world's seed makes.
        settings: What the node's link to itself is like; see `LinkSettings`.
    """
    world = World(seed)
    driver = world.node("localhost").driver
    driver.stand_alone(world.close)
    if settings:
        world.link("localhost", "localhost", **settings)
    if rng is not None:
        driver.rng = rng
    return driver


def new_loop(seed: int | str = 0) -> SimLoop:
    """Make a world of one node and give its asyncio loop, which runs the world; for `asyncio.Runner`."""
    return new_driver(seed).loop


def run_in_simulation(main: Coroutine[Any, Any, T], seed: int | str = 0, *, debug: bool | None = None) -> T:
    """Run a coroutine as `asyncio.run` does, on a virtual clock and with a simulated network.

    Args:
        main: The coroutine; it finds its own listeners at `localhost`.
        seed: What the world draws from.
        debug: As for `asyncio.run`.

    Returns:
        What the coroutine returned.

    Raises:
        Stalled: The coroutine waits for something that cannot happen any more.
        RuntimeError: A loop is running already.
    """
    if _inside_a_loop():
        main.close()
        raise RuntimeError("run_in_simulation() cannot be called from a running event loop")
    with asyncio.Runner(debug=debug, loop_factory=lambda: new_loop(seed)) as runner:
        return runner.run(main)


def _inside_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
