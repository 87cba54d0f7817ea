"""What has arrived and is not taken yet: no byte lost, none searched twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helianthus.protocols.input_buffer import InputBuffer

SMALL = st.binary(max_size=8).map(lambda data: bytes(byte % 3 + 97 for byte in data))
"""Pieces of few different bytes, so that delimiters occur, and occur nearly."""


def filled(*pieces: bytes) -> InputBuffer:
    buffer = InputBuffer()
    for piece in pieces:
        buffer.append(piece)
    return buffer


def test_a_piece_that_is_taken_whole_is_not_copied() -> None:
    piece = bytes(5000)
    assert filled(piece).take_some(5000) is piece
    assert filled(piece).take_some(64 * 1024) is piece
    assert filled(piece).take(5000) is piece


def test_what_is_appended_belongs_to_the_buffer() -> None:
    memory = bytearray(b"abcdef")
    buffer = filled(memoryview(memory)[:3], memory)
    memory[:] = b"xxxxxx"
    assert buffer.take(9) == b"abcabcdef"


def test_small_pieces_are_joined() -> None:
    buffer = filled(*[b"x"] * 10_000)
    assert len(buffer._pieces) <= 6
    assert buffer.take(10_000) == b"x" * 10_000


def test_joining_behind_what_was_taken() -> None:
    buffer = filled(b"abc")
    assert buffer.take(2) == b"ab"
    buffer.append(b"def")
    assert (buffer.take_some(99), buffer.size, buffer.taken) == (b"cdef", 0, 6)


def test_take_some_gives_no_more_than_the_limit() -> None:
    buffer = filled(b"abcdef" * 1000, b"more" * 1000)
    assert buffer.take_some(4) == b"abcd"
    assert buffer.take_some(4) == b"efab"
    assert len(buffer.take_some(10**6)) == 6000 - 8
    assert len(buffer.take_some(10**6)) == 4000
    assert buffer.take_some(10**6) == b""


@pytest.mark.parametrize("cut", range(1, 9))
def test_a_delimiter_across_pieces(cut: int) -> None:
    data = b"abc\r\n\r\nde"
    buffer = InputBuffer()
    buffer.append(data[:cut])
    buffer.find(b"\r\n\r\n")
    buffer.append(data[cut:])
    assert buffer.find(b"\r\n\r\n") == 7


class Searched(bytes):
    """Bytes that count how many of them a search has gone through."""

    looked = 0

    def find(self, sub, start=0, end=None):  # type: ignore[no-untyped-def,override]
        at = super().find(sub, start)
        Searched.looked += (len(self) if at < 0 else at) - start
        return at


def test_no_byte_is_searched_again_with_every_piece() -> None:
    """Ten thousand pieces without a delimiter cost as much as their bytes, not the square of them."""
    buffer = InputBuffer()
    Searched.looked = 0
    size = 3000  # not joined
    for _ in range(100):
        piece = Searched(bytes(size))
        search = buffer._search
        if search is not None:
            search.look_at(piece, 0)
        buffer.size += size
        buffer._pieces.append(piece)
        assert buffer.find(b"\r\n") is None
    assert Searched.looked <= 101 * size  # the first piece, with which the search began, twice


@given(st.lists(SMALL), st.sampled_from([b"a", b"ab", b"aab", b"abab", b"aaaa"]), st.data())
def test_find_is_find(pieces: list[bytes], delimiter: bytes, data: st.DataObject) -> None:
    """However it is cut, and whatever is asked for in between."""
    buffer = InputBuffer()
    model = b""
    for piece in pieces:
        buffer.append(piece)
        model += piece
        for _ in range(data.draw(st.integers(0, 2))):
            wanted = data.draw(st.sampled_from([delimiter, b"b", b"ba"]))
            at = model.find(wanted)
            assert buffer.find(wanted) == (None if at < 0 else at + len(wanted))
        if data.draw(st.booleans()):
            count = data.draw(st.integers(0, len(model)))
            assert buffer.take(count) == model[:count]
            model = model[count:]
        if data.draw(st.booleans()):
            limit = data.draw(st.integers(1, 10))
            some = buffer.take_some(limit)
            assert model.startswith(some)
            assert len(some) <= limit
            assert bool(some) == bool(model)
            model = model[len(some) :]
        assert buffer.size == len(model)
    assert buffer.take(buffer.size) == model
