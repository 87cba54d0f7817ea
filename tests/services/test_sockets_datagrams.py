"""Datagram sockets: what they send, receive, drop and hear of, and how their operations are given up."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Callable

import pytest
from rpc_bench import Bench, Ground, under_wine, until
from sockets_bounds import WAYS, Way, given_up

from helianthus.errors import AddressInUse, ConnectionRefused, MessageTooLarge, TransportError
from helianthus.sockets import (
    CancelToken,
    DatagramOptions,
    DatagramQueueLimits,
    OperationCancelled,
    OperationTimedOut,
    SocketBusy,
    SocketClosed,
    UdpSocket,
    cancel_scope,
)

ANYWHERE = "udp://127.0.0.1:0"

every_way = pytest.mark.parametrize("new_way", WAYS, ids=lambda way: way.name)


def test_there_and_back(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        async with await UdpSocket.bind(ANYWHERE) as server, await UdpSocket.bind(ANYWHERE) as client:
            await client.send_to(b"hello", str(server.local_address))
            await client.send_to(bytearray(b""), server.local_address)
            data, source = await server.recv_from()
            assert data == b"hello"
            assert source[1] == client.local_address.port
            assert await server.recv() == b""
            await server.send_to(memoryview(b"and back"), source)
            assert await client.recv() == b"and back"
            assert "udp://" in repr(server)
            assert server.statistics.received == 2

    run_on(scenario)


def test_a_connected_socket(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        async with await UdpSocket.bind(ANYWHERE) as server, await UdpSocket.bind(ANYWHERE) as stranger:
            async with await UdpSocket.connect(str(server.local_address)) as client:
                await client.send(b"hello")
                data, source = await server.recv_from()
                assert data == b"hello"
                await stranger.send_to(b"from somebody else", source)
                await server.send_to(b"answer", source)
                assert await client.recv() == b"answer"
                assert client.peer_address is not None
                assert client.peer_address[1] == server.local_address.port
            with pytest.raises(ValueError, match="not connected"):
                await server.send(b"to whom?")

    run_on(scenario)


def test_nobody_is_bound_there(run_on: Ground) -> None:
    """A connected socket raises what the network reports, and goes on; another one keeps it."""
    if under_wine() and run_on.name != "sim":
        pytest.skip("Wine tells a socket that nobody is bound at its peer only now and then")

    async def scenario(bench: Bench) -> None:
        async with await UdpSocket.bind(ANYWHERE) as gone:
            address = gone.local_address
        async with await UdpSocket.connect(str(address)) as client:
            await client.send(b"anybody?")
            with pytest.raises(ConnectionRefused):
                await client.recv()
            async with await UdpSocket.bind(str(address)) as server:
                await client.send(b"and now?")
                data, source = await server.recv_from()
                await server.send_to(data, source)
                assert await client.recv() == b"and now?"
                assert client.take_errors() == []

    run_on(scenario)


def test_iterating(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        async with await UdpSocket.bind(ANYWHERE) as client:
            server = await UdpSocket.bind(ANYWHERE)

            async def serve() -> list[bytes]:
                received = []
                async for data, source in server:
                    received.append(data)
                    await server.send_to(data, source)
                return received

            serving = asyncio.ensure_future(serve())
            for number in range(3):
                await client.send_to(b"%d" % number, server.local_address)
                assert await client.recv() == b"%d" % number
            await server.close()
            await server.close()
            assert await serving == [b"0", b"1", b"2"]
            for late in (server.recv_from(), server.send_to(b"x", server.local_address)):
                with pytest.raises(SocketClosed):
                    await late
            assert "closed" in repr(server)

    run_on(scenario)


def test_closing_sends_what_is_queued(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        async with await UdpSocket.bind(ANYWHERE) as server:
            client = await UdpSocket.bind(ANYWHERE)
            for number in range(20):
                await client.send_to(b"%d" % number, server.local_address)
            await client.close()
            assert sorted([int(await server.recv()) for _ in range(20)]) == list(range(20))

    run_on(scenario)


def test_too_many_are_dropped_and_counted(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        limits = DatagramQueueLimits(max_received=5)
        server = await UdpSocket.bind(ANYWHERE, limits=limits)
        async with server, await UdpSocket.bind(ANYWHERE) as client:
            for number in range(12):
                await client.send_to(b"%d" % number, server.local_address)
            await until(lambda: server.statistics.received == 12)
            assert server.dropped == 7
            for _ in range(5):
                await server.recv()
            with pytest.raises(OperationTimedOut):
                await server.recv(timeout=0)

    run_on(scenario)


def test_sending_waits_for_room(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        limits = DatagramQueueLimits(max_queued=3)
        server = await UdpSocket.bind(ANYWHERE)
        async with server, await UdpSocket.bind(ANYWHERE, limits=limits) as client:
            for number in range(20):
                await client.send_to(b"%d" % number, ("127.0.0.1", server.local_address.port))
            assert sorted([int(await server.recv()) for _ in range(20)]) == list(range(20))

    run_on(scenario)


def test_what_is_too_large(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        options = DatagramOptions(max_datagram_size=10)
        server = await UdpSocket.bind(ANYWHERE, options=options)
        async with server, await UdpSocket.bind(ANYWHERE) as client:
            await client.send_to(bytes(11), server.local_address)
            await client.send_to(bytes(10), server.local_address)
            assert await server.recv() == bytes(10)
            ((error, source),) = server.take_errors()
            assert isinstance(error, MessageTooLarge)
            assert source is None or source[1] == client.local_address.port

    run_on(scenario)


@every_way
def test_giving_up(run_on: Ground, new_way: Callable[[], Way]) -> None:
    async def scenario(bench: Bench) -> None:
        async with await UdpSocket.bind(ANYWHERE) as server, await UdpSocket.bind(ANYWHERE) as client:
            await given_up(new_way(), server.recv_from)
            await given_up(new_way(), functools.partial(server.recv))
            await client.send_to(b"hello", server.local_address)
            assert await server.recv() == b"hello"

    run_on(scenario)


@pytest.mark.parametrize("turns", range(5))
def test_a_datagram_and_cancellation_at_the_same_time(run_on: Ground, turns: int) -> None:
    async def scenario(bench: Bench) -> None:
        async with await UdpSocket.bind(ANYWHERE) as server, await UdpSocket.bind(ANYWHERE) as client:
            for number in range(20):
                receiving = asyncio.ensure_future(server.recv())
                await client.send_to(b"%d" % number, server.local_address)
                for _ in range(turns):
                    await asyncio.sleep(0)
                receiving.cancel()
                try:
                    data = await receiving
                except asyncio.CancelledError:
                    data = await server.recv()
                assert data == b"%d" % number

    run_on(scenario)


def test_what_is_over_before_it_has_begun(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        async with await UdpSocket.bind(ANYWHERE) as sock:
            token = CancelToken()
            token.cancel("before")
            with cancel_scope(cancel=token):
                for operation in (
                    sock.recv(),
                    sock.send_to(b"x", sock.local_address),
                    UdpSocket.bind(ANYWHERE),
                    UdpSocket.connect("udp://127.0.0.1:9"),
                ):
                    with pytest.raises(OperationCancelled, match="before"):
                        await operation
            receiving = asyncio.ensure_future(sock.recv())
            await asyncio.sleep(0)
            with pytest.raises(SocketBusy):
                await sock.recv_from()
            sock.abort()
            with pytest.raises(SocketClosed):
                await receiving

    run_on(scenario)


def test_addresses_that_cannot_be_used(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        async with await UdpSocket.bind(ANYWHERE) as sock:
            with pytest.raises(AddressInUse):
                await UdpSocket.bind(str(sock.local_address))
            with pytest.raises(TransportError):
                await sock.send_to(b"x", "udp://nowhere.invalid:1")
            with pytest.raises(TransportError):
                await UdpSocket.connect("udp://nowhere.invalid:1")
            with pytest.raises(ValueError, match="scheme"):
                await UdpSocket.bind("tcp://127.0.0.1:0")

    run_on(scenario)


def test_a_foreign_peer(run_on_real: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind(("127.0.0.1", 0))
            peer.settimeout(10)
            async with await UdpSocket.bind(ANYWHERE) as sock:
                peer.sendto(b"hello", ("127.0.0.1", sock.local_address.port))
                data, source = await sock.recv_from()
                assert (data, source) == (b"hello", peer.getsockname())
                await sock.send_to(b"and back", f"udp://localhost:{source[1]}")
                await until(lambda: sock.statistics.sent == 1)
                assert await asyncio.to_thread(peer.recv, 100) == b"and back"

    run_on_real(scenario)


@pytest.mark.parametrize(
    ("destination", "reason"),
    [
        (5, "the destination must be a URL, an Address, or host and port, not 5"),
        (None, "the destination must be"),
        (("127.0.0.1",), "the destination must be"),
        ((5, 5), "the destination must be"),
        (("127.0.0.1", 99_999), "the port must be a whole number from 1 to 65535, not 99999"),
        (("127.0.0.1", 0), "the port must be"),
        (("127.0.0.1", "7"), "the port must be"),
    ],
)
def test_what_is_no_destination_is_refused_at_once(run_on: Ground, destination: object, reason: str) -> None:
    async def scenario(bench: Bench) -> None:
        async with await UdpSocket.bind(ANYWHERE) as sock:
            with pytest.raises(ValueError, match=reason):
                await sock.send_to(b"x", destination)  # type: ignore[arg-type]
            assert sock.take_errors() == []

    run_on(scenario)


def test_the_name_in_a_pair_is_looked_up(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        async with await UdpSocket.bind(ANYWHERE) as server, await UdpSocket.bind(ANYWHERE) as client:
            await client.send_to(b"hello", ("localhost", server.local_address.port))
            assert await server.recv(timeout=20) == b"hello"
            with pytest.raises(TransportError):
                await client.send_to(b"hello", ("nobody.invalid", 7), timeout=20)

    run_on(scenario)


def test_an_ipv6_group_needs_an_ipv6_socket(run_on_real: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        with pytest.raises(TransportError, match="ff02::7107: an IPv6 group needs an IPv6 socket"):
            await UdpSocket.bind(ANYWHERE, options=DatagramOptions(groups=["ff02::7107"]))

    run_on_real(scenario)
