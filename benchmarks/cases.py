"""What is measured: the cases of the two families."""

from __future__ import annotations

import enum
from collections.abc import Sequence

import attrs


class Family(enum.Enum):
    """A kind of work with its own contestants and load client."""

    ECHO = "echo"
    RPC = "rpc"


class Placement(enum.Enum):
    """Which cores the server and the client of one measurement run on."""

    TWO_CORES = "two cores"
    ONE_CORE = "one core"


@attrs.frozen
class EchoCase:
    """Messages that come back unchanged over TCP.

    Attributes:
        connections: How many, all opened by one client.
        size: Bytes of a message.
        depth: Messages under way on each connection.
    """

    name: str
    connections: int
    size: int
    depth: int
    placement: Placement
    family: Family = Family.ECHO
    unit: str = "messages/s"


@attrs.frozen
class RpcCase:
    """Calls of `add(a, b)` from one client process to one server process.

    Attributes:
        in_flight: Calls under way: so many workers, each waiting for its answer before its next call.
    """

    name: str
    in_flight: int
    placement: Placement
    family: Family = Family.RPC
    unit: str = "calls/s"


Case = EchoCase | RpcCase

ECHO_CASES: Sequence[EchoCase] = (
    EchoCase("64 B, one at a time", 1, 64, 1, Placement.ONE_CORE),
    EchoCase("64 B, one at a time", 1, 64, 1, Placement.TWO_CORES),
    EchoCase("1 KiB on 50 connections", 50, 1024, 1, Placement.TWO_CORES),
    EchoCase("64 KiB on 4 connections, 4 deep", 4, 64 * 1024, 4, Placement.TWO_CORES),
)

RPC_CASES: Sequence[RpcCase] = tuple(
    RpcCase(name, in_flight, placement)
    for placement in (Placement.ONE_CORE, Placement.TWO_CORES)
    for name, in_flight in (("one at a time", 1), ("64 in flight", 64), ("1,000 in flight", 1000))
)


def cases_of(families: Sequence[Family]) -> list[Case]:
    """All cases of these families, in the order they are shown."""
    every: tuple[Case, ...] = (*ECHO_CASES, *RPC_CASES)
    return [case for case in every if case.family in families]
