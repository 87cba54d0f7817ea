"""One peer: an association, and the child machine whose datagrams it protects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL import SSL

from ..errors import LocalProtocolError
from ..machine import Action, DatagramAddress, DatagramMachine, Outcome
from .association import Association, AssociationState
from .events import DtlsClosed, DtlsEstablished, DtlsEvent, DtlsFailed, DtlsRefused
from .options import DtlsOptions

_BATCH = 64

NewChild = Callable[[DtlsEstablished], DatagramMachine[Any]]
"""Makes the machine above for a peer, once it is known who that is."""


class DtlsEnd:
    """What a client has one of, and a server one for each peer.

    The child is given datagrams, and asked for some, while the association stands; all of them come from
    and go to the peer. Whatever else it does it may do all the time.

    Args:
        connection: See `Association`.
        address: The peer's.
        options: Bounds.
        handshake_timeout: Seconds until the handshake has failed.
        now: Monotonic seconds.
        child: The machine above, where there is one already.
        new_child: Makes it when the association stands.
        first_number: See `Association`.

    Attributes:
        address: The peer's.
        child: The machine above; None until it is made.
    """

    def __init__(
        self,
        connection: SSL.Connection,
        address: DatagramAddress,
        *,
        options: DtlsOptions,
        handshake_timeout: float,
        now: float,
        child: DatagramMachine[Any] | None = None,
        new_child: NewChild | None = None,
        first_number: int = 0,
    ) -> None:
        self.address = address
        self.child = child
        self._new_child = new_child
        self._idle_timeout = options.idle_timeout
        self._idle_at: float | None = None
        self._used = False  # since the idle timer was set
        self._events: list[DtlsEvent | Any] = []
        self._known = AssociationState.HANDSHAKE  # what events tell of
        self._association = Association(
            connection,
            mtu=options.mtu,
            handshake_timeout=handshake_timeout,
            now=now,
            first_number=first_number,
        )
        self._follow(now)

    @property
    def state(self) -> AssociationState:
        """Where the association stands."""
        return self._association.state

    # -- inputs ------------------------------------------------------------------------------------

    def receive(self, record: bytes, now: float) -> None:
        """Take a record of the peer."""
        self._association.receive(record, now)
        self._follow(now)

    def receive_error(self, error: OSError, now: float) -> None:
        """Hear that a datagram to or from the peer was lost, and tell the child.

        Nothing ends by it: anybody who can guess addresses could have caused it.
        """
        self._association.hear_of_loss(error)
        if self.child is not None:
            self.child.receive_error(error, self.address, now)

    def handle_timeout(self, now: float) -> None:
        """Repeat what may have been lost, give up, or end what is idle; tell the child the time."""
        self._association.handle_timeout(now)
        if self._idle_timeout is not None and self._idle_at is not None and self._idle_at <= now:
            if self._used:
                self._used = False
                self._idle_at = now + self._idle_timeout
            else:
                self._association.close()
        self._follow(now)
        if self.child is not None:
            self.child.handle_timeout(now)

    def close(self, now: float, error: Exception | None = None) -> None:
        """Send what the child has, say goodbye, and end. May be repeated.

        Args:
            now: Monotonic seconds.
            error: Why, where the peer is not to blame; for this side's event only.
        """
        while self._protect_childs(_BATCH) == _BATCH:
            pass
        self._association.close(error)
        self._follow(now)

    def complete(self, action_id: int, outcome: Outcome, now: float) -> None:
        """Hand the outcome of an action to the child, whose all actions are."""
        if self.child is None:
            raise LocalProtocolError(f"no action {action_id} was given")
        self.child.complete(action_id, outcome, now)

    # -- outputs -----------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """The earliest of the association's, the child's, and that of what is idle."""
        times = (
            self._association.deadline(),
            self._idle_at,
            None if self.child is None else self.child.deadline(),
        )
        return min((time for time in times if time is not None), default=None)

    def take_actions(self) -> list[Action]:
        """The child's."""
        return [] if self.child is None else self.child.take_actions()

    def take_datagrams(self, limit: int = 64) -> list[tuple[bytes, DatagramAddress]]:
        """Hand over the association's own datagrams and, protected, the child's."""
        association = self._association
        own = association.take_datagrams(limit)
        while len(own) < limit and self._protect_childs(limit - len(own)):
            own += association.take_datagrams(limit - len(own))
        return [(datagram, self.address) for datagram in own]

    def take_events(self) -> list[DtlsEvent | Any]:
        """Hand over the events of the association and the child, as they happened."""
        self._gather()
        events, self._events = self._events, []
        return events

    # -- within ------------------------------------------------------------------------------------

    def _protect_childs(self, limit: int) -> int:
        """Protect what the child has to send; gives how many datagrams that was."""
        if self.child is None or not self._association.established:
            return 0
        batch = self.child.take_datagrams(limit)
        for data, address in batch:
            self._protect(data, address)
        return len(batch)

    def _protect(self, data: bytes, address: DatagramAddress) -> None:
        try:
            if address != self.address:
                raise LocalProtocolError(f"this association is with {self.address}, not with {address}")
            self._association.send(data)
            self._used = True
        except LocalProtocolError as error:
            self._gather()
            self._events.append(DtlsRefused(address, error))

    def _follow(self, now: float) -> None:
        """Tell of what the association has come to, and give the child what has arrived."""
        association = self._association
        if association.was_established and self._known is AssociationState.HANDSHAKE:
            self._known = AssociationState.ESTABLISHED
            self._announce(now)
        received = association.take_received()
        if received and self.child is not None:
            self._used = True
            self.child.receive_datagrams([(data, self.address) for data in received], now)
        if association.ended and self._known is not AssociationState.ENDED:
            self._gather()
            if self._known is AssociationState.ESTABLISHED:
                self._events.append(DtlsClosed(self.address, association.error))
            else:
                self._events.append(DtlsFailed(self.address, association.error or _closed_early()))
            self._known = AssociationState.ENDED
            self._idle_at = None

    def _announce(self, now: float) -> None:
        established = self._association.describe(self.address)
        if self._idle_timeout is not None:
            self._idle_at = now + self._idle_timeout
        self._gather()
        self._events.append(established)
        if self.child is None and self._new_child is not None:
            self.child = self._new_child(established)

    def _gather(self) -> None:
        if self.child is not None:
            self._events += self.child.take_events()


def _closed_early() -> LocalProtocolError:
    return LocalProtocolError("closed before the handshake was over")
