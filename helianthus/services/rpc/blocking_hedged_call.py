"""The same as `HedgedCall` for a client without a loop: the caller's thread turns the driver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from ...protocols.policies import AttemptCancelled, AttemptStarted, HedgingPolicy
from .before_call import expired
from .call import Call
from .call_policy import PolicyCall, failure_of
from .errors import RpcError

Begin: TypeAlias = Callable[[float | None, dict[str, Any] | None], Call | None]
"""Begins an attempt, with a timeout in seconds and meta; None where it has to wait for a connection."""


class BlockingHedgedCall:
    """Makes the attempts of one call, and gives the result of the first that has one.

    Args:
        call: The call.
        policy: When to make attempts.
        begin: Begins one; raises `RpcError` where it cannot.
        may_begin: Whether `begin` would not give None.
        turn: Turns the driver until something is true, or a driver time has come; raises CANCELLED
            when the caller gives up.
    """

    def __init__(
        self,
        call: PolicyCall,
        policy: HedgingPolicy,
        begin: Begin,
        may_begin: Callable[[], bool],
        turn: Callable[[Callable[[], bool], float | None], None],
    ) -> None:
        self._call = call
        self._machine = call.hedging(policy)
        self._begin = begin
        self._may_begin = may_begin
        self._turn = turn
        self._waiting: dict[int, dict[str, Any] | None] = {}  # the meta of attempts without a connection
        self._running: dict[int, Call] = {}
        self._outcomes: dict[int, tuple[Any, RpcError | None]] = {}

    def run(self) -> Any:
        """Make the call.

        Raises:
            RpcError: No attempt had a result.
        """
        try:
            while (outcome := self._carry_out()) is None:
                self._turn(self._has_news, self._next_time())
                self._hear()
            result, error = outcome
            if error is not None:
                raise error
            return result
        except RpcError as error:
            if self._running:
                self._call.may_have_run()
            self._call.final(error)
            raise
        finally:
            for call in self._running.values():
                call.give_up("another attempt has ended the call, or its caller has")

    def _carry_out(self) -> tuple[Any, RpcError | None] | None:
        """Do what the machine wants; gives the outcome of the call, if it has one."""
        for event in self._machine.take_events():
            if isinstance(event, AttemptStarted):
                hedge = bool(self._running or self._waiting)
                self._waiting[event.number] = self._call.attempt(event.number, hedge=hedge)[1]
            elif isinstance(event, AttemptCancelled):
                self._give_up(event.number)
            else:
                return self._outcomes[event.number]
        if self._call.in_vain() and not self._running and not self._waiting and self._outcomes:
            return next(reversed(self._outcomes.values()))  # no attempt could succeed any more
        return None

    def _give_up(self, number: int) -> None:
        self._waiting.pop(number, None)
        call = self._running.pop(number, None)
        if call is not None:
            self._call.may_have_run()
            call.give_up("another attempt has ended the call")

    def _has_news(self) -> bool:
        if any(call.done() for call in self._running.values()):
            return True
        if self._waiting and self._may_begin():
            return True
        return not self._running and self._call.in_vain()

    def _next_time(self) -> float | None:
        """Driver time at which something is due, or None."""
        due, deadline = self._machine.deadline(), self._call.deadline
        if not self._waiting or deadline is None:  # those that run have their own deadline
            return due
        return deadline if due is None else min(due, deadline)

    def _hear(self) -> None:
        """Tell the machine how an attempt has ended, or else begin those that wait, and tell the time."""
        for number, call in self._running.items():
            if call.done():
                del self._running[number]
                self._tell(number, call)
                return
        for number in list(self._waiting):
            if not self._send(number):
                return
        self._machine.handle_timeout(self._call.now())

    def _send(self, number: int) -> bool:
        """Begin an attempt that waits, if it can be; false where it has failed."""
        deadline, now = self._call.deadline, self._call.now()
        try:
            if deadline is not None and now >= deadline:
                raise expired(self._call.method)
            call = self._begin(None if deadline is None else deadline - now, self._waiting[number])
        except RpcError as error:
            del self._waiting[number]
            self._failed(number, error)
            return False
        if call is not None:
            del self._waiting[number]
            self._running[number] = call
        return True

    def _tell(self, number: int, call: Call) -> None:
        try:
            result = call.result()
        except RpcError as error:
            self._failed(number, error)
        else:
            self._outcomes[number] = result, None
            self._machine.succeeded(number, self._call.now())

    def _failed(self, number: int, error: RpcError) -> None:
        self._outcomes.pop(number, None)
        self._outcomes[number] = None, error
        self._machine.failed(number, failure_of(error), self._call.now())
        self._call.final(error)
