"""The command line of every RPC contestant's program, and what it prints."""

from __future__ import annotations

import argparse
import json
import os
import sys

import attrs

from benchmarks.cases import Work
from benchmarks.contestants.serving import allow_many_files, bound_lifetime


class WrongAnswer(Exception):
    """A reply was not what had to come."""


@attrs.frozen
class Load:
    """What to do, how hard and how long.

    Attributes:
        in_flight: Calls under way at once.
        connections: How many to open, where the work is to hold connections.
        warm_up: Seconds before it counts.
        seconds: For which it counts.
        server_pid: The server's process, whose memory and time are looked at.
    """

    work: Work
    in_flight: int
    connections: int
    warm_up: float
    seconds: float
    server_pid: int


@attrs.frozen
class Outcome:
    """How many checked answers or items came within how many seconds."""

    count: int
    seconds: float


@attrs.frozen
class Findings:
    """Several figures by the keys of their measures, and what the reader has to know of them."""

    values: dict[str, float]
    notes: list[str]


def report(outcome: Outcome | Findings) -> None:
    """Tell whoever started this process."""
    print(json.dumps(attrs.asdict(outcome)), flush=True)


def report_and_end(findings: Findings) -> None:
    """The same, and leave the closing of ten thousand connections to the system."""
    report(findings)
    sys.stderr.flush()
    os._exit(0)


@attrs.frozen
class Role:
    """What a contestant's program is to be: a server, or a client of the one at `host` and `port`."""

    load: Load | None
    host: str
    port: int
    options: argparse.Namespace


def parse_role(parser: argparse.ArgumentParser) -> Role:
    """Read the command line every RPC contestant has, and bound this process's life."""
    roles = parser.add_subparsers(dest="role", required=True)
    server = roles.add_parser("server")
    client = roles.add_parser("client")
    client.add_argument("address")
    client.add_argument("work", type=Work)
    client.add_argument("in_flight", type=int)
    client.add_argument("connections", type=int)
    client.add_argument("warm_up", type=float)
    client.add_argument("seconds", type=float)
    client.add_argument("--server-pid", type=int, required=True)
    for role in (server, client):
        role.add_argument("--lifetime", type=int, required=True)
    options = parser.parse_args()
    bound_lifetime(options.lifetime)
    allow_many_files()
    if options.role == "server":
        return Role(None, "", 0, options)
    host, _, port = options.address.rpartition(":")
    load = Load(
        options.work,
        options.in_flight,
        options.connections,
        options.warm_up,
        options.seconds,
        options.server_pid,
    )
    return Role(load, host, int(port), options)
