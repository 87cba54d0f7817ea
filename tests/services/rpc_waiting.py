"""A service whose methods wait, and note what becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from rpc_bench import until

from helianthus import CallContext, Service, method


class Waiting(Service):
    """Methods that wait until they are let go.

    Attributes:
        journal: What happened, as "name: event", in order.
        contexts: Of the calls, by name.
        gate: Opens for every method that waits.
    """

    def __init__(self) -> None:
        self.journal: list[str] = []
        self.contexts: dict[str, CallContext] = {}
        self.gate = asyncio.Event()

    def note(self, name: str, event: str) -> None:
        self.journal.append(f"{name}: {event}")

    async def happened(self, name: str, event: str) -> None:
        """Wait for an entry of the journal."""
        await until(lambda: f"{name}: {event}" in self.journal)

    def entries(self, name: str) -> list[str]:
        """What happened to one call."""
        return [event for entry in self.journal for who, event in [entry.split(": ", 1)] if who == name]

    @method
    def now(self, value: Any = None) -> Any:
        return value

    @method
    async def wait(self, name: str, context: CallContext) -> str:
        """Wait for the gate."""
        self.contexts[name] = context
        self.note(name, "began")
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.note(name, "cancelled")
            raise
        finally:
            self.note(name, "finally")
        self.note(name, "ended")
        return name

    @method
    async def slow_clean_up(self, name: str) -> str:
        """Wait for the gate, also in the clean-up."""
        self.note(name, "began")
        try:
            await asyncio.Event().wait()
        finally:
            await self.gate.wait()
            self.note(name, "finally")
        return name

    @method
    async def stubborn(self, name: str) -> str:
        """Ignore being cancelled."""
        self.note(name, "began")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.note(name, "ignored it")
        return "as if nothing had happened"

    @method
    async def broken_clean_up(self, name: str) -> None:
        """Fail in the clean-up."""
        self.note(name, "began")
        try:
            await asyncio.Event().wait()
        finally:
            raise ZeroDivisionError("in the clean-up")

    @method
    async def produce(self, name: str, count: int) -> AsyncIterator[int]:
        """Send some items, then wait for the gate."""
        self.note(name, "began")
        try:
            for number in range(count):
                yield number
            self.note(name, "all sent")
            await self.gate.wait()
        except asyncio.CancelledError:
            self.note(name, "cancelled")
            raise
        except GeneratorExit:
            self.note(name, "closed")
            raise
        finally:
            self.note(name, "finally")

    @method
    async def consume(self, name: str, items: AsyncIterator[int]) -> int:
        """Take items until they end."""
        self.note(name, "began")
        total = 0
        try:
            async for item in items:
                total += item
        except asyncio.CancelledError:
            self.note(name, "cancelled")
            raise
        finally:
            self.note(name, "finally")
        return total

    @method
    async def ignore(self, name: str, items: AsyncIterator[int]) -> str:
        """Take no item until the gate opens, then all of them."""
        self.note(name, "began")
        await self.gate.wait()
        return str(sum([item async for item in items]))
