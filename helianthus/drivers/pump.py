"""The pump: joins a machine to a transport, the same way on every driver.

Inputs go to the machine as they arrive, and the events they cause go to the handler at once.
Output waits: whoever gives a machine commands calls `wake()`, and at the end of the tick the
driver calls `settle()` once on each link that was woken. A hundred replies made during one tick
so share one system call.

Data is taken from the machine only while the transport takes it. What the transport leaves over
stays in the link, which is *clogged*; until that is gone, further output stays in the machine, whose
own limits and `wants_read` answer a peer that does not read. (The pump itself never stops reading
because its output is stuck: with both ends doing that, two peers with full buffers wait for each
other for ever. Only the machine knows which output was caused by input.)

`Link._feed` and `Link.settle` run once or twice for every read of every link, and are therefore
written out: what is a method elsewhere costs them a tenth of a sequential call's time.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, TypeVar

from ..protocols.errors import LocalProtocolError
from ..protocols.machine import Buffer, Closing, LeasingMachine, StreamMachine
from .host import Host as Host
from .link_output import LinkOutput
from .link_state import CLOSED, CONNECTING, ENDING, GONE, LINGERING, OPEN
from .timers import Timer

if TYPE_CHECKING:
    from .base import Driver, LinkHandler
    from .lease import Lease

E = TypeVar("E")

LINGER = 1.0
"""Seconds that a link we close goes on discarding input, so that the peer gets our last bytes:
closing a socket with unread input resets it, and a reset destroys what is in flight."""


_PORTION = 6 * 1024
_PORTIONED_FROM = 2048
_MANY = 8
"""Many messages that were read at once are handled in portions of so many bytes, halves at the
most, with a settling after each. Two ends which each handle all that has come and then send all
their answers take turns, and one core of two is always idle: with a thousand calls in flight,
portions made them more than twice as many a second. Where a portion brings only a few events, the
messages are large, and the rest is handled at once."""

_SETTLE_AT = 32 * 1024
"""Bytes read at once from which a link is settled before it reads on. Many large pieces that wait
for the end of the tick are freed together, the allocator gives their pages back to the kernel, and
every tick takes page faults anew: without this a 64 KiB echo ran at a third of its speed."""


_STAYS_OPEN = Closing.OPEN  # an attribute of an enum costs several times as much to look up


def _sends_after_half_close(machine: object) -> LocalProtocolError:
    return LocalProtocolError(f"{type(machine).__name__} gave data after it had closed its half")


class Link(LinkOutput[E]):
    """One connection: a stream machine, its handler and a transport.

    A driver's subclass moves bytes: it calls `_connected`, `_received`, `_received_eof`,
    `_drained` and `_lost`, and provides `_send`, `_shut_down_writing`, `_close_transport`,
    `_pause_reading` and `_resume_reading`. Where `_leasing` is true it calls `_received_lease` in
    place of `_received`, with a lease of `driver.buffers`. It calls them from its event loop only, never from
    within one of these, so that the handler is not called while it is being called.

    Attributes:
        local_address: Our end as `host:port`, empty until connected.
        peer_address: The other end as `host:port`.
        portioned: Whether many messages that were read at once are handled in portions. A handler
            whose machine knows no messages may turn that off.
    """

    __slots__ = (
        "_end_error",
        "_eof",
        "_held",
        "_held_due",
        "_held_eof",
        "_leasing",
        "_linger_timer",
        "_reading",
        "portioned",
    )

    def __init__(
        self, driver: Driver, machine: StreamMachine[E], handler: LinkHandler[E], peer_address: str
    ) -> None:
        super().__init__(driver, machine, handler, peer_address)
        self.portioned = True
        self._end_error: Exception | None = None
        self._eof = False
        self._held = b""  # has been read, but the machine wanted no more
        self._held_eof = False  # and so has the end of the stream behind it
        self._held_due = False
        self._reading = True
        self._leasing = hasattr(machine, "receive_lease")  # the machine keeps what it receives
        self._linger_timer: Timer | None = None

    def wake(self) -> None:
        """Have what commands caused sent and handed over at the end of this tick."""
        if not self.woken and self._state is not CONNECTING:
            self.woken = True
            self._driver._settle_soon(self)

    def close(self) -> None:
        """Same as `abort()`. To end a link in good order, tell the machine."""
        self.abort()

    def abort(self, error: Exception | None = None, *, reset: bool = False) -> None:
        """End the link at once; what is queued is dropped.

        The handler hears `on_closed(error)` at the end of this tick, because it may be the handler
        that calls this.

        Args:
            error: Why, unless all is well.
            reset: Whether the peer is to find the connection reset, so that it does not take this for
                the end of the stream; what is in flight may be lost then. So it is where there is an
                error. The sockets of paths know no reset.
        """
        if self._end(error, reset=reset):
            self._driver._settle_soon(self)

    # -- what the platform's part provides ---------------------------------------------------

    @abstractmethod
    def _shut_down_writing(self) -> None:
        """End our direction; called once, with nothing left to send."""

    @abstractmethod
    def _close_transport(self, *, reset: bool) -> None:
        """Free the transport, so that the peer finds it reset if `reset`; nothing is called after this."""

    def _pause_reading(self) -> None:
        """`_reading` has become false; a platform that looks at it before it reads needs no more."""

    @abstractmethod
    def _resume_reading(self) -> None:
        """`_reading` has become true: what arrived meanwhile is to be read."""

    # -- inputs from the platform's part ------------------------------------------------------

    def _connected(self, local_address: str, peer_address: str) -> None:
        self._state = OPEN
        self.local_address = local_address
        self.peer_address = peer_address
        try:
            self._handler.on_ready(self)
            self._heed_wants_read()
        except Exception as error:  # noqa: BLE001 - reported, and only this link ends
            self._fault(error)
            return
        self.wake()

    def _received(self, data: Buffer) -> None:
        """Take what has been read, in portions where it may be many messages."""
        size = len(data)
        self.bytes_in += size
        if size >= _PORTIONED_FROM and self.portioned:
            view = memoryview(data)
            portion = min(size // 2, _PORTION)
            start = 0
            while start < size - portion:
                many = self._feed(view[start : start + portion]) >= _MANY
                start += portion
                if not self._reading:
                    self._held = bytes(view[start:])
                    return
                if not many:
                    break
                self.settle()
                self.woken = True  # still: the driver is to settle it at the end of the tick
            data = view[start:]
        self._feed(data)
        if size >= _SETTLE_AT:
            self.settle()

    def _take_held(self) -> None:
        """The machine wants to read again: first what has been read already."""
        self._held_due = False
        if self._state is not OPEN or not self.machine.wants_read:
            return
        held, self._held = self._held, b""
        self._reading = True
        self.bytes_in -= len(held)  # it has been counted
        if self._leasing:
            self._received_lease(self._driver.buffers.adopt(held))
        else:
            self._received(held)
        if self._held_eof and not self._held:
            self._received_eof()
        elif self._reading and not self.closed:
            self._resume_reading()

    def _feed(self, data: Buffer) -> int:
        """Give the machine input, and its events to the handler; returns how many there were."""
        if self._state is not OPEN:
            return 0  # lingering: what the peer still sends is discarded
        if not self.woken:  # first, so that handlers which wake the link find that done
            self.woken = True
            self._driver._settle_soon(self)
        machine = self.machine
        try:
            machine.receive_data(data, self._driver.now())
            actions = machine.take_actions()
            if actions:
                self._handler.on_actions(actions)
            events = machine.take_events()
            count = len(events)
            if events:
                self._handler.on_events(events)
            if not machine.wants_read:
                self._heed_wants_read()
        except Exception as error:  # noqa: BLE001 - reported, and only this link ends
            self._fault(error)
            return 0
        return count

    def _received_lease(self, lease: Lease) -> None:
        """Give a machine that keeps what it receives input, and the memory with it."""
        self.bytes_in += len(lease)
        if self._state is not OPEN:
            lease.release()
            return
        self.wake()
        machine: LeasingMachine[E] = self.machine  # type: ignore[assignment]  # `_leasing` says so
        try:
            machine.receive_lease(lease, self._driver.now())
            self._hand_over_actions()
            self._hand_over_events()
            self._heed_wants_read()
        except Exception as error:  # noqa: BLE001 - reported, and only this link ends
            self._fault(error)

    def _received_eof(self) -> None:
        if self._state is LINGERING:
            self._lost(None)
        if self._state is not OPEN or self._eof:
            return
        if self._held:
            self._held_eof = True
            return
        self._eof = True
        try:
            self.machine.receive_eof(self._driver.now())
            self._hand_over_actions()
            self._hand_over_events()
        except Exception as error:  # noqa: BLE001 - reported, and only this link ends
            self._fault(error)
            return
        self.wake()

    def _lost(self, error: Exception | None) -> None:
        """The transport is gone, or is to be gone: tell machine and handler, once."""
        if self._end(error):
            self._tell_end()

    def _end(self, error: Exception | None, *, reset: bool = False) -> bool:
        """Free the transport and the timers; false where that has been done."""
        if self.closed:
            return False
        self._state = ENDING
        self._end_error = error
        self.woken = True  # never settled again, but for the end
        self._disarm()
        for timer in (self._write_timer, self._linger_timer):
            if timer is not None:
                timer.cancel()
        self._write_timer = self._linger_timer = None
        self._driver._link_ended(self)
        self._close_transport(reset=reset or error is not None)
        return True

    def _tell_end(self) -> None:
        self._state = CLOSED
        error = self._end_error
        try:
            self.machine.connection_lost(error, self._driver.now())
            self._hand_over_actions()
            self._hand_over_events()
        except Exception as fault:  # noqa: BLE001 - reported; the handler must still hear of the end
            self._driver.on_error(fault)
        if self._files is not None:
            self._files.fail(error, self._driver.on_error)
        try:
            self._handler.on_closed(error)
        except Exception as fault:  # noqa: BLE001 - reported; nothing is left to end
            self._driver.on_error(fault)

    def _fault(self, error: Exception) -> None:
        """A machine or handler let an exception out: report it and end this link only."""
        self._driver.on_error(error)
        self._lost(error)

    # -- output, once per tick ----------------------------------------------------------------

    def settle(self) -> bool:
        """Drain the machine: actions, data, deadline, events; then close as it wants."""
        if self._state is not OPEN:
            return self._settle_ended()
        self.woken = False
        machine = self.machine
        called = False
        try:
            actions = machine.take_actions()
            if actions:
                called = True
                self._handler.on_actions(actions)
            if not self._clogged and self._state is OPEN:
                data = machine.take_data()
                if data:
                    if self._half_closed:
                        raise _sends_after_half_close(machine)
                    self._send(data)
            elif self._files is not None:
                called = True
                self._send_files(self._files)
                if not self._clogged:
                    return True  # settled again soon: what the machine has comes before its end
            if machine.closing is not _STAYS_OPEN and self._state is OPEN:
                self._follow(machine.closing)
            if self._state is OPEN:
                if machine.wants_read is not self._reading:
                    self._heed_wants_read()
                deadline = machine.deadline()
                if deadline is not None and ((timer := self._timer) is None or timer.when > deadline):
                    self._arm()
            if self._state not in GONE:  # a link that lingers has nothing to send, but something to say
                events = machine.take_events()
                if events:
                    self._handler.on_events(events)
                    return True
        except Exception as error:  # noqa: BLE001 - reported, and only this link ends
            self._fault(error)
        return called or self._state is not OPEN

    def _settle_ended(self) -> bool:
        """Tell the end of a link that was aborted."""
        if self._state is not ENDING:
            return False
        self._tell_end()
        return True

    def _heed_wants_read(self) -> None:
        wanted = self.machine.wants_read
        if wanted == self._reading or self.closed:
            return
        if not wanted:
            self._reading = False
            self._pause_reading()
        elif not self._held:
            self._reading = True
            self._resume_reading()
        elif not self._held_due:
            self._held_due = True
            self._driver.post(self._take_held)  # not from within a settling

    def _follow(self, closing: Closing) -> None:
        if closing is Closing.ABORT:
            self._lost(None)
        elif self._clogged:
            return
        elif self._high and self.unsent:
            self._set_limits(0, 0)  # the end waits until nothing does
        elif closing is Closing.HALF:
            if not self._half_closed:
                self._half_closed = True
                self._shut_down_writing()
            if self._eof:  # both halves have ended: nothing can come of this link any more
                self._lost(None)
        else:
            self._linger()

    def _linger(self) -> None:
        if self._eof or self._held_eof:
            self._lost(None)
            return
        self._state = LINGERING
        self._held = b""
        self._disarm()
        driver = self._driver
        self._linger_timer = driver.call_at(driver.now() + LINGER, lambda: self._lost(None))
        if not self._half_closed:
            self._half_closed = True
            self._shut_down_writing()
        if not self.closed and not self._reading:
            self._reading = True
            self._resume_reading()
