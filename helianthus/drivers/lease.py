"""One borrowed buffer, or a part of one, and who owns it.

A pool hands out memory as a *lease*. Whoever holds the lease owns the bytes until it releases them;
`slice` makes a second owner of a part, and the memory goes back to its pool with the last owner. So
what was received can be kept, cut up and passed on without being copied.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from ..protocols.machine import Buffer
from .errors import BufferReleased

if TYPE_CHECKING:
    from .buffers import BufferPool, SizeClass


class Block:
    """Memory that leases share; it belongs to a size class, or to none.

    Attributes:
        memory: The bytes.
        size_class: Where it goes back to, or None where it is freed instead.
        owners: Leases of it that have not been released.
        charged: Bytes that the pool counts as leased while it has owners.
        exported: Somebody still uses a view of it that its lease has given out.
    """

    __slots__ = ("charged", "exported", "memory", "owners", "size_class")

    def __init__(self, memory: Buffer, size_class: SizeClass | None) -> None:
        self.memory = memory
        self.size_class = size_class
        self.owners = 0
        self.charged = 0
        self.exported = False

    @property
    def in_use(self) -> bool:
        """Whether views of it live on, so that its bytes must not become somebody else's.

        A bytearray cannot change its size while there are any. Its last byte is taken and put back,
        which moves nothing.
        """
        if self.exported:
            return True
        memory = self.memory
        if type(memory) is not bytearray:
            return True
        try:
            last = memory.pop()
        except BufferError:
            return True
        memory.append(last)
        return False


class Lease:
    """Bytes that the holder owns until it releases them.

    As a context manager it gives the memory, and is released at the end of the block, unless that has
    been done within:

        with pool.lease(4096) as buffer:
            count = sock.recv_into(buffer)

    What is in the memory at first is undefined: it may be what its last owner left there.
    """

    __slots__ = ("_block", "_pool", "_view", "where")

    def __init__(self, pool: BufferPool, block: Block, view: memoryview, where: str) -> None:
        self._pool = pool
        self._block = block
        self._view: memoryview | None = view
        self.where = where
        """File and line where it was taken; empty where the pool does not note that."""
        block.owners += 1

    @property
    def view(self) -> memoryview:
        """The memory; the view, too, can be used no more after the release.

        Raises:
            BufferReleased: The lease has been released.
        """
        if self._view is None:
            raise self._used_after_release("used")
        return self._view

    @property
    def released(self) -> bool:
        """Whether the holder has let go of the memory."""
        return self._view is None

    def __len__(self) -> int:
        return len(self.view)

    def __bytes__(self) -> bytes:
        return bytes(self.view)

    def slice(self, start: int, stop: int) -> Lease:
        """Make another owner, of the bytes from `start` to before `stop`.

        The memory goes back when this lease and all its slices have been released, in any order.

        Raises:
            BufferReleased: The lease has been released.
            ValueError: The bounds are not within the lease.
        """
        view = self._view
        if view is None:
            raise self._used_after_release("sliced")
        if not 0 <= start <= stop <= len(view):
            raise ValueError(f"cannot slice [{start}:{stop}] out of a lease of {len(view)} bytes")
        return self._pool._lease_of(self._block, view[start:stop])

    def truncate(self, size: int) -> None:
        """Keep the first `size` bytes only, after a read that brought no more.

        Raises:
            BufferReleased: The lease has been released.
            ValueError: It has fewer bytes.
        """
        view = self.view
        if not 0 <= size <= len(view):
            raise ValueError(f"cannot truncate a lease of {len(view)} bytes to {size}")
        self._view = view[:size]
        view.release()

    def release(self) -> None:
        """Give the memory back, once nobody else owns a part of it.

        Where somebody still uses a view of it, an operation in flight for example, the pool frees the
        memory instead of lending it again.

        Raises:
            BufferReleased: It has been released already.
        """
        if self._view is None:
            raise self._used_after_release("released a second time")
        self._let_go()

    def _let_go(self) -> None:
        view, self._view = self._view, None
        block = self._block
        try:
            if view is not None:
                view.release()
        except BufferError:
            block.exported = True
        if self.where:
            self._pool._returned(self)
        block.owners -= 1
        if not block.owners:
            self._pool._take_back(block)

    def __enter__(self) -> memoryview:
        return self.view

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._view is not None:
            self._let_go()

    def __del__(self) -> None:
        if getattr(self, "_view", None) is not None:
            self._pool._collected(self)
            self._let_go()

    def __repr__(self) -> str:
        state = "released" if self._view is None else f"{len(self._view)} bytes"
        return f"<Lease of {state}{f', taken at {self.where}' if self.where else ''}>"

    def _used_after_release(self, what: str) -> BufferReleased:
        taken = f", which was taken at {self.where}," if self.where else ""
        return BufferReleased(f"the lease{taken} was {what} after it had been released")
