"""One end of one DTLS association: OpenSSL between two memory BIOs, and a timer that is ours.

**Datagrams.** A memory BIO is a stream and knows no datagrams. What comes is therefore given to OpenSSL
one record at a time, which may always be a datagram of its own; what OpenSSL writes is cut into records
and packed anew into datagrams of at most `mtu` bytes.

**Retransmission.** OpenSSL sends a flight of the handshake again when its own timer says so, and that
timer reads the real clock; a program can neither set it nor replace it (`DTLS_set_timer_cb` is not within
reach of Python). A machine's time is what its driver says: in a simulation a minute is nothing. So the
timer is ours, with the intervals of RFC 6347 §4.2.4.1, and when it fires:

1. OpenSSL is asked to send again, with `DTLSv1_handle_timeout`. On a real clock its timer, started
   with ours and forgiving 15 ms, has fired too, and the flight leaves in new records.
2. On any other clock it has not, and OpenSSL does nothing. Then the records that it wrote last are sent
   again. Those in the clear get new numbers (`ClearNumbers`): a ChangeCipherSpec that overtakes what
   belongs before it is dropped by OpenSSL *after* its number was noted as seen, and the same number
   would never be let in again. Encrypted records, the one Finished message of each end, keep theirs.
3. What then remains is a server whose last flight was lost. It has seen the client's Finished, and
   drops a copy with the same number as a replay, though the copy asks for the last flight. So a server
   that gets the very bytes of that Finished again repeats its last flight, a few times at most, until
   it hears data from the client. (For a Finished in a new record OpenSSL does that itself.)

For the same reason sessions are not resumed: it is always the server that speaks last.

OpenSSL looks at its timer while it reads, too. Should a second of real time pass between two steps of a
simulated handshake (a debugger), it may send a flight again by itself. It does no harm, but the run is then
not the same as before; nor are the bytes ever, because OpenSSL draws keys and nonces by itself.
"""

from __future__ import annotations

import enum

from OpenSSL import SSL

from ..errors import LocalProtocolError
from ..machine import DatagramAddress
from ..tls.errors import TlsHandshakeFailed
from . import records
from .events import DtlsEstablished
from .failures import error_of
from .verification import Verification, certificate_of

FIRST_INTERVAL = 1.0
LONGEST_INTERVAL = 60.0
"""Seconds after which a flight is sent again, at first and at most; in between they double
(RFC 6347 §4.2.4.1)."""

REPEATS = 12
"""How often a last flight is repeated: as often as OpenSSL sends one before it gives up."""

_LARGEST = 2**14  # bytes of plaintext in a record (RFC 5246 §6.2.1)
_AT_ONCE = 2**16  # bytes taken out of a BIO


class AssociationState(enum.Enum):
    """Where an association stands."""

    HANDSHAKE = "handshake"
    ESTABLISHED = "established"
    ENDED = "ended"


class AssociationInput(enum.Enum):
    """What moves it on."""

    FINISHED = "handshake done"
    FAULT = "the peer's fault, or its silence"
    CLOSE = "close, by either end"


ASSOCIATION_TRANSITIONS = {
    (AssociationState.HANDSHAKE, AssociationInput.FINISHED): AssociationState.ESTABLISHED,
    (AssociationState.HANDSHAKE, AssociationInput.FAULT): AssociationState.ENDED,
    (AssociationState.HANDSHAKE, AssociationInput.CLOSE): AssociationState.ENDED,
    (AssociationState.ESTABLISHED, AssociationInput.FAULT): AssociationState.ENDED,
    (AssociationState.ESTABLISHED, AssociationInput.CLOSE): AssociationState.ENDED,
}


class Association:
    """Handshake, protection and end of an association with one peer.

    Args:
        connection: Over memory BIOs, set to connect or to accept; its app data is the `Verification`.
        mtu: Bytes of the largest datagram.
        handshake_timeout: Seconds until the handshake has failed.
        now: Monotonic seconds.
        first_number: Of the first record that is sent. A server's is that of the ClientHello with a cookie
            (RFC 6347 §4.2.1), because lower ones may have been used for HelloVerifyRequests. OpenSSL
            begins with 1.

    Attributes:
        state: Where it stands.
        was_established: Whether it stands, or has stood.
        error: Why it has ended; None where one end closed it.
    """

    def __init__(
        self,
        connection: SSL.Connection,
        *,
        mtu: int,
        handshake_timeout: float,
        now: float,
        first_number: int = 0,
    ) -> None:
        connection.set_ciphertext_mtu(mtu)
        verification = connection.get_app_data()
        assert isinstance(verification, Verification)
        self.state = AssociationState.HANDSHAKE
        self.was_established = False
        self.error: Exception | None = None
        self._connection = connection
        self._verification = verification
        self._mtu = mtu
        self._handshake_timeout = handshake_timeout
        self._fails_at = now + handshake_timeout
        self._repeat_at: float | None = None
        self._interval = FIRST_INTERVAL
        self._numbers = records.ClearNumbers(first_number)
        self._flight: list[bytes] = []  # as OpenSSL wrote it
        self._peers_finished = b""
        self._repeats = REPEATS if verification.server_side else 0  # a client never speaks last
        self._last_loss: OSError | None = None
        self._datagrams: list[bytes] = []
        self._received: list[bytes] = []
        self._shake_hands(now)

    @property
    def established(self) -> bool:
        """Whether datagrams pass."""
        return self.state is AssociationState.ESTABLISHED

    @property
    def ended(self) -> bool:
        """Whether nothing passes any more; a goodbye may still have to be taken."""
        return self.state is AssociationState.ENDED

    # -- inputs ------------------------------------------------------------------------------------

    def receive(self, record: bytes, now: float) -> None:
        """Take one record. What is no good is dropped silently (RFC 6347 §4.1.2.7)."""
        if self.ended:
            return
        self._connection.bio_write(record)
        if self.established:
            self._read()
            self._repeat_for(record)
            return
        if record[0] == records.HANDSHAKE and records.epoch(record):
            self._peers_finished = record
        self._shake_hands(now)
        if self.was_established:  # data may have overtaken the last of the handshake
            self._read()

    def hear_of_loss(self, error: OSError) -> None:
        """Remember why a datagram did not get there, for the message should the handshake fail."""
        self._last_loss = error

    def send(self, data: bytes) -> None:
        """Protect a datagram.

        Raises:
            LocalProtocolError: It is empty or too large, or the association does not stand.
        """
        if not self.established:
            raise LocalProtocolError(f"nothing can be sent: the association is in state {self.state.value}")
        if not data:
            raise LocalProtocolError("OpenSSL sends no empty datagrams over DTLS; send a byte at least")
        largest = self._connection.get_cleartext_mtu()
        if len(data) > largest:
            raise LocalProtocolError(
                f"a datagram of {len(data)} bytes cannot be sent over DTLS: mtu={self._mtu} leaves room for "
                f"{largest} under this cipher"
            )
        self._connection.send(data)
        self._collect()

    def close(self, error: Exception | None = None) -> None:
        """Say goodbye (close_notify), and end. May be repeated."""
        if self.established:
            try:
                self._connection.shutdown()
            except SSL.Error:  # nobody is left to say it to
                pass
            else:
                self._collect()
        self._end(AssociationInput.CLOSE, error)

    def handle_timeout(self, now: float) -> None:
        """Send the last flight again, or give up."""
        if self.state is not AssociationState.HANDSHAKE:
            return
        if now >= self._fails_at:
            message = f"no DTLS handshake within handshake_timeout ({self._handshake_timeout:g} s)"
            cause = f"; the last that was heard: {self._last_loss}" if self._last_loss else ""
            self._end(AssociationInput.FAULT, TlsHandshakeFailed(message + cause, "HANDSHAKE_TIMEOUT"))
        elif self._repeat_at is not None and now >= self._repeat_at:
            self._interval = min(2 * self._interval, LONGEST_INTERVAL)
            self._repeat_at = now + self._interval
            self._repeat_flight()

    # -- outputs -----------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """When the last flight is to be sent again, or the handshake has failed."""
        if self.state is not AssociationState.HANDSHAKE:
            return None
        return self._fails_at if self._repeat_at is None else min(self._repeat_at, self._fails_at)

    def take_datagrams(self, limit: int) -> list[bytes]:
        """Hand over datagrams to send, the oldest first."""
        taken = self._datagrams[:limit]
        del self._datagrams[:limit]
        return taken

    def take_received(self) -> list[bytes]:
        """Hand over what has arrived, decrypted."""
        received, self._received = self._received, []
        return received

    def describe(self, address: DatagramAddress) -> DtlsEstablished:
        """What has been agreed upon; for an association that has been established."""
        connection = self._connection
        certificate = certificate_of(connection)
        alpn = connection.get_alpn_proto_negotiated()
        name = connection.get_servername()
        return DtlsEstablished(
            address=address,
            version=connection.get_protocol_version_name(),
            cipher=connection.get_cipher_name() or "",
            alpn=alpn.decode("latin-1") if alpn else None,
            server_name=name.decode("latin-1") if name else None,
            certificate=certificate,
            verified=certificate is not None and bool(connection.get_verify_mode() & SSL.VERIFY_PEER),
            largest=connection.get_cleartext_mtu(),
        )

    # -- OpenSSL -----------------------------------------------------------------------------------

    def _shake_hands(self, now: float) -> None:
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            pass
        except SSL.Error as error:
            self._fail(error)
            return
        else:
            self._move(AssociationInput.FINISHED)
            self.was_established = True
        if self._collect():
            self._interval = FIRST_INTERVAL
            self._repeat_at = now + FIRST_INTERVAL

    def _read(self) -> None:
        """Take out what OpenSSL has decrypted."""
        try:
            while True:
                self._received.append(self._connection.recv(_LARGEST))
                self._repeats = 0
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self.close()
            return
        except SSL.Error as error:
            self._fail(error)

    def _repeat_for(self, record: bytes) -> None:
        """Answer a client that lacks our last flight."""
        if not self._collect() and record == self._peers_finished and self._repeats and self.established:
            self._repeats -= 1
            self._queue(self._flight)

    def _repeat_flight(self) -> None:
        try:
            repeated = self._connection.DTLSv1_handle_timeout()
        except SSL.Error as error:
            self._fail(error)
            return
        if repeated:
            self._collect()
        else:
            self._queue(self._flight)

    def _collect(self) -> bool:
        """Queue what OpenSSL has written; gives whether a flight of the handshake is in it."""
        written = bytearray()
        try:
            while True:
                written += self._connection.bio_read(_AT_ONCE)
        except SSL.WantReadError:
            pass
        found = records.split(written)
        is_flight = any(record[0] == records.HANDSHAKE for record in found)
        if is_flight:
            self._flight = found
        self._queue(found)
        return is_flight

    def _queue(self, found: list[bytes]) -> None:
        self._datagrams += records.pack(map(self._numbers.put_on, found), self._mtu)

    # -- state -------------------------------------------------------------------------------------

    def _fail(self, error: SSL.Error) -> None:
        """End with what OpenSSL, or whoever looked at the certificate, has to say."""
        self._collect()  # an alert
        handshake = self.state is AssociationState.HANDSHAKE
        self._end(AssociationInput.FAULT, error_of(error, self._verification, handshake=handshake))

    def _end(self, cause: AssociationInput, error: Exception | None) -> None:
        if not self.ended:
            self._move(cause)
            self.error = error

    def _move(self, cause: AssociationInput) -> None:
        self.state = ASSOCIATION_TRANSITIONS.get((self.state, cause), self.state)
