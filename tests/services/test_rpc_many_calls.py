"""More calls at once than one connection takes: they wait their turn, in order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from rpc_bench import SOON, Bench, Ground, until
from rpc_raw import CANCEL, HELLO, REQUEST, RESPONSE, raw_client

from helianthus import RpcError, RpcLimits, Service, StatusCode, method


class Counter(Service):
    """Notes the order in which calls come, and how many run at once.

    Attributes:
        order: Values, as they came.
        most: Coroutines that ran at the same time.
    """

    def __init__(self) -> None:
        self.order: list[int] = []
        self.running = 0
        self.most = 0
        self.gate = asyncio.Event()

    @method
    def now(self, value: int) -> int:
        self.order.append(value)
        return value

    @method
    async def later(self, value: int) -> int:
        self.order.append(value)
        self.running += 1
        self.most = max(self.most, self.running)
        await self.gate.wait()
        self.running -= 1
        return value

    @method
    def swallow(self, data: bytes, value: int) -> int:
        self.order.append(value)
        return len(data)

    @method
    def big(self, size: int) -> bytes:
        return bytes(size)

    @method
    async def big_later(self, size: int) -> bytes:
        await asyncio.sleep(0.01)
        return bytes(size)


@pytest.mark.parametrize("timeout", [None, 25.0])
def test_three_thousand_calls_at_once(run_on: Ground, timeout: float | None) -> None:
    async def scenario(bench: Bench) -> None:
        service = Counter()
        client = await bench.pair(service)
        answers = await asyncio.gather(*(client.call("counter.now", n, timeout=timeout) for n in range(3000)))
        assert answers == list(range(3000))
        assert service.order == list(range(3000))
        assert len(bench.connected) == 1

    run_on(scenario)


def test_no_more_than_the_limit_run_at_once(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Counter()
        client = await bench.pair(service)
        calls = [asyncio.ensure_future(client.call("counter.later", n)) for n in range(3000)]
        await until(lambda: service.running == 1000)
        for _ in range(20):
            await asyncio.sleep(0)
        assert service.running == service.most == 1000
        assert client._peer is not None
        assert client._peer.full
        service.gate.set()
        assert await asyncio.gather(*calls) == list(range(3000))
        assert service.most == 1000
        assert service.order == list(range(3000))

    run_on(scenario)


def test_the_servers_limit_is_an_error_for_who_exceeds_it(run_on: Ground) -> None:
    """The two ends may have different limits: what the server does not take is refused, and not run."""

    async def scenario(bench: Bench) -> None:
        service = Counter()
        client = await bench.client(await bench.serve(service, limits=RpcLimits(max_calls=10)))
        calls = [asyncio.ensure_future(client.call("counter.later", n)) for n in range(30)]
        await until(lambda: sum(call.done() for call in calls) == 20)
        service.gate.set()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert outcomes[:10] == list(range(10))
        for outcome in outcomes[10:]:
            assert isinstance(outcome, RpcError)
            assert outcome.code is StatusCode.RESOURCE_EXHAUSTED
            assert "max_calls (10)" in outcome.message
        assert service.order == list(range(10))

    run_on(scenario)


def test_waiting_calls_have_their_deadlines(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Counter()
        server = await bench.serve(service)
        client = await bench.client(server, limits=RpcLimits(max_calls=2))
        running = [asyncio.ensure_future(client.call("counter.later", n)) for n in range(2)]
        await until(lambda: service.running == 2)
        with pytest.raises(RpcError) as caught:
            await client.call("counter.now", 7, timeout=SOON)
        assert caught.value.code is StatusCode.DEADLINE_EXCEEDED
        assert not caught.value.maybe_executed
        service.gate.set()
        assert await asyncio.gather(*running) == [0, 1]
        assert service.order == [0, 1]

    run_on(scenario)


def test_waiting_calls_that_are_cancelled_let_others_pass(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Counter()
        server = await bench.serve(service)
        client = await bench.client(server, limits=RpcLimits(max_calls=2))
        running = [asyncio.ensure_future(client.call("counter.later", n)) for n in range(2)]
        waiting = [asyncio.ensure_future(client.call("counter.now", n)) for n in range(2, 12)]
        await until(lambda: service.running == 2)
        for call in waiting[::2]:
            call.cancel()
        service.gate.set()
        assert await asyncio.gather(*running) == [0, 1]
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [outcome for outcome in outcomes if isinstance(outcome, int)] == [3, 5, 7, 9, 11]
        assert service.order == [0, 1, 3, 5, 7, 9, 11]

    run_on(scenario)


def test_waiting_streams_that_are_given_up_at_once_let_others_pass(run_on: Ground) -> None:
    """Whoever is let in leaves in the same moment, in the middle of letting others in."""

    async def scenario(bench: Bench) -> None:
        service = Counter()
        server = await bench.serve(service)
        client = await bench.client(server, limits=RpcLimits(max_calls=1))
        running = asyncio.ensure_future(client.call("counter.later", 0))
        await until(lambda: service.running == 1)

        async def look_in() -> None:
            async with client.stream("counter.later", 1):
                pass

        looking = [asyncio.ensure_future(look_in()) for _ in range(5)]
        last = asyncio.ensure_future(client.call("counter.now", 2))
        await asyncio.sleep(0)
        service.gate.set()
        assert await running == 0
        await asyncio.gather(*looking)
        assert await last == 2
        assert len(bench.connected) == 1

    run_on(scenario)


def test_waiting_calls_survive_the_connection(run_on: Ground) -> None:
    """What had not been sent when the connection broke goes to the next one."""

    async def scenario(bench: Bench) -> None:
        service = Counter()
        server = await bench.serve(service)
        client = await bench.client(server, limits=RpcLimits(max_calls=2))
        running = [asyncio.ensure_future(client.call("counter.later", n)) for n in range(2)]
        await until(lambda: service.running == 2)
        waiting = [asyncio.ensure_future(client.call("counter.now", n)) for n in range(2, 8)]
        await asyncio.sleep(0)
        bench.connected[0].abort()
        for call in running:
            with pytest.raises(RpcError) as caught:
                await call
            assert caught.value.code is StatusCode.UNAVAILABLE
        assert await asyncio.gather(*waiting) == list(range(2, 8))

    run_on(scenario)


def test_much_data_at_once_does_not_pile_up(run_on: Ground) -> None:
    """Calls wait while more than a mebibyte is queued, and none is refused for lack of room."""

    async def scenario(bench: Bench) -> None:
        service = Counter()
        client = await bench.pair(service)
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                if client._peer is not None:
                    most = max(most, client._peer.session.queued)
                await asyncio.sleep(0)

        watching = asyncio.ensure_future(watch()) if bench.driver.name != "sim" else None
        data = bytes(300_000)
        answers = await asyncio.gather(*(client.call("counter.swallow", data, n) for n in range(150)))
        assert answers == [300_000] * 150
        assert service.order == list(range(150))
        assert most < 2 * 1024 * 1024
        if watching is not None:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    run_on(scenario)


@pytest.mark.parametrize("name", ["big", "big_later"])
def test_more_in_answers_than_may_be_queued(run_on: Ground, name: str) -> None:
    """A hundred mebibytes were asked for at once: they come as fast as they are taken."""

    async def scenario(bench: Bench) -> None:
        service = Counter()
        client = await bench.pair(service)
        sizes = [1_000_000 + number for number in range(100)]
        answers = await asyncio.gather(*(client.call(f"counter.{name}", size) for size in sizes))
        assert [len(answer) for answer in answers] == sizes
        assert len(bench.connected) == 1
        assert bench.connected[0].in_flight == 0

    run_on(scenario)


def test_more_in_answers_both_ways_at_once(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Counter())
        client = await bench.client(server, Counter())
        await client.call("counter.now", 1)
        (peer,) = server.peers
        answers = await asyncio.gather(
            *(
                end.call(f"counter.{name}", 400_000)
                for _ in range(40)
                for end in (client, peer)
                for name in ("big", "big_later")
            )
        )
        assert {len(answer) for answer in answers} == {400_000}

    run_on(scenario)


@pytest.mark.parametrize("how", ["cancel", "expire", "leave"])
def test_requests_that_are_held_back_can_be_given_up(run_on: Ground, how: str) -> None:
    """They have not begun, and never do."""

    async def scenario(bench: Bench) -> None:
        service = Counter()
        server = await bench.serve(service, limits=RpcLimits(pause_reading_at=2**26))  # to read on meanwhile
        end = await raw_client(server)
        bench.at_the_end(end.abort)
        end.say(HELLO)
        assert await end.hear() == HELLO
        end.machine.wants_read = False
        assert end.link is not None
        end.link.wake()
        end.say(*([REQUEST, 2 * n + 1, "counter.big", [2_000_000]] for n in range(10)))
        meta = {"timeout": 300} if how == "expire" else {}
        end.say(*([REQUEST, 2 * n + 101, "counter.now", [n], meta] for n in range(10)))
        peer = bench.connected[0]
        await until(lambda: peer.in_flight >= 15)
        if how == "leave":
            end.abort()
            await until(lambda: bench.disconnected)
            assert service.order == []
            return
        if how == "cancel":
            end.say(*([CANCEL, 2 * n + 101] for n in range(10)))
        await until(lambda: peer.in_flight <= 10)
        end.machine.wants_read = True
        end.link.wake()
        answers = {}
        for _ in range(20):
            _, msgid, error, result = await end.hear()
            answers[msgid] = error[0] if error is not None else len(result)
        expected = StatusCode.CANCELLED if how == "cancel" else StatusCode.DEADLINE_EXCEEDED
        assert answers == {
            **{2 * n + 1: 2_000_000 for n in range(10)},
            **{2 * n + 101: expected for n in range(10)},
        }
        assert service.order == []
        end.say([REQUEST, 201, "counter.now", [1]])
        assert await end.hear() == [RESPONSE, 201, None, 1]

    run_on(scenario)


def test_many_clients_at_once(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Counter()
        server = await bench.serve(service)
        clients = [await bench.client(server) for _ in range(100)]
        answers = await asyncio.gather(
            *(client.call("counter.now", 10 * n + k) for n, client in enumerate(clients) for k in range(10))
        )
        assert answers == list(range(1000))
        assert len(server.peers) == 100

    run_on(scenario)


def test_a_plain_client_may_pipeline_up_to_the_limit(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Counter()
        end = await raw_client(await bench.serve(service))
        bench.at_the_end(end.abort)
        requests: list[Any] = [[REQUEST, n, "counter.now", [n]] for n in range(10_000)]
        end.say(*requests[:1000])
        for n in range(10_000):
            assert await end.hear() == [RESPONSE, n, None, n]
            end.say(*requests[n + 1000 : n + 1001])

    run_on(scenario)


def test_requests_beyond_the_limit_in_one_batch(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Counter()
        end = await raw_client(await bench.serve(service, limits=RpcLimits(max_calls=100)))
        bench.at_the_end(end.abort)
        end.say(HELLO, *([REQUEST, n, "counter.later", [n]] for n in range(1, 501, 2)))
        assert await end.hear() == HELLO
        refused = [await end.hear() for _ in range(150)]
        assert {error[0] for _, _, error, _ in refused} == {StatusCode.RESOURCE_EXHAUSTED}
        assert [msgid for _, msgid, _, _ in refused] == list(range(201, 501, 2))
        service.gate.set()
        answered = [await end.hear() for _ in range(100)]
        assert sorted(msgid for _, msgid, _, _ in answered) == list(range(1, 201, 2))

    run_on(scenario)
