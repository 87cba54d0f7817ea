"""What a session has encoded and the transport has not taken."""

from __future__ import annotations

from collections import deque

from ..machine import Buffer


class OutputQueue:
    """Encoded messages in order.

    A request that is still in it has surely not been run by the peer, and can be withdrawn without
    the peer ever hearing of it.

    `RpcSession` appends to `chunks` and adds to the sizes itself, because a method call for each
    message would cost more than both.

    Attributes:
        chunks: Encoded messages; an empty one was withdrawn.
        size: Bytes of all of them.
        replies: Bytes of those that answer the peer.
        unsent: Message ids of our requests among them, with their places in `chunks`.
        droppable: Messages that may be dropped, the oldest first: each one's place in `chunks`, and the
            call whose item it is. Only kept where a policy drops any.
    """

    __slots__ = ("_withdrawn", "chunks", "droppable", "replies", "size", "unsent")

    _COMPACT_ABOVE = 64  # withdrawn messages; fewer cost less than a rebuild

    def __init__(self) -> None:
        self.chunks: list[Buffer] = []
        self.size = 0
        self.replies = 0
        self.unsent: dict[int, int] = {}
        self.droppable: deque[tuple[int, int | None]] = deque()
        self._withdrawn = 0

    def add(self, data: bytes) -> None:
        """Queue a message that is neither a request nor a reply."""
        self.chunks.append(data)
        self.size += len(data)

    def take(self) -> list[Buffer]:
        """Hand over all of it."""
        chunks = self.chunks
        if self.droppable:
            self.droppable.clear()
        if self._withdrawn:
            chunks = [chunk for chunk in chunks if chunk]
            self._withdrawn = 0
        self.chunks = []
        self.size = self.replies = 0
        self.unsent.clear()
        return chunks

    def clear(self) -> None:
        """Drop all of it."""
        self.chunks = []
        self.size = self.replies = self._withdrawn = 0
        self.unsent.clear()
        self.droppable.clear()

    def add_droppable(self, data: bytes, msgid: int | None) -> None:
        """Queue a message that may be dropped: an item of the call `msgid`, or a notification."""
        self.droppable.append((len(self.chunks), msgid))
        self.add(data)

    def drop_oldest(self) -> int | None:
        """Drop the oldest message that may be; gives the call whose item it was. There must be one."""
        place, msgid = self.droppable.popleft()
        self._empty(place)
        return msgid

    def withdraw(self, msgid: int) -> bool:
        """Take a request of ours back; false where it has been sent."""
        place = self.unsent.pop(msgid, None)
        if place is None:
            return False
        self._empty(place)
        return True

    def _empty(self, place: int) -> None:
        self.size -= len(self.chunks[place])
        self.chunks[place] = b""
        self._withdrawn += 1
        if self._withdrawn > self._COMPACT_ABOVE + len(self.chunks) // 2:
            self._compact()

    def _compact(self) -> None:
        """Close the gaps, so that withdrawn requests do not fill the memory that limits set free."""
        places: dict[int, int] = {}
        chunks: list[Buffer] = []
        for place, chunk in enumerate(self.chunks):
            if chunk:
                places[place] = len(chunks)
                chunks.append(chunk)
        self.chunks = chunks
        self.unsent = {msgid: places[place] for msgid, place in self.unsent.items()}
        self.droppable = deque((places[place], msgid) for place, msgid in self.droppable)
        self._withdrawn = 0
