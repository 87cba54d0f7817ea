"""Datagrams in a simulated world: lost, late, twice or out of order, as the link's settings say.

Every node is in one broadcast domain with every other, and groups reach all nodes: there are no
routers between them. A datagram for a port where nobody is bound comes back as an error, by the same
unreliable way, and tells even an unconnected socket whom it was for, as on Linux.
"""

from __future__ import annotations

import functools
import ipaddress
from typing import TYPE_CHECKING, TypeVar

from ...protocols.machine import DatagramAddress, DatagramMachine
from ..address import Address
from ..base import DatagramHandler
from ..datagram_link import DatagramLink, bound_address, text_of
from ..datagram_options import DatagramOptions
from ..errors import (
    AddressNotAvailable,
    ConnectionRefused,
    MessageTooLarge,
    PermissionDenied,
    TransportError,
    Unreachable,
)
from .clock import to_ns

if TYPE_CHECKING:
    from .driver import SimDriver
    from .path import Path

E = TypeVar("E")

LARGEST = 65_507
"""Bytes of the largest datagram: 65,535 less the headers of IPv4 and UDP (RFC 768, RFC 791)."""

INBOX = 1024
"""Datagrams that wait for a node; later ones are dropped, as by a full receive buffer."""

OVERTAKEN_BY = 4.0
"""How many times the longest latency a datagram is held up, at most, that is to be overtaken."""

BROADCAST = "255.255.255.255"
"""Reaches every node (RFC 919)."""


class SimDatagramLink(DatagramLink[E]):
    """A datagram socket of a simulated node."""

    __slots__ = ("_inbox", "_sim", "groups", "peer_node")

    def __init__(
        self,
        driver: SimDriver,
        machine: DatagramMachine[E],
        handler: DatagramHandler[E],
        address: Address,
        options: DatagramOptions,
    ) -> None:
        peer = options.peer
        peer_address = None if peer is None else (peer.host, peer.port)
        bound = bound_address(address.host, address.port, address)
        super().__init__(driver, machine, handler, bound, options, peer_address)
        self._sim = driver
        self._inbox: list[tuple[bytes, DatagramAddress]] = []
        self.groups = frozenset(group.address for group in options.groups)
        self.peer_node = None if peer is None else driver.network.resolve(peer.host, driver.node_name)

    def hears(self, datagram: Datagram) -> bool:
        """Whether what arrives at the port is for this socket."""
        if datagram.group and datagram.group != BROADCAST and datagram.group not in self.groups:
            return False
        if self.peer_address is None:
            return True
        return self.peer_node == datagram.path.source and self.peer_address[1] == datagram.source[1]

    # -- sending -----------------------------------------------------------------------------------

    def _send_datagrams(self, batch: list[tuple[bytes, DatagramAddress]]) -> int:
        for data, destination in batch:
            try:
                self._send_one(bytes(data), destination)
                self.statistics.sent += 1
            except TransportError as error:
                self._refused(error, destination)
        return len(batch)

    def _send_one(self, data: bytes, destination: DatagramAddress) -> None:
        self._check_sendable(data, destination)
        sim = self._sim
        host, port = destination
        if not sim.alive:
            return
        if is_group(host):
            self._send_to_group(data, host, port)
            return
        target = sim.network.resolve(host, sim.node_name)
        if target is None:
            raise AddressNotAvailable("the world has no such node", address=text_of(destination))
        path = sim.network.path(sim.node_name, target)
        source = host if target == sim.node_name else sim.node_name
        self._send_over(path, Datagram(path, data, (source, self.local_address.port), destination, ""))

    def _check_sendable(self, data: bytes, destination: DatagramAddress) -> None:
        text = text_of(destination)
        if len(data) > LARGEST:
            raise MessageTooLarge(f"a datagram of {len(data)} bytes; the largest has {LARGEST}", address=text)
        if not self._may_send_to(destination):
            raise Unreachable(f"the socket is connected to {text_of(self.peer_address)}", address=text)
        if destination[0] == BROADCAST and not self.options.broadcast:
            raise PermissionDenied("DatagramOptions.broadcast is not set", address=text)

    def _send_to_group(self, data: bytes, group: str, port: int) -> None:
        sim = self._sim
        options = self.options
        for target in sim.network.node_names():
            if group != BROADCAST:
                if target == sim.node_name and options.multicast_loop is False:
                    continue
                if target != sim.node_name and options.multicast_ttl == 0:
                    continue
            path = sim.network.path(sim.node_name, target)
            source = (sim.node_name, self.local_address.port)
            self._send_over(path, Datagram(path, data, source, (target, port), group))

    def _send_over(self, path: Path, datagram: Datagram) -> None:
        network = self._sim.network
        settings = path.settings
        if path.blocked or (settings.loss and network.rng.random() < settings.loss):
            network.note(f"{datagram} is lost")
            return
        copies = 2 if settings.duplicate and network.rng.random() < settings.duplicate else 1
        for _ in range(copies):
            network.schedule.at(self._arrival(path, len(datagram.data)), self._arrive, datagram)

    def _arrival(self, path: Path, size: int) -> int:
        """When a datagram arrives: in order, unless it is drawn to be overtaken."""
        rng = self._sim.network.rng
        arrival = path.datagram_arrival(size)
        reorder = path.settings.reorder
        if reorder and rng.random() < reorder:
            return arrival + int(rng.random() * OVERTAKEN_BY * to_ns(path.settings.latency[1]))
        path.datagrams_arrive_after = max(arrival, path.datagrams_arrive_after)
        return path.datagrams_arrive_after

    # -- receiving ---------------------------------------------------------------------------------

    def _arrive(self, datagram: Datagram) -> None:
        network = self._sim.network
        life = network.life_of(datagram.path.target)
        if datagram.path.blocked or life is None:
            network.note(f"{datagram} is lost")
            return
        links = life.datagram_ports.receivers(datagram)
        if not links and not datagram.group:
            self._send_back(datagram)
        for link in links:
            link.take_in(datagram)

    def take_in(self, datagram: Datagram) -> None:
        """Have a datagram that is for this socket handled in the node's next turn."""
        network = self._sim.network
        if len(self._inbox) >= INBOX:
            network.note(f"{datagram} is lost")
            return
        network.trace.data(network.schedule.ns, f"{datagram} arrives", datagram.data)
        self._inbox.append((datagram.data, datagram.source))
        if len(self._inbox) == 1:
            self._sim.add_input(self._ready)

    def _ready(self) -> None:
        inbox, self._inbox = self._inbox, []
        self._received(inbox)

    def _send_back(self, datagram: Datagram) -> None:
        """Nobody is bound there: what ICMP calls port unreachable."""
        network = self._sim.network
        back = network.path(datagram.path.target, datagram.path.source)
        loss = back.settings.loss
        network.note(f"{datagram} meets nobody")
        if not back.blocked and not (loss and network.rng.random() < loss):
            network.schedule.at(back.datagram_arrival(0), self._came_back, datagram)

    def _came_back(self, datagram: Datagram) -> None:
        error = ConnectionRefused("nobody is bound there", address=text_of(datagram.destination))
        self._sim.add_input(lambda: self._received_error(error, self.peer_address or datagram.destination))

    def _close_transport(self) -> None:
        self._sim.datagram_ports.forget(self)


class Datagram:
    """One datagram on its way to one node."""

    __slots__ = ("data", "destination", "group", "path", "source")

    def __init__(
        self,
        path: Path,
        data: bytes,
        source: DatagramAddress,
        destination: DatagramAddress,
        group: str,
    ) -> None:
        self.path = path
        self.data = data
        self.source = source
        self.destination = destination
        self.group = group

    def __str__(self) -> str:
        to = f" for {self.group}" if self.group else ""
        return f"{self.path.source}>{self.path.target}:{self.destination[1]} datagram{to}"


@functools.lru_cache(1024)
def is_group(host: str) -> bool:
    """Whether a host is a multicast group or all nodes."""
    if host == BROADCAST:
        return True
    try:
        return ipaddress.ip_address(host).is_multicast
    except ValueError:
        return False
