"""The client's end of DTLS 1.2 (RFC 6347)."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

from OpenSSL import SSL

from ..machine import Action, Buffer, DatagramAddress, DatagramMachine, Outcome
from .association import AssociationState
from .end import DtlsEnd
from .events import DtlsEvent
from .options import HANDSHAKE_TIMEOUT, DtlsOptions, dtls_options
from .records import split
from .verification import Verification


class DtlsClient:
    """A datagram machine that talks to one server, and protects what another machine says to it.

    The handshake begins at once. The child's datagrams wait in the child until it is over.

    Args:
        child: The machine above. It belongs to this one from now on: give it commands, but no input.
        context: From `client_context`.
        address: The server's, as the driver writes it: an IP address, or a node of the simulator.
        now: Monotonic seconds.
        server_name: The host name or IP address that the server's certificate must be for; a host name
            is told to the server, too. None accepts a certificate for any name, and is for tests.
        handshake_timeout: Seconds until the handshake has failed.
        options: Bounds.

    Attributes:
        address: The server's.
        child: The machine above.
    """

    def __init__(
        self,
        child: DatagramMachine[Any],
        context: SSL.Context,
        address: DatagramAddress,
        now: float,
        *,
        server_name: str | None = None,
        handshake_timeout: float = HANDSHAKE_TIMEOUT,
        options: DtlsOptions | None = None,
    ) -> None:
        self.address = address
        self.child = child
        connection = SSL.Connection(context, None)
        connection.set_app_data(Verification(server_side=False, server_name=server_name))
        if server_name is not None and not _is_ip_address(server_name):
            connection.set_tlsext_host_name(server_name.encode("idna"))
        connection.set_connect_state()
        self._end = DtlsEnd(
            connection,
            address,
            options=dtls_options(options),
            handshake_timeout=handshake_timeout,
            now=now,
            child=child,
        )

    @property
    def state(self) -> AssociationState:
        """Where the association stands."""
        return self._end.state

    def receive_datagrams(self, batch: Sequence[tuple[Buffer, DatagramAddress]], now: float) -> None:
        """Take datagrams; those of others than the server are dropped."""
        for datagram, source in batch:
            if source == self.address:
                for record in split(datagram):
                    self._end.receive(record, now)

    def receive_error(self, error: OSError, address: DatagramAddress | None, now: float) -> None:
        """Hear that a datagram was lost, and tell the child. Nothing ends by it."""
        if address is None or address == self.address:
            self._end.receive_error(error, now)

    def handle_timeout(self, now: float) -> None:
        """Repeat what may have been lost, give up, or end what is idle; tell the child the time."""
        self._end.handle_timeout(now)

    def complete(self, action_id: int, outcome: Outcome, now: float) -> None:
        """Hand the outcome of an action to the child, whose all actions are."""
        self._end.complete(action_id, outcome, now)

    def close(self, now: float) -> None:
        """Send what the child has, say goodbye to the server, and end. May be repeated."""
        self._end.close(now)

    def deadline(self) -> float | None:
        """When to call `handle_timeout`, monotonic seconds, or None."""
        return self._end.deadline()

    def take_actions(self) -> list[Action]:
        """The child's."""
        return self._end.take_actions()

    def take_datagrams(self, limit: int = 64) -> list[tuple[bytes, DatagramAddress]]:
        """Hand over datagrams to send."""
        return self._end.take_datagrams(limit)

    def take_events(self) -> list[DtlsEvent | Any]:
        """Hand over the events of the association and the child, as they happened."""
        return self._end.take_events()


def _is_ip_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
