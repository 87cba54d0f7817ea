"""What is wrong with a PROXY header."""

from __future__ import annotations

from ..errors import RemoteProtocolError


class BadProxyHeader(RemoteProtocolError):
    """A connection did not begin with a PROXY header that can be believed."""
