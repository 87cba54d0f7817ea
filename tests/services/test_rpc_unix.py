"""RPC over Unix-domain sockets: all that goes over TCP goes over a path, too."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from rpc_bench import Bench, Ground, until
from rpc_thread import ThreadedServer

import helianthus
from helianthus import (
    CallContext,
    PeerCredentials,
    PoolOptions,
    Rate,
    RateLimit,
    RpcError,
    Service,
    StatusCode,
    method,
)
from helianthus.drivers.errors import AddressInUse, AddressNotSupported
from helianthus.drivers.unix_socket import AF_UNIX

pytestmark = pytest.mark.skipif(AF_UNIX is None, reason="Python has no Unix-domain sockets on this platform")


class Who(Service):
    """Tells who calls."""

    name = "who"

    @method
    def am_i(self, context: CallContext) -> str:
        return context.peer.address

    @method
    async def count(self, n: int) -> AsyncIterator[int]:
        for number in range(n):
            yield number


@pytest.fixture
def url() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="h") as directory:
        yield f"unix://{directory}/node.sock"


def test_calls_and_streams(run_on: Ground, url: str) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Who(), url=url)
        assert str(server.addresses[0]) == url
        client = await bench.client(server)
        caller = await client.call("who.am_i")
        async with client.stream("who.count", 100) as stream:
            assert [item async for item in stream] == list(range(100))
        (peer,) = server.peers
        assert caller == peer.address == server.statistics().peers[0].address
        assert client.connections()[0].address == url
        if bench.driver.name == "sim":
            assert PeerCredentials.parse(caller) == PeerCredentials(1, 0, 0)
        elif sys.platform == "linux":
            assert PeerCredentials.parse(caller) == PeerCredentials(os.getpid(), os.getuid(), os.getgid())

    run_on(scenario)


@pytest.mark.parametrize(
    "text", ["127.0.0.1:7070", "unix:", "unix:pid=1,uid=0", "unix:///pid=1,uid=0,gid=0", ""]
)
def test_only_credentials_are_read_as_such(text: str) -> None:
    assert PeerCredentials.parse(text) is None


def test_a_blocking_client(run_on_real: Ground, url: str) -> None:
    with ThreadedServer(run_on_real, Who(), url=url), helianthus.connect_sync(url) as client:
        assert client.call("who.am_i").startswith("unix:")
        assert list(client.stream("who.count", 3)) == [0, 1, 2]


def test_a_pool(run_on: Ground, url: str) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Who(), url=url)
        client = await bench.client(server, pool=PoolOptions(size=3, min_size=3))
        await until(lambda: len(server.peers) == 3)
        assert (await client.call("who.am_i")).startswith("unix:")

    run_on(scenario)


def test_a_race_with_tcp(run_on: Ground, url: str) -> None:
    """What is written first is tried first; what nobody listens at holds nobody up."""

    async def scenario(bench: Bench) -> None:
        over_tcp = await bench.serve(Who())
        urls = [url, str(over_tcp.addresses[0])]

        async def goes_over_unix(urls: list[str]) -> bool:
            async with helianthus.Client(urls) as client:
                return (await client.call("who.am_i")).startswith("unix:")

        assert not await goes_over_unix(urls)
        await bench.serve(Who(), url=url)
        assert await goes_over_unix(urls)
        assert await goes_over_unix([url, "tcp://[::1]:1"])

    run_on(scenario)


def test_a_client_connects_again(run_on: Ground, url: str) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Who(), url=url)
        client = await bench.client(server)
        await client.call("who.am_i")
        await server.close()
        await bench.serve(Who(), url=url)
        await until(lambda: len(bench.connected) == 2)
        assert await client.call("who.am_i")

    run_on(scenario)


def test_a_server_that_drains_leaves_the_path_at_once(run_on: Ground, url: str) -> None:
    """Its successor takes over while calls are still in flight."""

    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Who(), url=url)
        client = await bench.client(server)
        await client.call("who.am_i")
        with pytest.raises(AddressInUse):
            await bench.serve(Who(), url=url)
        server.close_now()
        await bench.serve(Who(), url=url)

    run_on(scenario)


def test_nobody_listens(run_on: Ground, url: str) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.client(url)
        with pytest.raises(RpcError, match="nobody listens there") as caught:
            await client.call("who.am_i", timeout=5)
        assert caught.value.code is StatusCode.UNAVAILABLE

    run_on(scenario)


def test_a_rate_for_each_connection(run_on: Ground, url: str) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Who(), url=url, middleware=[RateLimit(Rate(0.001, 1))])
        for _ in range(2):
            client = await bench.client(server)
            await client.call("who.am_i")
            with pytest.raises(RpcError, match="more than"):
                await client.call("who.am_i")

    run_on(scenario)


def test_the_mode_is_a_part_of_the_url_or_a_parameter(run_on_real: Ground, url: str) -> None:
    path = Path(url.removeprefix("unix://"))

    async def scenario(bench: Bench) -> None:
        for given, mode, becomes in (
            (f"{url}?mode=0640", None, 0o640),
            (url, 0o606, 0o606),
            (f"{url}?mode=0640", 0o600, 0o600),
        ):
            async with helianthus.Server([Who()]) as server:
                assert str(await server.listen(given, mode=mode)) == url
                assert stat.S_IMODE(path.lstat().st_mode) == becomes
                client = await bench.client(given)
                await client.call("who.am_i")
        with pytest.raises(ValueError, match="no file whose mode"):
            helianthus.Server([Who()]).open("tcp://127.0.0.1:0", mode=0o600)

    run_on_real(scenario)


def test_pipes_are_said_to_be_missing(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        with pytest.raises(AddressNotSupported, match="no named pipes"):
            await bench.serve(Who(), url="pipe:///helianthus")
        client = await bench.client("pipe:///helianthus")
        with pytest.raises(RpcError, match="no named pipes"):
            await client.call("who.am_i", timeout=5)

    run_on(scenario)
