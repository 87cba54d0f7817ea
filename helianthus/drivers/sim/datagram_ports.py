"""The datagram ports of a simulated node, and which socket gets what arrives at them.

As on Linux: a socket that is connected to the sender goes first; among several others the last bound
one has the port, or, where they share it by `reuse_port`, the sender's address decides. What is sent
to a group or to all goes to each of them that hears it.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

from ..address import Address
from ..datagram_options import DatagramOptions
from ..errors import AddressInUse

if TYPE_CHECKING:
    from .datagrams import Datagram, SimDatagramLink


class DatagramPorts:
    """Who is bound where, in the order of binding."""

    def __init__(self) -> None:
        self._bound: dict[int, list[SimDatagramLink[Any]]] = {}

    def __contains__(self, port: int) -> bool:
        return port in self._bound

    def links(self) -> list[SimDatagramLink[Any]]:
        """Every bound socket."""
        return [link for links in self._bound.values() for link in links]

    def check_free(self, address: Address, options: DatagramOptions) -> None:
        """Refuse a port that others have, unless both sides share it.

        Raises:
            AddressInUse: Somebody else is bound there.
        """
        for link in self._bound.get(address.port, ()):
            shared = (options.reuse_port and link.options.reuse_port) or (
                options.reuse_address and link.options.reuse_address
            )
            if not shared:
                raise AddressInUse("somebody else is bound there", address=str(address))

    def add(self, link: SimDatagramLink[Any]) -> None:
        """A socket is bound."""
        self._bound.setdefault(link.local_address.port, []).append(link)

    def forget(self, link: SimDatagramLink[Any]) -> None:
        """A socket has been closed."""
        links = self._bound.get(link.local_address.port, [])
        if link in links:
            links.remove(link)
            if not links:
                del self._bound[link.local_address.port]

    def clear(self) -> None:
        """The node has crashed."""
        self._bound.clear()

    def receivers(self, datagram: Datagram) -> list[SimDatagramLink[Any]]:
        """The sockets that get a datagram."""
        hearing = [link for link in self._bound.get(datagram.destination[1], ()) if link.hears(datagram)]
        if datagram.group or len(hearing) < 2:
            return hearing
        connected = [link for link in hearing if link.peer_address is not None]
        if connected:
            return connected[-1:]
        if all(link.options.reuse_port for link in hearing):
            source = "{}:{}".format(*datagram.source).encode()
            return [hearing[zlib.crc32(source) % len(hearing)]]
        return hearing[-1:]
