"""The pool of buffers: classes, limits, owners, leaks."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import socket
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

import helianthus
from helianthus.drivers.buffer_statistics import BufferLeak
from helianthus.drivers.buffers import BufferPool
from helianthus.drivers.errors import BufferReleased, BuffersExhausted
from helianthus.drivers.lease import Lease

KIB = 1024
MIB = 1024 * KIB


def small_pool(**options: Any) -> BufferPool:
    options = {"smallest": 16, "largest": 64, "max_bytes": 256, **options}
    return BufferPool(**options)


# -- leases ------------------------------------------------------------------------------------------


def test_a_lease_has_the_size_that_was_asked_for() -> None:
    pool = BufferPool()
    for size in (0, 1, 511, 512, 513, 4096, MIB, MIB + 1):
        with pool.lease(size) as buffer:
            assert len(buffer) == size
            assert not buffer.readonly


def test_a_buffer_that_came_back_is_lent_again() -> None:
    pool = BufferPool()
    with pool.lease(1000) as buffer:
        buffer[:3] = b"abc"
    with pool.lease(700) as buffer:  # the same class: 1024
        assert bytes(buffer[:3]) == b"abc"
    numbers = pool.statistics()
    assert (numbers.hits, numbers.misses, numbers.leased, numbers.free) == (1, 1, 0, 1)
    assert (numbers.free_bytes, numbers.high_mark) == (1024, 1024)


def test_reading_into_a_lease() -> None:
    pool = BufferPool()
    near, far = socket.socketpair()
    with near, far, pool.lease(64) as buffer:
        far.send(b"hello")
        count = near.recv_into(buffer)
        assert bytes(buffer[:count]) == b"hello"


def test_what_was_released_cannot_be_used() -> None:
    lease = BufferPool(debug=False).lease(100)
    view = lease.view
    lease.release()
    assert lease.released
    with pytest.raises(BufferReleased, match="was used after it had been released"):
        lease.view  # noqa: B018 - it is the look that raises
    with pytest.raises(BufferReleased, match="sliced after"):
        lease.slice(0, 1)
    with pytest.raises(BufferReleased, match="released a second time after"):
        lease.release()
    with pytest.raises(ValueError, match="released memoryview"):
        view[0]
    with pytest.raises(BufferReleased):
        bytes(lease)
    with pytest.raises(BufferReleased), lease:
        raise AssertionError("the block must not be entered")


def test_released_within_its_block() -> None:
    pool = BufferPool()
    lease = pool.lease(10)
    with lease:
        lease.release()
    assert pool.statistics().leased == 0


def test_errors_name_the_place_in_debug_mode() -> None:
    lease = BufferPool(debug=True).lease(1)
    lease.release()
    with pytest.raises(BufferReleased, match=r"taken at .*test_buffers.py:\d+, was released a second time"):
        lease.release()


def test_truncating() -> None:
    pool = BufferPool()
    with (lease := pool.lease(100)):
        lease.view[:3] = b"abc"
        lease.truncate(3)
        assert bytes(lease) == b"abc"
        with pytest.raises(ValueError, match="cannot truncate a lease of 3 bytes to 4"):
            lease.truncate(4)
    with pytest.raises(BufferReleased):
        lease.truncate(1)
    assert (pool.statistics().stranded, pool.statistics().free) == (0, 1)


# -- slices ------------------------------------------------------------------------------------------


def test_the_buffer_goes_back_with_its_last_owner() -> None:
    pool = BufferPool()
    lease = pool.lease(100)
    lease.view[:6] = b"abcdef"
    head = lease.slice(0, 3)
    tail = lease.slice(3, 6)
    inner = tail.slice(1, 2)
    assert (bytes(head), bytes(tail), bytes(inner)) == (b"abc", b"def", b"e")
    lease.release()
    tail.release()
    assert pool.statistics().leased == 1
    assert (bytes(head), bytes(inner)) == (b"abc", b"e")
    head.release()
    inner.release()
    numbers = pool.statistics()
    assert (numbers.leased, numbers.free, numbers.stranded) == (0, 1, 0)


def test_slices_copy_nothing() -> None:
    lease = BufferPool().lease(10)
    part = lease.slice(2, 5)
    lease.view[2] = 7
    assert part.view[0] == 7
    part.release()
    lease.release()


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (3, 2), (0, 11)])
def test_slices_lie_within_the_lease(start: int, stop: int) -> None:
    with (lease := BufferPool().lease(10)), pytest.raises(ValueError, match="out of a lease of 10 bytes"):
        lease.slice(start, stop)


def test_a_view_that_lives_on_keeps_its_bytes() -> None:
    """Somebody kept a view without owning it: the memory is not lent to anybody else."""
    pool = BufferPool(debug=False)
    lease = pool.lease(512)
    lease.view[:4] = b"kept"
    view = lease.view[:4]
    lease.release()
    numbers = pool.statistics()
    assert (numbers.stranded, numbers.free, numbers.leased) == (1, 0, 0)
    with pool.lease(512) as other:
        other[:4] = b"next"
        assert bytes(view) == b"kept"


def test_a_view_that_is_in_use_keeps_its_bytes() -> None:
    """As an operation of the kernel does that has not been completed."""
    pool = BufferPool()
    lease = pool.lease(512)
    operation = (ctypes.c_char * 512).from_buffer(lease.view)
    lease.release()
    assert (pool.statistics().stranded, pool.statistics().free) == (1, 0)
    operation[0] = b"x"


def test_adopted_memory() -> None:
    pool = BufferPool()
    lease = pool.adopt(b"made elsewhere")
    part = lease.slice(0, 4)
    assert lease.view.readonly
    assert pool.statistics().leased_bytes == 14
    lease.release()
    assert bytes(part) == b"made"
    part.release()
    numbers = pool.statistics()
    assert (numbers.leased, numbers.leased_bytes, numbers.free, numbers.stranded) == (0, 0, 0, 0)


# -- limits ------------------------------------------------------------------------------------------


def test_a_pool_that_refuses() -> None:
    pool = small_pool(limits={16: 2}, at_limit="refuse")
    held = [pool.lease(16), pool.lease(10)]
    with pytest.raises(
        BuffersExhausted, match=r"cannot lease 12 bytes: limits\[16\] is 2, and 2 buffers"
    ) as hit:
        pool.lease(12)
    assert (hit.value.limit, hit.value.maximum) == ("limits[16]", 2)
    held.append(pool.lease(64))
    with pytest.raises(BuffersExhausted, match="largest is 64"):
        pool.lease(65)
    held += [pool.lease(64), pool.lease(64)]
    with pytest.raises(BuffersExhausted, match="max_bytes is 256") as hit:
        pool.lease(64)
    assert hit.value.limit == "max_bytes"
    assert pool.statistics().refused == 3
    held.pop().release()
    pool.lease(64).release()
    for lease in held:
        lease.release()


def test_a_pool_that_allocates() -> None:
    pool = small_pool(limits={16: 1})
    kept, passing, large = pool.lease(16), pool.lease(16), pool.lease(1000)
    numbers = pool.statistics()
    assert (numbers.leased, numbers.leased_bytes, numbers.unpooled) == (3, 16 + 16 + 1000, 2)
    for lease in (kept, passing, large):
        lease.release()
    numbers = pool.statistics()
    assert (numbers.leased, numbers.leased_bytes, numbers.free, numbers.free_bytes) == (0, 0, 1, 16)


def test_kept_buffers_make_room_for_other_classes() -> None:
    pool = small_pool(at_limit="refuse", max_bytes=64)
    for lease in [pool.lease(16) for _ in range(4)]:
        lease.release()
    assert pool.statistics().free_bytes == 64
    pool.lease(64).release()
    assert pool.statistics().free_bytes == 64


def test_trim() -> None:
    pool = BufferPool()
    for lease in [pool.lease(512), pool.lease(4096)]:
        lease.release()
    assert pool.trim() == 512 + 4096
    assert pool.statistics().free == 0


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"smallest": 500}, "smallest is 500 bytes; it must be a power of two"),
        ({"largest": 0}, "largest is 0 bytes"),
        ({"smallest": 128, "largest": 64}, "smallest .128 bytes. is more than largest"),
        ({"max_bytes": -1}, "max_bytes is -1"),
        ({"limits": {100: 1}}, "limits names 100 bytes, and the classes are 16, 32, 64"),
        ({"limits": {16: -1}}, r"limits\[16\] is -1"),
        ({"at_limit": "wait"}, "at_limit is 'wait'"),
    ],
)
def test_bad_options(options: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        small_pool(**options)


def test_bad_sizes_and_a_closed_pool() -> None:
    pool = BufferPool()
    with pytest.raises(ValueError, match="cannot lease -1 bytes"):
        pool.lease(-1)
    lease = pool.lease(5)
    pool.close()
    pool.close()
    assert pool.closed
    with pytest.raises(RuntimeError, match="closed"):
        pool.lease(5)
    lease.view[0] = 1  # still its holder's
    lease.release()
    assert pool.statistics().free == 0


# -- leaks -------------------------------------------------------------------------------------------


def test_a_lease_that_is_collected_is_reported() -> None:
    leaks: list[BufferLeak] = []
    pool = BufferPool(debug=True, on_leak=leaks.append)
    pool.lease(300)
    gc.collect()
    (leak,) = leaks
    file, _, line = leak.where.rpartition(":")
    assert os.path.basename(file) == "test_buffers.py"
    assert int(line) > 0
    assert (leak.size, leak.reason) == (300, "collected")
    numbers = pool.statistics()
    assert (numbers.leaked, numbers.leased, numbers.free) == (1, 0, 1)
    pool.close()
    assert len(leaks) == 1


def test_open_leases_are_reported_when_the_pool_closes() -> None:
    leaks: list[BufferLeak] = []
    with BufferPool(debug=True, on_leak=leaks.append) as pool:
        lease = pool.lease(10)
        part = lease.slice(2, 5)
        lease.release()
    (leak,) = leaks
    assert (leak.size, leak.reason) == (3, "open")
    assert "a buffer of 3 bytes, taken at" in str(leak)
    assert "is open while its pool closes" in str(leak)
    part.release()


def test_leaks_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="helianthus.drivers.buffers"):
        BufferPool(debug=True).lease(1)
        gc.collect()
    assert "test_buffers.py" in caplog.text
    assert "was collected as garbage; release every lease" in caplog.text


def test_without_debug_leaks_are_only_counted(caplog: pytest.LogCaptureFixture) -> None:
    pool = BufferPool(debug=False)
    pool.lease(1)
    gc.collect()
    assert pool.statistics().leaked == 1
    assert caplog.text == ""


def test_the_development_mode_switches_reports_on() -> None:
    program = "from helianthus import BufferPool; print(BufferPool().debug); BufferPool().lease(7)"
    run = subprocess.run(
        [sys.executable, "-X", "dev", "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout == "True\n"
    assert "a buffer of 7 bytes, taken at <string>:1, was collected as garbage" in run.stderr
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("False\n", "")


def test_public_names() -> None:
    assert helianthus.BufferPool is BufferPool
    assert helianthus.Lease is Lease


# -- any order of commands ------------------------------------------------------------------------------


class Pool(RuleBasedStateMachine):
    """Leases and slices in any order: nobody's bytes change hands, and the numbers add up."""

    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.pool = small_pool(limits={16: 2, 32: 2}, at_limit="refuse", debug=True)
        self.contents: dict[Lease, bytes] = {}
        self.marks = 0

    @rule(target=leases, size=st.integers(0, 64))
    def take(self, size: int) -> Lease | None:
        try:
            lease = self.pool.lease(size)
        except BuffersExhausted:
            return None
        self.marks += 1
        lease.view[:] = bytes([self.marks % 256]) * size
        self.contents[lease] = bytes(lease.view)
        return lease

    @rule(target=leases, lease=leases, data=st.data())
    def cut(self, lease: Lease | None, data: st.DataObject) -> Lease | None:
        if lease is None or lease.released:
            return None
        start = data.draw(st.integers(0, len(lease)))
        stop = data.draw(st.integers(start, len(lease)))
        part = lease.slice(start, stop)
        self.contents[part] = self.contents[lease][start:stop]
        return part

    @rule(lease=consumes(leases))
    def release(self, lease: Lease | None) -> None:
        if lease is not None:
            lease.release()
            del self.contents[lease]

    @rule()
    def trim(self) -> None:
        self.pool.trim()

    @invariant()
    def bytes_belong_to_their_owners(self) -> None:
        for lease, content in self.contents.items():
            assert bytes(lease) == content

    @invariant()
    def numbers_add_up(self) -> None:
        numbers = self.pool.statistics()
        assert numbers.leased == len({id(lease._block) for lease in self.contents})
        assert numbers.leased_bytes + numbers.free_bytes <= 256
        assert numbers.leased_bytes <= numbers.high_mark
        assert numbers.stranded == numbers.leaked == 0
        for entry in numbers.classes:
            assert entry.leased + entry.free <= entry.limit

    def teardown(self) -> None:
        for lease in self.contents:
            lease.release()
        assert self.pool.statistics().leased == 0
        self.pool.close()


TestPool = Pool.TestCase
TestPool.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
