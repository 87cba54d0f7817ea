"""Sessions that a client can resume, by where it got them."""

from __future__ import annotations

import ssl
from collections import OrderedDict
from collections.abc import Hashable

MAX_SESSIONS = 256
"""Servers of which a session is kept; the one that was used longest ago is forgotten first."""


class SessionCache:
    """The newest session of each server.

    TLS 1.3 would have each used once, so that nobody who listens can tell two connections of one client by
    it (RFC 8446, C.4). Here connections of one pool may begin with the same one.
    """

    def __init__(self, max_sessions: int = MAX_SESSIONS) -> None:
        self._max_sessions = max_sessions
        self._sessions: OrderedDict[Hashable, ssl.SSLSession] = OrderedDict()

    def get(self, server: Hashable) -> ssl.SSLSession | None:
        """What can be resumed there, if anything."""
        session = self._sessions.get(server)
        if session is not None:
            self._sessions.move_to_end(server)
        return session

    def keep(self, server: Hashable, session: ssl.SSLSession) -> None:
        """Keep a session in place of the one before."""
        self._sessions[server] = session
        self._sessions.move_to_end(server)
        if len(self._sessions) > self._max_sessions:
            self._sessions.popitem(last=False)
