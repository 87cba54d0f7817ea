"""What the library refuses by itself has surely not run, and whoever called is told so."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from rpc_bench import Bench, Ground

from helianthus import RpcError, RpcLimits, Service, StatusCode, current_call, method


class Strict(Service):
    """Methods that are easily called in a wrong way."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()

    @method
    def double(self, number: int) -> int:
        return number * 2

    @method
    async def wait(self) -> None:
        await self.gate.wait()

    @method
    async def pass_on(self, error_of: str) -> None:
        raise RpcError(StatusCode.UNAVAILABLE, error_of, maybe_executed=False)

    @method
    def zeros(self, count: int) -> list[int]:
        return [0] * count

    @method
    def who(self) -> list[Any]:
        """What a plain function knows of its call, which came without meta."""
        context = current_call()
        assert context is not None
        return [context.method, context.peer.address, context.remaining(), context.meta]

    @method
    async def who_later(self) -> bool:
        return current_call() is not None


async def failure(awaitable: Any) -> RpcError:
    with pytest.raises(RpcError) as caught:
        await awaitable
    return caught.value


def test_wrong_arguments_and_unknown_methods_surely_have_not_run(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Strict())
        for call, code in (
            (client.call("strict.double", "2"), StatusCode.INVALID_ARGUMENT),
            (client.call("strict.double"), StatusCode.INVALID_ARGUMENT),
            (client.call("strict.wait", 1), StatusCode.INVALID_ARGUMENT),
            (client.call("strict.halve", 2), StatusCode.UNIMPLEMENTED),
        ):
            error = await failure(call)
            assert error.code is code
            assert not error.maybe_executed

    run_on(scenario)


def test_what_exceeds_the_servers_limit_surely_has_not_run(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Strict()
        server = await bench.serve(service, limits=RpcLimits(max_calls=1))
        client = await bench.client(server)
        await client.call("strict.double", 1)  # connected, it begins calls at once
        waiting = asyncio.ensure_future(client.call("strict.wait"))
        error = await failure(client.call("strict.double", 2))
        assert error.code is StatusCode.RESOURCE_EXHAUSTED
        assert "max_calls (1)" in error.message
        assert "call again when others have ended" in error.message
        assert not error.maybe_executed
        service.gate.set()
        await waiting

    run_on(scenario)


def test_a_method_that_fails_may_have_run_in_part(run_on: Ground) -> None:
    """Even with the error of a call of its own that has not: the method itself was running."""

    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Strict())
        error = await failure(client.call("strict.pass_on", "the next node"))
        assert error.maybe_executed

    run_on(scenario)


def test_too_many_elements_fail_their_call_only(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Strict()
        client = await bench.pair(service)
        waiting = asyncio.ensure_future(client.call("strict.wait"))
        limit = RpcLimits().max_elements
        asked = await failure(client.call("strict.zeros", limit + 1))
        sent = await failure(client.call("strict.double", [0] * (limit + 1)))
        for error in (asked, sent):
            assert error.code is StatusCode.RESOURCE_EXHAUSTED
            assert f"max_elements ({limit})" in error.message
        ((name, _),) = bench.take_errors()
        assert name == "strict.zeros"
        assert len(await client.call("strict.zeros", limit)) == limit
        service.gate.set()
        await waiting

    run_on(scenario)


def test_a_plain_function_knows_its_call(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Strict())
        name, address, remaining, meta = await client.call("strict.who")
        assert (name, remaining, meta) == ("strict.who", None, {})
        assert address == bench.connected[0].address
        assert current_call() is None
        assert await client.call("strict.who_later")
        assert isinstance(await client.call("strict.who", timeout=5.0), list)

    run_on(scenario)
