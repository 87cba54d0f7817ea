"""How far a link has got."""

from __future__ import annotations

import enum


class LinkState(enum.Enum):
    """The life of a link."""

    CONNECTING = "connecting"
    OPEN = "open"
    LINGERING = "lingering"
    """Our side is shut; input is discarded until the peer closes too."""
    ENDING = "ending"
    """The transport is gone, and the handler is to hear of it."""
    CLOSED = "closed"


# An attribute of an enum costs several times as much to look up as a global name.
CONNECTING = LinkState.CONNECTING
OPEN = LinkState.OPEN
LINGERING = LinkState.LINGERING
ENDING = LinkState.ENDING
CLOSED = LinkState.CLOSED
GONE = (ENDING, CLOSED)
