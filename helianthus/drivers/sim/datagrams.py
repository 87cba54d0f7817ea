"""Datagrams in a simulated world: lost, late, twice or out of order, as the link's settings say."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from ...protocols.machine import DatagramAddress, DatagramMachine
from ..address import Address
from ..base import HostHandler
from ..datagram_link import DatagramLink
from ..errors import MessageTooLarge
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


class SimDatagramLink(DatagramLink[E]):
    """A datagram socket of a simulated node."""

    __slots__ = ("_inbox", "_sim")

    def __init__(
        self, driver: SimDriver, machine: DatagramMachine[E], handler: HostHandler[E], address: Address
    ) -> None:
        super().__init__(driver, machine, handler, address)
        self._sim = driver
        self._inbox: list[tuple[bytes, DatagramAddress]] = []

    def _send_datagrams(self, batch: list[tuple[bytes, DatagramAddress]]) -> None:
        for data, (host, port) in batch:
            if len(data) > LARGEST:
                message = f"a datagram of {len(data)} bytes; the largest has {LARGEST}"
                self._sim.on_error(MessageTooLarge(message, address=f"{host}:{port}"))
                continue
            self._send_one(bytes(data), host, port)

    def _send_one(self, data: bytes, host: str, port: int) -> None:
        sim = self._sim
        network = sim.network
        target = network.resolve(host, sim.node_name)
        if target is None or not sim.alive:
            return  # as with an address that nobody has
        path = network.path(sim.node_name, target)
        settings = path.settings
        source = host if target == sim.node_name else sim.node_name
        datagram = _Datagram(path, data, (source, self.local_address.port), port)
        if path.blocked or (settings.loss and network.rng.random() < settings.loss):
            network.note(f"{datagram} is lost")
            return
        copies = 2 if settings.duplicate and network.rng.random() < settings.duplicate else 1
        for _ in range(copies):
            network.schedule.at(self._arrival(path, len(data)), self._arrive, datagram)

    def _arrival(self, path: Path, size: int) -> int:
        """When a datagram arrives: in order, unless it is drawn to be overtaken."""
        rng = self._sim.network.rng
        arrival = path.datagram_arrival(size)
        reorder = path.settings.reorder
        if reorder and rng.random() < reorder:
            return arrival + int(rng.random() * OVERTAKEN_BY * to_ns(path.settings.latency[1]))
        path.datagrams_arrive_after = max(arrival, path.datagrams_arrive_after)
        return path.datagrams_arrive_after

    def _arrive(self, datagram: _Datagram) -> None:
        network = self._sim.network
        path = datagram.path
        life = network.life_of(path.target)
        link = life.datagram_links.get(datagram.port) if life is not None else None
        if path.blocked or link is None or len(link._inbox) >= INBOX:
            network.note(f"{datagram} is lost")
            return
        network.trace.data(network.schedule.ns, f"{datagram} arrives", datagram.data)
        link._inbox.append((datagram.data, datagram.source))
        if len(link._inbox) == 1:
            link._sim.add_input(link._ready)

    def _ready(self) -> None:
        inbox, self._inbox = self._inbox, []
        self._received(inbox)

    def _close_transport(self) -> None:
        self._sim.forget_datagram_link(self)


class _Datagram:
    __slots__ = ("data", "path", "port", "source")

    def __init__(self, path: Path, data: bytes, source: DatagramAddress, port: int) -> None:
        self.path = path
        self.data = data
        self.source = source
        self.port = port

    def __str__(self) -> str:
        return f"{self.path.source}>{self.path.target}:{self.port} datagram"
