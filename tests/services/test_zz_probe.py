from __future__ import annotations
import asyncio, pytest
from collections.abc import AsyncIterator
from rpc_bench import *
from helianthus import *

class Calc(Service):
    @method
    def add(self, a: int, b: int) -> int: return a+b
    @method
    async def slow(self, s: float) -> str:
        await asyncio.sleep(s); return "done"
    @method
    async def count(self, n: int) -> AsyncIterator[int]:
        for i in range(n): yield i

def test_basic(run_on):
    async def scenario(bench):
        client = await bench.pair(Calc())
        assert await client.call("calc.add", 1, 2) == 3
        assert await client.call("calc.slow", 0.01) == "done"
        assert [i async for i in client.stream("calc.count", 200)] == list(range(200))
    run_on(scenario)
