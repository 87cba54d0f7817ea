"""What a peer asks of the server or the connection of a client that it belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .gate import Gate
    from .peer import Peer


class PeerOwner(Protocol):
    """A client or a server, told what becomes of its peers."""

    def peer_ready(self, peer: Peer) -> None:
        """The connection is made."""

    def peer_said_hello(self, peer: Peer) -> None:
        """The peer understands the extensions."""

    def peer_going_away(self, peer: Peer, reason: str) -> None:
        """The peer takes no new calls."""

    def peer_closed(self, peer: Peer, error: Exception | None) -> None:
        """The connection has ended; calls in flight have failed."""

    def method_failed(self, peer: Peer, method: str, error: Exception) -> None:
        """A method let an exception out that is no `RpcError`."""

    def method_slow(self, peer: Peer, method: str, seconds: float) -> None:
        """A method took longer than `slow_after`."""

    @property
    def gate(self) -> Gate | None:
        """What requests have to pass before they run; None for nothing."""

    @property
    def slow_after(self) -> float:
        """Seconds; `math.inf` where nobody asks."""
