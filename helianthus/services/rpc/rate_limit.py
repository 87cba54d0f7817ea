"""Middleware that bounds how often each caller may call."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from ...drivers.unix_socket import PeerCredentials
from ...protocols.policies import Rate, TokenBuckets
from ...protocols.rpc import StatusCode
from .errors import NotRun
from .middleware import Middleware, Request, Response


def by_peer(request: Request) -> Hashable:
    """Each connection has a bucket of its own; at a client, which knows no caller, all share one."""
    return request.peer


def by_method(request: Request) -> Hashable:
    """Each method has a bucket of its own, whoever calls it."""
    return request.method


def by_host(request: Request) -> Hashable:
    """Each IP address has a bucket, however many connections it makes; a Unix-domain peer its user."""
    address = request.peer.address if request.peer is not None else ""
    credentials = PeerCredentials.parse(address)
    if credentials is not None:
        return credentials.uid
    host, _, port = address.rpartition(":")
    return host if port.isdecimal() else address


class RateLimit(Middleware):
    """Answers calls beyond a rate with RESOURCE_EXHAUSTED, and says when to try again.

    The details of the error are `{"retry_after": seconds}`, which retrying clients heed.

    Args:
        rate: How often each key may call.
        key: Gives the key of a request, such as `by_peer`, `by_host` and `by_method`.
        max_keys: How many are remembered.
    """

    order = 50

    def __init__(
        self, rate: Rate, *, key: Callable[[Request], Hashable] = by_peer, max_keys: int = 10_000
    ) -> None:
        self._buckets = TokenBuckets(rate, max_keys)
        self._key = key

    def before(self, request: Request) -> Response | None:
        """Take a token, or refuse."""
        wait = self._buckets.take(self._key(request), request.started)
        if wait:
            rate = self._buckets.rate
            raise NotRun(
                StatusCode.RESOURCE_EXHAUSTED,
                f"{request.method}: more than {rate.per_second:g} calls a second (burst {rate.burst}); "
                f"try again in {wait:.3g} s",
                {"retry_after": wait},
            )
        return None
