"""Calling services from coroutines: any number of calls share one connection.

    helianthus serve examples/node.toml
    python examples/client_async.py

A connection that is lost is made again; calls that were under way then fail with UNAVAILABLE.
"""

from __future__ import annotations

import asyncio
import sys

from calculator import Calculator

import helianthus


async def main(url: str) -> None:
    async with helianthus.connect(url) as client:
        print("2 + 3 =", await client.call("calculator.add", 2, 3, timeout=5))

        # A hundred calls at once take about as long as the slowest.
        calls = [client.call("calculator.add_async", n, n, 0.1) for n in range(100)]
        print("all sums:", sum(await asyncio.gather(*calls)))

        # The service's class, where there is one, tells type checkers what there is to call.
        calculator = client.service(Calculator)
        async for count in calculator.count(3):
            print("counting:", count)

        try:
            async with asyncio.timeout(0.1):
                await calculator.add_async(1, 1, 60)
        except TimeoutError:
            print("gave up: the server cancels the call, too")

        async with client.stream("calculator.total") as total:
            for number in (1.5, 2.5, 3.5):
                await total.send(number)
            print("1.5 + 2.5 + 3.5 =", await total.result())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:7070"))
