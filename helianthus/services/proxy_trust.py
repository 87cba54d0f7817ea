"""Which listeners expect a PROXY header, and from whom."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import attrs

from ..protocols.machine import StreamMachine
from ..protocols.proxy_header import ProxyHeaderLayer

UNIX = "unix"
"""Stands in `proxy_from` for whoever may connect to a Unix-domain socket."""


@attrs.frozen
class ProxyTrust:
    """Who may say for whom a connection is.

    Attributes:
        written: As it was given, for messages; empty for everybody.
        networks: Of proxies.
        unix: Whether those that connect to a Unix-domain socket may.
    """

    written: tuple[str, ...] = ()
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    unix: bool = False

    @classmethod
    def parse(cls, proxy_from: Iterable[str]) -> ProxyTrust:
        """Read IP addresses and networks, such as `10.0.0.0/8`, and `unix`.

        Raises:
            ValueError: One is none.
        """
        if isinstance(proxy_from, str):
            raise ValueError(f"proxy_from is the text {proxy_from!r}; write a list, such as [{proxy_from!r}]")
        written = tuple(proxy_from)
        return cls(written, tuple(_network(text) for text in written if text != UNIX), UNIX in written)

    def trusts(self, peer_address: str) -> bool:
        """Whether to believe a peer, by its address as drivers have it."""
        if not self.written:
            return True
        host, _, port = peer_address.rpartition(":")
        if not port.isdecimal():
            return self.unix and peer_address.startswith("unix:")
        try:
            ip = ip_address(host.strip("[]"))
        except ValueError:  # a node of a simulated world
            return False
        return any(ip in network for network in self.networks)

    def around(self, child: StreamMachine[object], now: float, peer_address: str) -> ProxyHeaderLayer[object]:
        """The layer for a connection that was accepted; it ends at once where it is not to be trusted."""
        layer = ProxyHeaderLayer(child, now)
        if not self.trusts(peer_address):
            allowed = ", ".join(self.written)
            layer.refuse(
                f"{peer_address} is not among those who may send a PROXY header here ({allowed})", now
            )
        return layer


def proxy_trust(proxy: bool, proxy_from: Iterable[str]) -> ProxyTrust | None:
    """What a listener is told about proxies; None where connections come directly.

    Raises:
        ValueError: Proxies are named, but not asked for; or one is none.
    """
    trust = ProxyTrust.parse(proxy_from)
    if proxy:
        return trust
    if trust.written:
        raise ValueError("proxy_from is given, but no PROXY header is asked for; give proxy=True")
    return None


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise ValueError(
            f"{text!r} in proxy_from is no IP address, no network such as 10.0.0.0/8, nor {UNIX!r}: {error}"
        ) from None
