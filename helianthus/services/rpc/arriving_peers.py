"""The peers of a server of whom it is not known yet who they are."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ...drivers.base import Driver, Listener
from ..handshake_room import HandshakeRoom

if TYPE_CHECKING:
    from .peer import Peer

_log = logging.getLogger("helianthus.rpc")


class ArrivingPeers:
    """Those whose TLS handshake, or PROXY header, is under way; see `HandshakeRoom`.

    When there is no room for more, the listeners with such layers let nobody else in.

    Args:
        max_handshakes: How many there is room for, over all listeners.

    Raises:
        ValueError: It is less than 1.
    """

    def __init__(self, max_handshakes: int) -> None:
        self._room: HandshakeRoom[Peer] = HandshakeRoom(
            max_handshakes, lambda peer: peer.address, self._heed_room, _log
        )
        self._listeners: list[Listener] = []

    def __len__(self) -> int:
        return len(self._room)

    def pause_when_full(self, listener: Listener) -> None:
        """This listener's connections arrive here first."""
        self._listeners.append(listener)

    def add(self, peer: Peer, driver: Driver) -> None:
        """A peer has connected."""
        self._room.add(peer, driver)
        if self._room.full:
            self._heed_room()

    def discard(self, peer: Peer) -> None:
        """It is known who the peer is, or the peer has gone."""
        was_full = self._room.full
        if self._room.discard(peer) and was_full:
            self._heed_room()

    def abort_all(self) -> None:
        """The server stops: nobody who is not here yet will be."""
        self._room.abort_all()

    def _heed_room(self) -> None:
        for listener in self._listeners:
            if self._room.full:
                listener.pause()
            else:
                listener.resume()
