"""Where a session is in its life, and what moves it on."""

from __future__ import annotations

import enum


class SessionState(enum.Enum):
    """Where a session is in its life."""

    OPEN = "open"
    """Calls begin and end both ways."""
    DRAINING = "draining"
    """What is in flight goes on; nothing new begins."""
    ENDED = "ended"
    """Nothing is in flight; input is ignored."""


class SessionInput(enum.Enum):
    """What moves a session from one state to another."""

    GOAWAY = "goaway, ours or the peer's"
    EOF = "end of the peer's stream"
    IDLE = "the last call and request in flight end"
    CLOSE = "close()"
    FAULT = "the peer's fault"
    LOSS = "connection lost"


SESSION_TRANSITIONS: dict[tuple[SessionState, SessionInput], SessionState] = {
    (SessionState.OPEN, SessionInput.GOAWAY): SessionState.DRAINING,
    (SessionState.OPEN, SessionInput.EOF): SessionState.DRAINING,
    (SessionState.OPEN, SessionInput.CLOSE): SessionState.ENDED,
    (SessionState.OPEN, SessionInput.FAULT): SessionState.ENDED,
    (SessionState.OPEN, SessionInput.LOSS): SessionState.ENDED,
    (SessionState.DRAINING, SessionInput.IDLE): SessionState.ENDED,
    (SessionState.DRAINING, SessionInput.CLOSE): SessionState.ENDED,
    (SessionState.DRAINING, SessionInput.FAULT): SessionState.ENDED,
    (SessionState.DRAINING, SessionInput.LOSS): SessionState.ENDED,
}
"""Every move there is. An input without an entry for a state changes nothing in it."""
