"""What goes wrong in a simulation itself, as opposed to in what it simulates."""

from __future__ import annotations


class SimulationError(RuntimeError):
    """A simulation cannot go on as it was asked to."""


class Stalled(SimulationError):
    """Nothing is left to do, and what was waited for has not happened: a deadlock."""


class BusyLoop(SimulationError):
    """A node never came to rest at one instant of virtual time."""


class NodeDown(SimulationError):
    """The node has crashed and was not restarted."""


class NodeCrashed(SimulationError):
    """The task ended unfinished, because its node crashed."""


class NotSimulated(SimulationError):
    """The program asked asyncio for something that only the real world has."""
