"""A service: the methods that are marked can be called over the network.

Serve it, and call it:

    helianthus serve examples/node.toml
    helianthus call tcp://127.0.0.1:7070 calculator.add 2 3

Callers see the annotations and docstrings: `helianthus services` prints them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from helianthus import RpcError, Service, StatusCode, method


class Calculator(Service):
    """Arithmetic on numbers."""

    @method
    def add(self, a: float, b: float) -> float:
        """Add two numbers."""
        return a + b

    @method
    def subtract(self, a: float, b: float) -> float:
        """Take the second number from the first."""
        return a - b

    @method
    def multiply(self, a: float, b: float) -> float:
        """Multiply two numbers."""
        return a * b

    @method
    def divide(self, a: float, b: float) -> float:
        """Divide the first number by the second."""
        if b == 0:
            # An RpcError is an answer: the caller gets its code and message.
            raise RpcError(StatusCode.INVALID_ARGUMENT, "cannot divide by zero")
        return a / b

    @method
    async def add_async(self, a: float, b: float, delay: float = 0.0) -> float:
        """Add two numbers after `delay` seconds, during which others are served."""
        await asyncio.sleep(delay)
        return a + b

    @method
    async def count(self, to: int, delay: float = 0.0) -> AsyncIterator[int]:
        """Count from 1 to `to`, with `delay` seconds before each number.

        Each `yield` sends a stream item. A caller that takes them slowly slows the counting down.
        """
        for number in range(1, to + 1):
            await asyncio.sleep(delay)
            yield number

    @method
    async def total(self, numbers: AsyncIterator[float]) -> float:
        """Add up the numbers that the caller streams."""
        result = 0.0
        async for number in numbers:
            result += number
        return result
