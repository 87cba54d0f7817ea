"""Which addresses RPC goes over."""

from __future__ import annotations

from collections.abc import Iterable

from ...drivers.address import DATAGRAM_SCHEMES, Address

RPC_SCHEMES = ("tcp", "tls", "unix", "pipe")
"""Schemes of `Address` that a server listens at and a client connects to."""


def rpc_address(url: str) -> Address:
    """Read the address of a server.

    Raises:
        ValueError: The text is no such URL; the message says which part is wrong.
    """
    _check_for_connections(url)
    return Address.parse(url, RPC_SCHEMES)


def rpc_addresses(urls: str | Iterable[str]) -> tuple[Address, ...]:
    """Read the addresses of a server, one or several; each is kept once.

    Raises:
        ValueError: There is none, or one is no such URL.
    """
    texts = [urls] if isinstance(urls, str) else list(urls)
    for text in texts:
        _check_for_connections(text)
    return Address.parse_all(texts, RPC_SCHEMES)


def _check_for_connections(url: str) -> None:
    """Say of an address for datagrams more than that its scheme is not among those of RPC."""
    scheme, separator, place = url.partition("://")
    if separator and scheme.lower() in DATAGRAM_SCHEMES:
        instead = "tls" if scheme.lower() == "dtls" else "tcp"
        raise ValueError(
            f"{url!r} is for datagrams, but RPC needs a connection; write it as {instead}://{place}"
        )
