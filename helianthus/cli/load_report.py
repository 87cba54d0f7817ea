"""What a load test has found, for people."""

from __future__ import annotations

from typing import Any


def report_lines(results: dict[str, Any]) -> list[str]:
    """Write the results of a load test, one thing a line."""
    callers, connections = results["concurrency"], results["connections"]
    lines = [
        f"{results['method']} at {results['url']}: {_count(callers, 'caller')} on "
        f"{_count(connections, 'connection')}, driver {results['driver']}",
        _line("calls", f"{results['calls']:,} in {time_text(results['elapsed'])}"),
        _line("throughput", f"{results['calls_per_second']:,.1f} results a second"),
        _line("latency", _percentiles(results["latency"])) if results["succeeded"] else "",
    ]
    if results["start_delay"] is not None:
        lines.append(_line("began late by", _percentiles(results["start_delay"])))
    if results["not_started"]:
        lines.append(
            _line("not started", f"{results['not_started']:,} that were to begin: no caller was free in time")
        )
    if results["unfinished"]:
        lines.append(_line("unfinished", f"{results['unfinished']:,} were under way at the end"))
    if results["errors"]:
        by_code = ", ".join(f"{code} {count:,}" for code, count in results["errors"].items())
        lines.append(_line("errors", by_code))
    return [line for line in lines if line]


def time_text(seconds: float) -> str:
    """A duration with three digits and its unit."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        value = seconds * factor
        if value >= 1 or unit == "µs":
            digits = 2 if value < 10 else 1 if value < 100 else 0
            return f"{value:,.{digits}f} {unit}"
    raise AssertionError


def _line(name: str, text: str) -> str:
    return f"  {name:<14}{text}"


def _percentiles(found: dict[str, float]) -> str:
    names = {"p50": "p50", "p99": "p99", "p999": "p99.9", "max": "max"}
    return "   ".join(f"{shown} {time_text(found[name])}" for name, shown in names.items())


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
