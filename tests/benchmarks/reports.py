"""A report as a run would leave it, with made-up numbers."""

from __future__ import annotations

from benchmarks.cases import Case, Family, Measure, Placement, RpcCase, Work
from benchmarks.environment import Environment
from benchmarks.report import Report
from benchmarks.rounds import Series

RATE = Measure("calls/s")
MEMORY = Measure("KiB", "memory", "memory", less_is_better=True)
IDLE = Measure("% of a core", "idle", "idle", less_is_better=True, compared=False)
CALLS = RpcCase("64 in flight", Work.ADD, 64, Placement.ONE_CORE, Family.RPC, (RATE,))
MANY = RpcCase(
    "10 connections", Work.CONNECTIONS, 1, Placement.TWO_CORES, Family.CONNECTIONS, (MEMORY, IDLE), 10
)


def series(case: Case, measure: Measure, name: str, *samples: float, ours: bool = False) -> Series:
    return Series(case, measure, name, ours, list(samples))


def report() -> Report:
    environment = Environment(
        "CPU <fast & cool>", 2, "Linux", "6.1", "CPython 3.11", "cc", 0.5, {"helianthus": "0.1"}
    )
    found = [
        series(CALLS, RATE, 'peer <"a" & b>', 1000.0, 3000.0, 2000.0),
        series(CALLS, RATE, "Helianthus", 2000.0, 9000.0, 8000.0, ours=True),
        series(MANY, MEMORY, "peer", 20.0, 20.0, 20.0),
        series(MANY, MEMORY, "Helianthus", 10.0, 5.0, 5.0, ours=True),
        series(MANY, IDLE, "peer", 0.0, 0.0, 0.0),
        series(MANY, IDLE, "Helianthus", 0.0, 0.0, 0.0, ours=True),
    ]
    found[2].notes.append("8 connections: no more files")
    return Report(environment, 3, 1.0, True, found, [("grpc.aio", "not installed")])
