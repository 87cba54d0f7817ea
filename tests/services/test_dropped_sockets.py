"""Sockets and listeners that are dropped without being closed: freed, and complained about."""

from __future__ import annotations

import asyncio
import gc
import sys
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from rpc_bench import LOCAL, Bench, Ground, until

from helianthus.drivers.errors import AddressInUse, ConnectionRefused, ConnectionReset
from helianthus.sockets import UdpSocket, connect, listen


async def bound_udp() -> UdpSocket:
    return await UdpSocket.bind("udp://127.0.0.1:0")


async def listening() -> Any:
    return await listen(LOCAL)


async def listening_dtls() -> Any:
    dtls_pairs = pytest.importorskip("dtls_pairs")
    return await dtls_pairs.listen(dtls_pairs.LOCAL, tls=dtls_pairs.server_tls())


def address_of(thing: Any) -> str:
    return str(thing.local_address if isinstance(thing, UdpSocket) else thing.address)


Make = Callable[[], Awaitable[Any]]


def drop(things: list[Any]) -> None:
    """Have the collector take what nobody else has."""
    things.clear()
    gc.collect()


async def has_address(url: str) -> bool:
    """Whether somebody is bound there."""
    try:
        if url.startswith("tcp"):
            await (await listen(url)).close()
        else:
            await (await UdpSocket.bind(url.replace("dtls", "udp"))).close()
    except AddressInUse:
        return True
    return False


async def until_free(url: str) -> None:
    while await has_address(url):
        await asyncio.sleep(0)


@pytest.mark.parametrize("make", [bound_udp, listening, listening_dtls])
def test_its_address_is_free_again(run_on: Ground, make: Make) -> None:
    async def scenario(bench: Bench) -> None:
        things = [await make()]
        url = address_of(things[0])
        assert await has_address(url)
        with pytest.warns(ResourceWarning, match=r"<\w+ .*was dropped without being closed"):
            drop(things)
        await until_free(url)
        assert bench.errors == []

    run_on(scenario)


@pytest.mark.parametrize("make", [bound_udp, listening, listening_dtls])
def test_one_that_was_closed_is_not_complained_about(run_on: Ground, make: Make) -> None:
    async def scenario(bench: Bench) -> None:
        thing = await make()
        await thing.close()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            del thing
            gc.collect()

    run_on(scenario)


def test_connections_that_nobody_can_accept_are_ended(run_on: Ground) -> None:
    if not run_on.resets:
        pytest.skip("here, the peer of an aborted connection sees its end")

    async def scenario(bench: Bench) -> None:
        listeners = [await listen(LOCAL)]
        url = address_of(listeners[0])
        async with await connect(url) as accepted_near, await listeners[0].accept() as accepted:
            near = await connect(url)
            await until(lambda: len(listeners[0]._port._waiting) == 1)
            with pytest.warns(ResourceWarning, match="TcpListener at .* was dropped"):
                drop(listeners)
            with pytest.raises(ConnectionReset):
                await near.recv()
            await near.close()
            with pytest.raises(ConnectionRefused):
                await connect(url)
            await accepted_near.send_all(b"goes on")
            assert await accepted.recv() == b"goes on"

    run_on(scenario)


def test_a_dtls_connection_ends_for_the_peer(run_on: Ground) -> None:
    dtls_pairs = pytest.importorskip("dtls_pairs")

    async def scenario(bench: Bench) -> None:
        url = dtls_pairs.LOCAL
        for drops_server in (False, True):
            async with await dtls_pairs.listen(url, tls=dtls_pairs.server_tls()) as listener:
                client = dtls_pairs.client_tls()
                near = [await dtls_pairs.connect(str(listener.address), tls=client, timeout=10)]
                far = [await listener.accept(timeout=10)]
                dropped, (kept,) = (far, near) if drops_server else (near, far)
                with pytest.warns(ResourceWarning, match="DtlsSocket to .* was dropped"):
                    drop(dropped)
                assert await kept.recv(timeout=10) == b""
                await kept.close()
                await until(lambda listener=listener: listener.peers == 0)

    run_on(scenario)


def test_where_warnings_are_errors_it_is_ended_all_the_same(
    run_on: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception in `__del__` ends that: what matters comes first."""
    if not run_on.resets:
        pytest.skip("here, the peer of an aborted connection sees its end")
    raised: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: raised.append(str(unraisable.exc_value)))

    async def scenario(bench: Bench) -> None:
        async with await listen(LOCAL) as listener:
            near = [await connect(str(listener.address))]
            async with await listener.accept() as far:
                with warnings.catch_warnings():
                    warnings.simplefilter("error", ResourceWarning)
                    drop(near)
                assert "TcpSocket" in raised[0]
                with pytest.raises(ConnectionReset):
                    await far.recv()

    run_on(scenario)
