"""Byte streams as TCP gives them: ordered, flow-controlled, and only as reliable as the network.

A connection is two pipes. A pipe cuts what is written into segments, sends them over its path and
gives them, in order, to the endpoint at the other side. It shows what real streams show to
programs: any cutting and joining of what was written, a window that closes when the receiver does
not read, retransmission with back-off while the path is blocked, a time limit after which the
sender gives up, and a reset from a system that has no such connection (any more).

Acknowledgements are not sent as events of their own as long as nothing depends on them. Where the
way back is blocked they are missed, and the retransmission timer runs, as it would.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import TYPE_CHECKING, Any

from ...protocols.machine import Buffer
from ..errors import ConnectionReset, TimedOut, TransportError
from .clock import to_ns

if TYPE_CHECKING:
    from .driver import SimDriver
    from .link import SimLink, SimListener
    from .network import Network
    from .path import Path

FIRST_RETRY = 0.2
"""Seconds after which a lost segment is sent again (Linux' TCP_RTO_MIN)."""

LONGEST_RETRY = 120.0
"""Seconds; the time between retries doubles up to here (Linux' TCP_RTO_MAX)."""

GIVE_UP_AFTER = 924.6
"""Seconds of vain retransmission until a connection times out: what Linux' tcp_retries2=15 comes
to with the two limits above (Documentation/networking/ip-sysctl.rst)."""

_HEADER = 16  # bytes: half of all cuts fall this near to the beginning, where frames have headers
_MOST_CUTS = 3  # of what is sent at once; more would only make simulations slow


class _Fate(enum.Enum):
    FLYING = "flying"
    ARRIVED = "arrived"
    LOST = "lost"


class _Segment:
    __slots__ = ("data", "fate", "fin")

    def __init__(self, data: bytes, *, fin: bool = False) -> None:
        self.data = data
        self.fin = fin
        self.fate = _Fate.FLYING


class EndState(enum.Enum):
    """What an endpoint's own system thinks of it."""

    EMBRYO = "embryo"
    """At the listening side, before the handshake's third segment has arrived."""
    OPEN = "open"
    CLOSED = "closed"
    """Closed by its program, or reset: what still arrives is answered with a reset."""
    VANISHED = "vanished"
    """Its node crashed: nobody answers until the node is up again, and knows nothing then."""


class Endpoint:
    """One end of a connection, in the node's operating system so to say.

    Attributes:
        driver: The node's life that it belongs to.
        link: The program's end, once there is one.
        pipe: What this end sends through.
        state: See `EndState`.
        arrived: Segments that the program has not read.
        unread: Their bytes.
        eof: The peer has ended its direction; comes after `arrived`.
        error: Why the connection has broken, or None.
        drained: The pipe has room again that the link waits for.
    """

    __slots__ = (
        "_noted",
        "arrived",
        "drained",
        "driver",
        "eof",
        "error",
        "link",
        "listener",
        "local_address",
        "peer_address",
        "pipe",
        "state",
        "unread",
        "wants_room",
    )

    pipe: Pipe

    def __init__(self, driver: SimDriver, local_address: str, peer_address: str, state: EndState) -> None:
        self.driver = driver
        self.local_address = local_address
        self.peer_address = peer_address
        self.state = state
        self.link: SimLink[Any] | None = None
        self.listener: SimListener | None = None
        self.arrived: deque[bytes] = deque()
        self.unread = 0
        self.eof = False
        self.error: TransportError | None = None
        self.drained = False
        self.wants_room = False
        self._noted = False

    # -- from the network --------------------------------------------------------------------------

    def note(self) -> None:
        """Have the program's end look at this one in its node's next slice."""
        if not self._noted:
            self._noted = True
            self.driver.add_input(self.ready)

    def ready(self) -> None:
        """Called within the node's slice: give the program what there is."""
        self._noted = False
        if self.link is None:
            listener, self.listener = self.listener, None
            if listener is None or self.state is not EndState.OPEN:
                return
            listener.adopt(self)
        if self.link is not None:
            self.link.ready()

    def deliver(self, data: bytes, *, fin: bool) -> None:
        """A segment has arrived, in order."""
        if self.state is EndState.EMBRYO:
            self.state = EndState.OPEN
        if self.state is not EndState.OPEN:
            return
        if data:
            self.arrived.append(data)
            self.unread += len(data)
        if fin:
            self.eof = True
        self.note()

    def fail(self, error: TransportError, *, lose_unread: bool = False) -> None:
        """The connection is broken for this end."""
        if self.state not in (EndState.OPEN, EndState.EMBRYO):
            self.pipe.stop()
            return
        self.state = EndState.CLOSED
        self.error = error
        self.unread = 0
        self.pipe.stop()
        if lose_unread:
            self.arrived.clear()
        self.driver.forget_endpoint(self)
        self.note()

    def vanish(self) -> None:
        """The node has crashed."""
        self.state = EndState.VANISHED
        self.arrived.clear()
        self.unread = 0
        self.pipe.stop()
        self.link = self.listener = None

    # -- from the program --------------------------------------------------------------------------

    def take(self, limit: int) -> bytes:
        """Read one segment, or as much of it as the limit allows; opens the peer's window."""
        data = self.arrived.popleft()
        if len(data) > limit:
            self.arrived.appendleft(data[limit:])
            data = data[:limit]
        if self.state is EndState.OPEN:
            self.unread -= len(data)
            self.pipe.reverse.window_grew()
        return data

    def close(self, *, reset: bool) -> None:
        """The program is done: say goodbye, or reset where bytes would be lost unnoticed."""
        if self.state is not EndState.OPEN:
            return
        self.state = EndState.CLOSED
        self.driver.forget_endpoint(self)
        if reset or self.arrived:
            self.arrived.clear()
            self.pipe.send_reset()
            self.pipe.stop()
        else:
            self.pipe.finish()
        self.unread = 0


class Pipe:
    """One direction of a connection.

    Attributes:
        name: For the trace.
        encrypted: Whether what it carries is different in each run with the same seed.
        reverse: The other direction.
    """

    __slots__ = (
        "_ack_due",
        "_arrives_after",
        "_fin_sent",
        "_finished",
        "_flight",
        "_flying",
        "_network",
        "_outbox",
        "_path",
        "_retry_after",
        "_retrying_since",
        "_source",
        "_stopped",
        "_target",
        "_unacknowledged",
        "encrypted",
        "name",
        "reverse",
    )

    reverse: Pipe

    def __init__(self, network: Network, name: str, path: Path, source: Endpoint, target: Endpoint) -> None:
        self.name = name
        self.encrypted = False
        self._network = network
        self._path = path
        self._source = source
        self._target = target
        self._outbox = bytearray()  # taken from the program, not sent yet
        self._flight: deque[_Segment] = deque()  # sent, not given to the target yet
        self._flying = 0  # bytes in flight
        self._unacknowledged = 0  # bytes given to the target while the way back was blocked
        self._finished = False  # a FIN follows the outbox
        self._fin_sent = False
        self._stopped = False
        self._ack_due = False  # a window update is on its way to us
        self._arrives_after = 0
        self._retrying_since: int | None = None
        self._retry_after = 0.0

    # -- from the sending end ----------------------------------------------------------------------

    @property
    def room(self) -> int:
        """Bytes that `write` takes."""
        return max(0, self._path.settings.send_buffer - len(self._outbox))

    def write(self, data: Buffer) -> None:
        """Take bytes, at most `room` of them."""
        if self._stopped:
            return
        if not self._outbox and len(data) <= min(self._window(), self._path.segment_limit):
            self._cut_and_launch(bytes(data))
        else:
            self._outbox += data
            self._transmit()

    def finish(self) -> None:
        """End this direction after what has been written."""
        if not self._finished and not self._stopped:
            self._finished = True
            self._transmit()

    def stop(self) -> None:
        """Send nothing more; what is on its way still arrives."""
        self._stopped = True
        self._outbox.clear()
        flight = list(self._flight)
        self._flight.clear()
        for segment in flight:
            if segment.fate is _Fate.LOST:
                break  # it is not sent again, and nothing behind it may be delivered
            self._flight.append(segment)

    def leads_to(self, node: str) -> bool:
        """Whether a node is at the receiving end."""
        return self._path.target == node

    def establish(self) -> None:
        """Send the handshake's third segment."""
        self._launch(_Segment(b""))

    # -- sending -----------------------------------------------------------------------------------

    def _window(self) -> int:
        used = self._flying + self._target.unread + self._unacknowledged
        return self._path.window - used

    def _transmit(self) -> None:
        outbox = self._outbox
        while outbox:
            size = min(len(outbox), self._window(), self._path.segment_limit)
            if size <= 0:
                break
            if size == len(outbox):
                data = bytes(outbox)
                outbox.clear()
            else:
                data = bytes(outbox[:size])
                del outbox[:size]
            self._cut_and_launch(data)
        if not outbox and self._finished and not self._fin_sent:
            self._fin_sent = True
            self._launch(_Segment(b"", fin=True))
        source = self._source
        if source.wants_room and len(outbox) * 2 <= self._path.settings.send_buffer:
            source.wants_room = False
            source.drained = True
            source.note()

    def _cut_and_launch(self, data: bytes) -> None:
        rng = self._network.rng
        if rng.random() < self._path.settings.splitting and len(data) > 1:
            cuts = set()
            for _ in range(1 + int(rng.random() * rng.random() * _MOST_CUTS)):
                near = min(len(data), _HEADER) if rng.random() < 0.5 else len(data)
                cuts.add(1 + int(rng.random() * (near - 1)))
            start = 0
            for cut in sorted(cuts):
                self._launch(_Segment(data[start:cut]))
                start = cut
            data = data[start:]
        self._launch(_Segment(data))

    def _launch(self, segment: _Segment) -> None:
        self._flight.append(segment)
        self._flying += len(segment.data)
        self._depart(segment)

    def _depart(self, segment: _Segment) -> None:
        if self._path.blocked:
            self._lose(segment)
            return
        segment.fate = _Fate.FLYING
        arrival = self._path.arrival(len(segment.data))
        if arrival < self._arrives_after:  # a stream keeps its order
            arrival = self._arrives_after
        self._arrives_after = arrival
        self._network.schedule.at(arrival, self._arrive, segment)

    # -- arriving ----------------------------------------------------------------------------------

    def _arrive(self, segment: _Segment) -> None:
        target = self._target
        if self._path.blocked or (target.state is EndState.VANISHED and not self._target_is_up()):
            self._lose(segment)
            return
        if target.state is EndState.VANISHED or (target.state is EndState.CLOSED and segment.data):
            segment.fate = _Fate.LOST
            if not self.reverse.send_reset():
                self._keep_trying()
            return
        segment.fate = _Fate.ARRIVED
        flight = self._flight
        while flight and flight[0].fate is _Fate.ARRIVED:
            self._hand_over(flight.popleft())

    def _hand_over(self, segment: _Segment) -> None:
        size = len(segment.data)
        self._flying -= size
        network = self._network
        what = f"{self.name} {'end' if segment.fin else 'data'}"
        network.trace.data(network.schedule.ns, what, segment.data, encrypted=self.encrypted)
        self._target.deliver(segment.data, fin=segment.fin)
        if self.reverse._path.blocked:
            self._unacknowledged += size
            self._keep_trying()

    def _target_is_up(self) -> bool:
        return self._network.is_up(self._path.target)

    def window_grew(self) -> None:
        """The target has read something: tell the sender, if it waits for that."""
        if self._outbox and not self._ack_due:
            back = self.reverse._path
            if back.blocked:
                self._keep_trying()
                return
            self._ack_due = True
            self._network.schedule.at(back.arrival(0), self._window_update_arrived)

    def _window_update_arrived(self, _: None) -> None:
        self._ack_due = False
        if self.reverse._path.blocked:
            self._keep_trying()
        else:
            self._transmit()

    # -- losses and retransmission -----------------------------------------------------------------

    def _lose(self, segment: _Segment) -> None:
        segment.fate = _Fate.LOST
        self._keep_trying()

    def _keep_trying(self) -> None:
        """Start the retransmission timer, unless it runs."""
        if self._retrying_since is None and not self._stopped:
            self._retrying_since = self._network.schedule.ns
            self._retry_after = FIRST_RETRY
            self._network.schedule.after(to_ns(FIRST_RETRY), self._retry)

    def target_vanished(self) -> None:
        """The receiving node has crashed: what waits for a window must find that out."""
        if self._outbox or self._unacknowledged:
            self._keep_trying()

    def _retry(self, _: None) -> None:
        since = self._retrying_since
        if since is None or self._stopped or not self._has_something_unsure():
            self._retrying_since = None
            return
        network = self._network
        forth = not self._path.blocked and self._target_is_up()
        if forth and not self.reverse._path.blocked:
            self._retrying_since = None
            self._unacknowledged = 0
            self._resend()
            self._transmit()
            return
        if network.schedule.ns - since >= to_ns(GIVE_UP_AFTER):
            self._give_up()
            return
        if forth:
            self._resend()
        self._retry_after = min(2 * self._retry_after, LONGEST_RETRY)
        network.schedule.after(to_ns(self._retry_after), self._retry)

    def _has_something_unsure(self) -> bool:
        return bool(self._flight or self._unacknowledged or self._outbox)

    def _resend(self) -> None:
        lost = [segment for segment in self._flight if segment.fate is _Fate.LOST]
        if not lost and self._target.state is EndState.VANISHED:
            self.reverse.send_reset()
        for segment in lost:
            self._depart(segment)

    def _give_up(self) -> None:
        self._retrying_since = None
        self._flight.clear()
        self._network.note(f"{self.name} timed out")
        error = f"the peer acknowledged nothing for {GIVE_UP_AFTER:g} s"
        self._source.fail(TimedOut(error, address=self._source.peer_address))

    # -- resets ------------------------------------------------------------------------------------

    def send_reset(self) -> bool:
        """Send a reset this way; returns whether it got off."""
        if self._path.blocked:
            return False
        arrival = max(self._arrives_after, self._path.arrival(0))
        self._arrives_after = arrival
        self._network.schedule.at(arrival, self._reset_arrived)
        return True

    def _reset_arrived(self, _: None) -> None:
        if not self._path.blocked:
            self._network.note(f"{self.name} reset")
            self.break_target()
        elif self.reverse._flight:
            self.reverse._keep_trying()

    def break_target(self) -> None:
        """Let the target find its connection reset; what it has not read may be lost (RFC 9293)."""
        lose = bool(self._target.arrived) and self._network.rng.random() < 0.5
        self.reverse._flight.clear()
        error = ConnectionReset("the peer reset the connection", address=self._target.peer_address)
        self._target.fail(error, lose_unread=lose)
