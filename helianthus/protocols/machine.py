"""The one contract between a protocol machine and whatever drives it.

A machine is plain state. Bytes, the time and the results of actions go in through methods;
bytes, a deadline, actions and events come out when they are asked for. It does no I/O, reads
no clock, starts no thread and calls nobody back, so that the same machine runs on epoll, inside
asyncio, in a simulator, or between two lines of a unit test.

Rules every machine keeps, and every driver relies on:

* Any number of inputs and commands may come before the outputs are drained.
* Outputs are drained in the order actions, data, deadline, events, so that whoever handles an
  event meets a machine that has settled.
* End of stream, loss of the connection and data are three inputs, never one overloaded value.
* A peer's fault never raises. What was understood before it stays in the event list, one last
  `ConnectionFailed` follows, and `closing` says how to end the link. A caller's mistake raises
  `LocalProtocolError` and leaves the state as it was.
* `handle_timeout` may come early, late or for nothing; afterwards `deadline()` is later than
  `now` or None.
* Every queue, frame and table is bounded, and a bound is checked before memory is taken.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Protocol, TypeAlias, TypeVar

import attrs

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Bytes as a machine takes or gives them."""

DatagramAddress: TypeAlias = tuple[str, int]
"""Where a datagram came from or goes to: an IP address (in the simulator a node's name) and a port.

An IPv6 address with a zone is written with it, `fe80::1%2`."""

E = TypeVar("E")


class Closing(enum.Enum):
    """How the driver is to end a link, once the machine's output has been flushed."""

    OPEN = "open"
    """Nothing ends."""
    HALF = "half"
    """Send what is queued, then end our direction; keep reading."""
    FULL = "full"
    """Send what is queued, then close."""
    ABORT = "abort"
    """Close at once; what is queued is dropped."""


@attrs.define
class Action:
    """Something a machine wants done that is not bytes on its own stream.

    Attributes:
        id: Given back with the outcome in `Machine.complete`; unique within the machine.
    """

    id: int


@attrs.define
class Outcome:
    """What came of an action.

    Attributes:
        value: The result; its type belongs to the action.
        error: Why the action failed, or None where it succeeded.
    """

    value: object = None
    error: Exception | None = None


@attrs.define
class ConnectionFailed:
    """The last event of a stream machine whose peer broke the protocol or a limit.

    Attributes:
        error: What the peer did, to which limit or rule.
    """

    error: Exception


class Machine(Protocol[E]):
    """Anything with state and a sense of time: a session, a broker, a registry, a breaker."""

    def deadline(self) -> float | None:
        """The monotonic time in seconds at which to call `handle_timeout`, or None. Pure."""

    def handle_timeout(self, now: float) -> None:
        """Tell the machine the time; a no-op before its deadline."""

    def take_events(self) -> list[E]:
        """Hand over the events since the last call; the list belongs to the caller."""

    def take_actions(self) -> list[Action]:
        """Hand over the actions since the last call; each is answered by one `complete`."""

    def complete(self, action_id: int, outcome: Outcome, now: float) -> None:
        """Give back the outcome of an action. An unknown id raises `LocalProtocolError`."""


class StreamMachine(Machine[E], Protocol[E]):
    """One end of one ordered byte stream."""

    @property
    def wants_read(self) -> bool:
        """False while the machine cannot take more input: the driver stops reading."""

    @property
    def closing(self) -> Closing:
        """How the link is to end once the machine's output is flushed."""

    def receive_data(self, data: Buffer, now: float) -> None:
        """Take bytes from the peer. The caller may reuse `data` when this returns."""

    def receive_eof(self, now: float) -> None:
        """The peer will send nothing more; it may still read."""

    def connection_lost(self, error: Exception | None, now: float) -> None:
        """The transport is gone in both directions; `error` is None after a clean close."""

    def take_data(self) -> list[Buffer]:
        """Hand over bytes to send; called only when the transport can take more."""


class LeasedBuffer(Protocol):
    """Memory that its holder owns until it is released, as a driver's buffer pool lends it."""

    @property
    def view(self) -> memoryview:
        """The bytes; the view can be used no more after the release."""

    def slice(self, start: int, stop: int) -> LeasedBuffer:
        """Make another owner, of the bytes from `start` to before `stop`."""

    def release(self) -> None:
        """Give the memory back, once every other owner has done so. Once only."""

    def __len__(self) -> int:
        """How many bytes."""


class LeasingMachine(StreamMachine[E], Protocol[E]):
    """A stream machine that keeps what it receives, without copying it.

    A driver that finds `receive_lease` calls it in place of `receive_data`, and reads into memory
    that it does not use again before the lease has been released.
    """

    def receive_lease(self, lease: LeasedBuffer, now: float) -> None:
        """Take bytes from the peer, and the memory that they are in.

        Whoever gets the lease, or slices of it, from the machine releases each of them once.
        """


class LayerMachine(StreamMachine[E], Protocol[E]):
    """A stream machine that changes the bytes of another, as TLS does.

    A driver that sends a file finds `write_through`, and has every byte of the file go through it.
    Without it the file would go past the layer.
    """

    def write_through(self, data: Buffer) -> list[Buffer]:
        """Give bytes of a file as they go on the wire, behind all that `take_data` has given.

        What the child has given since goes out later. No bytes ask whether there could be some.

        Raises:
            LocalProtocolError: The layer cannot send any now. Nothing changes.
        """


class DatagramMachine(Machine[E], Protocol[E]):
    """One end of any number of datagram conversations."""

    def receive_datagrams(self, batch: Sequence[tuple[Buffer, DatagramAddress]], now: float) -> None:
        """Take datagrams in the order they arrived. The caller may reuse their buffers when this returns."""

    def receive_error(self, error: OSError, address: DatagramAddress | None, now: float) -> None:
        """Hear that a datagram was lost, and why. Nothing ends by that: the socket goes on.

        Args:
            error: One of `drivers.errors`. `ConnectionRefused`: nobody is bound at the address (ICMP
                port unreachable). `Unreachable`: no route leads there. `MessageTooLarge`: what came
                from the address was larger than allowed and is not delivered, or what was to be sent
                there does not fit. Others: the system refused to send.
            address: Whom the datagram was for, or came from. None where the system does not tell.
            now: Monotonic seconds.
        """

    def take_datagrams(self, limit: int = 64) -> list[tuple[bytes, DatagramAddress]]:
        """Hand over at most `limit` datagrams to send; fewer mean that there are no more.

        Called only when the transport can take more.
        """
