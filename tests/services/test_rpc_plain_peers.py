"""Peers that speak MessagePack-RPC and know nothing of the extensions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgpack
import pytest
from rpc_bench import Bench, Ground, until
from rpc_raw import HELLO, NOTIFICATION, REQUEST, RESPONSE, RawEnd, RawServer, raw_client

from helianthus import (
    CallContext,
    CallPolicy,
    CancelToken,
    Client,
    RetryPolicy,
    RpcError,
    Service,
    StatusCode,
    method,
)
from helianthus.sim import World


class Plain(Service):
    def __init__(self) -> None:
        self.noted: list[Any] = []
        self.let_go = asyncio.Event()
        self.ended: list[str] = []

    @method
    def add(self, a: int, b: int = 1) -> int:
        return a + b

    @method
    async def wait(self) -> str:
        try:
            await self.let_go.wait()
        finally:
            self.ended.append("wait")
        return "waited"

    @method
    def note(self, value: Any) -> None:
        self.noted.append(value)

    @method
    def fail(self) -> None:
        raise RpcError(StatusCode.NOT_FOUND, "nothing here", {"looked": ["everywhere"]})

    @method
    def crash(self) -> None:
        raise ZeroDivisionError("on purpose")

    @method
    async def count(self, n: int) -> AsyncIterator[int]:
        for number in range(n):
            yield number

    @method
    async def call_back(self, context: CallContext, how: str) -> Any:
        if how == "call":
            return await context.peer.call("client.greet", "server", timeout=20)
        if how == "notify":
            return context.peer.notify("client.greet", "server")
        if how == "keywords":
            return await context.peer.call("client.greet", name="server")
        return await anext(context.peer.stream("client.greet", "server"))


async def serve(bench: Bench) -> tuple[Plain, RawEnd]:
    """A service, and a plain client of it."""
    service = Plain()
    end = await raw_client(await bench.serve(service))
    bench.at_the_end(end.abort)
    return service, end


# -- our server, plain clients ------------------------------------------------------------------------------


def test_a_request_is_answered(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        _, end = await serve(bench)
        end.say([REQUEST, 1, "plain.add", [2, 3]])
        assert await end.hear() == [RESPONSE, 1, None, 5]
        end.say([REQUEST, 4294967295, "plain.add", [2]])
        assert await end.hear() == [RESPONSE, 4294967295, None, 3]
        end.say([REQUEST, 0, "plain.add", [0, 0]])
        assert await end.hear() == [RESPONSE, 0, None, 0]

    run_on(scenario)


def test_ids_are_the_clients_own_business(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service, end = await serve(bench)
        end.say(
            [REQUEST, 7, "plain.wait", []],
            *([REQUEST, number, "plain.add", [number]] for number in (2, 9, 4, 3)),
        )
        assert [await end.hear() for _ in range(4)] == [
            [RESPONSE, number, None, number + 1] for number in (2, 9, 4, 3)
        ]
        service.let_go.set()
        assert await end.hear() == [RESPONSE, 7, None, "waited"]
        end.say([REQUEST, 7, "plain.add", [1]])  # free again
        assert await end.hear() == [RESPONSE, 7, None, 2]

    run_on(scenario)


def test_a_notification_is_not_answered(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service, end = await serve(bench)
        end.say(
            [NOTIFICATION, "plain.note", ["a"]],
            [NOTIFICATION, "plain.note", [{"b": [1, None]}]],
            [NOTIFICATION, "plain.no_such", []],
            [REQUEST, 1, "plain.add", [1]],
        )
        assert await end.hear() == [RESPONSE, 1, None, 2]
        assert service.noted == ["a", {"b": [1, None]}]

    run_on(scenario)


def test_errors_are_an_array_of_code_message_and_details(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        _, end = await serve(bench)
        end.say([REQUEST, 1, "plain.fail", []])
        assert await end.hear() == [RESPONSE, 1, [5, "nothing here", {"looked": ["everywhere"]}], None]
        end.say([REQUEST, 2, "plain.crash", []])
        kind, msgid, (code, message, details), result = await end.hear()
        assert (kind, msgid, code, details, result) == (RESPONSE, 2, StatusCode.UNKNOWN, None, None)
        assert "ZeroDivisionError" in message
        for number, (name, params, expected) in enumerate(
            [
                ("plain.no_such", [], StatusCode.UNIMPLEMENTED),
                ("plain.add", ["1"], StatusCode.INVALID_ARGUMENT),
                ("plain.add", [1, 2, 3], StatusCode.INVALID_ARGUMENT),
                ("plain.count", [3], StatusCode.UNIMPLEMENTED),
            ],
            start=3,
        ):
            end.say([REQUEST, number, name, params])
            kind, msgid, (code, message, details), result = await end.hear()
            assert (kind, msgid, code, details, result) == (RESPONSE, number, expected, None, None)
        bench.take_errors()

    run_on(scenario)


def test_nothing_but_answers_is_ever_sent_to_a_plain_client(run_on: Ground) -> None:
    """No hello, no ping, no goaway: neither at the beginning nor in the middle nor at the end."""

    async def scenario(bench: Bench) -> None:
        service = Plain()
        server = await bench.serve(service)
        end = await raw_client(server)
        end.say([REQUEST, 1, "plain.wait", []], [NOTIFICATION, "plain.note", ["x"]])
        await until(lambda: service.noted)
        draining = asyncio.ensure_future(server.drain(grace=20))
        await asyncio.sleep(0.01)
        end.say([REQUEST, 2, "plain.add", [1]])  # too late: a plain client has to be told by an error
        kind, msgid, (code, _, _), _ = await end.hear()
        assert (kind, msgid, code) == (RESPONSE, 2, StatusCode.UNAVAILABLE)
        service.let_go.set()
        assert await end.hear() == [RESPONSE, 1, None, "waited"]
        await end.hear_end()
        assert not end.heard
        end.finish()
        assert await draining

    run_on(scenario)


def test_a_plain_client_is_not_pinged() -> None:
    with World(seed=3) as world:
        node = world.node("n")

        async def scenario() -> list[Any]:
            from helianthus import KeepAlive, Server

            server = Server([Plain()], keep_alive=KeepAlive(time=1.0, timeout=1.0, without_calls=True))
            await server.listen("tcp://127.0.0.1:7070")
            end = await raw_client(server)
            await asyncio.sleep(60.0)
            end.say([REQUEST, 1, "plain.add", [1]])
            return [await end.hear(), len(end.heard)]

        assert world.run_until(node.spawn(scenario)) == [[RESPONSE, 1, None, 2], 0]


def test_keywords_are_understood_from_anybody(run_on: Ground) -> None:
    """Being generous costs nothing: it is the request that has the extension, not the answer."""

    async def scenario(bench: Bench) -> None:
        _, end = await serve(bench)
        end.say([REQUEST, 1, "plain.add", {"b": 2, "a": 1}])
        assert await end.hear() == [RESPONSE, 1, None, 3]

    run_on(scenario)


def test_the_server_calls_a_plain_client(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        _, end = await serve(bench)
        end.say([REQUEST, 1, "plain.call_back", ["call"]])
        kind, msgid, name, params = await end.hear()  # and no meta, though there is a timeout
        assert (kind, name, params) == (REQUEST, "client.greet", ["server"])
        end.say([RESPONSE, msgid, None, "hello server"])
        assert await end.hear() == [RESPONSE, 1, None, "hello server"]

        end.say([REQUEST, 2, "plain.call_back", ["notify"]])
        assert await end.hear() == [NOTIFICATION, "client.greet", ["server"]]
        assert await end.hear() == [RESPONSE, 2, None, None]

    run_on(scenario)


@pytest.mark.parametrize("how", ["keywords", "stream"])
def test_a_plain_client_cannot_be_called_with_extensions(run_on: Ground, how: str) -> None:
    async def scenario(bench: Bench) -> None:
        _, end = await serve(bench)
        end.say([REQUEST, 1, "plain.call_back", [how]])
        kind, msgid, (code, message, _), _ = await end.hear()
        assert (kind, msgid) == (RESPONSE, 1)
        assert code in (StatusCode.UNIMPLEMENTED, StatusCode.UNAVAILABLE)
        assert "extensions" in message

    run_on(scenario)


def test_what_foreign_clients_send_as_errors(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        _, end = await serve(bench)
        for number, (error, code, text) in enumerate(
            [
                ("just text", StatusCode.UNKNOWN, "just text"),
                ([1, "odd", 3], StatusCode.CANCELLED, "odd"),
                ([99, "no such code"], StatusCode.UNKNOWN, "no such code"),
                ({"message": "a map"}, StatusCode.UNKNOWN, "a map"),
                (42, StatusCode.UNKNOWN, "42"),
                ([0, "an exception of Neovim"], StatusCode.UNKNOWN, "an exception of Neovim"),
                (True, StatusCode.UNKNOWN, "True"),
            ]
        ):
            end.say([REQUEST, number, "plain.call_back", ["call"]])
            _, msgid, _, _ = await end.hear()
            end.say([RESPONSE, msgid, error, None])
            _, answered, (got_code, got_text, _), _ = await end.hear()
            assert answered == number
            assert got_code == code
            assert text in got_text

    run_on(scenario)


def test_pipelined_requests_in_every_cut(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        _, end = await serve(bench)
        whole = b"".join(
            msgpack.packb([REQUEST, number, "plain.add", [number, number]]) for number in range(40)
        )
        for step in (1, 2, 7, 64):
            for start in range(0, len(whole), step):
                end.send(whole[start : start + step])
                await asyncio.sleep(0)
            assert [await end.hear() for _ in range(40)] == [[RESPONSE, n, None, 2 * n] for n in range(40)]

    run_on(scenario)


def test_a_half_closed_client_still_gets_its_answers(run_on: Ground) -> None:
    """`printf … | nc`: it ends its direction after the last request."""

    async def scenario(bench: Bench) -> None:
        service, end = await serve(bench)
        end.say([REQUEST, 1, "plain.wait", []], [REQUEST, 2, "plain.add", [1]])
        end.end()
        assert await end.hear() == [RESPONSE, 2, None, 2]
        await asyncio.sleep(0.005)
        service.let_go.set()
        assert await end.hear() == [RESPONSE, 1, None, "waited"]
        await end.hear_end()
        await until(lambda: bench.disconnected)
        assert bench.disconnected[0][1] is None

    run_on(scenario)


def test_a_plain_client_that_leaves_may_have_half_closed(run_on: Ground) -> None:
    """Nothing tells the two apart until an answer cannot be sent: what runs for it goes on."""

    async def scenario(bench: Bench) -> None:
        service, end = await serve(bench)
        end.say([REQUEST, 1, "plain.wait", []], [REQUEST, 2, "plain.add", [1]])
        await end.hear()
        end.abort()
        await asyncio.sleep(0.005)
        assert service.ended == []
        service.let_go.set()
        await until(lambda: bench.disconnected)
        assert service.ended == ["wait"]

    run_on(scenario)


def test_a_client_with_the_extensions_that_leaves_has_gone(run_on: Ground) -> None:
    """It never ends its direction only: what runs for it is cancelled, though it did not say so."""

    async def scenario(bench: Bench) -> None:
        service, end = await serve(bench)
        end.say(HELLO, [REQUEST, 1, "plain.wait", []], [REQUEST, 3, "plain.add", [1]])
        assert await end.hear() == HELLO
        assert await end.hear() == [RESPONSE, 3, None, 2]
        end.abort()
        await until(lambda: service.ended == ["wait"])
        await until(lambda: bench.disconnected)
        assert not service.let_go.is_set()

    run_on(scenario)


# -- our client, plain servers --------------------------------------------------------------------


async def connect(bench: Bench, **options: Any) -> tuple[Client, RawServer]:
    """A plain server, and a client of it."""
    server = RawServer()
    client = await bench.client(server.url, **options)
    bench.at_the_end(server.close)  # before the client, which would wait for the server's goodbye
    return client, server


async def part(client: Client, end: RawEnd) -> None:
    """Have a client close, and a plain server answer that."""
    closing = asyncio.ensure_future(client.close())
    await end.hear_end()
    end.finish()
    await closing


def test_a_client_without_extensions_says_nothing_else(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client, server = await connect(bench, extensions=False)
        end = await server.accepted()
        calling = asyncio.ensure_future(client.call("far.add", 2, 3, timeout=20, meta={"tenant": 1}))
        assert await end.hear() == [REQUEST, 1, "far.add", [2, 3]]
        end.say([RESPONSE, 1, None, 5])
        assert await calling == 5
        await client.notify("far.note", "x", meta={"tenant": 1})
        assert await end.hear() == [NOTIFICATION, "far.note", ["x"]]
        cancelled = asyncio.ensure_future(client.call("far.wait"))
        assert await end.hear() == [REQUEST, 3, "far.wait", []]
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        expiring = asyncio.ensure_future(client.call("far.wait", timeout=0.01))
        assert await end.hear() == [REQUEST, 5, "far.wait", []]
        with pytest.raises(RpcError) as caught:
            await expiring
        assert caught.value.code is StatusCode.DEADLINE_EXCEEDED
        end.say([RESPONSE, 3, None, "too late"], [RESPONSE, 5, "too late", None])  # nobody wants them
        calling = asyncio.ensure_future(client.call("far.add", 1, 1))
        assert await end.hear() == [REQUEST, 7, "far.add", [1, 1]]
        end.say([RESPONSE, 7, None, 2])
        assert await calling == 2
        await part(client, end)
        assert not end.heard

    run_on(scenario)


def test_a_client_without_extensions_cannot_use_them(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client, server = await connect(bench, extensions=False)
        await server.accepted()
        for given in (
            client.call("far.add", a=2, b=3),
            client.notify("far.add", a=2),
            anext(client.stream("far.count", 3)),
            client.stream("far.total").send(1),
        ):
            with pytest.raises(RpcError, match="extensions") as caught:
                await given
            assert caught.value.code is StatusCode.UNIMPLEMENTED
            assert not caught.value.maybe_executed

    run_on(scenario)


def test_a_call_that_needs_its_key_is_not_sent_without_it(run_on: Ground) -> None:
    """A server that is not told the key would run the call once more with each attempt."""

    async def scenario(bench: Bench) -> None:
        once = CallPolicy(idempotent=True, retry=RetryPolicy(initial=0.001))
        for options, code in (
            ({"extensions": False}, StatusCode.UNIMPLEMENTED),
            ({"hello_timeout": 0.01}, StatusCode.UNAVAILABLE),
        ):
            client, server = await connect(bench, policies={"far.pay": once}, **options)
            end = await server.accepted()
            with pytest.raises(RpcError, match=r"extensions; far\.pay needs meta") as caught:
                await client.call("far.pay", 5)
            assert caught.value.code is code
            assert not caught.value.maybe_executed
            calling = asyncio.ensure_future(client.call("far.add", 2, 3))
            if code is StatusCode.UNAVAILABLE:
                assert await end.hear() == HELLO
            _, msgid, name, _ = await end.hear()
            assert name == "far.add"
            end.say([RESPONSE, msgid, None, 5])
            assert await calling == 5

    run_on(scenario)


def test_a_server_that_says_no_hello_is_taken_for_a_plain_one(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        began = bench.driver.now()
        client, server = await connect(bench, hello_timeout=0.02)
        end = await server.accepted()
        calling = asyncio.ensure_future(client.call("far.add", 2, 3, timeout=20))
        assert await end.hear() == HELLO
        kind, msgid, name, params = await end.hear()
        assert bench.driver.now() - began >= 0.019
        assert (kind, name, params) == (REQUEST, "far.add", [2, 3])
        end.say([RESPONSE, msgid, None, 5])
        assert await calling == 5
        with pytest.raises(RpcError, match="extensions"):
            await anext(client.stream("far.count"))
        await part(client, end)
        assert not end.heard

    run_on(scenario)


def test_a_server_that_refuses_the_hello_is_taken_for_a_plain_one(run_on: Ground) -> None:
    """It may answer what it does not know with an error of its own making; calls go on."""

    async def scenario(bench: Bench) -> None:
        client, server = await connect(bench, hello_timeout=0.02)
        end = await server.accepted()
        assert await end.hear() == HELLO
        end.say([RESPONSE, 0, "unknown method helianthus.hello", None])
        calling = asyncio.ensure_future(client.call("far.add", 2, 3))
        _, msgid, _, _ = await end.hear()
        end.say([RESPONSE, msgid, None, 5])
        assert await calling == 5

    run_on(scenario)


def test_a_late_hello_brings_the_extensions(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client, server = await connect(bench, hello_timeout=0.01)
        end = await server.accepted()
        assert await end.hear() == HELLO
        calling = asyncio.ensure_future(client.call("far.add", 1))
        _, msgid, _, _ = await end.hear()
        end.say(HELLO, [RESPONSE, msgid, None, 2])
        assert await calling == 2
        calling = asyncio.ensure_future(client.call("far.add", a=1))
        _, msgid, _, params = await end.hear()
        assert params == {"a": 1}
        end.say([RESPONSE, msgid, None, 2])
        assert await calling == 2

    run_on(scenario)


def test_calls_before_the_hello_can_be_given_up(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client, server = await connect(bench, hello_timeout=20)
        end = await server.accepted()
        token = CancelToken()
        calls = [
            asyncio.ensure_future(client.call("far.add", 1)),
            asyncio.ensure_future(client.call("far.add", 1, cancel=token)),
            asyncio.ensure_future(client.call("far.add", 1, timeout=0.01)),
        ]
        assert await end.hear() == HELLO
        calls[0].cancel()
        token.cancel("enough")
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(outcomes[0], asyncio.CancelledError)
        assert [outcome.code for outcome in outcomes[1:] if isinstance(outcome, RpcError)] == [
            StatusCode.CANCELLED,
            StatusCode.DEADLINE_EXCEEDED,
        ]
        assert not end.heard

    run_on(scenario)


def test_the_hello_is_waited_for_by_default_for_two_seconds() -> None:
    with World(seed=4) as world:
        node = world.node("n")

        async def scenario() -> float:
            server = RawServer()
            loop = asyncio.get_running_loop()
            async with Client(server.url) as client:
                end = await server.accepted()
                began = loop.time()
                calling = asyncio.ensure_future(client.call("far.add", 1))
                await end.hear()
                _, msgid, _, _ = await end.hear()
                took = loop.time() - began
                end.say([RESPONSE, msgid, None, 2])
                assert await calling == 2
            return took

        assert world.run_until(node.spawn(scenario)) == pytest.approx(2.0, abs=0.01)


def test_a_plain_server_calls_the_client(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Plain()
        server = RawServer()
        await bench.client(server.url, service, extensions=False)
        bench.at_the_end(server.close)
        end = await server.accepted()
        end.say(
            [REQUEST, 1, "plain.add", [1, 1]],  # its ids may be those of our own calls
            [NOTIFICATION, "plain.note", ["pushed"]],
            [REQUEST, 2, "plain.no_such", []],
        )
        assert await end.hear() == [RESPONSE, 1, None, 2]
        _, _, (code, _, _), _ = await end.hear()
        assert code == StatusCode.UNIMPLEMENTED
        assert service.noted == ["pushed"]

    run_on(scenario)


def test_answers_in_any_order(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client, server = await connect(bench, extensions=False)
        end = await server.accepted()
        calls = [asyncio.ensure_future(client.call("far.echo", number)) for number in range(20)]
        asked = [await end.hear() for _ in range(20)]
        end.say(*([RESPONSE, msgid, None, params[0]] for _, msgid, _, params in reversed(asked)))
        assert await asyncio.gather(*calls) == list(range(20))

    run_on(scenario)
