"""A name with an IPv6 and an IPv4 address, of which one refuses or never answers. Real sockets, loopback."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from rpc_bench import Bench, Ground, url_of
from rpc_thread import ThreadedServer

import helianthus
from helianthus import RpcError, Service, StatusCode, method
from helianthus.drivers.address import Address
from helianthus.drivers.asyncio import AsyncioDriver

NAME = "both.example"
V6, V4 = "::1", "127.0.0.1"


def has_ipv6() -> bool:
    try:
        with socket.create_server((V6, 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


pytestmark = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


class Here(Service):
    name = "here"

    @method
    def family(self) -> str:
        return "IPv4"


def both(port: int) -> list[Any]:
    """What the system says of the name."""
    return [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (V4, port)),
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (V6, port, 0, 0)),
    ]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Has the system know the name, in whichever way it is asked."""
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        return both(port) if host == NAME else real(host, port, *args, **options)

    def patch(driver: Any = None) -> None:
        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        if isinstance(driver, AsyncioDriver):  # uvloop does not ask through `socket`

            async def of_loop(_: Any, host: Any, port: Any, **options: Any) -> Any:
                return getaddrinfo(host, port, **options)

            monkeypatch.setattr(type(driver.loop), "getaddrinfo", of_loop)

    return patch


@contextlib.contextmanager
def never_answers(port: int) -> Iterator[None]:
    """Have ::1 drop every attempt to connect to a port: its queue of connections is full.

    Linux drops what comes then, and the caller's system tries again and again.
    """
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_STREAM))
        listener.bind((V6, port))
        listener.listen(0)
        for _ in range(8):
            filler = stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_STREAM))
            filler.setblocking(False)
            filler.connect_ex((V6, port))
        yield


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="how a full queue behaves is Linux's way")


def url(port: int) -> str:
    return f"tcp://{NAME}:{port}"


def test_ipv6_refuses(run_on_real: Ground, resolver: Any) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Here())
        resolver(bench.driver)
        client = await bench.client(url(server.addresses[0].port))
        assert await client.call("here.family", timeout=15) == "IPv4"
        (connection,) = client.connections()
        assert connection.address == f"{V4}:{server.addresses[0].port}"
        assert len(bench.connected) == 1

    run_on_real(scenario)


@on_linux
def test_ipv6_never_answers(run_on_real: Ground, resolver: Any) -> None:
    """The attempt that hangs is ended as soon as the other one has connected."""

    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Here())
        port = server.addresses[0].port
        resolver(bench.driver)
        with never_answers(port):
            client = await bench.client(url(port), connect_timeout=25)
            assert await client.call("here.family", timeout=20) == "IPv4"
            assert client._channel is not None
            assert client._channel.open_links == 1

    run_on_real(scenario)


@on_linux
def test_two_urls_of_which_the_first_never_answers(run_on_real: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Here())
        port = server.addresses[0].port
        with never_answers(port):
            client = await bench.closing(
                helianthus.connect([f"tcp://[{V6}]:{port}", url_of(server)], connect_timeout=25)
            )
            assert await client.call("here.family", timeout=20) == "IPv4"

    run_on_real(scenario)


@on_linux
def test_one_hangs_and_one_refuses(run_on_real: Ground, resolver: Any) -> None:
    """The end of the whole race tells of both."""

    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Here())
        port = server.addresses[0].port
        await server.close()
        resolver(bench.driver)
        with never_answers(port):
            client = await bench.client(url(port), connect_timeout=1.0)
            with pytest.raises(RpcError) as caught:
                await client.call("here.family", timeout=25)
            assert caught.value.code is StatusCode.UNAVAILABLE
            assert "no connection within 1 s" in caught.value.message
            assert str(Address(V4, port)) in caught.value.message

    run_on_real(scenario)


@on_linux
def test_a_blocking_client(run_on_real: Ground, resolver: Any) -> None:
    with ThreadedServer(run_on_real, Here()) as server:
        port = Address.parse(server.url).port
        resolver()
        with never_answers(port), helianthus.connect_sync(url(port), connect_timeout=25) as client:
            assert client.call("here.family", timeout=20) == "IPv4"
