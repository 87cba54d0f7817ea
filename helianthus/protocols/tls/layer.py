"""TLS between a machine and its transport.

The layer is a stream machine that owns another one, its *child*. To the driver it looks like any
machine; to the child it is the transport. OpenSSL does the cryptography, on two buffers in memory
(`ssl.MemoryBIO`), so that there is no I/O in it. What it does take from the system is randomness, and
the date on which certificates have to be valid.

Nothing of the child's is taken before the handshake is over, so that nothing leaves in plain text.
Then all that it has is encrypted in one go, small pieces joined, in records of 16 KiB; and all records of
one read are decrypted before the child is given the whole of it.

A child that wants no more input (`wants_read`) gets none: what has arrived is kept as it is, encrypted,
and the transport is asked for no more. When the child wants input again, nothing may come that would
set it going; so the layer then asks for a call of `handle_timeout` at once, which also tells the time.

**Ends.** Each direction ends by a close_notify, which is signed. A child that closes its half (`HALF`)
has one sent, and then the transport's half closed. In TLS 1.3 the other direction goes on (RFC 8446,
6.1). TLS 1.2 asks the peer to answer at once and to drop what it had left to say (RFC 5246, 7.2.1): this
layer does not, on either version, but other peers of version 1.2 may. A transport that ends without
a close_notify has perhaps been cut off by somebody in between; that counts as a loss, and not as an
end of the stream, unless `require_close_notify` is false.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from ..errors import LocalProtocolError
from ..machine import Action, Buffer, Closing, ConnectionFailed, Outcome, StreamMachine
from .certificate import Certificate, read_if_possible
from .errors import TlsError, TlsHandshakeAbandoned, TlsHandshakeFailed, TlsTruncated
from .events import TLS_TRANSITIONS, TlsEstablished, TlsEvent, TlsInput, TlsSessionReceived, TlsState
from .faults import ALERT, HANDSHAKE, NO_TLS_HERE, Situation, explain, no_tls, shown_by

E = TypeVar("E")

HANDSHAKE_TIMEOUT = 10.0
"""Seconds; a handshake takes two or three round trips, and this leaves room for a few lost segments."""

_RECORD = 16 * 1024  # bytes of plain text in a record, at most (RFC 8446, 5.1)

_PIECE = 64 * 1024
"""Bytes that are encrypted or decrypted at once: OpenSSL's buffers in memory never shrink."""

_MAX_UNSENT = 64 * 1024
"""Bytes of TLS's own answers that may wait. A peer that makes the layer answer and does not read is not
read from: in TLS 1.3 it could ask for new keys all the time (RFC 8446, 4.6.3)."""

_LOOKS_FOR_SESSION = 8
"""Reads after the handshake in which a client looks for a session: TLS 1.3 sends it when it pleases."""

_HANDSHAKING, _OPEN, _PEER_CLOSED = TlsState.HANDSHAKING, TlsState.OPEN, TlsState.PEER_CLOSED
_ENDED = TlsState.ENDED
_STAYS_OPEN, _HALF, _FULL, _ABORT = Closing.OPEN, Closing.HALF, Closing.FULL, Closing.ABORT


class TlsLayer(Generic[E]):
    """One end of a TLS connection; see above.

    Args:
        child: What is said in it. It belongs to the layer from now on: give it commands, but no input.
        context: Certificates, trust and versions; see `answer_by_name` for several of them.
        now: Monotonic seconds. A server's time for the handshake begins, a client's when the
            transport is connected.
        server_side: Whether the peer begins.
        server_name: A client's: whom it wants to reach; the certificate has to be valid for that.
        session: A client's: to resume; from a `TlsSessionReceived` of the same context.
        handshake_timeout: Seconds.
        require_close_notify: Whether an end that the peer has not signed is a loss.

    Attributes:
        state: See `TlsState`.

    Raises:
        LocalProtocolError: The context does not fit the arguments.
    """

    __slots__ = (
        "_after",
        "_before",
        "_began",
        "_child",
        "_closing",
        "_context",
        "_eof_held",
        "_goodbye_said",
        "_handshake_deadline",
        "_handshake_timeout",
        "_held",
        "_incoming",
        "_looks_left",
        "_now",
        "_object",
        "_outgoing",
        "_read_record",
        "_require_close_notify",
        "_server_name",
        "_server_side",
        "_started",
        "state",
    )

    def __init__(
        self,
        child: StreamMachine[E],
        context: ssl.SSLContext,
        now: float,
        *,
        server_side: bool,
        server_name: str | None = None,
        session: ssl.SSLSession | None = None,
        handshake_timeout: float = HANDSHAKE_TIMEOUT,
        require_close_notify: bool = True,
    ) -> None:
        self.state = _HANDSHAKING
        self._child = child
        self._context = context
        self._server_side = server_side
        self._server_name = server_name
        self._handshake_timeout = handshake_timeout
        self._require_close_notify = require_close_notify
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        try:
            self._object = context.wrap_bio(
                self._incoming, self._outgoing, server_side, server_name, session if not server_side else None
            )
        except (ssl.SSLError, ValueError) as error:
            raise LocalProtocolError(f"the TLS context cannot be used so: {error}") from error
        self._read_record = self._object.read
        self._before: list[TlsEvent] = []  # what comes before the child's events
        self._after: list[TlsEvent] = []
        self._closing = _STAYS_OPEN  # once the layer has failed
        self._goodbye_said = False
        self._held: bytearray | None = None  # encrypted, for a child that wants no more
        self._eof_held = False  # and the end of the transport behind it
        self._began = False  # whether the peer has sent anything
        self._looks_left = 0
        self._now = now  # of the last input
        self._started = server_side
        self._handshake_deadline: float | None = now + handshake_timeout if server_side else None

    # -- inputs ----------------------------------------------------------------------------------------

    def receive_data(self, data: Buffer, now: float) -> None:
        """Take encrypted bytes."""
        self._now = now
        if self._held is not None:
            self._held += data
            self._resume(now)
        elif self.state is _OPEN and len(data) <= _PIECE:
            self._incoming.write(data)
            self._decrypt(now)
        else:
            self._receive(data, now)

    def receive_eof(self, now: float) -> None:
        """The transport has ended. Only a close_notify before that was an end of the stream."""
        self._now = now
        if self._held is not None:
            self._eof_held = True
            return
        if self.state is _HANDSHAKING:
            self._fail(
                TlsHandshakeAbandoned(
                    f"the {self._situation().peer} closed the connection during the TLS handshake; "
                    + ("it may not trust this side" if self._server_side else "does it speak TLS there?")
                ),
                now,
            )
        elif self.state is _OPEN and self._require_close_notify:
            peer = self._situation().peer
            reason = f"the {peer} ended the connection without TLS's close_notify: it may have been cut off"
            self._fail(TlsTruncated(reason), now, closing=_ABORT)
        elif self.state is _OPEN:
            self._end_of_stream(now)

    def connection_lost(self, error: Exception | None, now: float) -> None:
        """The transport is gone."""
        if self.state is not _ENDED:
            self._move(TlsInput.LOSS)
            self._closing = _ABORT
            self._held = None
            self._child.connection_lost(error, now)

    def handle_timeout(self, now: float) -> None:
        """End a handshake that takes too long; tell the child the time; see above."""
        self._now = now
        if self.state is _HANDSHAKING and self._started:
            if self._handshake_deadline is None:  # a client's transport is connected now
                self._handshake_deadline = now + self._handshake_timeout
            elif self._handshake_deadline <= now:
                reason = f"no TLS handshake within handshake_timeout ({self._handshake_timeout:g} s)"
                self._fail(TlsHandshakeFailed(f"{reason} with the {self._situation().peer}"), now)
        self._child.handle_timeout(now)
        if self._held is not None:
            self._resume(now)

    def complete(self, action_id: int, outcome: Outcome, now: float) -> None:
        """Hand the outcome of an action to the child, whose all actions are."""
        self._child.complete(action_id, outcome, now)

    # -- outputs ---------------------------------------------------------------------------------------

    @property
    def wants_read(self) -> bool:
        """False while the child wants nothing, or the peer does not take what TLS itself has to say."""
        if self.state is not _OPEN:
            return True
        return self._held is None and self._child.wants_read and self._outgoing.pending <= _MAX_UNSENT

    @property
    def closing(self) -> Closing:
        """The child's, but not before the handshake is over; FULL where its other half has ended."""
        if self._closing is not _STAYS_OPEN:
            return self._closing
        wanted = self._child.closing
        if wanted is _HALF and self.state is _PEER_CLOSED:
            return _FULL
        return wanted if self.state is not _HANDSHAKING or wanted is _ABORT else _STAYS_OPEN

    def deadline(self) -> float | None:
        """That of the handshake or the child, or now."""
        when = self._child.deadline()
        own = None
        if self.state is _HANDSHAKING:
            if self._started:
                own = self._now if self._handshake_deadline is None else self._handshake_deadline
        elif self._held is not None and self._child.wants_read:
            own = self._now
        return own if when is None or (own is not None and own < when) else when

    def take_actions(self) -> list[Action]:
        """The child's."""
        return self._child.take_actions()

    def take_data(self) -> list[Buffer]:
        """Hand over encrypted bytes: TLS's own, and all that the child has."""
        encrypted: list[Buffer] = []
        if self._goodbye_said:
            return encrypted  # nothing may follow it, not even an answer of TLS
        if self.state is _OPEN or self.state is _PEER_CLOSED:
            data = self._child.take_data()
            if data:
                for block in data if len(data) == 1 else _blocks(data):
                    self._encrypt(block, encrypted)
            if self._child.closing in (_HALF, _FULL):
                self._say_goodbye()
        elif not self._started:
            self._started = True
            self._shake_hands(self._now)
        if self._outgoing.pending:
            encrypted.append(self._outgoing.read())
        return encrypted

    def write_through(self, data: Buffer) -> list[Buffer]:
        """Encrypt bytes that do not come from the child, such as those of a file; see `LayerMachine`.

        Raises:
            LocalProtocolError: The handshake is not over, or this direction has ended.
        """
        if self.state not in (_OPEN, _PEER_CLOSED) or self._goodbye_said:
            raise LocalProtocolError(f"TLS can send nothing now: the connection is {self.state.value}")
        encrypted: list[Buffer] = []
        if data:
            self._encrypt(data, encrypted)
        if self._outgoing.pending:
            encrypted.append(self._outgoing.read())
        return encrypted

    @property
    def dropped_messages(self) -> int:
        """Those that the child has dropped for a slow peer."""
        return getattr(self._child, "dropped_messages", 0)

    def take_events(self) -> list[E | TlsEvent]:
        """Hand over the layer's events and the child's, in one order."""
        events: list[Any] = self._child.take_events()
        if self._before or self._after:
            events = [*self._before, *events, *self._after]
            self._before, self._after = [], []
        return events

    # -- receiving -------------------------------------------------------------------------------------

    def _receive(self, data: Buffer, now: float) -> None:
        """Take bytes a piece at a time, and keep the rest when the child wants no more."""
        if not self._began and data:
            self._began = True
            self._check_first_byte(data, now)
        view = memoryview(data)
        for start in range(0, len(view), _PIECE):
            if self.state is _OPEN and not self._child.wants_read:
                self._held = bytearray(view[start:])
                return
            if self.state is _HANDSHAKING:
                self._incoming.write(view[start : start + _PIECE])
                self._shake_hands(now)
            elif self.state is _OPEN:
                self._incoming.write(view[start : start + _PIECE])
                self._decrypt(now)

    def _resume(self, now: float) -> None:
        """Go on with what was kept, as far as the child wants it."""
        if self.state is _OPEN and not self._child.wants_read:
            return
        held, self._held = self._held or b"", None
        self._receive(held, now)
        if self._eof_held and self._held is None:
            self._eof_held = False
            self.receive_eof(now)

    def _decrypt(self, now: float) -> None:
        """Give the child all that is whole."""
        pieces = []
        fault: ssl.SSLError | None = None
        ended = False
        incoming, read = self._incoming, self._read_record
        try:
            while piece := read(_RECORD):
                pieces.append(piece)
                if not incoming.pending:  # a part of a record at most is left, and that in OpenSSL
                    break
            else:
                ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            ended = True
        except ssl.SSLError as error:
            fault = error
        if pieces:
            self._child.receive_data(pieces[0] if len(pieces) == 1 else b"".join(pieces), now)
        if self._looks_left:
            self._look_for_session()
        if fault is not None:
            self._fail(self._error_of(fault, TlsError), now)
        elif ended and self.state is _OPEN:
            self._end_of_stream(now)

    def _end_of_stream(self, now: float) -> None:
        self._move(TlsInput.CLOSE_NOTIFY)
        self._child.receive_eof(now)

    # -- the handshake ---------------------------------------------------------------------------------

    def _check_first_byte(self, data: Buffer, now: float) -> None:
        """Recognise a peer that speaks in plain text."""
        if data[0] in (HANDSHAKE, ALERT):
            return
        if self._server_side:
            self._outgoing.write(NO_TLS_HERE)
        self._fail(TlsHandshakeFailed(no_tls(bytes(data[:32]), self._situation()), "NO_TLS"), now)

    def _shake_hands(self, now: float) -> None:
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLError as error:
            self._fail(self._error_of(error, TlsHandshakeFailed), now)
            return
        self._move(TlsInput.ESTABLISHED)
        self._before.append(self._established())
        if not self._server_side:
            self._looks_left = _LOOKS_FOR_SESSION
            self._look_for_session()
        self._decrypt(now)

    def _established(self) -> TlsEstablished:
        tls = self._object
        cipher = tls.cipher()
        der = tls.getpeercert(binary_form=True)
        asked_for = getattr(tls, "requested_name", None) if self._server_side else self._server_name
        return TlsEstablished(
            version=tls.version() or "",
            cipher=cipher[0] if cipher else "",
            alpn=tls.selected_alpn_protocol(),
            server_name=asked_for,
            certificate=read_if_possible(der),
            verified=der is not None and self._context.verify_mode is not ssl.CERT_NONE,
            resumed=bool(tls.session_reused),
        )

    def _look_for_session(self) -> None:
        """A client's session is worth something as soon as it has a ticket."""
        self._looks_left -= 1
        session = self._object.session
        if session is not None and session.has_ticket:
            self._looks_left = 0
            self._before.append(TlsSessionReceived(session))

    # -- sending ---------------------------------------------------------------------------------------

    def _encrypt(self, data: Buffer, encrypted: list[Buffer]) -> None:
        """Encrypt a block; what is left in `_outgoing` in the end is for the caller to take."""
        write, outgoing = self._object.write, self._outgoing
        view = memoryview(data)
        try:
            for start in range(0, len(view), _PIECE):
                write(view[start : start + _PIECE])
                if outgoing.pending >= _PIECE:
                    encrypted.append(outgoing.read())
        except ssl.SSLError as error:
            self._fail(self._error_of(error, TlsError), self._now)

    def _say_goodbye(self) -> None:
        """Send close_notify. Nothing waits in `_incoming` that OpenSSL could read, and throw away, here."""
        self._goodbye_said = True
        with contextlib.suppress(ssl.SSLError):  # it would like to read the peer's, which may come later
            self._object.unwrap()

    # -- the end ---------------------------------------------------------------------------------------

    def _fail(self, error: TlsError, now: float, closing: Closing = _FULL) -> None:
        """Tell the child, once, and then everybody else."""
        if self.state is _ENDED:
            return
        child = self._child
        already = child.closing in (_FULL, _ABORT)  # it has said why itself
        self._move(TlsInput.FAULT)
        self._closing = closing
        self._held = None
        error.__traceback__ = error.__context__ = None  # they would keep the caller's buffers alive
        child.connection_lost(error, now)
        if not already:
            self._after.append(ConnectionFailed(error))

    def _error_of(self, error: ssl.SSLError, kind: type[TlsError]) -> TlsError:
        return kind(explain(error, self._situation(shown_by(self._object))), error.reason or "")

    def _situation(self, chain: Sequence[Certificate] = ()) -> Situation:
        least = self._context.minimum_version
        return Situation(
            server_side=self._server_side,
            server_name=self._server_name,
            minimum_version=least.name.replace("_", ".") if least > 0 else "",
            chain=chain,
        )

    def _move(self, cause: TlsInput) -> None:
        self.state = TLS_TRANSITIONS.get((self.state, cause), self.state)


def _blocks(parts: Sequence[Buffer]) -> Iterator[Buffer]:
    """What is encrypted in one go: small parts joined, large ones as they are, which spares a copy."""
    small: list[Buffer] = []
    size = 0
    for part in parts:
        if len(part) < _RECORD:
            small.append(part)
            size += len(part)
        if small and (size >= _PIECE or len(part) >= _RECORD):
            yield b"".join(small)
            small, size = [], 0
        if len(part) >= _RECORD:
            yield part
    if small:
        yield b"".join(small)


def answer_by_name(context: ssl.SSLContext, others: Mapping[str, ssl.SSLContext]) -> None:
    """Have a server's context remember what name clients ask for, and show the certificate for it.

    Args:
        context: For those who ask for no name or an unknown one.
        others: By name, in lower case; `*` may stand for the first label.
    """

    def choose(connection: Any, name: str | None, initial: ssl.SSLContext) -> None:
        connection.requested_name = name  # for the layer; nobody else would tell it
        if name and others:
            wanted = name.lower().rstrip(".")
            chosen = others.get(wanted) or others.get(f"*.{wanted.partition('.')[2]}")
            if chosen is not None:
                connection.context = chosen

    context.sni_callback = choose
