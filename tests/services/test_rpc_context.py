"""Nested calls inherit what bounds and traces the call that makes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from rpc_bench import Bench, Ground

from helianthus import CallContext, Client, RpcError, Service, StatusCode, current_call, method

TRACE = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "vendor=1"}


class Last(Service):
    """The end of the chain."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.ended = asyncio.Event()
        self.noted: list[dict[str, Any]] = []

    @method
    def see(self, context: CallContext) -> dict[str, Any]:
        return {"remaining": context.remaining(), "meta": context.meta}

    @method
    async def wait(self) -> None:
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()

    @method
    async def stream(self, context: CallContext) -> AsyncIterator[dict[str, Any]]:
        yield {"remaining": context.remaining(), "meta": context.meta}

    @method
    def note(self, context: CallContext) -> None:
        self.noted.append({"remaining": context.remaining(), "meta": context.meta})


class Middle(Service):
    """Passes calls on."""

    def __init__(self) -> None:
        self.client: Client
        self.ended = asyncio.Event()

    @method
    async def see(self, context: CallContext, timeout: float | None = None) -> list[Any]:
        here = {"remaining": context.remaining(), "meta": context.meta}
        return [here, await self.client.call("last.see", timeout=timeout)]

    @method
    async def see_elsewhere(self) -> Any:
        """In a task of its own, which inherits as well."""
        return await asyncio.create_task(self.client.call("last.see"))

    @method
    async def see_stream(self) -> Any:
        return await anext(self.client.stream("last.stream"))

    @method
    async def in_stream(self) -> AsyncIterator[Any]:
        yield await self.client.call("last.see")
        await asyncio.sleep(0)
        yield await self.client.call("last.see")

    @method
    async def note(self) -> None:
        await self.client.notify("last.note")

    @method
    async def with_own_meta(self) -> Any:
        return await self.client.call("last.see", meta={"tenant": 7, "traceparent": "mine"})

    @method
    async def wait(self) -> None:
        try:
            await self.client.call("last.wait")
        finally:
            self.ended.set()

    @method
    def plain(self, context: CallContext) -> bool:
        """A plain function without a task of its own knows its call as well."""
        return current_call() is context


async def chain(bench: Bench) -> tuple[Client, Middle, Last]:
    """A client of a server that is itself a client of another one."""
    middle, last = Middle(), Last()
    middle.client = await bench.client(await bench.serve(last))
    return await bench.client(await bench.serve(middle)), middle, last


def test_the_remaining_time_is_passed_on(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client, _, _ = await chain(bench)
        here, there = await client.call("middle.see", timeout=20)
        # Timeouts travel in whole milliseconds, rounded up, and differences of floats are not exact.
        assert 19 < there["remaining"] <= here["remaining"] + 0.0011 <= 20.0022
        here, there = await client.call("middle.see", 5, timeout=20)  # the shorter of the two
        assert here["remaining"] > 19
        assert 4 < there["remaining"] <= 5.0011
        here, there = await client.call("middle.see", 500, timeout=20)  # nobody can prolong it
        assert 19 < there["remaining"] <= 20.0011
        here, there = await client.call("middle.see")
        assert (here["remaining"], there["remaining"]) == (None, None)
        here, there = await client.call("middle.see", 5)
        assert here["remaining"] is None
        assert 4 < there["remaining"] <= 5.0011

    run_on(scenario)


def test_the_trace_is_passed_on_and_nothing_else(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client, _, _ = await chain(bench)
        here, there = await client.call("middle.see", meta={**TRACE, "auth": "secret", "tenant": 3})
        assert here["meta"] == {**TRACE, "auth": "secret", "tenant": 3}
        assert there["meta"] == TRACE
        here, there = await client.call("middle.see", meta={"auth": "secret"})
        assert there["meta"] == {}
        assert await client.call("middle.with_own_meta", meta=TRACE) == {
            "remaining": None,
            "meta": {"tenant": 7, "traceparent": "mine", "tracestate": "vendor=1"},
        }

    run_on(scenario)


@pytest.mark.parametrize("name", ["see_elsewhere", "see_stream"])
def test_tasks_and_streams_inherit_too(run_on: Ground, name: str) -> None:
    async def scenario(bench: Bench) -> None:
        client, _, _ = await chain(bench)
        seen = await client.call(f"middle.{name}", timeout=20, meta=TRACE)
        assert 19 < seen["remaining"] <= 20.0011
        assert {key: seen["meta"][key] for key in TRACE} == TRACE

    run_on(scenario)


def test_methods_that_stream_inherit_too(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client, _, _ = await chain(bench)
        seen = [item async for item in client.stream("middle.in_stream", timeout=20, meta=TRACE)]
        assert len(seen) == 2
        for one in seen:
            assert 19 < one["remaining"] <= 20.0011
            assert {key: one["meta"][key] for key in TRACE} == TRACE

    run_on(scenario)


def test_notifications_carry_the_trace(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client, middle, last = await chain(bench)
        await client.call("middle.note", timeout=20, meta=TRACE)
        await middle.client.call("last.see")  # behind it
        assert last.noted == [{"remaining": None, "meta": TRACE}]

    run_on(scenario)


def test_one_deadline_ends_the_whole_chain(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client, middle, last = await chain(bench)
        await middle.client.call("last.see")
        with pytest.raises(RpcError) as caught:
            await client.call("middle.wait", timeout=0.05)
        assert caught.value.code is StatusCode.DEADLINE_EXCEEDED
        await middle.ended.wait()
        await last.ended.wait()

    run_on(scenario)


def test_cancelling_ends_the_whole_chain(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client, middle, last = await chain(bench)
        calling = asyncio.ensure_future(client.call("middle.wait"))
        await last.began.wait()
        calling.cancel()
        await middle.ended.wait()
        await last.ended.wait()
        with pytest.raises(asyncio.CancelledError):
            await calling

    run_on(scenario)


def test_calls_outside_of_methods_inherit_nothing(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client, _, _ = await chain(bench)
        assert await client.call("middle.plain", timeout=20, meta=TRACE)
        assert current_call() is None
        here, there = await client.call("middle.see")
        assert here == there == {"remaining": None, "meta": {}}

    run_on(scenario)


class Pushed(Service):
    """What a server tells its client, which then calls somebody."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.asked: list[asyncio.Task[Any]] = []
        self.seen: list[CallContext | None] = []

    @method
    def tell(self) -> None:
        self.seen.append(current_call())
        self.asked.append(asyncio.ensure_future(self._client.call("last.see")))


class Late(Service):
    """Connects for the first time while it serves a call, as whoever makes clients lazily does."""

    def __init__(self, bench: Bench, url: str, *services: Service) -> None:
        self._bench = bench
        self._url = url
        self._services = services

    @method
    async def begin(self) -> None:
        client = await self._bench.client(self._url, *self._services)
        await client.call("last.see")


def test_a_connection_that_a_method_made_outlives_its_deadline(run_on: Ground) -> None:
    """What the other side calls on it belongs to no call of this side's."""

    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Last())
        other = await bench.client(server)
        await other.call("last.see")
        pushed = Pushed(other)
        late = await bench.client(await bench.serve(Late(bench, str(server.addresses[0]), pushed)))
        before = list(server.peers)
        await late.call("late.begin", timeout=2.0, meta=TRACE)
        await asyncio.sleep(2.05)  # the deadline has to pass
        (peer,) = [peer for peer in server.peers if peer not in before]
        await peer.call("pushed.tell")
        assert await pushed.asked[0] == {"remaining": None, "meta": {}}
        assert pushed.seen[0] is None or pushed.seen[0].method == "pushed.tell"

    run_on(scenario)


def test_two_calls_at_once_keep_their_own(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client, _, _ = await chain(bench)
        metas = [{"traceparent": f"trace {number}"} for number in range(30)]
        seen = await asyncio.gather(*(client.call("middle.see", meta=meta) for meta in metas))
        assert [there["meta"] for _, there in seen] == metas

    run_on(scenario)
