"""Calls that are made again: by the policy of a client, on the simulator and on real drivers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from rpc_bench import Bench, Ground, Simulated, until
from rpc_flaky import UNAVAILABLE, Flaky, check_nothing_is_left, error, failure, step_by_step

import helianthus
from helianthus import (
    Authentication,
    BearerToken,
    CallPolicy,
    CancelToken,
    Client,
    HedgingPolicy,
    Identity,
    Middleware,
    Request,
    Response,
    RetryPolicy,
    RetryThrottle,
    StatusCode,
    TokenAuthenticator,
)
from helianthus.services.rpc import ChannelState
from helianthus.sim import World

RETRY = RetryPolicy(max_attempts=3, initial=0.01, maximum=0.02, codes=[UNAVAILABLE, StatusCode.ABORTED])
POLICY = CallPolicy(retry=RETRY)
PATIENT = CallPolicy(retry=RetryPolicy(initial=100, maximum=100))


async def client_of(bench: Bench, flaky: Flaky, policy: CallPolicy = POLICY, **options: Any) -> Client:
    return await bench.client(await bench.serve(flaky), policies={"*": policy}, **options)


# -- unary calls --------------------------------------------------------------------------------------------


def test_a_call_is_made_again_until_it_succeeds(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        flaky = Flaky(error(), error(StatusCode.ABORTED))
        client = await client_of(bench, flaky)
        assert await client.call("flaky.work", 5) == 5
        assert flaky.previous == [0, 1, 2]
        assert all(delay >= 0.008 for delay in flaky.delays())
        entry = client.statistics().by_method["flaky.work"]
        assert (entry.calls, entry.failed, entry.retries, entry.hedges) == (3, 2, 2, 0)

    run_on(scenario)


def test_attempts_come_to_an_end(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        flaky = Flaky(*[error()] * 9)
        client = await client_of(bench, flaky)
        assert (await failure(client.call("flaky.work"))).code is UNAVAILABLE
        assert flaky.attempts == 3

    run_on(scenario)


def test_other_codes_are_final(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        flaky = Flaky(error(StatusCode.INTERNAL))
        client = await client_of(bench, flaky)
        assert (await failure(client.call("flaky.work"))).code is StatusCode.INTERNAL
        assert flaky.attempts == 1

    run_on(scenario)


def test_what_never_ran_is_repeated_at_once_without_a_retry_policy(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        flaky = Flaky(error(ran=False))
        client = await bench.client(await bench.serve(flaky), policies={"flaky": CallPolicy()})
        assert await client.call("flaky.work") == "done"
        assert flaky.previous == [0, 0]
        assert client.statistics().by_method["flaky.work"].retries == 1
        flaky.plan = [error(ran=False), error(ran=False)]
        assert not (await failure(client.call("flaky.work"))).maybe_executed

    run_on(scenario)


def test_the_server_says_when(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        flaky = Flaky(error(details={"retry_after": 0.05}), error(details={"retry_after": -1}))
        client = await client_of(bench, flaky, CallPolicy(retry=RetryPolicy(initial=100, maximum=100)))
        assert (await failure(client.call("flaky.work"))).details == {"retry_after": -1}
        assert flaky.attempts == 2
        assert flaky.delays()[0] >= 0.0499  # differences of floats are not exact

    run_on(scenario)


def test_an_attempt_that_may_have_run_is_not_forgotten(run_on: Ground) -> None:
    """The last attempt surely never ran, but the first may have."""

    async def scenario(bench: Bench) -> None:
        flaky = Flaky(error(ran=True), error(ran=False), error(StatusCode.INTERNAL, ran=False))
        client = await client_of(bench, flaky)
        assert (await failure(client.call("flaky.work"))).maybe_executed
        flaky.plan = [error(ran=False), error(StatusCode.INTERNAL, ran=False)]
        assert not (await failure(client.call("flaky.work"))).maybe_executed

    run_on(scenario)


def test_a_retry_that_would_come_too_late_is_not_waited_for(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await client_of(bench, Flaky(error()), PATIENT)
        assert (await failure(client.call("flaky.work", timeout=50.0))).code is UNAVAILABLE

    run_on(scenario)


def test_one_deadline_for_all_attempts() -> None:
    """On the simulator's clock."""

    async def scenario(bench: Bench) -> None:
        flaky = Flaky(error(), "wait", "wait")
        client = await client_of(
            bench, flaky, CallPolicy(timeout=5.0, retry=RetryPolicy(initial=2, maximum=2))
        )
        loop = asyncio.get_running_loop()
        for timeout, expected in ((None, 5.0), (4.0, 4.0)):
            flaky.plan = [error(), "wait"]
            began = loop.time()
            raised = await failure(client.call("flaky.work", timeout=timeout))
            assert raised.code is StatusCode.DEADLINE_EXCEEDED
            assert loop.time() - began == pytest.approx(expected, abs=0.01)
        await until(lambda: flaky.inside == 0)

    Simulated()(scenario)


def test_the_throttle_stops_retries_of_all_calls(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        flaky = Flaky(*[error()] * 20)
        throttle = RetryThrottle(max_tokens=6)
        client = await client_of(bench, flaky, retry_throttle=throttle)
        attempts = []
        for _ in range(4):
            before = flaky.attempts
            await failure(client.call("flaky.work"))
            attempts.append(flaky.attempts - before)
        assert attempts == [3, 1, 1, 1]
        assert throttle.tokens == 0
        flaky.plan.clear()
        assert await client.call("flaky.work") == "done"
        assert throttle.tokens == pytest.approx(0.1)

    run_on(scenario)


def test_middleware_sees_one_call(run_on: Ground) -> None:
    seen: list[Any] = []

    class Watching(Middleware):
        def before(self, request: Request) -> Response | None:
            seen.append(request.deadline is not None)
            return None

        def after(self, request: Request, response: Response) -> None:
            seen.append(response.code.name)

    async def scenario(bench: Bench) -> None:
        seen.clear()
        flaky = Flaky(error(), error())
        policy = CallPolicy(timeout=60.0, retry=RETRY)
        client = await client_of(bench, flaky, policy, middleware=[Watching()])
        assert await client.call("flaky.work") == "done"
        flaky.plan = [error(), error()]
        assert [item async for item in client.stream("flaky.count", 2)] == [0, 1]
        assert seen == [True, "OK"] * 2
        assert flaky.attempts == 6

    run_on(scenario)


# -- keys, views, names ------------------------------------------------------------------------------------


def test_all_attempts_carry_one_key(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(flaky := Flaky())
        policy = CallPolicy(retry=RETRY, idempotent=True)
        client = (await bench.client(server)).with_policy(policy)
        keys = []
        for own in (None, None, {"idempotency_key": "mine", "more": 1}):
            flaky.metas.clear()
            flaky.plan = [error(ran=False)]
            assert await client.call("flaky.work", meta=own) == "done"
            keys.append({meta["idempotency_key"] for meta in flaky.metas})
        assert all(len(of_one) == 1 for of_one in keys)
        first, second, third = (of_one.pop() for of_one in keys)
        assert first != second
        assert len(first) == 32
        assert int(first, 16) >= 0
        assert third == "mine"

    run_on(scenario)


def test_a_lost_answer_does_not_make_it_run_twice() -> None:
    """The server remembers by its key what the client did not hear."""

    class Once(Flaky):
        runs = 0

        @helianthus.method
        async def book(self) -> int:
            self.runs += 1
            await asyncio.sleep(1.0)
            return self.runs

    with World(seed=1) as world:
        once: list[Once] = []

        async def serve() -> None:
            once.append(Once())
            server = helianthus.Server(once)
            await server.listen("tcp://0.0.0.0:7070")
            await server.serve_forever()

        async def call() -> Any:
            policy = CallPolicy(
                retry=RetryPolicy(initial=0.1), idempotent=True, timeout=60, wait_for_ready=True
            )
            async with helianthus.connect("tcp://server:7070", policies={"once.book": policy}) as client:
                return await client.call("once.book")

        world.node("server").spawn(serve)
        calling = world.node("client").spawn(call())
        world.run(until=0.5)
        world.reset("client", "server")
        assert world.run_until(calling, timeout=60) == 1
        assert once[0].runs == 1


def test_the_most_specific_policy_holds(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        never, twice = CallPolicy(), CallPolicy(retry=RetryPolicy(max_attempts=2, initial=0.0))
        server = await bench.serve(flaky := Flaky(), Flaky2(flaky))
        policies = {"*": twice, "flaky": never, "flaky.count": POLICY}
        client = await bench.client(server, policies=policies, retry_throttle=RetryThrottle(1000))
        for _ in range(2):  # the second time from memory
            for method, attempts in (("flaky.work", 1), ("other.work", 2)):
                flaky.metas.clear()
                flaky.plan = [error()] * 5
                await failure(client.call(method))
                assert flaky.attempts == attempts
        flaky.metas.clear()
        flaky.plan = [error()] * 5
        await failure(anext(client.stream("flaky.count", 3)))
        assert flaky.attempts == 3

    run_on(scenario)


class Flaky2(Flaky):
    name = "other"

    def __init__(self, flaky: Flaky) -> None:
        super().__init__()
        self.next_step = flaky.next_step  # type: ignore[method-assign]


def test_a_view_has_a_policy_of_its_own(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(flaky := Flaky())
        client = await bench.client(server)
        view = client.with_policy(POLICY)
        flaky.plan = [error()]
        assert await view.call("flaky.work", value=1) == 1
        flaky.plan = [error()]
        assert await view.service("flaky").work(2) == 2
        flaky.plan = [error()]
        assert [item async for item in view.service("flaky").count.stream(2)] == [0, 1]
        assert flaky.previous == [0, 1] * 3
        flaky.plan = [error()]
        await failure(client.call("flaky.work"))
        await view.notify("flaky.note")
        await until(lambda: flaky.attempts == 8)

    run_on(scenario)


def test_the_guide_is_right() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "policies.md").read_text("utf-8")
    program = guide.split("```{code-block} python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(program, names)
    chosen = names["client"]._policies
    assert chosen.of("calculator.add").hedging is not None
    assert chosen.of("calculator.sub").retry.max_attempts == 3
    assert chosen.of("other.method").wait_for_ready


def test_policies_are_checked() -> None:
    with pytest.raises(ValueError, match="either retry or hedging"):
        CallPolicy(retry=RETRY, hedging=HedgingPolicy())
    for timeout in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="timeout"):
            CallPolicy(timeout=timeout)
    with pytest.raises(TypeError, match="retry"):
        CallPolicy(retry=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"of 'a'.*must be a CallPolicy"):
        Client("tcp://127.0.0.1:1", policies={"a": RETRY})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="must be a CallPolicy"):
        Client("tcp://127.0.0.1:1").with_policy(RETRY)  # type: ignore[arg-type]


# -- connections -------------------------------------------------------------------------------------------


def test_waiting_for_a_server_that_comes_later() -> None:
    with World(seed=1) as world:
        world.node("server")

        async def serve() -> None:
            server = helianthus.Server([Flaky()])
            await server.listen("tcp://0.0.0.0:7070")
            await server.serve_forever()

        async def call() -> float:
            client = helianthus.connect("tcp://server:7070", policies={"*": CallPolicy(wait_for_ready=True)})
            async with client:
                loop = asyncio.get_running_loop()
                while client.state is not ChannelState.BACKING_OFF:
                    await asyncio.sleep(0.01)
                raised = await failure(client.call("flaky.work", timeout=2.0))
                assert raised.code is StatusCode.DEADLINE_EXCEEDED
                assert loop.time() == pytest.approx(2.0, abs=0.1)
                assert (
                    await failure(client.with_policy(CallPolicy()).call("flaky.work"))
                ).code is UNAVAILABLE
                token = CancelToken()
                loop.call_later(1.0, token.cancel)
                raised = await failure(client.call("flaky.work", cancel=token))
                assert raised.code is StatusCode.CANCELLED
                waiting = [
                    asyncio.ensure_future(client.call("flaky.work")),
                    asyncio.ensure_future(anext(client.stream("flaky.count", 1))),
                    asyncio.ensure_future(client.notify("flaky.note")),
                ]
                assert [await one for one in waiting] == ["done", 0, None]
                assert not client._watchers
                return loop.time()

        calling = world.node("client").spawn(call())
        world.run(until=10)
        world.node("server").spawn(serve)
        assert world.run_until(calling, timeout=60) > 10


def test_waiting_does_not_help_against_a_refusal(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        authentication = Authentication([TokenAuthenticator({"right": Identity("ann")})])
        server = await bench.serve(Flaky(), authentication=authentication)
        policies = {"*": CallPolicy(wait_for_ready=True)}
        client = await bench.client(server, policies=policies, credentials=BearerToken("wrong"))
        assert (await failure(client.call("flaky.work"))).code is StatusCode.UNAUTHENTICATED

    run_on(scenario)


def test_a_lost_connection_is_retried_on_the_next(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        flaky = Flaky("wait")
        policy = CallPolicy(retry=RETRY, wait_for_ready=True)
        client = await client_of(bench, flaky, policy)
        calling = asyncio.ensure_future(client.call("flaky.work"))
        await until(lambda: flaky.inside)
        bench.connected[0].abort()
        assert await calling == "done"
        assert flaky.previous == [0, 1]
        assert len(bench.connected) == 2

    run_on(scenario)


@pytest.mark.parametrize("kind", ["call", "stream"])
@pytest.mark.parametrize("how", ["token", "close"])
def test_a_pause_ends_with_the_caller_or_the_client(run_on: Ground, how: str, kind: str) -> None:
    async def scenario(bench: Bench) -> None:
        flaky = Flaky(error())
        client = await client_of(bench, flaky, PATIENT)
        token = CancelToken()
        stream = client.stream("flaky.count", 1, cancel=token)
        calling = asyncio.ensure_future(
            client.call("flaky.work", cancel=token) if kind == "call" else anext(stream)
        )
        await until(lambda: flaky.attempts == 1 and not client._peer.running)  # type: ignore[union-attr]
        if how == "token":
            token.cancel("enough")
            raised = await failure(calling)
            assert (raised.code, raised.message) == (StatusCode.CANCELLED, "enough")
            assert raised.maybe_executed
        else:
            await client.close()
            assert (await failure(calling)).code in (UNAVAILABLE, StatusCode.CANCELLED)
        assert flaky.attempts == 1
        assert not client._watchers

    run_on(scenario)


# -- streams -----------------------------------------------------------------------------------------------


def test_a_stream_is_begun_again_until_its_first_item(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        flaky = Flaky(error(), error())
        client = await client_of(bench, flaky)
        assert [item async for item in client.stream("flaky.count", 3)] == [0, 1, 2]
        assert flaky.previous == [0, 1, 2]
        assert client.statistics().by_method["flaky.count"].retries == 2
        flaky.plan = [0, error(), 2, error()]  # the third attempt sends two items and fails
        stream = client.stream("flaky.count", 3)
        assert [await anext(stream), await anext(stream)] == [0, 1]
        assert (await failure(anext(stream))).code is UNAVAILABLE
        assert flaky.attempts == 6

    run_on(scenario)


def test_items_that_nobody_took_were_a_response_too(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        for waits in (False, True):
            flaky = Flaky(3)
            client = await client_of(bench, flaky)
            async with client.stream("flaky.count", 3) as stream:
                if not waits:
                    await until(lambda stream=stream: stream.over)
                assert (await failure(stream.result())).code is UNAVAILABLE
            assert flaky.attempts == 1

    run_on(scenario)


def test_the_result_of_a_stream_that_was_begun_again(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        flaky = Flaky(error(), error())
        client = await client_of(bench, flaky)
        assert await client.stream("flaky.total") == 0
        assert flaky.attempts == 3

    run_on(scenario)


def test_a_stream_that_has_sent_something_is_not_begun_again(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        flaky = Flaky(error())
        client = await client_of(bench, flaky)
        async with client.stream("flaky.total") as stream:
            await stream.send(1)
            assert (await failure(stream.result())).code is UNAVAILABLE
        assert flaky.attempts == 1

    run_on(scenario)


def test_a_stream_that_is_given_up_between_attempts(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        flaky = Flaky(error())
        client = await client_of(bench, flaky, PATIENT)
        async with client.stream("flaky.count", 3) as stream:
            await until(lambda: stream.between_attempts)
        assert stream.over
        assert (await failure(anext(stream))).code is StatusCode.CANCELLED
        waits = client.stream("flaky.count", 3)
        flaky.plan = [error()]
        waiting = asyncio.ensure_future(anext(waits))
        await until(lambda: waits.between_attempts)
        waits.give_up("enough")
        waiting.cancel()
        await asyncio.wait([waiting])
        assert flaky.attempts == 2
        assert not client._watchers

    run_on(scenario)


def test_an_interrupted_opening_goes_on(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        flaky = Flaky(error())
        client = await client_of(bench, flaky)
        stream = client.stream("flaky.count", 2)
        for _ in range(40):  # some of them meet the pause, others an attempt
            try:
                async with asyncio.timeout(0.001):
                    first = await anext(stream)
                    break
            except TimeoutError:
                continue
        else:
            first = await anext(stream)
        assert [first, await anext(stream)] == [0, 1]
        assert flaky.attempts == 2

    run_on(scenario)


# -- nothing is left ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["call", "stream"])
def test_cancelling_after_any_resumption(run_on: Ground, kind: str) -> None:
    async def scenario(bench: Bench) -> None:
        flaky = Flaky()
        policy = CallPolicy(retry=RETRY, timeout=1000.0)
        client = await client_of(bench, flaky, policy, retry_throttle=RetryThrottle(1000))
        await client.call("flaky.work")
        tasks = asyncio.all_tasks()

        async def work() -> None:
            if kind == "call":
                await client.call("flaky.work", cancel=CancelToken())
            else:
                async with client.stream("flaky.count", 2) as stream:
                    assert [item async for item in stream] == [0, 1]

        for count in range(30):
            flaky.plan = [error(ran=False), error(), error()]
            resumed = await step_by_step(work(), count)
            await check_nothing_is_left(bench, client, flaky, tasks)
            if resumed < count:
                break
        else:
            pytest.fail("it is resumed without end")
        flaky.plan = []
        assert await client.call("flaky.work") == "done"

    run_on(scenario)
