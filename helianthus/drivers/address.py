"""Addresses as users write them: `tcp://host:port`, `unix:///path`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

import attrs

STREAM_SCHEMES = ("tcp", "tls", "unix", "pipe")
"""Schemes of connections; `tls` is TCP to a driver, whose user puts the layer on top."""

DATAGRAM_SCHEMES = ("udp", "dtls")
"""Schemes of datagrams; `dtls` is UDP to a driver."""

SCHEMES = STREAM_SCHEMES + DATAGRAM_SCHEMES
"""Every scheme that an address can have; not every driver has each of them."""

_LOCAL = ("unix", "pipe")

_PLAIN = "/@:!$&'()*+,;=~"  # what stands for itself in the path of a URL (RFC 3986, 3.3)


@attrs.frozen
class Address:
    """Where to listen, connect or bind.

    Attributes:
        host: A name, an IPv4 or IPv6 address, or a node of a simulated world; without brackets.
            Empty for an address within this machine.
        port: 0 to 65535; 0 asks a listener for any free port.
        scheme: One of `SCHEMES`.
        path: Of a Unix-domain socket, or the name of a pipe; empty for others. A path that begins with
            `/@` is an abstract name, which Linux has and no file stands for.
        mode: Permission bits of the socket file, to listen at a Unix-domain socket; None for what the
            process's umask leaves. Of no meaning to those who connect.
    """

    host: str
    port: int
    scheme: str = "tcp"
    path: str = ""
    mode: int | None = None

    @property
    def local(self) -> bool:
        """Whether it is a path within this machine instead of a host and a port."""
        return self.scheme in _LOCAL

    @property
    def abstract(self) -> bool:
        """Whether it is a Unix-domain socket without a file."""
        return self.scheme == "unix" and self.path.startswith("/@")

    @property
    def endpoint(self) -> str:
        """What it leads to: `host:port`, or the URL of an address within this machine."""
        if not self.local:
            return f"{self.host}:{self.port}"
        return f"{self.scheme}://{quote(self.path, safe=_PLAIN, errors='surrogateescape')}"

    @property
    def secure(self) -> bool:
        """Whether what it leads to is encrypted."""
        return self.scheme in ("tls", "dtls")

    @classmethod
    def parse(cls, url: str, schemes: Collection[str] = SCHEMES) -> Address:
        """Read `tcp://host:port`, where an IPv6 host stands in brackets, or `unix:///path`.

        Args:
            url: The text.
            schemes: Those that make sense where the address is to be used.

        Raises:
            ValueError: The text is no such URL; the message says which part is wrong.
        """
        parts = urlsplit(url)
        if parts.scheme not in schemes or "://" not in url:
            known = ", ".join(schemes)
            raise ValueError(
                f"{url!r} has no known scheme ({known}); write it as {_example(next(iter(schemes)))}"
            )
        if parts.scheme in _LOCAL:
            return cls._parse_local(url, parts)
        example = _example(parts.scheme)
        if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None:
            raise ValueError(f"{url!r} has more than a host and a port; write it as {example}")
        try:
            port = parts.port
        except ValueError as error:
            raise ValueError(f"{url!r} has a bad port: {error}") from None
        if not parts.hostname:
            raise ValueError(f"{url!r} has no host; write it as {example}")
        if port is None:
            raise ValueError(f"{url!r} has no port; write it as {example}")
        return cls(parts.hostname, port, parts.scheme)

    @classmethod
    def _parse_local(cls, url: str, parts: SplitResult) -> Address:
        example = _example(parts.scheme)
        if parts.netloc:
            raise ValueError(f"{url!r} has a host; write it as {example}, with three slashes")
        path = unquote(parts.path, errors="surrogateescape")  # file names are bytes
        if path in ("", "/", "/@") or "\0" in path:
            raise ValueError(f"{url!r} has no usable path; write it as {example}")
        mode = None
        if parts.query and parts.scheme == "unix" and not parts.fragment:
            (name, value), *more = parse_qsl(parts.query, keep_blank_values=True) or [("", "")]
            if name != "mode" or more:
                raise ValueError(f"{url!r} has more than a path and a mode; write it as {example}?mode=0660")
            mode = read_mode(value, f"the mode of {url!r}")
        elif parts.query or parts.fragment:
            raise ValueError(f"{url!r} has more than a path; write it as {example}")
        return cls("", 0, parts.scheme, path).with_mode(mode)

    def with_mode(self, mode: int | None) -> Address:
        """The same place, with these permission bits for those who listen there; None changes nothing.

        Raises:
            ValueError: It is no socket file, or these are no permission bits.
        """
        if mode is None:
            return self
        if self.scheme != "unix" or self.abstract:
            raise ValueError(f"{self} has no file whose mode could be set; leave the mode out")
        if not 0 <= mode <= 0o777:
            raise ValueError(f"mode is {mode:#o}; permission bits are from 0o000 to 0o777, such as 0o660")
        return attrs.evolve(self, mode=mode)

    @classmethod
    def parse_all(cls, urls: str | Iterable[str], schemes: Collection[str] = SCHEMES) -> tuple[Address, ...]:
        """Read one URL or several; each address is kept once.

        Raises:
            ValueError: There is none, or `parse` refuses one.
        """
        texts = [urls] if isinstance(urls, str) else urls
        addresses = tuple(dict.fromkeys(cls.parse(text, schemes) for text in texts))
        if not addresses:
            raise ValueError(f"no URL was given; write one as {_example(next(iter(schemes)))}")
        return addresses

    def __str__(self) -> str:
        if self.local:
            mode = "" if self.mode is None else f"?mode={self.mode:04o}"
            return self.endpoint + mode
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def read_mode(text: str, what: str) -> int:
    """Read permission bits as `chmod` does, such as 0660.

    Args:
        text: Octal digits.
        what: What they are, for the message.

    Raises:
        ValueError: They are none.
    """
    if len(text) > 4 or not text or text.strip("01234567") or int(text, 8) > 0o777:
        raise ValueError(f"{what} is {text!r}; write three octal digits as for chmod, such as 0660")
    return int(text, 8)


def _example(scheme: str) -> str:
    return f"{scheme}:///path" if scheme in _LOCAL else f"{scheme}://host:port"
