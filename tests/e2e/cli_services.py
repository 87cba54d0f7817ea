"""What the tests of the command line serve; started by `helianthus serve` in another process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from helianthus import CallContext, RpcError, Service, StatusCode, method


def tell(line: str) -> None:
    """Tell the test, which reads the output of the node."""
    print(line, flush=True)


class Probe(Service):
    """Methods that make the command line show what it can do.

    This paragraph is for those who ask for the service by name.
    """

    @method
    def echo(self, value: Any) -> Any:
        """Give a value back."""
        return value

    @method
    def nothing(self) -> None:
        return None

    @method
    def rude(self) -> None:
        raise RpcError(StatusCode.NOT_FOUND, "\x1b[31mred", {"tried": [b"\x01", 2]})

    @method
    def broken(self) -> None:
        raise KeyError("a fault of the service")

    @method
    def odd_names(self, timeout: float, meta: str, cancel: bool = False) -> list[Any]:
        return [timeout, meta, cancel]

    @method
    async def endless(self) -> AsyncIterator[int]:
        """Count without an end."""
        number = 0
        try:
            while True:
                yield number
                number += 1
        finally:
            tell("the stream was cancelled")

    @method
    async def squares(self, numbers: AsyncIterator[int]) -> AsyncIterator[int]:
        """Answer each number at once."""
        async for number in numbers:
            yield number * number

    @method
    async def first(self, numbers: AsyncIterator[int]) -> int:
        """Return the first number; take no more."""
        async for number in numbers:
            return number
        raise RpcError(StatusCode.OUT_OF_RANGE, "there was none")

    @method
    async def wait(self) -> None:
        """Wait for ever, until cancelled."""
        tell("waiting")
        try:
            await asyncio.Event().wait()
        finally:
            tell("the wait was cancelled")

    @method
    async def through_the_gate(self, context: CallContext) -> str:
        """Wait until the caller lets it through."""
        await context.peer.call("gate.open")
        return "through"

    @method
    async def stubborn(self) -> None:
        """Wait for ever, and do not let that be cancelled."""
        tell("waiting")
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                tell("no")

    @method
    def block(self) -> None:
        """Let nobody else in the process run."""
        tell("blocking")
        while True:
            time.sleep(1)


probe = Probe()
probe.name = "probe_object"


class Twin(Probe):
    """A service with somebody else's name."""

    name = "probe"


class Unmade(Service):
    def __init__(self, needed: int) -> None:
        self.needed = needed


def not_a_service() -> None:
    pass
