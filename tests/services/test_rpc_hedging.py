"""Calls that are made several times side by side."""

from __future__ import annotations

import asyncio

import pytest
from rpc_bench import Bench, Ground, Simulated, until
from rpc_flaky import UNAVAILABLE, Flaky, check_nothing_is_left, error, failure, step_by_step

from helianthus import (
    CallPolicy,
    CancelToken,
    Client,
    HedgingPolicy,
    RetryThrottle,
    StatusCode,
)

AT_ONCE = CallPolicy(hedging=HedgingPolicy(max_attempts=3, delay=0.0))
SOON = CallPolicy(hedging=HedgingPolicy(max_attempts=3, delay=0.01))
LATE = CallPolicy(hedging=HedgingPolicy(max_attempts=3, delay=1000.0))


async def client_of(bench: Bench, flaky: Flaky, policy: CallPolicy, **options: object) -> Client:
    return await bench.client(await bench.serve(flaky), policies={"*": policy}, **options)


def test_the_first_result_counts_and_the_others_are_cancelled(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        for policy in (AT_ONCE, SOON):
            flaky = Flaky("wait", "wait")
            client = await client_of(bench, flaky, policy)
            assert await client.call("flaky.work", 7) == 7
            await until(lambda flaky=flaky: flaky.cancelled == 2)
            assert flaky.previous == [0, 1, 2]
            entry = client.statistics().by_method["flaky.work"]
            assert (entry.retries, entry.hedges, entry.running) == (2, 2, 0)

    run_on(scenario)


def test_a_quick_answer_needs_no_hedge(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        flaky = Flaky()
        client = await client_of(bench, flaky, LATE)
        assert await client.call("flaky.work") == "done"
        assert flaky.attempts == 1
        assert client.statistics().by_method["flaky.work"].retries == 0

    run_on(scenario)


def test_a_failure_brings_the_next_forward(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        flaky = Flaky(error(), error(details={"retry_after": 0.02}))
        client = await client_of(bench, flaky, LATE)
        assert await client.call("flaky.work") == "done"
        assert flaky.previous == [0, 1, 2]
        assert flaky.delays()[1] >= 0.0199  # differences of floats are not exact
        entry = client.statistics().by_method["flaky.work"]
        assert (entry.retries, entry.hedges) == (2, 0)

    run_on(scenario)


def test_a_fatal_failure_ends_all(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        flaky = Flaky("wait", "wait", error(StatusCode.INTERNAL, ran=False))
        client = await client_of(bench, flaky, SOON)
        raised = await failure(client.call("flaky.work"))
        assert raised.code is StatusCode.INTERNAL
        assert raised.maybe_executed  # one of the others may have run
        await until(lambda: flaky.cancelled == 2)

    run_on(scenario)


def test_when_all_fail_the_last_failure_is_the_calls(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        flaky = Flaky(error(), error(), error(details="last"))
        client = await client_of(bench, flaky, LATE)
        raised = await failure(client.call("flaky.work"))
        assert (raised.code, raised.details) == (UNAVAILABLE, "last")

    run_on(scenario)


def test_a_throttled_client_does_not_hedge(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        flaky = Flaky(*[error()] * 4)
        client = await client_of(bench, flaky, LATE, retry_throttle=RetryThrottle(max_tokens=4))
        await failure(client.call("flaky.work"))
        assert flaky.attempts == 2
        await failure(client.call("flaky.work"))
        assert flaky.attempts == 3

    run_on(scenario)


def test_all_carry_one_key_and_so_the_server_runs_one(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        flaky = Flaky("wait")
        policy = CallPolicy(hedging=HedgingPolicy(3, 0.0), idempotent=True)
        client = await client_of(bench, flaky, policy)
        calling = asyncio.ensure_future(client.call("flaky.work"))
        await until(lambda: bench.connected and bench.connected[0].in_flight == 3)
        flaky.gate.set()
        assert await calling == "done"
        assert flaky.attempts == 1

    run_on(scenario)


def test_the_deadline_ends_all() -> None:
    async def scenario(bench: Bench) -> None:
        flaky = Flaky(*["wait"] * 9)
        client = await client_of(bench, flaky, CallPolicy(timeout=2.5, hedging=HedgingPolicy(5, 1.0)))
        loop = asyncio.get_running_loop()
        began = loop.time()
        raised = await failure(client.call("flaky.work"))
        assert raised.code is StatusCode.DEADLINE_EXCEEDED
        assert loop.time() - began == pytest.approx(2.5, abs=0.01)
        assert flaky.attempts == 3
        await until(lambda: flaky.inside == 0)

    Simulated()(scenario)


@pytest.mark.parametrize("how", ["token", "close", "lost"])
@pytest.mark.parametrize("paused", [False, True])
def test_how_else_it_ends(run_on: Ground, how: str, paused: bool) -> None:
    async def scenario(bench: Bench) -> None:
        flaky = Flaky(error(details={"retry_after": 500})) if paused else Flaky(*["wait"] * 3)
        client = await client_of(bench, flaky, LATE if paused else AT_ONCE)
        token = CancelToken()
        calling = asyncio.ensure_future(client.call("flaky.work", cancel=token))
        if paused:
            await until(lambda: flaky.attempts == 1 and client._peer and not client._peer.running)
        else:
            await until(lambda: flaky.inside == 3)
        if how == "close":
            await client.close()
            assert (await failure(calling)).code in (UNAVAILABLE, StatusCode.CANCELLED)
        elif how == "token" or paused:
            token.cancel("enough")
            raised = await failure(calling)
            assert (raised.code, raised.message) == (StatusCode.CANCELLED, "enough")
            assert raised.maybe_executed
        else:
            bench.connected[0].abort()
            assert (await failure(calling)).code is UNAVAILABLE
        await until(lambda: flaky.inside == 0)
        assert not client._watchers

    run_on(scenario)


def test_streams_are_not_hedged(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        flaky = Flaky(error())
        client = await client_of(bench, flaky, AT_ONCE)
        assert (await failure(anext(client.stream("flaky.count", 2)))).code is UNAVAILABLE
        assert [item async for item in client.stream("flaky.count", 2)] == [0, 1]
        assert flaky.attempts == 2

    run_on(scenario)


@pytest.mark.parametrize("policy", [AT_ONCE, SOON, LATE], ids=["at once", "soon", "late"])
def test_cancelling_after_any_resumption(run_on: Ground, policy: CallPolicy) -> None:
    async def scenario(bench: Bench) -> None:
        flaky = Flaky()
        client = await client_of(bench, flaky, policy, retry_throttle=RetryThrottle(1000))
        await client.call("flaky.work")
        await until(lambda: not flaky.inside and not bench.connected[0].tasks)
        tasks = asyncio.all_tasks()
        for count in range(40):
            flaky.plan = [error(ran=False), "wait", error()]
            if policy is LATE:  # nothing may wait for a hedge
                flaky.plan[1] = error(details={"retry_after": 0.001})
            resumed = await step_by_step(client.call("flaky.work", cancel=CancelToken()), count)
            await check_nothing_is_left(bench, client, flaky, tasks)
            if resumed < count:
                break
        else:
            pytest.fail("it is resumed without end")
        flaky.plan = []
        assert await client.call("flaky.work") == "done"

    run_on(scenario)
