"""What a session does with notifications and stream items that its peer is too slow for.

By default nothing of this exists: items wait for credit, and whoever sends them waits with them. With
another policy nobody waits. Items without credit are kept here, behind each other; all of them and
what the transport has not taken may be `max_pending` bytes. What passes that limit either ends the
connection, or pushes out the oldest messages that may be dropped: first items of the same stream, then
whatever waits for the transport, then items of other streams. Requests and answers are never dropped.

An item that is dropped has cost no credit: what its place in the peer's window was goes to the next
one. The end of a stream, and the answer to a request that has one, keep behind the items that wait.
"""

from __future__ import annotations

from ..errors import SlowConsumer
from ..slow_consumer import DISCONNECT, SlowConsumerPolicy
from .output_queue import OutputQueue
from .stream_state import StreamState


class Overflow:
    """The messages of one session that may be dropped.

    Args:
        output: What the transport has not taken.
        streams: The session's, by message id.
        policy: DROP_OLDEST or DISCONNECT.
        max_pending: Bytes that may wait for the peer.

    Attributes:
        dropped: Messages that were dropped.
        disconnects: Whether the policy is DISCONNECT.
        released: Calls whose last item that waited has gone to the transport, because another was
            dropped; the session is to see what follows it.
    """

    def __init__(
        self,
        output: OutputQueue,
        streams: dict[int, StreamState],
        policy: SlowConsumerPolicy,
        max_pending: int,
    ) -> None:
        self._output = output
        self._streams = streams
        self._max_pending = max_pending
        self.disconnects = policy is DISCONNECT
        self.dropped = 0
        self.released: list[int] = []

    @property
    def pending(self) -> int:
        """Bytes that wait for the peer."""
        return self._output.size + sum(stream.waiting_size for stream in self._streams.values())

    def fault(self, size: int) -> SlowConsumer:
        """Why a message of `size` bytes ends the connection."""
        return SlowConsumer(
            f"the peer is a slow consumer: {self.pending} bytes wait for it, and {size} more exceed "
            f"max_pending ({self._max_pending})",
            limit="max_pending",
            maximum=self._max_pending,
        )

    def fits(self, size: int) -> bool:
        """Whether a message may be queued; one alone always may."""
        pending = self.pending
        return not pending or pending + size <= self._max_pending

    def make_room(self, size: int, stream: StreamState | None = None) -> bool:
        """Drop the oldest messages until one of `size` bytes fits; False where it is itself to be dropped.

        Args:
            size: Bytes of the new message.
            stream: Of which it is an item.
        """
        while not self.fits(size):
            if not self._drop_one(stream):
                self.dropped += 1
                return False
        return True

    def add_item(self, msgid: int, stream: StreamState, data: bytes) -> None:
        """Queue an item for which there is room."""
        if stream.credit and not stream.waiting:
            stream.credit -= 1
            self._output.add_droppable(data, msgid)
        else:
            stream.waiting.append(data)
            stream.waiting_size += len(data)

    def release(self, msgid: int, stream: StreamState) -> None:
        """There is credit: let items that wait go to the transport."""
        waiting = stream.waiting
        while waiting and stream.credit:
            data = waiting.popleft()
            stream.credit -= 1
            stream.waiting_size -= len(data)
            self._output.add_droppable(data, msgid)

    def _drop_one(self, stream: StreamState | None) -> bool:
        self.dropped += 1
        if stream is not None and stream.waiting:
            stream.drop_waiting()
            return True
        if self._output.droppable:
            msgid = self._output.drop_oldest()
            owner = self._streams.get(msgid) if msgid is not None else None
            if owner is not None and msgid is not None:
                owner.credit += 1
                if owner.waiting:
                    self.release(msgid, owner)
                    if not owner.waiting:
                        self.released.append(msgid)
            return True
        for other in self._streams.values():
            if len(other.waiting) > 1:  # the last one stays: somebody is interested in the newest
                other.drop_waiting()
                return True
        self.dropped -= 1
        return False
