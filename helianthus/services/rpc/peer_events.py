"""Callbacks of servers and clients: who has connected and gone, what failed, what took long."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from .peer import Peer

_log = logging.getLogger("helianthus.rpc")

OnConnect = TypeVar("OnConnect", bound="Callable[[Peer], object]")
OnDisconnect = TypeVar("OnDisconnect", bound="Callable[[Peer, Exception | None], object]")
OnSlowCall = TypeVar("OnSlowCall", bound="Callable[[Peer, str, float], object]")
OnError = TypeVar("OnError", bound="Callable[[Peer, str, Exception], object]")


class PeerEvents:
    """Keeps callbacks and calls them; the base of servers and clients.

    Args:
        fault: Told of what callbacks let out.

    Attributes:
        slow_after: Seconds after which the first of those who asked is told of a slow call.
    """

    def __init__(self, fault: Callable[[Exception], None]) -> None:
        self._fault = fault
        self._on_connect: list[Callable[[Peer], object]] = []
        self._on_disconnect: list[Callable[[Peer, Exception | None], object]] = []
        self._on_error: list[Callable[[Peer, str, Exception], object]] = []
        self._on_slow_call: list[tuple[float, Callable[[Peer, str, float], object]]] = []
        self.slow_after = math.inf

    # -- for users ----------------------------------------------------------------------------------

    def on_connect(self, callback: OnConnect) -> OnConnect:
        """Have `callback(peer)` called for each connection; usable as a decorator."""
        self._on_connect.append(callback)
        return callback

    def on_disconnect(self, callback: OnDisconnect) -> OnDisconnect:
        """Have `callback(peer, error)` called when a connection has ended."""
        self._on_disconnect.append(callback)
        return callback

    def on_error(self, callback: OnError) -> OnError:
        """Have `callback(peer, method, error)` called for what methods let out besides `RpcError`.

        A peer that breaks the protocol or a limit is reported too; `method` is then empty. Without
        a callback, errors are logged to "helianthus.rpc".
        """
        self._on_error.append(callback)
        return callback

    def on_slow_call(self, callback: OnSlowCall, *, after: float = 1.0) -> OnSlowCall:
        """Have `callback(peer, method, seconds)` called for each call that took longer than `after` seconds.

        It is called at the end of the call. A server counts from the moment that its serving
        begins; a client tells of the calls that it makes, attempt by attempt.
        """
        if not after >= 0:
            raise ValueError(f"a call is slow after 0 seconds or more, got {after!r}")
        self._on_slow_call.append((after, callback))
        self.slow_after = min(self.slow_after, after)
        return callback

    # -- for those who know -------------------------------------------------------------------------

    def tell_connected(self, peer: Peer) -> None:
        """A connection can be used."""
        for callback in self._on_connect:
            self._tell(callback, peer)

    def tell_disconnected(self, peer: Peer, error: Exception | None) -> None:
        """It has ended."""
        for callback in self._on_disconnect:
            self._tell(callback, peer, error)

    def tell_failed(self, peer: Peer, method: str, error: Exception, *, log: bool = True) -> None:
        """A method failed, or a peer broke the rules; without a callback that is logged, if it is to be."""
        for callback in self._on_error:
            self._tell(callback, peer, method, error)
        if log and not self._on_error:
            _log.error("%s: %s failed", peer.address, method or "the connection", exc_info=error)

    def tell_slow(self, peer: Peer, method: str, seconds: float) -> None:
        """A call took longer than `slow_after`."""
        for after, callback in self._on_slow_call:
            if seconds > after:
                self._tell(callback, peer, method, seconds)

    def _tell(self, callback: Callable[..., object], *what: object) -> None:
        """Call what was registered; one that fails stops neither the others nor the connection."""
        try:
            callback(*what)
        except Exception as error:  # noqa: BLE001 - reported
            self._fault(error)
