"""Servers: where they listen, whom they tell what, and how they stop."""

from __future__ import annotations

import asyncio
import logging

import pytest
from rpc_bench import LOCAL, Bench, Ground, until, url_of

from helianthus import CallContext, Client, Peer, RpcError, Server, Service, StatusCode, method
from helianthus.errors import AddressInUse, ConnectionReset
from helianthus.services.rpc import ChannelState


class Hall(Service):
    """Says hello, and lets somebody wait."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.came = 0
        self.left: list[str] = []
        self.leave = asyncio.Event()

    @method
    def greet(self, name: str) -> str:
        return f"hello {name}"

    @method
    def fail(self) -> None:
        raise ZeroDivisionError("on purpose")

    @method
    async def wait(self, name: str) -> str:
        self.came += 1
        self.entered.set()
        try:
            await self.leave.wait()
        finally:
            self.left.append(name)
        return name

    @method
    async def linger(self) -> None:
        """Takes its time to clean up."""
        self.came += 1
        self.entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            self.left.append("linger")

    @method
    def throw_out(self, context: CallContext) -> str:
        context.peer.close("out with you")
        return "never heard"

    @method
    def cut_off(self, context: CallContext) -> None:
        context.peer.abort()

    @method
    async def throw_out_later(self, context: CallContext) -> None:
        await asyncio.sleep(0)
        context.peer.close("out with you")


def test_many_listeners_serve_the_same(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Hall())
        for _ in range(4):
            address = await server.listen(LOCAL)
            assert address == server.addresses[-1]
        ports = [address.port for address in server.addresses]
        assert len(set(ports)) == 5
        assert 0 not in ports
        clients = [await bench.client(address) for address in server.addresses]
        answers = [await client.call("hall.greet", str(i)) for i, client in enumerate(clients)]
        assert answers == [f"hello {i}" for i in range(5)]
        assert len(server.peers) == 5

    run_on(scenario)


def test_addresses_that_cannot_be_used(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Hall())
        with pytest.raises(AddressInUse):
            await server.listen(url_of(server))
        for wrong in (
            "127.0.0.1:80",
            "tcp://",
            "tcp://127.0.0.1",
            "udp://127.0.0.1:1",
            "tcp://127.0.0.1:99999",
        ):
            with pytest.raises(ValueError, match=r"tcp://|port"):
                await server.listen(wrong)
        assert len(server.addresses) == 1
        assert await (await bench.client(server)).call("hall.greet", "you") == "hello you"

    run_on(scenario)


def test_a_closed_server_does_not_listen_again(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = Server([Hall()])
        await server.listen(LOCAL)
        await server.close()
        with pytest.raises(RuntimeError, match="closed"):
            await server.listen(LOCAL)
        await server.close()  # may be repeated

    run_on(scenario)


def test_connections_are_told(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = Server([Hall()])
        told: list[tuple[str, Peer, object]] = []

        @server.on_connect
        def connected(peer: Peer) -> None:
            told.append(("connect", peer, peer.address))

        @server.on_disconnect
        def disconnected(peer: Peer, error: Exception | None) -> None:
            told.append(("disconnect", peer, error))

        async with server:
            await server.listen(LOCAL)
            async with Client(url_of(server)) as client:
                await client.call("hall.greet", "you")
                ((kind, peer, address),) = told
                assert kind == "connect"
                assert str(address).startswith("127.0.0.1:")
                assert list(server.peers) == [peer]
                assert not peer.closed
                assert peer.in_flight == 0
            await until(lambda: len(told) == 2)
            assert told[1] == ("disconnect", peer, None)
            assert peer.closed
            assert not server.peers
        assert len(told) == 2

    run_on(scenario)


def test_several_callbacks_hear_of_each_event_in_order(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Hall())
        heard: list[str] = []
        server.on_connect(lambda peer: heard.append("connect 1"))
        server.on_connect(lambda peer: heard.append("connect 2"))
        server.on_error(lambda peer, name, error: heard.append(f"{name} {error}"))
        server.on_disconnect(lambda peer, error: heard.append("disconnect"))
        client = await bench.client(server)
        with pytest.raises(RpcError):
            await client.call("hall.fail")
        await client.close()
        await until(lambda: "disconnect" in heard)
        assert heard == ["connect 1", "connect 2", "hall.fail on purpose", "disconnect"]
        bench.take_errors()

    run_on(scenario)


def test_a_lost_connection_is_told_with_its_error(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        hall = Hall()
        client = await bench.pair(hall)
        waiting = asyncio.ensure_future(client.call("hall.wait", "a"))
        await hall.entered.wait()
        bench.connected[0].abort()  # by ourselves: no error
        with pytest.raises(RpcError) as caught:
            await waiting
        assert caught.value.code is StatusCode.UNAVAILABLE
        await until(lambda: bench.disconnected)
        assert hall.left == ["a"]

    run_on(scenario)


def test_callbacks_that_fail_stop_nothing(run_on: Ground) -> None:
    """Neither the connection nor the other callbacks, nor the server's own bookkeeping."""

    async def scenario(bench: Bench) -> None:
        faults: list[str] = []
        report, bench.driver.on_error = bench.driver.on_error, lambda error: faults.append(str(error))
        server = Server([Hall()])

        @server.on_connect
        def connected(peer: Peer) -> None:
            raise RuntimeError("connected")

        @server.on_disconnect
        def disconnected(peer: Peer, error: Exception | None) -> None:
            raise RuntimeError("disconnected")

        @server.on_error
        def failed(peer: Peer, name: str, error: Exception) -> None:
            raise RuntimeError(f"{name} failed")

        bench.connected.clear()
        server.on_connect(bench.connected.append)
        await server.listen(LOCAL)
        client = await bench.client(server)
        assert await client.call("hall.greet", "you") == "hello you"
        with pytest.raises(RpcError, match="ZeroDivisionError"):
            await client.call("hall.fail")
        assert await client.call("hall.greet", "you") == "hello you"
        assert len(bench.connected) == 1
        await client.close()
        await server.close()  # would wait for ever if the peer were still counted
        assert faults == ["connected", "hall.fail failed", "disconnected"]
        bench.driver.on_error = report

    run_on(scenario)


def test_errors_nobody_asked_for_are_logged(run_on: Ground, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(bench: Bench) -> None:
        caplog.clear()
        async with Server([Hall()]) as server:
            await server.listen(LOCAL)
            async with Client(url_of(server)) as client:
                with pytest.raises(RpcError):
                    await client.call("hall.fail")
        (record,) = [record for record in caplog.records if record.name == "helianthus.rpc"]
        assert record.levelno == logging.ERROR
        assert "hall.fail" in record.getMessage()
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], ZeroDivisionError)

    run_on(scenario)


@pytest.mark.parametrize("name", ["throw_out", "throw_out_later", "cut_off"])
def test_a_method_may_end_its_callers_connection(run_on: Ground, name: str) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Hall())
        with pytest.raises(RpcError) as caught:
            await client.call(f"hall.{name}")
        assert caught.value.code is StatusCode.UNAVAILABLE
        assert caught.value.maybe_executed
        await until(lambda: bench.disconnected)
        assert bench.errors == []
        await until(lambda: client.state is ChannelState.READY)
        assert await client.call("hall.greet", "again") == "hello again"

    run_on(scenario)


def test_closing_cancels_what_runs_and_waits_for_its_clean_up(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        hall = Hall()
        server = await bench.serve(hall)
        client = await bench.client(server)
        waiting = [asyncio.ensure_future(client.call("hall.wait", name)) for name in "ab"]
        lingering = asyncio.ensure_future(client.call("hall.linger"))
        await until(lambda: hall.came == 3)
        await server.close()
        assert sorted(hall.left) == ["a", "b", "linger"]
        for call in (*waiting, lingering):
            with pytest.raises(RpcError) as caught:
                await call
            assert caught.value.code is StatusCode.UNAVAILABLE
        assert not server.peers

    run_on(scenario)


def test_closing_waits_for_methods_whose_caller_has_gone_before(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        hall = Hall()
        server = await bench.serve(hall)
        client = await bench.client(server)
        lingering = asyncio.ensure_future(client.call("hall.linger"))
        await hall.entered.wait()
        await client.close()
        with pytest.raises(RpcError):
            await lingering
        await until(lambda: not server.peers)
        await server.close()
        assert hall.left == ["linger"]

    run_on(scenario)


def test_serve_forever_ends_with_the_server(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Hall())
        serving = asyncio.ensure_future(server.serve_forever())
        client = await bench.client(server)
        assert await client.call("hall.greet", "you") == "hello you"
        assert not serving.done()
        await server.close()
        await serving

        server = await bench.serve(Hall())
        serving = asyncio.ensure_future(server.serve_forever())
        assert await server.drain()
        await serving

    run_on(scenario)


def test_cancelling_serve_forever_closes_the_server(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Hall())
        serving = asyncio.ensure_future(server.serve_forever())
        client = await bench.client(server)
        await client.call("hall.greet", "you")
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        await until(lambda: not server.peers)
        with pytest.raises(RuntimeError, match="closed"):
            await server.listen(LOCAL)

    run_on(scenario)


def test_many_servers_in_one_loop(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        halls = [Hall() for _ in range(10)]
        clients = [await bench.pair(hall) for hall in halls]
        answers = await asyncio.gather(
            *(client.call("hall.greet", str(i)) for i, client in enumerate(clients) for _ in range(3))
        )
        assert answers == [f"hello {i}" for i in range(10) for _ in range(3)]

    run_on(scenario)


def test_a_reset_by_the_client_is_told_as_such(run_on_real: Ground) -> None:
    import socket
    import struct

    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Hall())
        with socket.create_connection((server.addresses[0].host, server.addresses[0].port)) as raw:
            await until(lambda: bench.connected)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await until(lambda: bench.disconnected)
        assert isinstance(bench.disconnected[0][1], ConnectionReset)

    run_on_real(scenario)
