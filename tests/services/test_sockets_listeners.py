"""Accepting: in order, by several tasks, with a bounded backlog, and the end of a listener."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from rpc_bench import LOCAL, Bench, Ground, until

from helianthus.errors import AddressInUse, TransportError
from helianthus.sockets import OperationTimedOut, SocketClosed, TcpSocket, connect, listen


async def greet(url: str, name: bytes) -> TcpSocket:
    sock = await connect(url)
    await sock.send_all(name)
    return sock


def test_iterating(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        greeted: list[bytes] = []

        async def serve() -> None:
            async for sock in listener:
                async with sock:
                    greeted.append(await sock.recv())

        async with await listen(LOCAL) as listener:
            serving = asyncio.ensure_future(serve())
            for number in range(5):
                async with await greet(str(listener.address), b"%d" % number) as sock:
                    assert await sock.recv() == b""
            assert not listener.closed
        await serving
        assert listener.closed
        assert greeted == [b"0", b"1", b"2", b"3", b"4"]

    run_on(scenario)


def test_several_tasks_accept(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        async with await listen(LOCAL) as listener, contextlib.AsyncExitStack() as stack:
            accepting = [asyncio.ensure_future(listener.accept()) for _ in range(4)]
            names = [b"%d" % number for number in range(4)]
            for name in names:
                await stack.enter_async_context(await greet(str(listener.address), name))
            accepted = await asyncio.gather(*accepting)
            for sock in accepted:
                await stack.enter_async_context(sock)
            assert sorted([await sock.recv() for sock in accepted]) == names

    run_on(scenario)


def test_the_backlog_is_bounded_and_loses_nobody(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        async with await listen(LOCAL, backlog=3) as listener, contextlib.AsyncExitStack() as stack:
            url = str(listener.address)
            names = [b"%02d" % number for number in range(20)]
            for name in names:
                await stack.enter_async_context(await greet(url, name))
            await until(lambda: len(listener._port._waiting) == 3)
            await asyncio.sleep(0.02)
            assert len(listener._port._waiting) == 3
            heard = []
            for _ in names:
                async with await listener.accept() as sock:
                    heard.append(await sock.recv())
                assert len(listener._port._waiting) <= 3
            assert sorted(heard) == names
            with pytest.raises(OperationTimedOut, match=r"accept did not end within 0\.01 s"):
                await listener.accept(timeout=0.01)

    run_on(scenario)


def test_closing_a_listener(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        listener = await listen(LOCAL)
        url = str(listener.address)
        near = await connect(url)
        served = await listener.accept()
        async with near, served:
            waiting = asyncio.ensure_future(listener.accept())
            await asyncio.sleep(0)
            await listener.close()
            await listener.close()
            for accept in (waiting, listener.accept()):
                with pytest.raises(SocketClosed, match="listener has been closed"):
                    await accept
            with pytest.raises(TransportError):
                await connect(url)
            await near.send_all(b"goes on")
            assert await served.recv() == b"goes on"
            assert "closed" in repr(listener)

    run_on(scenario)


def test_those_whom_nobody_took_are_turned_away(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        async with await listen(LOCAL, backlog=2) as listener:
            socks = [await connect(str(listener.address)) for _ in range(4)]
            await until(lambda: len(listener._port._waiting) == 2)
        for sock in socks:
            async with sock:
                with contextlib.suppress(TransportError):
                    assert await sock.recv() == b""

    run_on(scenario)


def test_a_connection_that_ends_before_it_is_taken(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        async with await listen(LOCAL, backlog=2) as listener:
            for number in range(6):
                sock = await greet(str(listener.address), b"%d" % number)
                await sock.close()
            for number in range(6):
                async with await listener.accept() as far:
                    assert await far.recv() == b"%d" % number
                    assert await far.recv() == b""

    run_on(scenario)


def test_an_address_in_use(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        async with await listen(LOCAL) as listener:
            with pytest.raises(AddressInUse):
                await listen(str(listener.address))

    run_on(scenario)
