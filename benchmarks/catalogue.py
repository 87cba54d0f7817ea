"""Who is measured, with which programs, and who cannot be measured here."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from benchmarks.cases import Case, DatagramCase, EchoCase, Family, RpcCase, SocketCase, TlsCase
from benchmarks.children import Running
from benchmarks.native import NotCompiled, compile_program

ECHO = "benchmarks.contestants.echo"
DATAGRAMS = "benchmarks.contestants.datagrams"
RPC = "benchmarks.contestants.rpc"
TLS_LOAD = "benchmarks.contestants.tls.load"
SOCKETS = "benchmarks.contestants.sockets"


@attrs.frozen(eq=False)
class Contestant:
    """One server, and its client but for the families that a C program loads.

    Attributes:
        program: A module with its arguments, or the name of a C program.
        families: What it takes part in.
        without: What it does not take part in though its like do, and why.
        needs: Packages that must be importable.
        native: Whether the program is in C.
        linux: Whether it runs nowhere else.
        ours: Whether this is what the others are compared with.
    """

    name: str
    program: Sequence[str]
    families: Sequence[Family]
    without: Mapping[Family, str] = attrs.field(factory=dict)
    needs: Sequence[str] = ()
    native: bool = False
    linux: bool = False
    ours: bool = False


LOADS: Mapping[Family, str] = {Family.ECHO: "echo_load", Family.DATAGRAMS: "datagram_load"}
"""The families whose servers are all loaded by one C program, and its name."""

CALLS = (Family.RPC, Family.STREAMS, Family.PAYLOADS, Family.CONNECTIONS)
"""What every RPC library is asked for."""


def _peer(name: str, module: str, *needs: str, without: Mapping[Family, str] | None = None) -> Contestant:
    left_out = without or {}
    families = [family for family in CALLS if family not in left_out]
    return Contestant(name, (f"{RPC}.{module}",), families, left_out, needs)


def _echo(name: str, *program: str, needs: Sequence[str] = (), native: bool = False) -> Contestant:
    return Contestant(name, program, (Family.ECHO,), needs=needs, native=native, linux=native)


def _datagrams(name: str, *program: str, needs: Sequence[str] = ()) -> Contestant:
    return Contestant(name, program, (Family.DATAGRAMS,), needs=needs)


def _helianthus(
    families: Sequence[Family], module: str, driver: str, needs: Sequence[str] = ()
) -> Contestant:
    program = (module, "--driver", driver)
    return Contestant(
        f"Helianthus {driver}", program, families, needs=needs, linux=driver == "epoll", ours=True
    )


def _tls(
    name: str, *program: str, needs: Sequence[str] = (), linux: bool = False, ours: bool = False
) -> Contestant:
    program = (*program, "--tls")
    return Contestant(name, program, (Family.TLS,), needs=("cryptography", *needs), linux=linux, ours=ours)


def _streams(name: str, module: str, *program: str, needs: Sequence[str] = ()) -> Contestant:
    return Contestant(name, (f"{SOCKETS}.{module}", *program), (Family.SOCKETS,), needs=needs)


def _policies(name: str, *policies: str) -> Contestant:
    program = (f"{RPC}.helianthus_service", "--driver", "epoll", *_named(policies))
    return Contestant(name, program, (Family.MIDDLEWARE,), linux=True, ours=not policies)


def _grpc_policies(name: str, *policies: str) -> Contestant:
    program = (f"{RPC}.grpc_aio", *_named(policies))
    return Contestant(name, program, (Family.MIDDLEWARE,), needs=("grpc", "uvloop"))


def _named(policies: Sequence[str]) -> list[str]:
    return [option for policy in policies for option in ("--policy", policy)]


def _slow_consumer(driver: str, policy: str) -> Contestant:
    program = (f"{RPC}.helianthus_service", "--driver", driver, "--slow-consumer", policy)
    families = (Family.SLOW_READER,)
    return Contestant(f"{driver}, {policy}", program, families, linux=True, ours=policy == "block")


NO_STREAMS = "it has no streams of items"
NO_ZEROMQ_STREAMS = "ZeroMQ has messages, and no streams that end, fail or can be cancelled"

CONTESTANTS: Sequence[Contestant] = (
    _echo("asyncio Protocol", f"{ECHO}.asyncio_protocol", "--loop", "asyncio"),
    _echo("uvloop Protocol", f"{ECHO}.asyncio_protocol", "--loop", "uvloop", needs=("uvloop",)),
    _echo("C epoll (the limit)", "echo_epoll", native=True),
    _helianthus((Family.ECHO,), f"{ECHO}.helianthus_machine", "epoll"),
    _helianthus((Family.ECHO,), f"{ECHO}.helianthus_machine", "asyncio"),
    _datagrams("asyncio DatagramProtocol", f"{DATAGRAMS}.asyncio_protocol", "--loop", "asyncio"),
    _datagrams(
        "uvloop DatagramProtocol", f"{DATAGRAMS}.asyncio_protocol", "--loop", "uvloop", needs=("uvloop",)
    ),
    _helianthus((Family.DATAGRAMS,), f"{DATAGRAMS}.helianthus_machine", "epoll"),
    _helianthus((Family.DATAGRAMS,), f"{DATAGRAMS}.helianthus_machine", "asyncio"),
    _helianthus((Family.DATAGRAMS,), f"{DATAGRAMS}.helianthus_machine", "uvloop", needs=("uvloop",)),
    _peer("grpc.aio", "grpc_aio", "grpc", "uvloop"),
    _peer("grpclib", "grpclib_stub", "grpclib", "uvloop"),
    _peer("aiohttp JSON", "aiohttp_json", "aiohttp", "uvloop"),
    _peer("rpyc", "rpyc_service", "rpyc", without={Family.STREAMS: NO_STREAMS}),
    _peer(
        "thriftpy2",
        "thriftpy2_aio",
        "thriftpy2",
        "uvloop",
        without={Family.STREAMS: NO_STREAMS},
    ),
    _peer(
        "pyzmq",
        "pyzmq_router",
        "zmq",
        "msgpack",
        without={
            Family.STREAMS: NO_ZEROMQ_STREAMS,
            Family.CONNECTIONS: "its server is a ROUTER as with asyncio, measured there",
        },
    ),
    _peer(
        "pyzmq asyncio",
        "pyzmq_asyncio",
        "zmq",
        "msgpack",
        "uvloop",
        without={Family.STREAMS: NO_ZEROMQ_STREAMS},
    ),
    _peer("floor", "floor", "msgpack", "uvloop"),
    _helianthus(CALLS, f"{RPC}.helianthus_service", "epoll"),
    _helianthus(CALLS, f"{RPC}.helianthus_service", "asyncio"),
    Contestant(
        "Helianthus epoll, Unix socket",
        (f"{RPC}.helianthus_service", "--driver", "epoll", "--unix"),
        (Family.RPC,),
        dict.fromkeys(set(CALLS) - {Family.RPC}, "what the transport makes of a difference shows in calls"),
        linux=True,
    ),
    _streams("asyncio streams", "asyncio_streams", "--loop", "asyncio"),
    _streams("uvloop streams", "asyncio_streams", "--loop", "uvloop", needs=("uvloop",)),
    _streams("trio streams", "trio_streams", needs=("trio",)),
    _helianthus((Family.SOCKETS,), f"{SOCKETS}.helianthus_sockets", "epoll"),
    _helianthus((Family.SOCKETS,), f"{SOCKETS}.helianthus_sockets", "asyncio"),
    _helianthus((Family.SOCKETS,), f"{SOCKETS}.helianthus_sockets", "uvloop", needs=("uvloop",)),
    _policies("none"),
    _policies("a deadline for each call", "deadline"),
    _policies("a middleware at the server", "server"),
    _policies("a middleware at the client", "client"),
    _policies("a deadline, and a middleware at the server", "deadline", "server"),
    _policies("all of these", "deadline", "server", "client"),
    _grpc_policies("grpc.aio with none"),
    _grpc_policies("grpc.aio with a deadline, and an interceptor at the server", "deadline", "server"),
    _tls("asyncio TLS", f"{ECHO}.asyncio_protocol", "--loop", "asyncio"),
    _tls("uvloop TLS", f"{ECHO}.asyncio_protocol", "--loop", "uvloop", needs=("uvloop",)),
    _tls("Helianthus epoll TLS", f"{ECHO}.helianthus_machine", "--driver", "epoll", linux=True, ours=True),
    _tls("Helianthus asyncio TLS", f"{ECHO}.helianthus_machine", "--driver", "asyncio", ours=True),
    _slow_consumer("epoll", "block"),
    _slow_consumer("epoll", "drop-oldest"),
    _slow_consumer("asyncio", "block"),
    _slow_consumer("asyncio", "drop-oldest"),
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

    def client_command(self, case: Case, server: Running, times: Times) -> list[str]:
        """Loads a server with a case."""
        length = (str(times.warm_up), str(times.measured))
        match case:
            case EchoCase():
                shape = [str(case.connections), str(case.size), str(case.depth)]
                return [*self.client, server.address, *shape, *length]
            case DatagramCase():
                return [*self.client, server.address, str(case.size), str(case.in_flight), *length]
            case TlsCase():
                shape = [case.work, str(case.connections), str(case.size), str(case.depth)]
                bounds = ["--lifetime", str(times.lifetime)]
                return [*self.client, server.address, *shape, *length, *bounds]
            case RpcCase():
                shape = [case.work.value, str(case.in_flight), str(case.connections)]
                bounds = ["--lifetime", str(times.lifetime), "--server-pid", str(server.pid)]
                return [*self.client, server.address, *shape, *length, *bounds]
            case SocketCase():
                shape = [case.work.value, str(case.size)]
                return [*self.client, server.address, *shape, *length, "--lifetime", str(times.lifetime)]


@attrs.frozen
class Skipped:
    """A contestant that cannot be measured here, and why."""

    contestant: Contestant
    reason: str


def prepare(families: Sequence[Family], directory: Path) -> list[Ready | Skipped]:
    """Find out who can be measured, and compile the C programs into `directory`.

    Raises:
        NotCompiled: The load client of one of the families could not be had.
    """
    loads = {family: compile_program(name, directory) for family, name in LOADS.items() if family in families}
    return [
        _prepare(contestant, loads, directory)
        for contestant in CONTESTANTS
        if any(family in families for family in contestant.families)
    ]


def _prepare(contestant: Contestant, loads: Mapping[Family, Path], directory: Path) -> Ready | Skipped:
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
    for family, load in loads.items():
        if family in contestant.families:
            return Ready(contestant, program, [str(load)])
    if Family.TLS in contestant.families:
        return Ready(contestant, program, [sys.executable, "-m", TLS_LOAD])
    return Ready(contestant, [*program, "server"], [*program, "client"])
