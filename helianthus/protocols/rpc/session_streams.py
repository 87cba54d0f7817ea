"""The streams of a session's calls: items both ways, their credit and their ends."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from ..errors import LocalProtocolError, RemoteProtocolError
from ..machine import Closing
from .events import CreditGranted, Flow, ItemReceived, RpcEvent, StreamEnded
from .messages import read_msgid
from .overflow import Overflow
from .session_base import SessionBase
from .session_state import SessionState
from .stream_state import StreamState
from .wire import CREDIT, END, ITEM, MAX_MSGID, malformed


class StreamingSession(SessionBase):
    """What `RpcSession` has to do with streams."""

    # -- commands: streams -----------------------------------------------------------------------

    def credit(self, msgid: int) -> int:
        """How many items may be sent on a call's stream now."""
        stream = self._streams.get(msgid)
        return stream.credit if stream is not None and stream.sending else 0

    def send_item(self, msgid: int, item: Any) -> int:
        """Send a stream item.

        Returns:
            Bytes of the message.

        Raises:
            LocalProtocolError: The stream is over or not ours to send on, there is no credit
                (wait for `CreditGranted`), or the item cannot be encoded. With another policy than
                "block" credit is not asked for; with "disconnect" the connection may fail.
        """
        stream = self._streams.get(msgid)
        if stream is None:
            raise LocalProtocolError(f"call {msgid} has no open stream")
        if self._overflow is not None and stream.sending:
            return self._send_without_waiting(self._overflow, msgid, stream, item)
        if not stream.sending or stream.credit < 1:
            raise stream.refusal(msgid)
        data = self._encode((ITEM, msgid, item))
        output, size = self.output, len(data)
        if output.size + size > self.limits.max_queued_output:
            raise self._no_room(size)
        stream.credit -= 1
        output.chunks.append(data)
        output.size += size
        if not stream.ours:
            self._ping_judge.replied()
        return size

    def _send_without_waiting(self, overflow: Overflow, msgid: int, stream: StreamState, item: Any) -> int:
        data = self._encode((ITEM, msgid, item))
        if self._make_room(overflow, len(data), stream):
            overflow.add_item(msgid, stream, data)
            if not stream.ours:
                self._ping_judge.replied()
        return len(data)

    def _make_room(self, overflow: Overflow, size: int, stream: StreamState | None = None) -> bool:
        """Make room for a message that may be dropped; False where it is, for want of older ones.

        Raises:
            LocalProtocolError: The policy is to end the connection, which has been done.
        """
        if not overflow.disconnects:
            fits = overflow.make_room(size, stream)
            while overflow.released:
                msgid = overflow.released.pop()
                self._follow_items(msgid, self._streams[msgid])
            return fits
        if overflow.fits(size):
            return True
        error = overflow.fault(size)
        reason = str(error)
        self._fail(error, Closing.ABORT)
        raise LocalProtocolError(reason)

    def end_stream(self, msgid: int) -> None:
        """End the caller's half of a call's stream; repeated, or after the call, it does nothing."""
        stream = self._streams.get(msgid)
        if stream is not None and stream.ours and stream.sending:
            stream.sending = False
            if stream.waiting:
                stream.end_due = True
            else:
                self._emit((END, msgid))

    def consumed(self, msgid: int, size: int, items: int = 1) -> None:
        """Items have been taken: the peer may send others in their place.

        Every item must be consumed, also one of a call that has ended: reading pauses while too
        many are not.

        Args:
            msgid: As in their `ItemReceived`.
            size: The sum of those in their `ItemReceived`.
            items: How many they are.

        Raises:
            LocalProtocolError: More was consumed than came.
        """
        if self.state is SessionState.ENDED:
            return
        if not 0 < size <= self._buffered_items or items < 1:
            raise LocalProtocolError(f"no item of {size} bytes on call {msgid} is left to consume")
        stream = self._streams.get(msgid)
        granted = stream.grant(msgid, items) if stream is not None else 0
        self._buffered_items -= size
        if granted:
            self._emit((CREDIT, msgid, granted))

    # -- messages: streams ----------------------------------------------------------------------------

    def _on_item(self, message: list[Any], now: float) -> None:
        stream = self._streams.get(message[1]) if len(message) == 3 and message[1].__class__ is int else None
        if stream is None:
            read_msgid(message, 3)
            return  # the call ended while the item was under way
        msgid = message[1]
        if not stream.receiving or stream.owed < 1:
            raise stream.fault(msgid)
        stream.owed -= 1
        size = self._decoder.size
        self._buffered_items += size
        self._events.append(ItemReceived(msgid, message[2], size))

    def _on_end(self, message: list[Any], now: float) -> None:
        msgid = read_msgid(message, 2)
        stream = self._streams.get(msgid)
        if stream is not None and not stream.ours and stream.receiving:
            stream.receiving = False
            self._events.append(StreamEnded(msgid))

    def _on_credit(self, message: list[Any], now: float) -> None:
        msgid = read_msgid(message, 3)
        granted = message[2]
        if granted.__class__ is not int or not 0 < granted <= MAX_MSGID:
            raise malformed(message)
        stream = self._streams.get(msgid)
        if stream is not None and (stream.sending or stream.waiting):
            starved = stream.credit == 0
            stream.credit += granted
            if self._overflow is not None:
                self._release_waiting(self._overflow, msgid, stream)
            elif starved:
                self._events.append(CreditGranted(msgid))

    def _release_waiting(self, overflow: Overflow, msgid: int, stream: StreamState) -> None:
        """Let items go that have waited for credit, and what was to follow them."""
        overflow.release(msgid, stream)
        if not stream.waiting:
            self._follow_items(msgid, stream)

    def _follow_items(self, msgid: int, stream: StreamState) -> None:
        """Nothing waits for credit any more: send what has waited for that."""
        if stream.end_due:
            stream.end_due = False
            self._emit((END, msgid))
        if stream.answer is not None:
            self._answer_after_items(msgid, stream)

    def _answer_after_items(self, msgid: int, stream: StreamState) -> None:
        """Give an answer that has waited for the items before it."""
        answer, stream.answer = stream.answer, None
        if answer is not None:
            self._reply(msgid, answer)

    @abstractmethod
    def _reply(self, msgid: int, data: bytes) -> None:
        """Answer a request."""

    def _begin_stream(self, msgid: int, flow: Flow) -> bool:
        """Begin a stream of the peer's; false where there are too many."""
        if self.peer is None:
            raise RemoteProtocolError(f"the peer opened stream {msgid} before it announced the extensions")
        if msgid % 2 == self._initiator:
            raise RemoteProtocolError(
                f"the peer opened stream {msgid}; whoever opened the connection uses odd ids, "
                "the other side even ones"
            )
        if self._open_streams(ours=False) >= self.limits.max_streams:
            return False
        window = self.limits.stream_window if flow & Flow.FROM_CALLER else 0
        self._streams[msgid] = StreamState(flow, ours=False, window=window, credit=self.peer.credit)
        return True

    def _open_streams(self, *, ours: bool) -> int:
        return sum(stream.ours is ours for stream in self._streams.values())

    def _drop_stream_events(self, msgid: int) -> None:
        """Take back what has been said of a call of ours and not been heard yet."""
        kept: list[RpcEvent] = []
        for event in self._events:
            if not isinstance(event, ItemReceived | CreditGranted) or event.msgid != msgid:
                kept.append(event)
            elif isinstance(event, ItemReceived):
                self._buffered_items -= event.size
        self._events = kept

    def _close_peers_stream(self, msgid: int, answer: bytes) -> bool:
        """The peer's stream with this id is over; a foreign peer's call may have the id of our own.

        Returns:
            Whether it is so: False where the answer has to wait for items before it.

        Raises:
            LocalProtocolError: An answer waits for that already.
        """
        stream = self._streams.get(msgid)
        if stream is not None and not stream.ours:
            if stream.answer is not None:
                raise LocalProtocolError(f"request {msgid} has been answered; the answer waits for items")
            if stream.waiting:
                stream.sending = False
                stream.answer = answer
                return False
            del self._streams[msgid]
        return True
