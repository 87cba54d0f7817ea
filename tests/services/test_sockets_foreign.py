"""Peers that are Python's own sockets: cut as they like, half-closed, reset, slow."""

from __future__ import annotations

import asyncio

import pytest
from rpc_bench import LOCAL, Bench, Ground, until
from sockets_pairs import raw_socket, with_foreign

from helianthus.errors import ConnectionReset, WriteTimeout
from helianthus.sockets import ByteStreamLimits, connect, listen

MIB = 1024 * 1024


def test_lines_both_ways(run_on_real: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        async with with_foreign() as (sock, peer):
            for part in (b"first li", b"ne\r", b"\nsecond line\r\nthird"):
                await peer.send(part)
                await asyncio.sleep(0.001)
            assert await sock.recv_until(b"\r\n") == b"first line\r\n"
            assert await sock.recv_until(b"\r\n") == b"second line\r\n"
            assert await sock.recv_exactly(5) == b"third"
            await sock.send_all(b"heard ", b"all")
            assert await peer.receive(9) == b"heard all"

    run_on_real(scenario)


def test_connecting_to_a_foreign_listener(run_on_real: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        loop = asyncio.get_running_loop()
        with raw_socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen()
            async with await connect(f"tcp://127.0.0.1:{server.getsockname()[1]}", timeout=10) as sock:
                accepted, address = await loop.sock_accept(server)
                with accepted:
                    assert sock.local_address == f"127.0.0.1:{address[1]}"
                    await loop.sock_sendall(accepted, b"welcome")
                    assert await sock.recv_exactly(7) == b"welcome"

    run_on_real(scenario)


def test_half_close_each_way(run_on_real: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        async with with_foreign() as (sock, peer):
            await peer.send(b"question")
            peer.sock.shutdown(1)
            assert await sock.recv_exactly(8) == b"question"
            assert await sock.recv() == b""
            sending = asyncio.ensure_future(sock.send_all(bytes(4 * MIB)))
            assert len(await peer.receive(4 * MIB)) == 4 * MIB
            await sending
            await sock.send_eof()
            assert await peer.at_end()
            await until(lambda: sock._connection.ended)
            assert await sock.recv() == b""

        async with with_foreign() as (sock, peer):
            await sock.send_eof()
            assert await peer.at_end()
            await peer.send(b"still talking")
            assert await sock.recv_exactly(13) == b"still talking"

    run_on_real(scenario)


def test_a_reset_comes_behind_what_was_received(run_on_real: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        async with with_foreign() as (sock, peer):
            await peer.send(b"before it")
            await until(lambda: sock._connection.stream.available == 9)
            peer.reset()
            await until(lambda: sock._connection.ended)
            assert await sock.recv_exactly(9) == b"before it"
            for _ in range(2):
                with pytest.raises(ConnectionReset):
                    await sock.recv()
                with pytest.raises(ConnectionReset):
                    await sock.recv_until(b"\n")
                with pytest.raises(ConnectionReset):
                    await sock.send_all(b"x")

    run_on_real(scenario)


def test_a_reset_wakes_reader_and_writer(run_on_real: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        async with with_foreign() as (sock, peer):
            reading = asyncio.ensure_future(sock.recv_exactly(10))
            writing = asyncio.ensure_future(sock.send_all(bytes(64 * MIB)))
            await peer.send(b"too few")
            await until(lambda: sock._connection.stream.available == 7)
            peer.reset()
            for waiting in (reading, writing):
                with pytest.raises(ConnectionReset):
                    await waiting
            assert await sock.recv() == b"too few"

    run_on_real(scenario)


def test_a_peer_that_does_not_read_costs_bounded_memory(run_on_real: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        limits = ByteStreamLimits(max_queued_output=100_000)
        async with with_foreign(limits, receive_buffer=32 * 1024) as (sock, peer):
            data = bytes(range(256)) * (6 * MIB // 256)
            sending = asyncio.ensure_future(sock.send_all(data))
            for _ in range(30):
                await asyncio.sleep(0.001)
                assert sock.bytes_unsent <= 2 * limits.max_queued_output
            assert not sending.done()
            assert await peer.receive(len(data)) == data
            await sending

    run_on_real(scenario)


def test_a_peer_that_takes_nothing_is_dropped(run_on_real: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        bench.driver.write_deadline = 0.1
        async with with_foreign(receive_buffer=4096) as (sock, _):
            with pytest.raises(WriteTimeout, match=r"took nothing for 0\.1 s"):
                await sock.send_all(bytes(64 * MIB))
            with pytest.raises(WriteTimeout, match="took nothing"):
                await sock.flush()

    run_on_real(scenario)


def test_a_name_with_two_families(run_on_real: Ground) -> None:
    """A listener at one of the addresses of a name is reached by that name."""

    async def scenario(bench: Bench) -> None:
        async with await listen(LOCAL) as listener:
            sock = await connect(f"tcp://localhost:{listener.address.port}", timeout=10)
            far = await listener.accept()
        async with sock, far:
            await sock.send_all(b"hello")
            assert await far.recv() == b"hello"

    run_on_real(scenario)
