"""The deterministic simulator.

    from helianthus.sim import World

    with World(seed=7) as world:
        world.node("a").spawn(serve)
        world.node("b").spawn(call("tcp://a:7070"))
        world.run(until=1.0)
        world.partition("a", "b")
        world.run(until=4.0)
        world.heal()
        world.run(until=30.0)

The same seed and the same calls do the same, every time and everywhere; `world.digest()` tells.
"""

from __future__ import annotations

from .drivers.sim import (
    BusyLoop,
    Chaos,
    LinkSettings,
    Node,
    NodeCrashed,
    NodeDown,
    NotSimulated,
    SimulationError,
    Spawned,
    Stalled,
    World,
    run_in_simulation,
)

__all__ = [
    "BusyLoop",
    "Chaos",
    "LinkSettings",
    "Node",
    "NodeCrashed",
    "NodeDown",
    "NotSimulated",
    "SimulationError",
    "Spawned",
    "Stalled",
    "World",
    "run_in_simulation",
]
