"""What has arrived of a byte stream and has not been taken yet.

The pieces are kept as they came, so that a reader who takes what there is gets the very bytes that
were received. A delimiter is looked for in each byte once, however small the pieces are: a search
remembers how far it has got, and the few bytes before that place in which a delimiter may have begun.
It ends when bytes are taken, since the next one begins behind them.
"""

from __future__ import annotations

from collections import deque

from .machine import Buffer

_JOIN_BELOW = 2048
"""Bytes up to which a piece is joined to the one before it. A peer that sends byte by byte would
otherwise cost forty times the memory of its bytes."""


class InputBuffer:
    """A queue of bytes.

    Attributes:
        size: Bytes in it.
        taken: Bytes that have left it so far.
    """

    __slots__ = ("_offset", "_pieces", "_search", "size", "taken")

    def __init__(self) -> None:
        self.size = 0
        self.taken = 0
        self._pieces: deque[bytes] = deque()
        self._offset = 0  # so many bytes of the first piece have been taken
        self._search: _Search | None = None

    def append(self, data: Buffer) -> None:
        """Put bytes at the end; they are copied unless they are `bytes`."""
        piece = bytes(data)
        if not piece:
            return
        search = self._search
        if search is not None and search.found is None:
            search.look_at(piece, 0)
        self.size += len(piece)
        pieces = self._pieces
        if len(piece) < _JOIN_BELOW and pieces and len(pieces[-1]) + len(piece) <= _JOIN_BELOW:
            last = pieces.pop()
            if not pieces and self._offset:
                last = last[self._offset :]
                self._offset = 0
            piece = last + piece
        pieces.append(piece)

    def take_some(self, limit: int) -> bytes:
        """Take one piece, or `limit` bytes of it; nothing where there is nothing."""
        pieces = self._pieces
        if not pieces:
            return b""
        self._search = None
        if not self._offset and len(pieces[0]) <= limit:
            piece = pieces.popleft()
            self.size -= len(piece)
            self.taken += len(piece)
            return piece
        return self.take(min(limit, len(pieces[0]) - self._offset))

    def take(self, size: int) -> bytes:
        """Take exactly so many bytes; there must be as many."""
        self._search = None
        self.size -= size
        self.taken += size
        pieces = self._pieces
        taken = []
        while size:
            piece, offset = pieces[0], self._offset
            end = offset + size
            if end < len(piece):
                self._offset = end
                taken.append(piece[offset:end])
                break
            pieces.popleft()
            self._offset = 0
            taken.append(piece[offset:] if offset else piece)
            size = end - len(piece)
        return taken[0] if len(taken) == 1 else b"".join(taken)

    def find(self, delimiter: bytes) -> int | None:
        """Bytes up to the end of the first delimiter, or None while there is none.

        Until something is taken it goes on where it stopped, when it is asked for the same
        delimiter again; what is appended meanwhile is searched as it comes.
        """
        search = self._search
        if search is None or search.delimiter != delimiter:
            offset = self._offset
            if self._pieces:
                at = self._pieces[0].find(delimiter, offset)
                if at >= 0:  # nearly always; the rest of the piece is for the next search
                    return at + len(delimiter) - offset
            search = self._search = _Search(delimiter)
            for piece in self._pieces:
                search.look_at(piece, offset)
                if search.found is not None:
                    break
                offset = 0
        return search.found

    def clear(self) -> None:
        """Drop what is there."""
        self.taken += self.size
        self.size = 0
        self._pieces.clear()
        self._offset = 0
        self._search = None


class _Search:
    """Looks for the first delimiter in what it is shown.

    Attributes:
        delimiter: What is looked for.
        found: Bytes up to its end, or None so far.
    """

    __slots__ = ("_scanned", "_tail", "delimiter", "found")

    def __init__(self, delimiter: bytes) -> None:
        self.delimiter = delimiter
        self.found: int | None = None
        self._scanned = 0
        self._tail = b""  # the last bytes before that place, too few for a delimiter

    def look_at(self, piece: bytes, offset: int) -> None:
        """Go on with the bytes that follow those looked at before."""
        delimiter, tail = self.delimiter, self._tail
        overlap = len(delimiter) - 1
        if tail:
            at = (tail + piece[offset : offset + overlap]).find(delimiter)
            if at >= 0:
                self.found = self._scanned - len(tail) + at + len(delimiter)
                return
        at = piece.find(delimiter, offset)
        if at >= 0:
            self.found = self._scanned + at - offset + len(delimiter)
            return
        self._scanned += len(piece) - offset
        if overlap:
            self._tail = (tail + piece[max(offset, len(piece) - overlap) :])[-overlap:]
