"""Datagram machines, their handler, and both ends of an exchange, for the conformance suite."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import pytest
from machines import Fault
from peers import Peers
from platforms import Platform

from helianthus.drivers.address import Address
from helianthus.drivers.datagram_addresses import DatagramAddresses
from helianthus.drivers.datagram_link import DatagramLink
from helianthus.drivers.datagram_options import DatagramOptions
from helianthus.drivers.datagram_socket import OpenSocket
from helianthus.protocols.machine import Action, Buffer, DatagramAddress, Outcome


class Talk:
    """Sends what it is told to, and notes what it hears.

    Attributes:
        received: Datagrams with where they came from.
        errors: Errors with whom they are about.
        due: Its deadline.
        told: The times it was told.
        outcomes: Of its actions.
    """

    def __init__(self) -> None:
        self.received: list[tuple[bytes, DatagramAddress]] = []
        self.errors: list[tuple[OSError, DatagramAddress | None]] = []
        self.due: float | None = None
        self.told: list[float] = []
        self.actions: list[Action] = []
        self.outcomes: list[object] = []
        self._events: list[Any] = []
        self._output: list[tuple[bytes, DatagramAddress]] = []

    @property
    def data(self) -> list[bytes]:
        """What was received, without where it came from."""
        return [data for data, _ in self.received]

    def say(self, *datagrams: bytes, to: DatagramAddress) -> None:
        self._output.extend((data, to) for data in datagrams)

    def receive_datagrams(self, batch: Sequence[tuple[Buffer, DatagramAddress]], now: float) -> None:
        arrived = [(bytes(data), source) for data, source in batch]
        self.received += arrived
        self._events += arrived

    def receive_error(self, error: OSError, address: DatagramAddress | None, now: float) -> None:
        self.errors.append((error, address))
        self._events.append(error)

    def take_datagrams(self, limit: int = 64) -> list[tuple[bytes, DatagramAddress]]:
        taken, self._output = self._output[:limit], self._output[limit:]
        return taken

    def deadline(self) -> float | None:
        return self.due

    def handle_timeout(self, now: float) -> None:
        self.told.append(now)
        self.due = None

    def take_events(self) -> list[Any]:
        events, self._events = self._events, []
        return events

    def take_actions(self) -> list[Action]:
        actions, self.actions = self.actions, []
        return actions

    def complete(self, action_id: int, outcome: Outcome, now: float) -> None:
        self.outcomes.append(outcome.value)


class Echo(Talk):
    """Sends everything back to where it came from."""

    def receive_datagrams(self, batch: Sequence[tuple[Buffer, DatagramAddress]], now: float) -> None:
        super().receive_datagrams(batch, now)
        for data, source in batch:
            self.say(bytes(data), to=source)


class Broken(Talk):
    """Raises in one of its methods, once."""

    def __init__(self, method: str) -> None:
        super().__init__()
        working = getattr(self, method)

        def raise_once(*arguments: Any) -> Any:
            setattr(self, method, working)
            raise Fault(method)

        setattr(self, method, raise_once)


class Hearing:
    """A handler that notes every call, and holds the driver to the rules of `DatagramHandler`."""

    def __init__(self, **reactions: Callable[[Any], object]) -> None:
        self.events: list[Any] = []
        self.actions: list[Action] = []
        self.closed: list[Exception | None] = []
        self._reactions = reactions
        self._inside = ""

    def on_events(self, events: list[Any]) -> None:
        assert events, "on_events came with nothing"
        self.events += events
        self._note("on_events", events)

    def on_actions(self, actions: list[Action]) -> None:
        assert actions, "on_actions came with nothing"
        self.actions += actions
        self._note("on_actions", actions)

    def on_closed(self, error: Exception | None) -> None:
        self._note("on_closed", error)
        self.closed.append(error)

    def _note(self, call: str, argument: Any) -> None:
        assert not self.closed, f"{call} came after on_closed"
        assert not self._inside, f"{call} came while {self._inside} was running"
        reaction = self._reactions.get(call)
        if reaction is not None:
            self._inside = call
            try:
                reaction(argument)
            finally:
                self._inside = ""


@attrs.define
class End:
    """A bound socket."""

    machine: Any
    handler: Hearing
    link: DatagramLink[Any]

    @property
    def address(self) -> DatagramAddress:
        """How its machine's peers call it, if it is bound to one address."""
        return self.link.local_address.host, self.link.local_address.port

    def say(self, *datagrams: bytes, to: DatagramAddress) -> None:
        """Have the machine send something at the end of this tick."""
        self.machine.say(*datagrams, to=to)
        self.link.wake()


def bind(
    platform: Platform,
    machine: Any = None,
    *,
    at: Address | None = None,
    handler: Hearing | None = None,
    **options: Any,
) -> End:
    """Bind a socket; by default at any free port of the loopback address."""
    machine = machine or Talk()
    handler = handler or Hearing()
    link = platform.driver.bind(at or platform.address(), machine, handler, DatagramOptions(**options))
    return End(machine, handler, link)


WINE_FORGETS = "Wine tells a socket that nobody is bound at its peer only now and then"

ROOM = 4 << 20
"""Bytes to ask for where more is to wait than the kernel keeps unasked; it may give much less."""

_TRUE_SIZE = 1024
"""Bytes that a small datagram takes of a receive buffer, at most; 768 on Linux."""


def burst(most: int = 1000) -> int:
    """How many small datagrams a receive buffer of this system surely holds."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
        return min(most, sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // _TRUE_SIZE)


def bind_to_a_pair(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, peers: Peers
) -> tuple[End, socket.socket]:
    """A link over one end of a pair of Unix sockets, and the other end.

    The loopback interface never refuses a datagram; it loses what the receiver has no room for. These
    sockets are full when the receiver is.
    """
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    near.setblocking(False)
    peer = ("peer", 1)
    opened = OpenSocket(near, Address("near", 1, "udp"), peer, DatagramAddresses(socket.AF_UNIX))
    monkeypatch.setattr(f"{platform.reads_given_sockets}.open_datagram_socket", lambda *_: opened)
    end = bind(platform, peer=Address(*peer, "udp"))
    return end, peers.keep(far)


def closed_port(platform: Platform) -> DatagramAddress:
    """An address where nobody is bound."""
    end = bind(platform)
    end.link.close()
    platform.turn_until(lambda: end.handler.closed)
    return end.address


def url(address: DatagramAddress) -> str:
    """An address as options take it."""
    host, port = address
    return f"udp://[{host}]:{port}" if ":" in host else f"udp://{host}:{port}"
