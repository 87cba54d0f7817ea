"""Who is measured, with which programs, and who cannot be measured here."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

import attrs

from benchmarks.cases import Case, EchoCase, Family, RpcCase
from benchmarks.native import NotCompiled, compile_program

ECHO = "benchmarks.contestants.echo"
RPC = "benchmarks.contestants.rpc"


@attrs.frozen
class Contestant:
    """One server, and in the RPC family its client.

    Attributes:
        program: A module with its arguments, or the name of a C program.
        needs: Packages that must be importable.
        native: Whether the program is in C.
        linux: Whether it runs nowhere else.
        ours: Whether this is Helianthus, which the others are compared with.
    """

    name: str
    family: Family
    program: Sequence[str]
    needs: Sequence[str] = ()
    native: bool = False
    linux: bool = False
    ours: bool = False


def _helianthus(family: Family, module: str, driver: str) -> Contestant:
    program = (module, "--driver", driver)
    return Contestant(f"Helianthus {driver}", family, program, linux=driver == "epoll", ours=True)


CONTESTANTS: Sequence[Contestant] = (
    Contestant("asyncio Protocol", Family.ECHO, (f"{ECHO}.asyncio_protocol", "--loop", "asyncio")),
    Contestant("uvloop Protocol", Family.ECHO, (f"{ECHO}.asyncio_protocol", "--loop", "uvloop"), ("uvloop",)),
    Contestant("C epoll (the limit)", Family.ECHO, ("echo_epoll",), native=True, linux=True),
    _helianthus(Family.ECHO, f"{ECHO}.helianthus_machine", "epoll"),
    _helianthus(Family.ECHO, f"{ECHO}.helianthus_machine", "asyncio"),
    Contestant("grpc.aio", Family.RPC, (f"{RPC}.grpc_aio",), ("grpc", "uvloop")),
    Contestant("pyzmq", Family.RPC, (f"{RPC}.pyzmq_router",), ("zmq", "msgpack")),
    Contestant("pyzmq asyncio", Family.RPC, (f"{RPC}.pyzmq_asyncio",), ("zmq", "msgpack", "uvloop")),
    Contestant("floor", Family.RPC, (f"{RPC}.floor",), ("msgpack", "uvloop")),
    _helianthus(Family.RPC, f"{RPC}.helianthus_service", "epoll"),
    _helianthus(Family.RPC, f"{RPC}.helianthus_service", "asyncio"),
)


@attrs.frozen
class Times:
    """Of one measurement, in seconds.

    Attributes:
        warm_up: How long the load runs before it counts.
        measured: How long it counts.
        lifetime: After which the processes end themselves, should nobody else end them.
    """

    warm_up: float
    measured: float
    lifetime: int


@attrs.frozen
class Ready:
    """A contestant that can be measured here: the command lines of its programs."""

    contestant: Contestant
    server: Sequence[str]
    client: Sequence[str]

    def server_command(self, lifetime: int) -> list[str]:
        """Runs the server for at most `lifetime` seconds."""
        return [*self.server, "--lifetime", str(lifetime)]

    def client_command(self, case: Case, address: str, times: Times) -> list[str]:
        """Loads the server at `address` with a case."""
        length = (str(times.warm_up), str(times.measured))
        match case:
            case EchoCase():
                shape = [str(case.connections), str(case.size), str(case.depth)]
                return [*self.client, address, *shape, *length]
            case RpcCase():
                shape = [str(case.in_flight)]
                return [*self.client, address, *shape, *length, "--lifetime", str(times.lifetime)]


@attrs.frozen
class Skipped:
    """A contestant that cannot be measured here, and why."""

    contestant: Contestant
    reason: str


def prepare(families: Sequence[Family], directory: Path) -> list[Ready | Skipped]:
    """Find out who can be measured, and compile the C programs into `directory`.

    Raises:
        NotCompiled: The load client of the echo family could not be had.
    """
    load = compile_program("echo_load", directory) if Family.ECHO in families else None
    return [
        _prepare(contestant, load, directory) for contestant in CONTESTANTS if contestant.family in families
    ]


def _prepare(contestant: Contestant, load: Path | None, directory: Path) -> Ready | Skipped:
    if contestant.linux and not sys.platform.startswith("linux"):
        return Skipped(contestant, "epoll is Linux's")
    missing = [package for package in contestant.needs if importlib.util.find_spec(package) is None]
    if missing:
        what = " and ".join(missing)
        return Skipped(contestant, f"{what} not installed: pip install 'helianthus[bench]'")
    if contestant.native:
        try:
            program = [str(compile_program(contestant.program[0], directory))]
        except NotCompiled as reason:
            return Skipped(contestant, str(reason))
    else:
        program = [sys.executable, "-m", *contestant.program]
    if contestant.family is Family.ECHO:
        return Ready(contestant, program, [str(load)])
    return Ready(contestant, [*program, "server"], [*program, "client"])
