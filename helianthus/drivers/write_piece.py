"""How output is cut for a platform that is given a write and says when all of it is done.

Such a platform does not say how far it has come meanwhile. So a piece is small enough to be taken
within the write deadline by any peer that still takes something, and large enough to be worth its
system call.
"""

from __future__ import annotations

from ..protocols.machine import Buffer

PIECE = 64 * 1024
"""Bytes of one write at most."""

_JOIN_BELOW = 4096  # bytes: buffers smaller than this cost less joined than sent one by one


def next_piece(queue: list[memoryview]) -> Buffer:
    """Take what the next write is to have from the front of a queue that is not empty."""
    first = queue[0]
    if len(first) > PIECE:
        queue[0] = first[PIECE:]
        return first[:PIECE]
    size = count = 0
    for buffer in queue:
        size += len(buffer)
        if size > PIECE or (count and len(buffer) >= _JOIN_BELOW):
            break
        count += 1
    taken = queue[:count]
    del queue[:count]
    return taken[0] if count == 1 else b"".join(taken)
