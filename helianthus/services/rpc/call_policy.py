"""What a client does with a call besides making it: deadlines, waiting, attempts after the first.

Policies are looked up once for each method. A call that has one is a `PolicyCall`; the machines that
decide about its attempts are `Retry` and `Hedging`. Policies stand inside of the middleware, which
sees one call, however many attempts it takes.

Source: gRPC proposal A6, and the service config of gRPC for the choice by name.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import Any, TypeAlias

import attrs
from attrs.validators import instance_of, optional

from ...drivers.base import Driver
from ...protocols.policies import (
    AttemptFailure,
    Hedging,
    HedgingPolicy,
    Retry,
    RetryPolicy,
    RetryState,
    RetryThrottle,
)
from ...protocols.timeouts import check_timeout
from .channel import Channel, ChannelState
from .channel_pool import ChannelPool
from .context import inherit
from .errors import NotSent, RpcError
from .gate import IDEMPOTENCY_KEY

PREVIOUS_ATTEMPTS = "previous_attempts"
"""Where in `meta` the server finds how many attempts were made before; gRPC's
`grpc-previous-rpc-attempts`."""

EVERY_METHOD = "*"
"""The name of the policy of all methods that have no other."""

_MAX_METHODS = 1000
"""Methods whose policy a client remembers; its own code names them, but may make names up."""

_KEY_BITS = 128
"""As random as a UUID, and a little more."""

Send: TypeAlias = Callable[[float | None, dict[str, Any] | None], Awaitable[Any]]
"""Makes an attempt, with a timeout in seconds and meta; gives its result or raises `RpcError`."""


@attrs.frozen
class CallPolicy:
    """What a client does with the calls of some methods.

    Attributes:
        timeout: Seconds for calls that are given none; for all attempts together.
        wait_for_ready: Whether calls wait while there is no connection, until their deadline, instead
            of failing with UNAVAILABLE.
        retry: When a failed call is made again; None for never, except for what surely never ran.
        hedging: When a call is made again although it has not failed; excludes `retry`.
        idempotent: Whether each call carries a key, the same for all of its attempts, by which the
            server runs it once; see `IdempotencyLimits`. Without the extensions a server could not
            tell, so such calls then fail as streams do, see `ChannelOptions.hello_timeout`.
    """

    timeout: float | None = attrs.field(default=None)
    wait_for_ready: bool = False
    retry: RetryPolicy | None = attrs.field(default=None, validator=optional(instance_of(RetryPolicy)))
    hedging: HedgingPolicy | None = attrs.field(default=None, validator=optional(instance_of(HedgingPolicy)))
    idempotent: bool = False

    @timeout.validator
    def _check_timeout(self, attribute: attrs.Attribute[float | None], value: float | None) -> None:
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"timeout is {value} s; it must be more than 0 and finite, or None")

    def __attrs_post_init__(self) -> None:
        if self.retry is not None and self.hedging is not None:
            raise ValueError("a policy has either retry or hedging, not both")


class ClientPolicies:
    """The policies of a client, by the names of methods and services.

    Args:
        policies: By the full name of a method, by that of a service, or by "*". The most specific
            one holds, as a whole: nothing is taken over from the others.

    Raises:
        TypeError: A value is no policy.
    """

    def __init__(self, policies: Mapping[str, CallPolicy]) -> None:
        for name, policy in policies.items():
            check_policy(policy, f"of {name!r}")
        self._policies = dict(policies)
        self._chosen: dict[str, CallPolicy | None] = {}

    def of(self, method: str) -> CallPolicy | None:
        """The policy of a method, or None."""
        chosen = self._chosen
        if method not in chosen:
            if len(chosen) >= _MAX_METHODS:
                chosen.clear()
            chosen[method] = self._choose(method)
        return chosen[method]

    def _choose(self, method: str) -> CallPolicy | None:
        name = method
        while name:
            if name in self._policies:
                return self._policies[name]
            name = name.rpartition(".")[0]
        return self._policies.get(EVERY_METHOD)


def check_policy(policy: object, what: str = "") -> None:
    """Make sure that something is a policy.

    Raises:
        TypeError: It is none.
    """
    if not isinstance(policy, CallPolicy):
        raise TypeError(f"the policy {what} is {policy!r}; it must be a CallPolicy".replace("  ", " "))


class PolicyCall:
    """One call under a policy: what its attempts have in common, and whether there is another.

    Args:
        policy: The policy.
        method: The full name.
        timeout: Seconds for all of it, or None.
        meta: What the caller sends along.
        driver: Whose time it is.
        throttle: Of the client.
        channel: Counts the attempts; once it is closed there is no other.
    """

    def __init__(
        self,
        policy: CallPolicy,
        method: str,
        timeout: float | None,
        meta: dict[str, Any] | None,
        driver: Driver,
        throttle: RetryThrottle,
        channel: Channel | ChannelPool,
    ) -> None:
        now = driver.now()
        timeout, _ = inherit(now, timeout, None)
        self.policy = policy
        self.method = method
        self.deadline = None if timeout is None else now + timeout
        """Driver time in seconds, or None."""
        self.resume_at = now
        """Driver time in seconds, before which the next attempt is not to begin."""
        self.now = driver.now
        self._throttle = throttle
        self._retry = Retry(policy.retry, throttle, driver.rng, self.deadline)
        self._meta = with_key(meta, driver.rng) if policy.idempotent else meta
        self._channel = channel
        self._statistics = channel.statistics_of(method)
        self._attempts = 0
        self._maybe_executed = False

    def in_vain(self) -> bool:
        """Whether no attempt could succeed any more, because the client is closed."""
        return self._channel.state is ChannelState.CLOSED

    # -- one attempt after the other --------------------------------------------------------------------

    def begin(self) -> tuple[float | None, dict[str, Any] | None]:
        """The next attempt begins; gives its timeout in seconds and its meta.

        One that has begun, but was interrupted before it was sent, goes on.
        """
        if self._retry.state is RetryState.RUNNING:
            return self._next(self._retry.previous_attempts)
        self._retry.begin()
        return self.attempt(self._retry.previous_attempts)

    def commit(self) -> None:
        """The attempt that is under way is the last."""
        self._retry.commit()

    def succeeded(self) -> None:
        """It has a result."""
        self._retry.succeeded()

    def failed(self, error: RpcError) -> bool:
        """It has failed; gives whether another one is to begin at `resume_at`."""
        delay = None
        if self._retry.state is RetryState.RUNNING and not self.in_vain():  # and not cancelled in a pause
            now = self.now()
            delay = self._retry.failed(failure_of(error), now)
            self.resume_at = now + (delay or 0.0)
        self.final(error)
        return delay is not None

    # -- attempts side by side --------------------------------------------------------------------------

    def hedging(self, policy: HedgingPolicy) -> Hedging:
        """The machine that decides; the first attempt is to begin now."""
        return Hedging(policy, self._throttle, self.now(), self.deadline)

    # -- both ---------------------------------------------------------------------------------------------

    def attempt(self, previous: int, *, hedge: bool = False) -> tuple[float | None, dict[str, Any] | None]:
        """Count an attempt, and give its timeout in seconds and its meta.

        Args:
            previous: Attempts before it, as the server is told.
            hedge: Whether another one is under way.
        """
        if self._attempts:
            self._statistics.retries += 1
            self._statistics.hedges += hedge
        self._attempts += 1
        return self._next(previous)

    def may_have_run(self) -> None:
        """An attempt whose end nobody waits for may have run."""
        self._maybe_executed = True

    def final(self, error: RpcError) -> RpcError:
        """An error as it stands for the whole call: any of the attempts may have run."""
        self._maybe_executed = self._maybe_executed or error.maybe_executed
        error.maybe_executed = self._maybe_executed
        return error

    def _next(self, previous: int) -> tuple[float | None, dict[str, Any] | None]:
        meta = {**(self._meta or {}), PREVIOUS_ATTEMPTS: previous} if previous else self._meta
        return (None if self.deadline is None else max(0.0, self.deadline - self.now())), meta


def failure_of(error: RpcError) -> AttemptFailure:
    """What the machines know of an error."""
    return AttemptFailure(error.code, error.details, error.maybe_executed, not isinstance(error, NotSent))


def with_key(meta: dict[str, Any] | None, rng: Random) -> dict[str, Any]:
    """Meta with a new idempotency key, unless the caller has one of its own."""
    return {IDEMPOTENCY_KEY: f"{rng.getrandbits(_KEY_BITS):032x}", **(meta or {})}


def chosen_timeout(policy: CallPolicy | None, timeout: float | None) -> float | None:
    """That of the call, or else that of its policy.

    Raises:
        ValueError: It is no number of seconds, or less than 0.
    """
    check_timeout(timeout)
    return policy.timeout if policy is not None and timeout is None else timeout


async def call_repeatedly(call: PolicyCall, send: Send, pause: Callable[[float], Awaitable[None]]) -> Any:
    """Make a call, again where its policy says so.

    Args:
        call: The call.
        send: Makes an attempt.
        pause: Waits until a driver time; raises CANCELLED when the caller gives up.

    Raises:
        RpcError: The last attempt ended without a result.
    """
    while True:
        timeout, meta = call.begin()
        try:
            result = await send(timeout, meta)
        except RpcError as error:
            if not call.failed(error):
                raise
        else:
            call.succeeded()
            return result
        try:
            await pause(call.resume_at)
        except RpcError as error:
            raise call.final(error) from None
