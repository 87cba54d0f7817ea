"""A call that is made several times side by side, see `Hedging`; each attempt is a task."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ...protocols.policies import AttemptCancelled, AttemptStarted, HedgingPolicy
from ..waiter import Waiter
from .call_policy import PolicyCall, Send, failure_of
from .errors import RpcError


class HedgedCall:
    """Makes the attempts of one call, and gives the result of the first that has one.

    Args:
        call: The call.
        policy: When to make attempts.
        send: Makes one.
        wait: Waits until a waiter is finished, or a driver time has come, or the connection changes;
            raises CANCELLED when the caller gives up.
    """

    def __init__(
        self,
        call: PolicyCall,
        policy: HedgingPolicy,
        send: Send,
        wait: Callable[[Waiter, float | None], Awaitable[None]],
    ) -> None:
        self._call = call
        self._machine = call.hedging(policy)
        self._send = send
        self._wait = wait
        self._running: dict[int, asyncio.Task[Any]] = {}
        self._given_up: list[asyncio.Task[Any]] = []
        self._ended: list[tuple[int, asyncio.Task[Any]]] = []  # that nobody has looked at yet
        self._outcomes: dict[int, asyncio.Task[Any]] = {}
        self._news = Waiter(asyncio.get_running_loop())

    async def run(self) -> Any:
        """Make the call.

        Raises:
            RpcError: No attempt had a result.
        """
        try:
            while (outcome := self._carry_out()) is None:
                self._news = Waiter(asyncio.get_running_loop())
                if not self._ended:
                    await self._wait(self._news, self._machine.deadline())
                self._hear()
            return outcome.result()
        except RpcError as error:
            if self._running or self._given_up:
                self._call.may_have_run()
            self._call.final(error)
            raise
        finally:
            await self._give_up_all()

    def _carry_out(self) -> asyncio.Task[Any] | None:
        """Do what the machine wants; gives the attempt as which the call ends, if it does."""
        for event in self._machine.take_events():
            if isinstance(event, AttemptStarted):
                self._start(event.number)
            elif isinstance(event, AttemptCancelled):
                self._give_up(event.number)
            else:
                return self._outcomes[event.number]
        if self._call.in_vain() and not self._running and self._outcomes:
            return next(reversed(self._outcomes.values()))  # no attempt could succeed any more
        return None

    def _start(self, number: int) -> None:
        timeout, meta = self._call.attempt(number, hedge=bool(self._running))
        task = asyncio.ensure_future(self._send(timeout, meta))
        self._running[number] = task
        task.add_done_callback(lambda ended: self._attempt_ended(number, ended))

    def _attempt_ended(self, number: int, task: asyncio.Task[Any]) -> None:
        if self._running.get(number) is task:
            self._ended.append((number, task))
            self._news.finish(None, None, direct=False)
        elif not task.cancelled():
            task.exception()  # nobody is to hear of it

    def _hear(self) -> None:
        """Tell the machine how an attempt has ended, or else the time."""
        now = self._call.now()
        if not self._ended:
            self._machine.handle_timeout(now)
            return
        number, task = self._ended.pop(0)
        if self._running.get(number) is task:  # it was not given up meanwhile
            del self._running[number]
            self._outcomes.pop(number, None)
            self._outcomes[number] = task
            self._tell(number, task, now)

    def _tell(self, number: int, task: asyncio.Task[Any], now: float) -> None:
        try:
            task.result()
        except RpcError as error:
            self._machine.failed(number, failure_of(error), now)
            self._call.final(error)
        else:
            self._machine.succeeded(number, now)

    def _give_up(self, number: int) -> None:
        task = self._running.pop(number)
        task.cancel()
        self._given_up.append(task)

    async def _give_up_all(self) -> None:
        """Leave no attempt behind."""
        for number in list(self._running):
            self._give_up(number)
        if self._given_up:
            await asyncio.wait(self._given_up)
