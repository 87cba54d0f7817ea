"""The machines that the conformance suite runs; each does one thing."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from typing import Any

import attrs

from helianthus.protocols.machine import Action, Buffer, Closing, Outcome


@attrs.define
class Received:
    """Bytes came."""

    data: bytes


@attrs.define
class Ended:
    """The peer ended its direction."""


@attrs.define
class Taken:
    """The driver took everything that was offered."""


class PlainMachine:
    """A machine with nothing to say; the others override what they are about."""

    def __init__(self) -> None:
        self.wants_read = True
        self.closing = Closing.OPEN
        self.events: list[Any] = []
        self.actions: list[Action] = []
        self.lost: list[Exception | None] = []

    def deadline(self) -> float | None:
        return None

    def handle_timeout(self, now: float) -> None:
        pass

    def take_events(self) -> list[Any]:
        events, self.events = self.events, []
        return events

    def take_actions(self) -> list[Action]:
        actions, self.actions = self.actions, []
        return actions

    def complete(self, action_id: int, outcome: Outcome, now: float) -> None:
        raise AssertionError("nobody asked for an action")

    def receive_data(self, data: Buffer, now: float) -> None:
        pass

    def receive_eof(self, now: float) -> None:
        pass

    def connection_lost(self, error: Exception | None, now: float) -> None:
        self.lost.append(error)

    def take_data(self) -> list[Buffer]:
        return []


class EchoMachine(PlainMachine):
    """Gives back what it receives; ends when the peer ends."""

    def __init__(self) -> None:
        super().__init__()
        self._output: list[Buffer] = []

    def receive_data(self, data: Buffer, now: float) -> None:
        self._output.append(bytes(data))

    def receive_eof(self, now: float) -> None:
        self.closing = Closing.FULL

    def take_data(self) -> list[Buffer]:
        output, self._output = self._output, []
        return output


class TalkingMachine(PlainMachine):
    """Sends what it is told to, and keeps what it receives.

    Attributes:
        received: All bytes so far.
        takes: How often `take_data` gave something.
        ended: Whether the peer ended its direction.
    """

    def __init__(self, *to_send: Buffer) -> None:
        super().__init__()
        self.received = bytearray()
        self.receipts = 0
        self.takes = 0
        self.ended = False
        self._output: list[Buffer] = list(to_send)

    def say(self, data: Buffer) -> None:
        self._output.append(data)

    def receive_data(self, data: Buffer, now: float) -> None:
        self.received += data
        self.receipts += 1
        self.events.append(Received(bytes(data)))

    def receive_eof(self, now: float) -> None:
        self.ended = True
        self.events.append(Ended())

    def take_data(self) -> list[Buffer]:
        output, self._output = self._output, []
        self.takes += bool(output)
        return output


class JournalMachine(TalkingMachine):
    """Writes every call that the driver makes into a journal that it shares with its handler."""

    def __init__(self, journal: list[str], *to_send: Buffer) -> None:
        super().__init__(*to_send)
        self._journal = journal

    def deadline(self) -> float | None:
        self._journal.append("deadline")
        return super().deadline()

    def take_events(self) -> list[Any]:
        self._journal.append("take_events")
        return super().take_events()

    def take_actions(self) -> list[Action]:
        self._journal.append("take_actions")
        return super().take_actions()

    def receive_data(self, data: Buffer, now: float) -> None:
        self._journal.append("receive_data")
        super().receive_data(data, now)

    def receive_eof(self, now: float) -> None:
        self._journal.append("receive_eof")
        super().receive_eof(now)

    def connection_lost(self, error: Exception | None, now: float) -> None:
        self._journal.append("connection_lost")
        super().connection_lost(error, now)

    def take_data(self) -> list[Buffer]:
        self._journal.append("take_data")
        return super().take_data()


class BulkMachine(PlainMachine):
    """Sends a long stream in pieces, and checks one that it receives.

    It holds one piece at a time, and says `Taken` when the driver has taken it; the handler then
    offers the next. The peer's stream may be as long as it likes.

    Attributes:
        checksum_sent, checksum_received: CRC-32 of what went through.
        sent, received: Bytes that went through.
    """

    def __init__(self, total: int, piece: int, seed: int) -> None:
        super().__init__()
        self._piece = hashlib.shake_128(seed.to_bytes(8, "big")).digest(piece)
        self._left = total
        self._offered: bytes = b""
        self.takes = 0
        self.sent = 0
        self.received = 0
        self.checksum_sent = 0
        self.checksum_received = 0
        self.ended = False

    def offer(self) -> None:
        """Put the next piece before the driver; at the stream's end, end this direction."""
        if self._left:
            self._offered = self._piece[: self._left]
            self._left -= len(self._offered)
        else:
            self.closing = Closing.HALF

    def receive_data(self, data: Buffer, now: float) -> None:
        self.received += len(data)
        self.checksum_received = zlib.crc32(data, self.checksum_received)

    def receive_eof(self, now: float) -> None:
        self.ended = True

    def take_data(self) -> list[Buffer]:
        if not self._offered:
            return []
        data, self._offered = self._offered, b""
        self.takes += 1
        self.sent += len(data)
        self.checksum_sent = zlib.crc32(data, self.checksum_sent)
        self.events.append(Taken())
        return [data]


class DeadlineMachine(TalkingMachine):
    """Wants to be told the time; each message it receives moves that time.

    Attributes:
        due: The deadline.
        told: Each time it was told, as (deadline, now).
    """

    def __init__(self, due: float | None = None, *, move_on_data: float | None = None) -> None:
        super().__init__()
        self.due = due
        self.told: list[tuple[float | None, float]] = []
        self._move_on_data = move_on_data

    def deadline(self) -> float | None:
        return self.due

    def handle_timeout(self, now: float) -> None:
        self.told.append((self.due, now))
        if self.due is not None and self.due <= now:
            self.due = None
            self.events.append(Ended())

    def receive_data(self, data: Buffer, now: float) -> None:
        super().receive_data(data, now)
        if self._move_on_data is not None:
            self.due = now + self._move_on_data


class StuckMachine(TalkingMachine):
    """Breaks the rule that `handle_timeout` moves the deadline."""

    def __init__(self, due: float) -> None:
        super().__init__()
        self._due = due
        self.told = 0

    def deadline(self) -> float | None:
        return self._due

    def handle_timeout(self, now: float) -> None:
        self.told += 1


class ActingMachine(TalkingMachine):
    """Wants one action done for every `ask`, and keeps the outcomes."""

    def __init__(self) -> None:
        super().__init__()
        self.outcomes: list[tuple[int, Outcome, float]] = []
        self._asked = 0

    def ask(self) -> None:
        self._asked += 1
        self.actions.append(Action(self._asked))

    def complete(self, action_id: int, outcome: Outcome, now: float) -> None:
        self.outcomes.append((action_id, outcome, now))
        self.events.append(Received(b"%d" % action_id))


class Fault(Exception):
    """What a broken machine, handler or callback raises in these tests."""


class BrokenMachine(TalkingMachine):
    """Raises in one of its methods, from the moment it receives anything."""

    def __init__(self, method: str) -> None:
        super().__init__()
        self._method = method
        if method == "receive_data":
            self._break()

    def receive_data(self, data: Buffer, now: float) -> None:
        super().receive_data(data, now)
        self._break()

    def _break(self) -> None:
        setattr(self, self._method, _raiser(self._method))


def _raiser(name: str) -> Callable[..., Any]:
    def broken(*_: Any) -> Any:
        raise Fault(name)

    return broken
