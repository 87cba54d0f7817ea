"""Decides which requests of a server run, and when: concurrency limits and repeated calls.

The two machines that know are `Admission` and `IdempotencyCache`. A request that has passed the
middleware comes here; it is run now, or later, or answered in place of being run. Plain functions
take no permit, because they have ended before anything else could begin.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

from ...drivers.base import Driver
from ...drivers.pump import Host
from ...protocols.machine import Action
from ...protocols.policies import (
    Admission,
    AdmissionEvent,
    AdmissionLimits,
    Admitted,
    Attempt,
    IdempotencyCache,
    IdempotencyLimits,
    Known,
    Refused,
    Rejected,
    Verdict,
)
from ...protocols.rpc import Flow, StatusCode
from .call_digest import call_digest
from .errors import NotRun, RpcError
from .middleware import Response

if TYPE_CHECKING:
    from .served_call import ServedCall

IDEMPOTENCY_KEY = "idempotency_key"
"""Where in `meta` a caller puts the key of a call that it may repeat."""

MAX_KEY = 256
"""Characters of a key; a UUID has 36."""


class Gate:
    """What stands before the methods of one server.

    Args:
        admission: Limits of concurrency, or None for none.
        idempotency: What is remembered of calls that carry a key.
    """

    def __init__(self, admission: AdmissionLimits | None, idempotency: IdempotencyLimits | None) -> None:
        self._admission = Admission(admission) if admission is not None else None
        self._outcomes: IdempotencyCache[Response] = IdempotencyCache(idempotency)
        self._host: Host[AdmissionEvent] | None = None
        self._now: Callable[[], float] = float
        self._last_ticket = 0
        self._waiting: dict[int, ServedCall] = {}  # for a permit, or for the outcome of another attempt
        self._keyed: dict[int, ServedCall] = {}  # those that run under a key

    @property
    def limits_concurrency(self) -> bool:
        """Whether coroutines and streams have to come by."""
        return self._admission is not None

    @property
    def running(self) -> int:
        """Permits that are held."""
        return self._admission.running if self._admission is not None else 0

    @property
    def waiting(self) -> int:
        """Requests that wait for a permit or for an outcome."""
        return len(self._waiting)

    def open(self, driver: Driver) -> None:
        """Begin to work; the driver keeps the time."""
        self._now = driver.now
        if self._admission is not None and self._host is None:
            self._host = driver.host(self._admission, self)

    def close(self) -> None:
        """The server ends: cancel what runs although its connection has gone."""
        for call in list(self._keyed.values()):
            call.cancel_detached()
        if self._host is not None:
            self._host.close()

    # -- requests --------------------------------------------------------------------------------------

    def enter(self, call: ServedCall) -> None:
        """A request wants to run: run it, now or later, or end it."""
        self._last_ticket += 1
        call.ticket = self._last_ticket
        key = self._key_of(call)
        if key is not None and not self._is_first(call, key):
            return
        if self._admission is None or not call.method.takes_time:
            call.run()
        else:
            self._ask_for_permit(self._admission, call)

    def leave(self, call: ServedCall, response: Response, size: int) -> None:
        """A request that came by has been answered; let others go on.

        Args:
            call: The request.
            response: Its answer.
            size: Bytes of the answer.
        """
        if call.has_permit and self._admission is not None:
            call.has_permit = False
            self._admission.release(call.ticket, self._now())
            if self._host is not None:
                self._host.wake()
        key, call.key = call.key, None
        if key is not None:
            self._keyed.pop(call.ticket, None)
            if isinstance(response.error, NotRun):
                tickets = self._outcomes.abandon(key)
            else:
                tickets = self._outcomes.finish(key, copy.copy(response), size, self._now())
            for ticket in tickets:
                self._waiting.pop(ticket).finish_later(copy.copy(response))

    def withdraw(self, call: ServedCall, error: RpcError) -> None:
        """A request that waits is given up."""
        if self._waiting.pop(call.ticket, None) is None:
            return
        if call.awaited_key is not None:
            self._outcomes.leave(call.awaited_key, call.ticket)
        elif self._admission is not None:
            self._admission.withdraw(call.ticket)
            if self._host is not None:
                self._host.wake()
        call.finish_later(Response(error=error))

    def awaited(self, call: ServedCall) -> bool:
        """Whether other attempts wait for the outcome of a request."""
        return call.key is not None and self._outcomes.awaited(call.key)

    # -- HostHandler ------------------------------------------------------------------------------------

    def on_events(self, events: list[AdmissionEvent]) -> None:
        """Requests that waited may run, or have waited for too long."""
        for event in events:
            call = self._waiting.pop(event.ticket, None)
            if isinstance(event, Admitted):
                if call is None:  # withdrawn since
                    if self._admission is not None:
                        self._admission.release(event.ticket, self._now())
                    continue
                call.run_later()
            elif call is not None:
                reason = "the deadline passed while the request waited for its turn; it was not run"
                call.finish_later(Response(error=NotRun(StatusCode.DEADLINE_EXCEEDED, reason)))

    def on_actions(self, actions: list[Action]) -> None:
        """The machine has no actions."""

    # -- inside -------------------------------------------------------------------------------------------

    def _ask_for_permit(self, admission: Admission, call: ServedCall) -> None:
        request = call.request
        verdict = admission.request(call.ticket, request.method, call.client, request.deadline, self._now())
        if verdict is Verdict.ADMITTED:
            call.has_permit = True
            call.run()
        elif isinstance(verdict, Refused):
            details = {"retry_after": verdict.retry_after}
            call.finish(Response(error=NotRun(StatusCode.RESOURCE_EXHAUSTED, verdict.reason, details)))
        else:
            self._waiting[call.ticket] = call
            if self._host is not None:
                self._host.wake()

    def _is_first(self, call: ServedCall, key: Hashable) -> bool:
        """Whether nobody has made this call before; otherwise it is answered, or waits."""
        fingerprint = call_digest(call.request.method, call.request.params)
        verdict = self._outcomes.begin(key, fingerprint, call.ticket, self._now())
        if verdict is Attempt.RUN:
            call.key = key
            self._keyed[call.ticket] = call
            return True
        if isinstance(verdict, Known):
            call.finish(copy.copy(verdict.outcome))
        elif isinstance(verdict, Rejected):
            code = StatusCode.INVALID_ARGUMENT if verdict.misused else StatusCode.RESOURCE_EXHAUSTED
            call.finish(Response(error=NotRun(code, verdict.reason)))
        else:
            call.awaited_key = key
            self._waiting[call.ticket] = call
        return False

    def _key_of(self, call: ServedCall) -> Hashable | None:
        """The key of a request that may be repeated, together with who makes it."""
        key = call.request.meta.get(IDEMPOTENCY_KEY)
        if key is None or call.request.flow is not Flow.UNARY or call.request.notification:
            return None
        if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY:
            reason = f"meta[{IDEMPOTENCY_KEY!r}] must be text of 1 to {MAX_KEY} characters"
            raise NotRun(StatusCode.INVALID_ARGUMENT, reason)
        return (call.identity, key)
