"""What the tests of `helianthus bench` measure; started by `helianthus serve` in another process."""

from __future__ import annotations

import asyncio

from helianthus import Service, method


class Queue(Service):
    """Answers ten calls, and lets all others wait."""

    def __init__(self) -> None:
        self.answered = 0
        self.waiting = 0

    @method
    async def first_ten(self) -> int:
        if self.answered < 10:
            self.answered += 1
            return self.answered
        self.waiting += 1
        print(f"waiting {self.waiting}", flush=True)
        await asyncio.Event().wait()
        return 0
