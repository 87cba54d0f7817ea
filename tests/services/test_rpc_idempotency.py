"""Calls that carry a key run once, however often they are made."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from rpc_bench import Bench, Ground, until

from helianthus import IdempotencyLimits, RpcError, Service, StatusCode, method


class Bank(Service):
    def __init__(self) -> None:
        self.balance = 0
        self.gate = asyncio.Event()
        self.begun = self.cancelled = 0

    @method
    def pay(self, amount: int) -> int:
        self.balance += amount
        return self.balance

    @method
    async def pay_slowly(self, amount: int) -> int:
        self.begun += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.balance += amount
        return self.balance

    @method
    def refuse(self) -> None:
        self.balance += 1
        raise RpcError(StatusCode.FAILED_PRECONDITION, "the account is closed")


async def failure(awaitable: Any) -> RpcError:
    with pytest.raises(RpcError) as caught:
        await awaitable
    return caught.value


def key(name: str) -> dict[str, Any]:
    return {"idempotency_key": name}


def test_a_repeated_call_is_answered_from_memory(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        bank = Bank()
        server = await bench.serve(bank)
        first, second = await bench.client(server), await bench.client(server)
        assert await first.call("bank.pay", 5, meta=key("a")) == 5
        assert await first.call("bank.pay", 5, meta=key("a")) == 5
        assert await second.call("bank.pay", 5, meta=key("a")) == 5  # over another connection
        assert await first.call("bank.pay", 5, meta=key("b")) == 10
        assert await first.call("bank.pay", 5) == 15
        for _ in range(2):
            error = await failure(first.call("bank.refuse", meta=key("c")))
            assert (error.code, error.message) == (StatusCode.FAILED_PRECONDITION, "the account is closed")
        assert bank.balance == 16

    run_on(scenario)


def test_attempts_wait_for_the_one_that_runs(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        bank = Bank()
        server = await bench.serve(bank)
        clients = [await bench.client(server) for _ in range(3)]
        calls = [
            asyncio.ensure_future(client.call("bank.pay_slowly", 5, meta=key("a"))) for client in clients
        ]
        await until(lambda: server.gate.waiting == 2)
        bank.gate.set()
        assert await asyncio.gather(*calls) == [5, 5, 5]
        assert (bank.begun, server.gate.waiting) == (1, 0)

    run_on(scenario)


def test_the_first_attempt_may_be_given_up_while_another_waits(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        bank = Bank()
        server = await bench.serve(bank)
        client, other = await bench.client(server), await bench.client(server)
        first = asyncio.ensure_future(client.call("bank.pay_slowly", 5, meta=key("a")))
        await until(lambda: bank.begun == 1)
        second = asyncio.ensure_future(other.call("bank.pay_slowly", 5, meta=key("a")))
        await until(lambda: server.gate.waiting == 1)
        first.cancel()
        await until(lambda: next(iter(server.peers)).in_flight == 0)
        bank.gate.set()
        assert await second == 5
        assert (bank.balance, bank.cancelled) == (5, 0)
        with pytest.raises(asyncio.CancelledError):
            await first

    run_on(scenario)


def test_one_that_nobody_waits_for_is_cancelled(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        bank = Bank()
        server = await bench.serve(bank)
        client = await bench.client(server)
        call = asyncio.ensure_future(client.call("bank.pay_slowly", 5, meta=key("a")))
        await until(lambda: bank.begun == 1)
        call.cancel()
        await until(lambda: bank.cancelled == 1)
        error = await failure(client.call("bank.pay_slowly", 5, meta=key("a")))
        assert error.code is StatusCode.CANCELLED  # what became of it, rather than a second run
        assert bank.begun == 1
        with pytest.raises(asyncio.CancelledError):
            await call

    run_on(scenario)


def test_it_runs_on_when_its_connection_is_lost(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        bank = Bank()
        server = await bench.serve(bank)
        client, other = await bench.client(server), await bench.client(server)
        call = asyncio.ensure_future(client.call("bank.pay_slowly", 5, meta=key("a"), timeout=20))
        await until(lambda: bank.begun == 1)
        next(iter(client._channel._links)).abort()  # type: ignore[union-attr]  # it is connected
        assert (await failure(call)).maybe_executed
        again = asyncio.ensure_future(other.call("bank.pay_slowly", 5, meta=key("a")))
        await until(lambda: server.gate.waiting == 1)
        bank.gate.set()
        assert await again == 5
        assert (bank.begun, bank.balance, bank.cancelled) == (1, 5, 0)

    run_on(scenario)


def test_without_a_connection_it_ends_at_its_deadline_or_with_the_server(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        bank = Bank()
        server = await bench.serve(bank)
        client = await bench.client(server)
        calls = [
            asyncio.ensure_future(client.call("bank.pay_slowly", 5, meta=key("a"), timeout=0.3)),
            asyncio.ensure_future(client.call("bank.pay_slowly", 5, meta=key("b"))),
        ]
        await until(lambda: bank.begun == 2)
        next(iter(client._channel._links)).abort()  # type: ignore[union-attr]  # it is connected
        await until(lambda: bank.cancelled == 1)
        await server.close()
        assert bank.cancelled == 2
        await asyncio.gather(*calls, return_exceptions=True)

    run_on(scenario)


def test_keys_that_cannot_be_used_are_refused(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        bank = Bank()
        client = await bench.client(await bench.serve(bank, idempotency=IdempotencyLimits(max_entries=1)))
        for bad in ("", "x" * 257, 7, ["a"]):
            error = await failure(client.call("bank.pay", 1, meta={"idempotency_key": bad}))
            assert error.code is StatusCode.INVALID_ARGUMENT
            assert "1 to 256 characters" in error.message
            assert not error.maybe_executed
        assert await client.call("bank.pay", 1, meta=key("a")) == 1
        error = await failure(client.call("bank.pay", 2, meta=key("a")))
        assert error.code is StatusCode.INVALID_ARGUMENT
        assert "used for another call" in error.message
        call = asyncio.ensure_future(client.call("bank.pay_slowly", 5, meta=key("b")))
        await until(lambda: bank.begun == 1)
        error = await failure(client.call("bank.pay", 1, meta=key("c")))
        assert error.code is StatusCode.RESOURCE_EXHAUSTED
        assert "max_entries (1)" in error.message
        bank.gate.set()
        assert await call == 6

    run_on(scenario)
