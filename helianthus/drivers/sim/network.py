"""The network of a world: which nodes there are, the paths between them, and connecting.

Host names are the names of nodes. `localhost`, `127.0.0.1` and `::1` mean the node itself, and
`0.0.0.0` and `::` all addresses of a node, to listen at.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from ..address import Address
from ..errors import AddressNotAvailable, AddressNotSupported, ConnectionRefused, TimedOut, TransportError
from .clock import to_ns
from .path import LOOPBACK, Line, LinkSettings, Path
from .stream import Endpoint, EndState, Pipe

if TYPE_CHECKING:
    from .driver import SimDriver
    from .link import SimLink, SimListener
    from .schedule import Schedule
    from .trace import Trace

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1", "")
"""Hosts that mean the node itself."""

ANY_NAMES = ("0.0.0.0", "::")
"""Hosts that mean every address of the node itself."""

FIRST_PORT, LAST_PORT = 49152, 65535
"""Ports given to those who do not care: the dynamic range of RFC 6335, section 6."""

SYN_RETRIES = 6
"""Attempts after the first one; Linux' tcp_syn_retries."""

UNIX_PEER = "unix:pid=1,uid=0,gid=0"
"""Who connects to a Unix-domain socket of a node: its only program."""

FIRST_SYN_TIMEOUT = 1.0
"""Seconds until the first retry; it doubles, so that connecting times out after 127 seconds."""


class Host(Protocol):
    """A node, as far as the network knows it."""

    name: str
    life: SimDriver | None


class Network:
    """Carries segments and datagrams between nodes.

    Attributes:
        schedule: The world's clock and future.
        trace: Where what happens is recorded.
        rng: Draws latencies, cuts and losses.
        defaults: What paths are like unless `set_link` says otherwise.
    """

    def __init__(self, schedule: Schedule, trace: Trace, rng: random.Random, defaults: LinkSettings) -> None:
        self.schedule = schedule
        self.trace = trace
        self.rng = rng
        self.defaults = defaults
        self._hosts: dict[str, Host] = {}
        self._by_lower_case: dict[str, Host] = {}
        self._names: dict[str, tuple[str, ...]] = {}  # names in lower case that stand for nodes
        self._lines: dict[str, tuple[Line, Line]] = {}  # out of a node, into it
        self._paths: dict[tuple[str, str], Path] = {}
        self._connections = 0

    # -- nodes and paths ---------------------------------------------------------------------------

    def add(self, host: Host) -> None:
        """Connect a node to the network."""
        self._hosts[host.name] = host
        self._by_lower_case[host.name.lower()] = host
        self._lines[host.name] = (Line(), Line())

    def is_up(self, name: str) -> bool:
        """Whether a node is running."""
        return self._hosts[name].life is not None

    def path(self, source: str, target: str) -> Path:
        """The path from one node to another.

        Raises:
            ValueError: There is no such node.
        """
        path = self._paths.get((source, target))
        if path is None:
            for name in (source, target):
                if name not in self._hosts:
                    raise ValueError(f"the world has no node {name!r}")
            settings = self.defaults
            if source == target:
                settings = attrs.evolve(settings, **LOOPBACK)
                lines = (Line(), Line())
            else:
                lines = (self._lines[source][0], self._lines[target][1])
            path = Path(self.schedule, self.rng, source, target, settings, lines)
            self._paths[source, target] = path
        return path

    def node_names(self) -> list[str]:
        """Every node, in the order of their making."""
        return list(self._hosts)

    def paths(self) -> Iterable[Path]:
        """Every path that has been used or set."""
        return self._paths.values()

    def limit(self, name: str, rate: float | None) -> None:
        """Limit what passes into and out of a node, in bytes per second each way."""
        for line in self._lines[name]:
            line.rate = rate

    def resolve(self, name: str, source: str) -> str | None:
        """The node that a host name means to a node, or None."""
        if name in LOOPBACK_NAMES or name in ANY_NAMES:
            return source
        hosts = self.hosts_of(name)
        return hosts[0] if hosts else None

    def hosts_of(self, name: str) -> tuple[str, ...]:
        """What a host name stands for: names of nodes, or what means a node itself; none if unknown."""
        if name in LOOPBACK_NAMES or name in ANY_NAMES:
            return (name,)
        host = self._by_lower_case.get(name.lower())  # host names have no case (RFC 4343)
        return self._names.get(name.lower(), ()) if host is None else (host.name,)

    def set_names(self, name: str, hosts: tuple[str, ...]) -> None:
        """Have a name stand for nodes from now on."""
        self._names[name.lower()] = hosts

    def note(self, text: str, detail: str = "") -> None:
        """Record what happened."""
        self.trace.note(self.schedule.ns, text, detail)

    # -- connecting --------------------------------------------------------------------------------

    def connect(self, driver: SimDriver, address: Address, link: SimLink[Any]) -> None:
        """Begin to connect."""
        Attempt(self, driver, address, link).start()

    def life_of(self, name: str) -> SimDriver | None:
        """The present life of a node, or None while it is down."""
        return self._hosts[name].life

    def open(self, client: SimDriver, server: SimDriver, listener: SimListener, address: Address) -> Endpoint:
        """Make a connection, as its opener sees it: the listening side hears of it later."""
        self._connections += 1
        here, there, host = client.node_name, server.node_name, address.host
        if listener.address.local:
            local, peer, seen = "unix:", listener.address.endpoint, UNIX_PEER
        else:
            if host in LOOPBACK_NAMES or host in ANY_NAMES:
                local_host = peer_host = "[::1]" if ":" in host else "127.0.0.1"
            else:
                local_host, peer_host = here, there
            local, peer = f"{local_host}:{client.free_port()}", f"{peer_host}:{listener.address.port}"
            seen = local
        opener = Endpoint(client, local, peer, EndState.OPEN)
        state = EndState.EMBRYO if server.alive else EndState.VANISHED
        acceptor = Endpoint(server, peer, seen, state)
        acceptor.listener = listener
        number = self._connections
        opener.pipe = Pipe(self, f"{here}>{there}#{number}", self.path(here, there), opener, acceptor)
        acceptor.pipe = Pipe(self, f"{there}>{here}#{number}", self.path(there, here), acceptor, opener)
        opener.pipe.reverse, acceptor.pipe.reverse = acceptor.pipe, opener.pipe
        opener.pipe.encrypted = acceptor.pipe.encrypted = address.secure or listener.address.secure
        client.endpoints[opener] = None
        if server.alive:
            server.endpoints[acceptor] = None
        return opener

    def reset(self, a: str, b: str) -> None:
        """Break every connection between two nodes, at both ends."""
        life = self._hosts[a].life
        if life is None:
            return
        for endpoint in list(life.endpoints):
            pipe = endpoint.pipe
            if pipe.leads_to(b):
                pipe.break_target()
                pipe.reverse.break_target()

    def vanish(self, driver: SimDriver) -> None:
        """A node has crashed: its ends of all connections are gone, and nobody is told."""
        endpoints, driver.endpoints = list(driver.endpoints), {}
        for endpoint in endpoints:
            endpoint.vanish()
            endpoint.pipe.reverse.target_vanished()


def check_simulated(address: Address) -> None:
    """Make sure that a world has such addresses.

    Raises:
        AddressNotSupported: It has none.
    """
    if address.scheme == "pipe":
        raise AddressNotSupported(
            "a simulated node has no named pipes; use unix:///path or tcp://host:port", address=str(address)
        )


class Attempt:
    """One attempt to connect: repeats its SYN until it is answered or has waited too long."""

    def __init__(self, network: Network, driver: SimDriver, address: Address, link: SimLink[Any]) -> None:
        self._network = network
        self._driver = driver
        self._address = address
        self._link = link
        self._tries = 0
        self._over = False
        self._place = address.path or address.port
        self._target = network.resolve(address.host, driver.node_name)

    def start(self) -> None:
        """Send the first SYN."""
        try:
            check_simulated(self._address)
            if self._target is None:
                raise AddressNotAvailable("the world has no such node", address=str(self._address))
        except TransportError as error:
            self._driver.add_input(partial(self._end, error))
            return
        here, there = self._driver.node_name, self._target
        self._network.note(f"{here} connects to {there}:{self._place}")
        self._forth = self._network.path(here, there)
        self._back = self._network.path(there, here)
        self._send_syn(None)

    def _is_over(self) -> bool:
        return self._over or self._link.closed or not self._driver.alive

    def _send_syn(self, _: None) -> None:
        if self._is_over():
            return
        if self._tries > SYN_RETRIES:
            error = TimedOut("nobody answered", address=str(self._address))
            self._driver.add_input(lambda: self._end(error))
            return
        timeout = FIRST_SYN_TIMEOUT * 2**self._tries
        self._tries += 1
        schedule = self._network.schedule
        schedule.after(to_ns(timeout), self._send_syn)
        if not self._forth.blocked:
            schedule.at(self._forth.arrival(0), self._syn_arrived)

    def _syn_arrived(self, _: None) -> None:
        if self._forth.blocked or self._back.blocked or self._target is None:
            return
        server = self._network.life_of(self._target)
        if server is None:
            return
        listener = server.listeners.get(self._place)
        self._network.schedule.at(self._back.arrival(0), self._answered, listener)

    def _answered(self, listener: SimListener | None) -> None:
        if self._back.blocked or self._is_over():
            return
        self._over = True
        driver = self._driver
        if listener is None:
            self._network.note(f"{driver.node_name} is refused at {self._target}:{self._place}")
            error = ConnectionRefused("nobody listens there", address=str(self._address))
            driver.add_input(lambda: self._end(error))
            return
        endpoint = self._network.open(driver, listener.driver, listener, self._address)
        self._network.note(f"{endpoint.pipe.name} connected")
        endpoint.link = self._link
        self._link.connecting_on(endpoint)
        endpoint.note()
        endpoint.pipe.establish()

    def _end(self, error: TransportError) -> None:
        self._over = True
        self._link.failed_to_connect(error)
