"""DTLS machines on a virtual clock and a network that a test can make as bad as it likes."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from certificates import Authority
from layer_child import LayerChild

from helianthus.protocols.machine import Buffer, DatagramAddress

pytest.importorskip("OpenSSL", reason="pyOpenSSL is not installed: no DTLS")

from OpenSSL import SSL

from helianthus.protocols.dtls import (
    DtlsClient,
    DtlsClosed,
    DtlsEstablished,
    DtlsFailed,
    DtlsServer,
    PeerEvent,
    client_context,
    server_context,
)

SERVER: DatagramAddress = ("192.0.2.1", 4433)
CLIENT: DatagramAddress = ("192.0.2.2", 50000)


class Child(LayerChild):
    """A datagram machine that says what it is told to and remembers what it hears."""

    def __init__(self, peer: DatagramAddress, *, echoes: bool = False) -> None:
        super().__init__()
        self.peer = peer
        self.heard: list[bytes] = []
        self.losses: list[tuple[OSError, DatagramAddress | None]] = []
        self.output: list[tuple[bytes, DatagramAddress]] = []
        self._echoes = echoes

    def say(self, *datagrams: bytes) -> None:
        self.output += ((datagram, self.peer) for datagram in datagrams)

    def receive_datagrams(self, batch: Sequence[tuple[Buffer, DatagramAddress]], now: float) -> None:
        for data, source in batch:
            assert source == self.peer
            self.heard.append(bytes(data))
            self.events.append(bytes(data))
            if self._echoes:
                self.say(bytes(data))

    def receive_error(self, error: OSError, address: DatagramAddress | None, now: float) -> None:
        self.losses.append((error, address))

    def take_datagrams(self, limit: int = 64) -> list[tuple[bytes, DatagramAddress]]:
        taken, self.output = self.output[:limit], self.output[limit:]
        return taken


class Files:
    """Certificates, and contexts made of them."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.server = authority.issue("server", "server.example", "192.0.2.1", ecdsa=True)
        self.client = authority.issue("alice", "alice.example", ecdsa=True)

    def server_context(self, pair: Any = None, trust: Authority | None = None, **options: Any) -> SSL.Context:
        context = server_context(**options)
        self._load(context, pair or self.server)
        context.load_verify_locations(str((trust or self.authority).file))
        return context

    def client_context(self, pair: Any = None, trust: Authority | None = None, **options: Any) -> SSL.Context:
        context = client_context(**options)
        if pair is not None:
            self._load(context, pair)
        context.load_verify_locations(str((trust or self.authority).file))
        return context

    @staticmethod
    def _load(context: SSL.Context, pair: Any) -> None:
        context.use_certificate_chain_file(str(pair.certificate))
        context.use_privatekey_file(str(pair.key))


Fate = Callable[[int, bytes], Sequence[float]]
"""From the number of a datagram and its bytes, after how many seconds it arrives, and how often."""


def delivered(number: int, data: bytes) -> Sequence[float]:
    return (0.01,)


def bad_network(rng: random.Random, *, loss: float, duplicate: float, reorder: float) -> Fate:
    def fate(number: int, data: bytes) -> Sequence[float]:
        if rng.random() < loss:
            return ()
        copies = 2 if rng.random() < duplicate else 1
        return [0.01 + (rng.random() * 0.2 if rng.random() < reorder else 0.0) for _ in range(copies)]

    return fate


class Net:
    """Machines by their address, and what is under way between them."""

    def __init__(self, fate: Fate = delivered) -> None:
        self.now = 1000.0
        self.fate = fate
        self.machines: dict[DatagramAddress, Any] = {}
        self.events: dict[DatagramAddress, list[Any]] = {}
        self.sent: list[tuple[DatagramAddress, DatagramAddress, bytes]] = []
        self._under_way: list[tuple[float, int, DatagramAddress, DatagramAddress, bytes]] = []
        self._count = itertools.count()

    def add(self, address: DatagramAddress, machine: Any) -> None:
        self.machines[address] = machine
        self.events.setdefault(address, [])

    def settle(self) -> None:
        """As a driver does at the end of a tick."""
        for address, machine in self.machines.items():
            while batch := machine.take_datagrams():
                assert len(batch) <= 64
                for data, destination in batch:
                    self.send(data, address, destination)
            deadline = machine.deadline()
            assert deadline is None or deadline > self.now
            self.events[address] += machine.take_events()

    def send(self, data: bytes, source: DatagramAddress, destination: DatagramAddress) -> None:
        number = len(self.sent)
        self.sent.append((source, destination, data))
        for delay in self.fate(number, data):
            arrival = self.now + delay
            heapq.heappush(self._under_way, (arrival, next(self._count), source, destination, data))

    def step(self, until: float) -> bool:
        """Let the next thing happen, if there is one before a time."""
        self.settle()
        times = [machine.deadline() for machine in self.machines.values()]
        times += [arrival for arrival, *_ in self._under_way[:1]]
        when = min((time for time in times if time is not None), default=None)
        if when is None or when > until:
            return False
        self.now = max(self.now, when)
        while self._under_way and self._under_way[0][0] <= self.now:
            _, _, source, destination, data = heapq.heappop(self._under_way)
            if destination in self.machines:
                self.machines[destination].receive_datagrams([(memoryview(data), source)], self.now)
        for machine in self.machines.values():
            deadline = machine.deadline()
            if deadline is not None and deadline <= self.now:
                machine.handle_timeout(self.now)
        self.settle()
        return True

    def run(self, seconds: float = 0.5) -> None:
        until = self.now + seconds
        while self.step(until):
            pass
        self.now = until
        self.settle()

    def run_until(self, condition: Callable[[], object], seconds: float) -> None:
        until = self.now + seconds
        while not condition():
            assert self.step(until), f"not within {seconds} s"

    def seen(self, address: DatagramAddress, *kinds: type[Any]) -> list[Any]:
        return [event for event in self.events[address] if isinstance(event, kinds)]


class Talk(Net):
    """A server whose children echo, and clients."""

    def __init__(
        self,
        files: Files,
        fate: Fate = delivered,
        *,
        server: SSL.Context | None = None,
        seed: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(fate)
        self.files = files
        self.children: dict[DatagramAddress, Child] = {}
        self.random = random.Random(seed)
        self.context = server or files.server_context()
        self.server = DtlsServer(self.new_child, lambda: self.context, self.random.randbytes, **options)
        self.add(SERVER, self.server)

    def new_child(self, event: DtlsEstablished) -> Child:
        child = self.children[event.address] = Child(event.address, echoes=True)
        return child

    def connect(
        self,
        address: DatagramAddress = CLIENT,
        context: SSL.Context | None = None,
        server_name: str | None = "server.example",
        **options: Any,
    ) -> DtlsClient:
        client = DtlsClient(
            Child(SERVER),
            context or self.files.client_context(),
            SERVER,
            self.now,
            server_name=server_name,
            **options,
        )
        self.add(address, client)
        return client

    def established(self, address: DatagramAddress = CLIENT) -> DtlsEstablished:
        (event,) = self.seen(address, DtlsEstablished)
        return event

    def failure(self, address: DatagramAddress = CLIENT) -> str:
        (event,) = self.seen(address, DtlsFailed)
        return str(event.error)

    def closed(self, address: DatagramAddress = CLIENT) -> DtlsClosed:
        (event,) = self.seen(address, DtlsClosed)
        return event

    def from_children(self) -> list[Any]:
        return [event.event for event in self.seen(SERVER, PeerEvent)]
