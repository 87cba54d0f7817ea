"""What is measured: the cases of each family, and the figures that a case gives."""

from __future__ import annotations

import enum
from collections.abc import Sequence

import attrs


class Family(enum.Enum):
    """A kind of work with its own contestants."""

    ECHO = "echo"
    DATAGRAMS = "datagrams"
    RPC = "rpc"
    STREAMS = "streams"
    PAYLOADS = "payloads"
    CONNECTIONS = "connections"
    MIDDLEWARE = "middleware"
    TLS = "tls"
    SOCKETS = "sockets"
    SLOW_READER = "slow-reader"


class Placement(enum.Enum):
    """Which cores the server and the client of one measurement run on."""

    TWO_CORES = "two cores"
    ONE_CORE = "one core"


class Work(enum.Enum):
    """What a client of the RPC contestants does."""

    ADD = "add"
    MIRROR = "mirror"
    COUNT = "count"
    TOTAL = "total"
    ECHO_ITEMS = "echo-items"
    CONNECTIONS = "connections"
    SLOW_READER = "slow-reader"


@attrs.frozen
class Measure:
    """One figure of a case.

    Attributes:
        key: Its name in what the client prints.
        name: What it says, where a case has several figures; else empty.
        less_is_better: Ratios say how many times better ours is, either way.
        compared: Whether a ratio says anything.
        scale: What the client's number is multiplied with to have the unit.
    """

    unit: str
    key: str = "rate"
    name: str = ""
    less_is_better: bool = False
    compared: bool = True
    scale: float = 1.0


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
    measures: Sequence[Measure] = (Measure("messages/s"),)
    spare: int = 30


@attrs.frozen
class DatagramCase:
    """Datagrams that come back unchanged over UDP.

    Attributes:
        size: Bytes of a datagram.
        in_flight: Datagrams under way; each that comes back is followed by the next.
    """

    name: str
    size: int
    in_flight: int
    placement: Placement
    family: Family = Family.DATAGRAMS
    measures: Sequence[Measure] = (Measure("datagrams/s"),)
    spare: int = 30


@attrs.frozen
class RpcCase:
    """Calls from one client process to one server process.

    Attributes:
        in_flight: Calls under way: so many workers, each waiting for its answer before its next call.
        connections: How many, where there is not just one.
        spare: Seconds that it may take beyond its own time: starting, connecting, ending.
    """

    name: str
    work: Work
    in_flight: int
    placement: Placement
    family: Family
    measures: Sequence[Measure]
    connections: int = 1
    spare: int = 30


@attrs.frozen
class TlsCase:
    """An echo over TLS, or connections that are made one after the other.

    Attributes:
        work: As the client's program calls it.
        connections: How many at once.
        size: Bytes of a message.
        depth: Messages under way on each connection.
    """

    name: str
    work: str
    placement: Placement
    measures: Sequence[Measure]
    connections: int = 1
    size: int = 1
    depth: int = 1
    family: Family = Family.TLS
    spare: int = 30


class SocketWork(enum.Enum):
    """What a client of the contestants with sockets does."""

    ECHO = "echo"
    ONE_WAY = "one-way"


@attrs.frozen
class SocketCase:
    """Bytes over one connection, through sockets that are awaited, by the same library at both ends.

    Attributes:
        size: Bytes that are sent at once.
        spare: As of `RpcCase`.
    """

    name: str
    work: SocketWork
    size: int
    placement: Placement
    measures: Sequence[Measure]
    family: Family = Family.SOCKETS
    spare: int = 30


Case = EchoCase | DatagramCase | RpcCase | TlsCase | SocketCase

PAYLOAD = 64 * 1024
"""Bytes of a large payload."""

CONNECTIONS = 10_000

CALLS = (Measure("calls/s"),)
ITEMS = (Measure("items/s"),)
MEGABYTES = (Measure("MB/s", scale=PAYLOAD / 1e6),)
OF_CONNECTIONS = (
    Measure("KiB", "memory", "memory of the server for each", less_is_better=True, scale=1 / 1024),
    Measure("% of a core", "idle", "idle", less_is_better=True, compared=False, scale=100.0),
    Measure("calls/s", "active", "one call in flight on each"),
)

FLOOD_TOTAL = 1024**3
"""Bytes that are offered to a peer that never reads."""

FLOOD_RATE = 256 * 1024**2
"""Bytes a second of that; to make them takes a server a sixth of a core."""

OF_SLOW_READER = (
    Measure("MiB", "memory", "memory", less_is_better=True, compared=False, scale=1 / 1024**2),
    Measure("calls/s", "alone", "neighbours alone", compared=False),
    Measure("calls/s", "beside", "neighbours beside", compared=False),
    Measure("%", "kept", "neighbours keep", compared=False, scale=100.0),
)

ECHO_CASES: Sequence[EchoCase] = (
    EchoCase("64 B, one at a time", 1, 64, 1, Placement.ONE_CORE),
    EchoCase("64 B, one at a time", 1, 64, 1, Placement.TWO_CORES),
    EchoCase("1 KiB on 50 connections", 50, 1024, 1, Placement.TWO_CORES),
    EchoCase("64 KiB on 4 connections, 4 deep", 4, 64 * 1024, 4, Placement.TWO_CORES),
)

DATAGRAM_CASES: Sequence[DatagramCase] = tuple(
    DatagramCase(f"{size:,} B, {name}", size, in_flight, placement)
    for placement in (Placement.ONE_CORE, Placement.TWO_CORES)
    for size in (64, 1200)
    for name, in_flight in (("one at a time", 1), ("64 in flight", 64))
)

RPC_CASES: Sequence[RpcCase] = tuple(
    RpcCase(name, Work.ADD, in_flight, placement, Family.RPC, CALLS)
    for placement in (Placement.ONE_CORE, Placement.TWO_CORES)
    for name, in_flight in (("one at a time", 1), ("64 in flight", 64), ("1,000 in flight", 1000))
)

STREAM_CASES: Sequence[RpcCase] = tuple(
    RpcCase(name, work, 1, Placement.TWO_CORES, Family.STREAMS, ITEMS)
    for name, work in (
        ("from the server", Work.COUNT),
        ("from the client", Work.TOTAL),
        ("both ways", Work.ECHO_ITEMS),
    )
)

PAYLOAD_CASES: Sequence[RpcCase] = (
    RpcCase("64 KiB, 8 in flight", Work.MIRROR, 8, Placement.TWO_CORES, Family.PAYLOADS, MEGABYTES),
)

TLS_CASES: Sequence[TlsCase] = (
    TlsCase("64 KiB on 4 connections, 4 deep", "echo", Placement.TWO_CORES, MEGABYTES, 4, PAYLOAD, 4),
    TlsCase("64 KiB on 4 connections, 4 deep", "echo", Placement.ONE_CORE, MEGABYTES, 4, PAYLOAD, 4),
    TlsCase("64 B, one at a time", "echo", Placement.ONE_CORE, (Measure("messages/s"),), 1, 64, 1),
    TlsCase("full handshakes", "handshakes", Placement.ONE_CORE, (Measure("connections/s"),)),
    TlsCase("resumed handshakes", "resumed", Placement.ONE_CORE, (Measure("connections/s"),)),
)

MIDDLEWARE_CASES: Sequence[RpcCase] = tuple(
    RpcCase(name, Work.ADD, in_flight, Placement.ONE_CORE, Family.MIDDLEWARE, CALLS)
    for name, in_flight in (("one at a time", 1), ("64 in flight", 64))
)

SOCKET_CASES: Sequence[SocketCase] = tuple(
    case
    for placement in (Placement.ONE_CORE, Placement.TWO_CORES)
    for case in (
        SocketCase("64 B there and back", SocketWork.ECHO, 64, placement, (Measure("messages/s"),)),
        SocketCase("64 KiB one way", SocketWork.ONE_WAY, PAYLOAD, placement, MEGABYTES),
    )
)


SLOW_READER_CASES: Sequence[RpcCase] = (
    RpcCase(
        "1 GiB never read",
        Work.SLOW_READER,
        10,
        Placement.TWO_CORES,
        Family.SLOW_READER,
        OF_SLOW_READER,
        spare=90,
    ),
)


def cases_of(families: Sequence[Family], connections: int = CONNECTIONS) -> list[Case]:
    """All cases of these families, in the order they are shown.

    Args:
        families: Which.
        connections: How many the case of many connections opens.
    """
    many = RpcCase(
        f"{connections:,} connections",
        Work.CONNECTIONS,
        1,
        Placement.TWO_CORES,
        Family.CONNECTIONS,
        OF_CONNECTIONS,
        connections=connections,
        spare=180,
    )
    every: tuple[Case, ...] = (
        *ECHO_CASES,
        *DATAGRAM_CASES,
        *RPC_CASES,
        *STREAM_CASES,
        *PAYLOAD_CASES,
        many,
        *MIDDLEWARE_CASES,
        *TLS_CASES,
        *SOCKET_CASES,
        *SLOW_READER_CASES,
    )
    return [case for case in every if case.family in families]
