"""A client that floods a server with good requests, next to one that minds its own business."""

from __future__ import annotations

import asyncio

from rpc_bench import Bench, Ground
from rpc_sockets import BadClient, witnessed

from helianthus import AdmissionLimits, ConcurrencyLimit, Rate, RateLimit, Service, StatusCode, method

REQUESTS = 20_000


class Probe(Service):
    """What everybody calls."""

    @method
    def add(self, a: int, b: int) -> int:
        return a + b

    @method
    def echo(self, number: int) -> int:
        return number


class Slow(Service):
    """Something worth protecting."""

    def __init__(self) -> None:
        self.now = self.most = 0

    @method
    async def work(self) -> str:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.001)
        self.now -= 1
        return "done"


async def flood(client: BadClient, method: str, params: list[int]) -> dict[int | None, int]:
    """Send requests as fast as they can be sent, and count the codes of the answers."""
    codes: dict[int | None, int] = {}

    async def send() -> None:
        for start in range(0, REQUESTS, 500):
            await client.say(*([0, start + n, method, params] for n in range(500)))

    sending = asyncio.ensure_future(send())
    for _ in range(REQUESTS):
        _, _, error, _ = await client.hear()
        code = None if error is None else error[0]
        codes[code] = codes.get(code, 0) + 1
    await sending
    return codes


def test_every_request_of_a_flood_is_answered(run_on_real: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Probe())
        async with witnessed(bench, server), BadClient(server) as client:
            assert await flood(client, "probe.add", [1, 2]) == {None: REQUESTS}

    run_on_real(scenario)


def test_limits_bound_what_a_flood_can_make_run(run_on_real: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        slow = Slow()
        limits = AdmissionLimits(client=ConcurrencyLimit(max_concurrent=5, max_queued=10))
        server = await bench.serve(Probe(), slow, admission=limits)
        async with witnessed(bench, server), BadClient(server) as client:
            codes = await flood(client, "slow.work", [])
            assert set(codes) == {None, StatusCode.RESOURCE_EXHAUSTED}
            assert codes[None] >= 15
            assert sum(codes.values()) == REQUESTS
            assert slow.most == 5

    run_on_real(scenario)


def test_a_rate_limit_stops_a_flood_and_nobody_else(run_on_real: Ground) -> None:
    class OnlyAdd(RateLimit):
        def applies(self, method: str) -> bool:
            return method == "probe.echo"

    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Probe(), middleware=[OnlyAdd(Rate(per_second=0.01, burst=10))])
        async with witnessed(bench, server), BadClient(server) as client:
            codes = await flood(client, "probe.echo", [1])
            assert codes == {None: 10, StatusCode.RESOURCE_EXHAUSTED: REQUESTS - 10}

    run_on_real(scenario)
