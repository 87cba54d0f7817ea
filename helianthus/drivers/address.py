"""Addresses as users write them: `tcp://host:port`."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

import attrs

SCHEMES = ("tcp",)
"""Schemes that every driver understands."""


@attrs.frozen
class Address:
    """Where to listen or connect.

    Attributes:
        host: A name, an IPv4 or IPv6 address, or a node of a simulated world; without brackets.
        port: 0 to 65535; 0 asks a listener for any free port.
        scheme: One of `SCHEMES`.
    """

    host: str
    port: int
    scheme: str = "tcp"

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read `tcp://host:port`; an IPv6 host stands in brackets.

        Raises:
            ValueError: The text is no such URL; the message says which part is wrong.
        """
        parts = urlsplit(url)
        if parts.scheme not in SCHEMES or "://" not in url:
            raise ValueError(f"{url!r} has no known scheme; write it as tcp://host:port")
        if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None:
            raise ValueError(f"{url!r} has more than a host and a port; write it as tcp://host:port")
        try:
            port = parts.port
        except ValueError as error:
            raise ValueError(f"{url!r} has a bad port: {error}") from None
        if not parts.hostname:
            raise ValueError(f"{url!r} has no host; write it as tcp://host:port")
        if port is None:
            raise ValueError(f"{url!r} has no port; write it as tcp://host:port")
        return cls(parts.hostname, port, parts.scheme)

    @classmethod
    def parse_all(cls, urls: str | Iterable[str]) -> tuple[Address, ...]:
        """Read one URL or several; each address is kept once.

        Raises:
            ValueError: There is none, or `parse` refuses one.
        """
        addresses = tuple(dict.fromkeys(map(cls.parse, [urls] if isinstance(urls, str) else urls)))
        if not addresses:
            raise ValueError("no URL was given; write one as tcp://host:port")
        return addresses

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"
