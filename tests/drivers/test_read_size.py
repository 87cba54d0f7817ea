"""The size of leased receive buffers follows what arrives."""

from __future__ import annotations

from helianthus.drivers.read_size import FIRST, LARGEST, SMALLEST, ReadSize


def test_it_grows_when_the_buffer_was_filled() -> None:
    size = ReadSize()
    assert size.bytes == FIRST
    size.note(FIRST)
    assert size.bytes == 4 * FIRST
    for _ in range(10):
        size.note(size.bytes)
    assert size.bytes == LARGEST


def test_it_shrinks_when_half_would_have_done_twice() -> None:
    size = ReadSize()
    size.note(FIRST)
    grown = size.bytes
    size.note(10)
    assert size.bytes == grown
    size.note(10)
    assert size.bytes == grown // 2
    size.note(10)
    size.note(grown // 2 - 1)  # more than half: not twice in a row
    size.note(10)
    assert size.bytes == grown // 2
    for _ in range(100):
        size.note(1)
    assert size.bytes == SMALLEST
