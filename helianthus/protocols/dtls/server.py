"""The server's end of DTLS 1.2 (RFC 6347): many peers on one socket.

Nothing is remembered of whoever has not proved, by a cookie, that it gets what is sent to its address;
and what is remembered is bounded, in number and in time.

An address has at most one association that stands, and one handshake. A client that has lost its
association, because it was restarted, begins anew from the same address. What was before goes on until
the new handshake is finished, so that nobody who has recorded an old ClientHello, or can forge an
address, ends an association by it (§4.2.8). Meanwhile a record with keys may belong to either, and is
shown to both: the one that it was not made for finds it not authentic, and drops it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
from OpenSSL import SSL

from ..errors import LocalProtocolError
from ..machine import Action, Buffer, DatagramAddress, Outcome
from ..rpc.deadlines import Deadlines
from ..tls.errors import TlsError
from . import records
from .association import AssociationState
from .cookies import Cookies
from .end import DtlsEnd, NewChild
from .events import DtlsClosed, DtlsEstablished, DtlsEvent, DtlsFailed, DtlsRefused, PeerEvent
from .listening import Greeter
from .options import HANDSHAKE_TIMEOUT, DtlsOptions, dtls_options

MAX_ANSWERS = 1024
"""Answers to strangers that may wait to be sent; others are dropped, and the strangers ask again."""

_TURN = 16
"""Datagrams that one peer may send before the others have their turn."""

_OWN_EVENTS = (DtlsEstablished, DtlsFailed, DtlsClosed, DtlsRefused)


@attrs.define(eq=False)
class _Peer:
    """An association, or a handshake."""

    number: int
    end: DtlsEnd
    random: bytes  # of its ClientHello

    @property
    def address(self) -> DatagramAddress:
        return self.end.address


@attrs.define
class DtlsServerStatistics:
    """What a server has done.

    Attributes:
        challenged: ClientHellos without a good cookie, which have been answered by one.
        established: Associations that have come about.
        failed: Handshakes that have not.
        turned_away: ClientHellos not answered because of `max_associations` or `max_handshakes`.
        strays: Records that belong to no association.
    """

    challenged: int = 0
    established: int = 0
    failed: int = 0
    turned_away: int = 0
    strays: int = 0


class DtlsServer:
    """A datagram machine with many peers, each with an association and a child machine of its own.

    Events of children come as `PeerEvent`. Whoever gives a child a command calls `touch` afterwards.

    Args:
        new_child: Makes the machine above for a peer whose association stands; gets its event.
        context: Gives, for each handshake that begins, one from `server_context`, with a certificate; not
            always the same where certificates are renewed.
        random_bytes: Gives so many bytes that nobody can guess, for the secret of the cookies.
        handshake_timeout: Seconds until a handshake has failed.
        options: Bounds.

    Attributes:
        statistics: What it has done.
    """

    def __init__(
        self,
        new_child: NewChild,
        context: Callable[[], SSL.Context],
        random_bytes: Callable[[int], bytes],
        *,
        handshake_timeout: float = HANDSHAKE_TIMEOUT,
        options: DtlsOptions | None = None,
    ) -> None:
        self.statistics = DtlsServerStatistics()
        self._new_child = new_child
        self._options = dtls_options(options)
        self._handshake_timeout = handshake_timeout
        self._greeter = Greeter(context, Cookies(random_bytes, self._options.cookie_lifetime))
        self._handshakes: dict[DatagramAddress, _Peer] = {}
        self._established: dict[DatagramAddress, _Peer] = {}
        self._by_number: dict[int, _Peer] = {}
        self._deadlines = Deadlines()
        self._last_number = 0
        self._stirred: dict[_Peer, None] = {}  # those that may have something to send, in turn
        self._answers: list[tuple[bytes, DatagramAddress]] = []
        self._events: list[DtlsEvent | PeerEvent] = []
        self._actions: list[Action] = []
        self._action_owners: dict[int, tuple[_Peer, int]] = {}
        self._last_action = 0
        self._now = 0.0  # of the last input

    @property
    def peers(self) -> int:
        """How many associations stand."""
        return len(self._established)

    @property
    def handshakes(self) -> int:
        """How many handshakes are not finished."""
        return len(self._handshakes)

    # -- inputs ------------------------------------------------------------------------------------

    def receive_datagrams(self, batch: Sequence[tuple[Buffer, DatagramAddress]], now: float) -> None:
        """Take datagrams; what is no good, or from nobody, is dropped silently."""
        self._now = now
        for datagram, source in batch:
            for record in records.split(datagram):
                self._receive(record, source, now)

    def receive_error(self, error: OSError, address: DatagramAddress | None, now: float) -> None:
        """Hear that a datagram was lost, and tell the peer's child. Nothing ends by it."""
        if address is None:
            return
        for peer in self._peers_at(address):
            peer.end.receive_error(error, now)
            self._stir(peer)

    def handle_timeout(self, now: float) -> None:
        """Repeat what may have been lost, give up, end what is idle; tell children the time."""
        self._now = now
        for number in self._deadlines.pop_due(now):
            peer = self._by_number[number]
            peer.end.handle_timeout(now)
            self._stir(peer)

    def touch(self, address: DatagramAddress) -> None:
        """A peer's child has been given a command. An address without an association is ignored."""
        peer = self._established.get(address)
        if peer is not None:
            self._stir(peer)

    def close_peer(self, address: DatagramAddress, now: float) -> None:
        """Send what a peer's child has, say goodbye to the peer, and forget it. May be repeated.

        A handshake of the same address goes on: the client has begun anew.
        """
        self._now = now
        peer = self._established.get(address)
        if peer is not None:
            self._close(peer)

    def close(self, now: float) -> None:
        """As `close_peer`, for all of them; handshakes are given up."""
        self._now = now
        for peer in (*self._established.values(), *self._handshakes.values()):
            self._close(peer)

    def complete(self, action_id: int, outcome: Outcome, now: float) -> None:
        """Hand the outcome of an action to the child that it is for; one that is gone does not hear it."""
        if action_id not in self._action_owners:
            raise LocalProtocolError(f"no action {action_id} was given, or its outcome is known already")
        peer, childs_id = self._action_owners.pop(action_id)
        if peer.number in self._by_number:
            peer.end.complete(childs_id, outcome, now)
            self._stir(peer)

    # -- outputs -----------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """When to call `handle_timeout`, monotonic seconds, or None."""
        return self._deadlines.next()

    def take_actions(self) -> list[Action]:
        """The children's, with ids of this machine."""
        actions, self._actions = self._actions, []
        return actions

    def take_datagrams(self, limit: int = 64) -> list[tuple[bytes, DatagramAddress]]:
        """Hand over datagrams to send, of the peers in turn."""
        taken = self._answers[:limit]
        del self._answers[:limit]
        while self._stirred and len(taken) < limit:
            peer = next(iter(self._stirred))
            del self._stirred[peer]
            most = min(_TURN, limit - len(taken))
            batch = peer.end.take_datagrams(most)
            if len(batch) == most:
                self._stirred[peer] = None
            taken += batch
            self._note(peer)
        return taken

    def take_events(self) -> list[DtlsEvent | PeerEvent]:
        """Hand over what has happened, in order."""
        events, self._events = self._events, []
        return events

    # -- receiving ---------------------------------------------------------------------------------

    def _receive(self, record: bytes, source: DatagramAddress, now: float) -> None:
        peers = self._peers_at(source)
        random = records.client_random(record)
        if random is None:
            if not records.epoch(record):  # an association that stands takes nothing in the clear
                peers = [peer for peer in peers if peer.end.state is AssociationState.HANDSHAKE]
        elif any(peer.random == random for peer in peers):  # repeated, or late
            peers = [peer for peer in peers if peer.random == random]
        else:
            self._greet(record, source, now)
            return
        if not peers:
            self.statistics.strays += 1
        for peer in peers:
            peer.end.receive(record, now)
            self._stir(peer)

    def _greet(self, record: bytes, source: DatagramAddress, now: float) -> None:
        if not self._has_room_for(source):
            self.statistics.turned_away += 1
            return
        answer, connection = self._greeter.greet(record, source, now)
        if answer and len(self._answers) < MAX_ANSWERS:
            self.statistics.challenged += 1
            self._answers.append((answer, source))
        if connection is not None:
            self._begin(connection, record, source, now)

    def _has_room_for(self, source: DatagramAddress) -> bool:
        if source in self._handshakes:
            return True  # this one would replace that one
        if len(self._handshakes) >= self._options.max_handshakes:
            return False
        known = len(self._by_number)
        return known < self._options.max_associations or source in self._established

    def _begin(
        self, connection: SSL.Connection, client_hello: bytes, source: DatagramAddress, now: float
    ) -> None:
        earlier = self._handshakes.get(source)
        if earlier is not None:
            self._replace(earlier)
        end = DtlsEnd(
            connection,
            source,
            options=self._options,
            handshake_timeout=self._handshake_timeout,
            now=now,
            new_child=self._new_child,
            first_number=records.number(client_hello),
        )
        self._last_number += 1
        peer = _Peer(self._last_number, end, records.client_random(client_hello) or b"")
        self._by_number[peer.number] = peer
        self._handshakes[source] = peer
        self._stir(peer)

    # -- keeping count -----------------------------------------------------------------------------

    def _peers_at(self, address: DatagramAddress) -> list[_Peer]:
        found = (self._established.get(address), self._handshakes.get(address))
        return [peer for peer in found if peer is not None]

    def _stir(self, peer: _Peer) -> None:
        """Something was done to a peer."""
        self._stirred[peer] = None
        self._note(peer)

    def _note(self, peer: _Peer) -> None:
        """Take over what a peer's end has to say."""
        end = peer.end
        for action in end.take_actions():
            self._last_action += 1
            self._action_owners[self._last_action] = (peer, action.id)
            action.id = self._last_action
            self._actions.append(action)
        for event in end.take_events():
            if isinstance(event, DtlsEstablished):
                self._admit(peer)  # before the event, so that the end of an earlier one comes first
            elif isinstance(event, DtlsFailed):
                self.statistics.failed += 1
            own = isinstance(event, _OWN_EVENTS)
            self._events.append(event if own else PeerEvent(peer.address, event))
        if end.state is AssociationState.ENDED:
            self._forget(peer)
        else:
            self._arm(peer)

    def _arm(self, peer: _Peer) -> None:
        when = peer.end.deadline()
        if when is None:
            self._deadlines.discard(peer.number)
        elif self._deadlines.live.get(peer.number) != when:
            self._deadlines.add(peer.number, when)

    def _admit(self, peer: _Peer) -> None:
        """A handshake has become an association, in place of an earlier one of the same address."""
        self.statistics.established += 1
        del self._handshakes[peer.address]
        earlier = self._established.get(peer.address)
        if earlier is not None:
            self._replace(earlier)
        self._established[peer.address] = peer

    def _replace(self, peer: _Peer) -> None:
        self._close(peer, TlsError("the client has begun anew from the same address"))

    def _close(self, peer: _Peer, error: Exception | None = None) -> None:
        peer.end.close(self._now, error)
        self._stir(peer)

    def _forget(self, peer: _Peer) -> None:
        """Keep nothing of an ended peer but what it has left to send."""
        self._by_number.pop(peer.number, None)
        self._deadlines.discard(peer.number)
        for table in (self._handshakes, self._established):
            if table.get(peer.address) is peer:
                del table[peer.address]
