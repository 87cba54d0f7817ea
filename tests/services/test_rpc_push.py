"""The server calls its clients: results, notifications and streams in the other direction."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from rpc_bench import Bench, Ground, until

from helianthus import CallContext, Peer, RpcError, RpcLimits, Service, StatusCode, method


class Desk(Service):
    """On the client's side: what the server may call."""

    def __init__(self, name: str = "desk of nobody") -> None:
        self.owner = name
        self.heard: list[Any] = []
        self.waits = asyncio.Event()
        self.cancelled = asyncio.Event()

    @method
    def whose(self) -> str:
        return self.owner

    @method
    async def square(self, value: int) -> int:
        await asyncio.sleep(0)
        return value * value

    @method
    def hear(self, news: str) -> None:
        self.heard.append(news)

    @method
    async def count(self, n: int) -> AsyncIterator[int]:
        for number in range(n):
            yield number

    @method
    async def collect(self, items: AsyncIterator[str]) -> str:
        return "".join([item async for item in items])

    @method
    def refuse(self) -> None:
        raise RpcError(StatusCode.PERMISSION_DENIED, "not you", ["ever"])

    @method
    def break_down(self) -> None:
        raise ZeroDivisionError("at the client")

    @method
    async def wait(self) -> None:
        self.waits.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()


class Office(Service):
    """On the server's side: its methods call whoever called them."""

    def __init__(self) -> None:
        self.callers: list[Peer] = []

    @method
    def register(self, context: CallContext) -> int:
        self.callers.append(context.peer)
        return len(self.callers)

    @method
    async def ask_whose(self, context: CallContext) -> str:
        return f"called by the {await context.peer.call('desk.whose')}"

    @method
    async def squares(self, context: CallContext, upto: int) -> list[int]:
        return await asyncio.gather(*(context.peer.call("desk.square", number) for number in range(upto)))

    @method
    def tell(self, context: CallContext, news: str) -> None:
        """A plain function can push too: notifications do not wait."""
        context.peer.notify("desk.hear", news)
        context.peer.notify("desk.hear", news=news.upper())

    @method
    async def sum_of_stream(self, context: CallContext, n: int) -> int:
        return sum([item async for item in context.peer.stream("desk.count", n)])

    @method
    async def stream_to(self, context: CallContext, text: str) -> str:
        stream = context.peer.stream("desk.collect")
        for letter in text:
            await stream.send(letter)
        return await stream

    @method
    async def pass_on(self, context: CallContext, name: str) -> Any:
        return await context.peer.call(name)

    @method
    async def ping_pong(self, context: CallContext, depth: int) -> int:
        """Calls the client, which calls back, and so on."""
        if depth == 0:
            return 0
        return 1 + await context.peer.call("ball.hit", depth - 1)


class Ball(Service):
    """At the client: hits back."""

    @method
    async def hit(self, context: CallContext, depth: int) -> int:
        if depth == 0:
            return 0
        return 1 + await context.peer.call("office.ping_pong", depth - 1)


def test_a_method_calls_its_caller_back(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Office())
        ann = await bench.client(server, Desk("desk of Ann"))
        bob = await bench.client(server, Desk("desk of Bob"))
        assert await ann.call("office.ask_whose") == "called by the desk of Ann"
        assert await bob.call("office.ask_whose") == "called by the desk of Bob"
        assert await ann.call("office.squares", 20) == [number * number for number in range(20)]

    run_on(scenario)


def test_a_plain_function_notifies_its_caller(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        desk = Desk()
        client = await bench.client(await bench.serve(Office()), desk)
        await client.call("office.tell", "rain")
        assert desk.heard == ["rain", "RAIN"]  # before the answer: one connection keeps its order

    run_on(scenario)


def test_streams_in_the_other_direction(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.client(await bench.serve(Office()), Desk())
        assert await client.call("office.sum_of_stream", 300) == sum(range(300))
        assert await client.call("office.stream_to", "sunflower" * 30) == "sunflower" * 30

    run_on(scenario)


def test_errors_in_the_other_direction(run_on: Ground, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.client(await bench.serve(Office()), Desk())
        with pytest.raises(RpcError) as caught:
            await client.call("office.pass_on", "desk.refuse")
        # the method let the error of its own call out, so it is the answer
        assert caught.value.code is StatusCode.PERMISSION_DENIED
        assert (caught.value.message, caught.value.details) == ("not you", ["ever"])
        with pytest.raises(RpcError) as caught:
            await client.call("office.pass_on", "desk.no_such")
        assert caught.value.code is StatusCode.UNIMPLEMENTED
        caplog.clear()
        with pytest.raises(RpcError, match="ZeroDivisionError") as caught:
            await client.call("office.pass_on", "desk.break_down")
        assert caught.value.code is StatusCode.UNKNOWN
        (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert "desk.break_down" in record.getMessage()

    run_on(scenario)


def test_a_client_without_services_has_no_methods(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Office())
        with pytest.raises(RpcError) as caught:
            await client.call("office.ask_whose")
        assert caught.value.code is StatusCode.UNIMPLEMENTED
        assert "desk.whose" in caught.value.message

    run_on(scenario)


def test_calls_to_and_fro(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.client(await bench.serve(Office()), Ball())
        assert await client.call("office.ping_pong", 25) == 25
        assert await asyncio.gather(*(client.call("office.ping_pong", 5) for _ in range(20))) == [5] * 20

    run_on(scenario)


def test_pushing_later_to_those_who_are_connected(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        office = Office()
        server = await bench.serve(office)
        desks = [Desk(f"desk {number}") for number in range(5)]
        clients = [await bench.client(server, desk) for desk in desks]
        for number, client in enumerate(clients):
            assert await client.call("office.register") == number + 1
        for number, peer in enumerate(office.callers):
            assert await peer.call("desk.whose") == f"desk {number}"
            peer.notify("desk.hear", f"news for {number}")
            assert await peer.call("desk.square", value=number) == number * number
        assert [desk.heard for desk in desks] == [[f"news for {number}"] for number in range(5)]

    run_on(scenario)


def test_pushing_from_on_connect(run_on: Ground) -> None:
    """Nothing of the client is known yet; plain messages need no extension."""

    async def scenario(bench: Bench) -> None:
        desk = Desk()
        server = await bench.serve(Office())
        server.on_connect(lambda peer: peer.notify("desk.hear", "welcome"))
        await bench.client(server, desk)
        await until(lambda: desk.heard)
        assert desk.heard == ["welcome"]

    run_on(scenario)


def test_a_push_has_deadlines_and_can_be_cancelled(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        office, desk = Office(), Desk()
        client = await bench.client(await bench.serve(office), desk)
        await client.call("office.register")
        (peer,) = office.callers
        with pytest.raises(RpcError) as caught:
            await peer.call("desk.wait", timeout=0.15)
        assert caught.value.code is StatusCode.DEADLINE_EXCEEDED
        await desk.cancelled.wait()

        desk.waits.clear()
        desk.cancelled.clear()
        pushing = asyncio.ensure_future(peer.call("desk.wait"))
        await desk.waits.wait()
        pushing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pushing
        await desk.cancelled.wait()

    run_on(scenario)


def test_a_push_to_somebody_who_has_gone(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        office = Office()
        client = await bench.client(await bench.serve(office), Desk())
        await client.call("office.register")
        (peer,) = office.callers
        pushing = asyncio.ensure_future(peer.call("desk.wait"))
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(RpcError) as caught:
            await pushing
        assert caught.value.code is StatusCode.UNAVAILABLE
        await until(lambda: peer.closed)
        for given in (peer.call("desk.whose"), peer.call("desk.whose", timeout=1)):
            with pytest.raises(RpcError) as caught:
                await given
            assert caught.value.code is StatusCode.UNAVAILABLE
            assert not caught.value.maybe_executed
        for push in (peer.notify, peer.stream):
            with pytest.raises(RpcError) as caught:
                push("desk.hear", "nobody")
            assert caught.value.code is StatusCode.UNAVAILABLE

    run_on(scenario)


def test_what_is_pushed_ends_with_the_connection(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        office, desk = Office(), Desk()
        client = await bench.client(await bench.serve(office), desk)
        await client.call("office.register")
        (peer,) = office.callers
        pushing = asyncio.ensure_future(peer.call("desk.wait"))
        await desk.waits.wait()
        await client.close()
        assert desk.cancelled.is_set()
        with pytest.raises(RpcError):
            await pushing

    run_on(scenario)


def test_many_pushes_wait_their_turn(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        office = Office()
        server = await bench.serve(office, limits=RpcLimits(max_calls=10))
        client = await bench.client(server, Desk())
        await client.call("office.register")
        (peer,) = office.callers
        answers = await asyncio.gather(*(peer.call("desk.square", number) for number in range(100)))
        assert answers == [number * number for number in range(100)]
        answers = await asyncio.gather(
            *(peer.call("desk.square", number, timeout=20) for number in range(100))
        )
        assert answers == [number * number for number in range(100)]

    run_on(scenario)
