"""A server, its clients and whoever else sends datagrams, in any order of doings."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

pytest.importorskip("OpenSSL", reason="pyOpenSSL is not installed: no DTLS")

from dtls_net import CLIENT, SERVER, Talk, delivered

from helianthus.protocols.dtls import AssociationState, DtlsClosed, DtlsEstablished, DtlsOptions

if TYPE_CHECKING:
    from dtls_net import Files

ports = st.integers(1, 4)
MAX_ASSOCIATIONS, MAX_HANDSHAKES = 3, 2
LOST = ()


class Doings(RuleBasedStateMachine):
    """What may happen to a server."""

    files: ClassVar[Files]

    @initialize()
    def begin(self) -> None:
        options = DtlsOptions(
            max_associations=MAX_ASSOCIATIONS, max_handshakes=MAX_HANDSHAKES, idle_timeout=60.0
        )
        self.talk = Talk(self.files, options=options, handshake_timeout=20.0)
        self.clients: dict[int, object] = {}
        self.said: dict[int, list[bytes]] = {}
        self.count = 0

    @rule(port=ports)
    def connect(self, port: int) -> None:
        """A new client, or one that was restarted."""
        self.clients[port] = self.talk.connect((CLIENT[0], port), handshake_timeout=20.0)
        self.said[port] = []

    @rule(port=ports)
    def say(self, port: int) -> None:
        if port in self.clients:
            self.count += 1
            said = b"%d" % self.count
            self.said[port].append(said)
            self.clients[port].child.say(said)  # type: ignore[attr-defined]

    @rule(port=ports)
    def say_goodbye(self, port: int) -> None:
        if port in self.clients:
            self.clients[port].close(self.talk.now)  # type: ignore[attr-defined]

    @rule(port=ports)
    def vanish(self, port: int) -> None:
        if self.clients.pop(port, None):
            del self.talk.machines[CLIENT[0], port]

    @rule(port=ports)
    def send_away(self, port: int) -> None:
        self.talk.server.close_peer((CLIENT[0], port), self.talk.now)

    @rule(port=ports, number=st.integers(0, 400))
    def forge(self, port: int, number: int) -> None:
        """Somebody sends again, from an address that may be anybody's, what somebody has sent."""
        if self.talk.sent:
            _, destination, data = self.talk.sent[number % len(self.talk.sent)]
            if destination == SERVER:
                self.talk.server.receive_datagrams([(data, (CLIENT[0], port))], self.talk.now)

    @rule(data=st.binary(max_size=80), port=ports)
    def send_garbage(self, data: bytes, port: int) -> None:
        self.talk.server.receive_datagrams([(data, (CLIENT[0], port))], self.talk.now)

    @rule(lost=st.integers(0, 5))
    def lose(self, lost: int) -> None:
        """The next datagrams are lost."""
        first = len(self.talk.sent)
        self.talk.fate = lambda number, data: LOST if number < first + lost else delivered(number, data)

    @rule(seconds=st.sampled_from([0.01, 0.1, 1.0, 10.0, 100.0]))
    def wait(self, seconds: float) -> None:
        self.talk.run(seconds)

    @invariant()
    def it_is_bounded(self) -> None:
        server = self.talk.server
        assert server.peers <= MAX_ASSOCIATIONS + MAX_HANDSHAKES
        assert server.handshakes <= MAX_HANDSHAKES
        assert len(server._by_number) == server.peers + server.handshakes
        assert set(server._deadlines.live) == set(server._by_number)

    @invariant()
    def every_association_that_ended_had_begun(self) -> None:
        self.talk.settle()
        stands: dict[object, bool] = {}
        for event in self.talk.seen(SERVER, DtlsEstablished, DtlsClosed):
            assert stands.get(event.address, False) == isinstance(event, DtlsClosed)
            stands[event.address] = isinstance(event, DtlsEstablished)
        assert sum(stands.values()) == self.talk.server.peers

    @invariant()
    def nothing_is_heard_that_was_not_said(self) -> None:
        for port, client in self.clients.items():
            heard = client.child.heard  # type: ignore[attr-defined]
            assert len(set(heard)) == len(heard)
            assert set(heard) <= set(self.said[port])

    def teardown(self) -> None:
        """In the end whoever is well served again."""
        if not hasattr(self, "talk"):
            return
        self.talk.fate = delivered
        self.talk.server.close(self.talk.now)
        self.talk.run(200)
        assert self.talk.server.peers == self.talk.server.handshakes == 0
        client = self.talk.connect((CLIENT[0], 9))
        client.child.say(b"hello")
        self.talk.run(1)
        assert client.state is AssociationState.ESTABLISHED
        assert client.child.heard == [b"hello"]


def test_any_order_of_doings(dtls_files: Files) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    Doings.files = dtls_files
    run_state_machine_as_test(
        Doings, settings=settings(max_examples=40, stateful_step_count=40, deadline=None)
    )
