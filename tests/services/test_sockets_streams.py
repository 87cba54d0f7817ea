"""Sockets: what comes in, what goes out, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest
from rpc_bench import LOCAL, Bench, Ground, until
from sockets_pairs import TINY, pair

from helianthus.errors import ConnectionRefused, ConnectionReset, LimitExceeded, TransportError
from helianthus.sockets import (
    ByteStreamLimits,
    IncompleteRead,
    OperationTimedOut,
    SocketBusy,
    SocketClosed,
    TcpSocket,
    connect,
    listen,
)

MIB = 1024 * 1024


async def receive_all(sock: TcpSocket) -> bytes:
    received = bytearray()
    while data := await sock.recv():
        received += data
    return bytes(received)


# -- receiving -----------------------------------------------------------------------------------------------


def test_the_ways_to_receive(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        async with pair() as (near, far):
            await near.send_all(b"GET /\r\nHost: here\r\n\r\n", b"0123456789")
            assert await far.recv_until(b"\r\n") == b"GET /\r\n"
            assert await far.recv_until(b"\r\n\r\n") == b"Host: here\r\n\r\n"
            assert await far.recv_exactly(4) == b"0123"
            assert await far.recv_exactly(0) == b""
            assert await far.recv(3) == b"456"
            assert await far.recv_exactly(3) == b"789"
            assert far.bytes_received == near.bytes_accepted == 31

    run_on(scenario)


def test_addresses(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        async with await listen(LOCAL) as listener:
            assert str(listener.address) in repr(listener)
            near = await connect(str(listener.address))
            far = await listener.accept()
        async with near, far:
            assert near.peer_address == far.local_address == f"127.0.0.1:{listener.address.port}"
            assert near.local_address == far.peer_address
            assert near.local_address in repr(far)
            await near.close()
            assert "closed" in repr(near)

    run_on(scenario)


def test_both_ways_at_once_and_much(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        data = bytes(range(256)) * (2 * MIB // 256)

        async def send(sock: TcpSocket) -> None:
            await sock.send_all(data)
            await sock.send_eof()

        async with pair() as (near, far):
            first, second, _, _ = await asyncio.gather(
                receive_all(near), receive_all(far), send(near), send(far)
            )
            assert first == second == data

    run_on(scenario)


def test_tiny_limits_lose_nothing(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        data = bytes(range(256)) * 20
        async with pair(TINY) as (near, far):
            sending = asyncio.ensure_future(near.send_all(data))
            assert await far.recv_exactly(1000) == data[:1000]
            assert await far.recv_until(bytes([255]), limit=256) == data[1000:1024]
            assert await far.recv_exactly(len(data) - 1024) == data[1024:]
            await sending

    run_on(scenario)


def test_input_that_nobody_takes_is_bounded(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        limits = ByteStreamLimits(high_water=100_000, low_water=50_000)
        async with pair(accepted=limits) as (near, far):
            sending = asyncio.ensure_future(near.send_all(bytes(32 * MIB)))
            stream = far._connection.stream
            await until(lambda: stream.full)
            for _ in range(50):
                await asyncio.sleep(0.001)
                assert stream.available < limits.high_water + 64 * 1024
            assert not sending.done()
            assert len(await far.recv_exactly(32 * MIB)) == 32 * MIB
            await sending

    run_on(scenario)


def test_a_delimiter_that_does_not_come(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        async with pair() as (near, far):
            await near.send_all(b"x" * 20 + b"\n")
            with pytest.raises(LimitExceeded, match="sent 10 bytes without the delimiter") as caught:
                await far.recv_until(b"\n", limit=10)
            assert (caught.value.limit, caught.value.maximum) == ("limit", 10)
            assert await far.recv_until(b"\n", limit=21) == b"x" * 20 + b"\n"

    run_on(scenario)


def test_the_end_of_the_stream(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        async with pair() as (near, far):
            await near.send_all(b"last words")
            await near.send_eof()
            await near.send_eof()
            with pytest.raises(IncompleteRead, match="10 bytes to be received") as caught:
                await far.recv_exactly(11)
            assert caught.value.available == 10
            with pytest.raises(IncompleteRead, match="without the delimiter"):
                await far.recv_until(b"\n")
            assert await far.recv() == b"last words"
            assert await far.recv() == b""
            assert await far.recv() == b""
            with pytest.raises(SocketClosed, match="send_eof"):
                await near.send_all(b"more")
            await far.send_all(b"answer")
            await far.close()
            assert await receive_all(near) == b"answer"

    run_on(scenario)


def test_mistakes_of_the_caller(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        async with pair() as (near, far):
            for mistake in (
                lambda: near.recv(0),
                lambda: near.recv_exactly(-1),
                lambda: near.recv_until(b""),
                lambda: near.recv_until(b"long", limit=3),
            ):
                with pytest.raises(ValueError, match="must"):
                    await mistake()
            with pytest.raises(TypeError):
                await near.send_all("text")  # type: ignore[arg-type]
            assert near.bytes_accepted == 0
            await near.send_all(b"fine")
            assert await far.recv() == b"fine"
        with pytest.raises(ValueError, match="scheme"):
            await connect("http://localhost:80")
        with pytest.raises(ValueError, match="backlog"):
            await listen(LOCAL, backlog=0)

    run_on(scenario)


def test_one_reader_at_a_time(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        async with pair() as (near, far):
            reading = asyncio.ensure_future(far.recv())
            await asyncio.sleep(0)
            for second in (far.recv(), far.recv_exactly(1), far.recv_until(b"\n")):
                with pytest.raises(SocketBusy, match="another task is receiving"):
                    await second
            await near.send_all(b"for the first")
            assert await reading == b"for the first"

    run_on(scenario)


# -- sending -------------------------------------------------------------------------------------------------


def test_send_takes_what_there_is_room_for(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        async with pair(TINY) as (near, far):
            assert await near.send(b"a" * 40, b"b" * 40) == 64
            assert await near.send(b"") == 0
            assert await near.send(b"c" * 10) == 10
            assert await far.recv_exactly(74) == b"a" * 40 + b"b" * 24 + b"c" * 10

    run_on(scenario)


def test_what_was_sent_may_be_changed_afterwards(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        async with pair() as (near, far):
            memory = bytearray(b"abcdef")
            await near.send_all(memory, memoryview(memory)[1:3])
            memory[:] = b"xxxxxx"
            assert await far.recv_exactly(8) == b"abcdefbc"

    run_on(scenario)


def test_one_writer_at_a_time(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        async with pair(TINY) as (near, far):
            sending = asyncio.ensure_future(near.send_all(bytes(20_000)))
            await asyncio.sleep(0)
            for second in (near.send_all(b"x"), near.send(b"x"), near.flush(), near.sendfile("/nowhere")):
                with pytest.raises(SocketBusy, match="another task is sending"):
                    await second
            with pytest.raises(SocketBusy):
                await near.send_eof()
            assert len(await far.recv_exactly(20_000)) == 20_000
            await sending

    run_on(scenario)


def test_flush(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        limits = ByteStreamLimits(max_queued_output=16 * MIB)
        async with pair(limits, accepted=ByteStreamLimits()) as (near, far):
            await near.flush()
            await near.send_all(bytes(16 * MIB))
            assert near.bytes_unsent == 16 * MIB
            flushing = asyncio.ensure_future(near.flush())
            with pytest.raises(OperationTimedOut):
                await far.recv_exactly(16 * MIB + 1, timeout=0.5)
            await flushing
            assert near.bytes_unsent == 0

    run_on(scenario)


# -- ends ----------------------------------------------------------------------------------------------------


def test_closing_sends_what_is_queued(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        limits = ByteStreamLimits(max_queued_output=4 * MIB)
        async with pair(limits, accepted=ByteStreamLimits()) as (near, far):
            await near.send_all(bytes(4 * MIB))
            closing = asyncio.ensure_future(near.close())
            assert len(await receive_all(far)) == 4 * MIB
            await closing
            await near.close()
            for late in (
                near.recv(),
                near.send_all(b"x"),
                near.flush(),
                near.send_eof(),
                near.recv_exactly(0),
            ):
                with pytest.raises(SocketClosed, match="has been closed"):
                    await late

    run_on(scenario)


def test_closing_tells_those_who_wait(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        async with pair(TINY) as (near, far):
            reading = asyncio.ensure_future(near.recv_exactly(100))
            writing = asyncio.ensure_future(near.send_all(bytes(8 * MIB)))
            await far.send_all(b"too few")
            await until(lambda: near._connection.stream.available == 7)
            await asyncio.gather(near.close(timeout=0), near.close(timeout=0), return_exceptions=True)
            with pytest.raises(SocketClosed, match="recv_exactly"):
                await reading
            with pytest.raises(SocketClosed, match="send_all") as caught:
                await writing
            sent = caught.value.queued
            assert 0 < sent < 8 * MIB
            assert sent == near.bytes_accepted
            assert len(await receive_all(far)) == sent

    run_on(scenario)


def test_aborting(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        async with pair(TINY) as (near, far):
            await far.send_all(b"unread")
            reading = asyncio.ensure_future(near.recv_exactly(100))
            writing = asyncio.ensure_future(near.send_all(bytes(8 * MIB)))
            flushed = asyncio.ensure_future(near.close())
            await asyncio.sleep(0)
            near.abort()
            near.abort()
            for waiting in (reading, writing):
                with pytest.raises(SocketClosed):
                    await waiting
            await flushed
            with pytest.raises(SocketClosed):
                await near.send_all(b"x")
            with pytest.raises(TransportError):
                while True:
                    await far.send_all(bytes(1000))

    run_on(scenario)


def test_the_block_closes_without_waiting_after_an_exception(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        async with await listen(LOCAL) as listener:
            near = await connect(str(listener.address), limits=ByteStreamLimits(max_queued_output=16 * MIB))
            async with await listener.accept() as far:
                with pytest.raises(KeyError):
                    async with near:
                        await near.send_all(bytes(16 * MIB))
                        raise KeyError("out")
                assert near.closed
                assert near.bytes_unsent > 0
                assert len(await receive_all(far)) == 16 * MIB

    run_on(scenario)


def test_a_socket_that_is_dropped_is_closed(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        async with pair() as (near, _):
            async with await listen(LOCAL) as listener:
                dropped = await connect(str(listener.address))
                far = await listener.accept()
            with pytest.warns(ResourceWarning, match="dropped without being closed"):
                del dropped
            async with far:
                with contextlib.suppress(ConnectionReset):
                    assert await far.recv() == b""
            assert not near.closed

    run_on(scenario)


# -- connecting ----------------------------------------------------------------------------------------------


def test_nobody_listens(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        async with await listen(LOCAL) as listener:
            url = str(listener.address)
        with pytest.raises(ConnectionRefused):
            await connect(url)
        with pytest.raises(TransportError, match="nowhere"):
            await connect("tcp://nowhere.invalid:1")
        with pytest.raises(TransportError):
            await listen("tcp://nowhere.invalid:1")

    run_on(scenario)


def test_connecting_that_is_given_up_leaves_nothing(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        async with await listen(LOCAL) as listener:
            url = str(listener.address)
            for steps in range(6):
                connecting = asyncio.ensure_future(connect(url))
                for _ in range(steps):
                    await asyncio.sleep(0)
                if connecting.cancel():
                    with pytest.raises(asyncio.CancelledError):
                        await connecting
                else:
                    await (await connecting).close()
            with pytest.raises(OperationTimedOut, match="connecting"):
                await connect(url, timeout=0)
            async with await connect(url) as near:
                await near.send_all(b"me")
                while True:
                    async with await listener.accept() as far:
                        try:
                            data = await far.recv()
                        except ConnectionReset:
                            continue
                        if data:
                            assert data == b"me"
                            break

    run_on(scenario)


def test_a_name_and_a_driver(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        listener = await listen("tcp://localhost:0", driver=bench.driver)
        async with listener, await connect(str(listener.address), driver=bench.driver) as near:
            await near.send_all(b"hello")
            async with await listener.accept(timeout=10) as far:
                assert await far.recv(timeout=10) == b"hello"

    run_on(scenario)


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="the system has no Unix-domain sockets")
def test_unix_domain_sockets(run_on: Ground, tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/socket"

    async def scenario(bench: Bench) -> None:
        async with await listen(url) as listener:
            assert str(listener.address) == url
            near = await connect(url)
            far = await listener.accept()
        async with near, far:
            await near.send_all(b"hello")
            assert await far.recv() == b"hello"
            await far.send_eof()
            assert await near.recv() == b""
        with pytest.raises(TransportError):
            await connect(url)

    run_on(scenario)


@pytest.mark.parametrize("dropped", [False, True])
def test_an_abort_is_no_end_of_the_stream(run_on: Ground, dropped: bool) -> None:
    """The peer hears that it was reset, although it has received everything and nothing is unread."""
    if not run_on.resets:
        pytest.skip("here, the peer of an aborted connection sees its end")

    async def scenario(bench: Bench) -> None:
        async with await listen(LOCAL) as listener:
            near = [await connect(str(listener.address))]
            async with await listener.accept() as far:
                await near[0].send_all(b"hello")
                assert await far.recv_exactly(5) == b"hello"
                if dropped:
                    with pytest.warns(ResourceWarning, match="was dropped without being closed"):
                        near.clear()
                else:
                    near[0].abort()
                with pytest.raises(ConnectionReset):
                    await far.recv()

    run_on(scenario)
