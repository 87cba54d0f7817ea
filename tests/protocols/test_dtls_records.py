"""Records in datagrams."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("OpenSSL", reason="pyOpenSSL is not installed: no DTLS")

from helianthus.protocols.dtls import records as rec

contents = st.binary(max_size=300)


def record(content: bytes, number: int = 0, epoch: int = 0, kind: int = rec.HANDSHAKE) -> bytes:
    header = bytes([kind, 0xFE, 0xFD]) + epoch.to_bytes(2) + number.to_bytes(6)
    return header + len(content).to_bytes(2) + content


@given(st.lists(contents), contents)
def test_what_was_put_together_is_taken_apart(parts: list[bytes], rest: bytes) -> None:
    records = [record(part) for part in parts]
    assert rec.split(b"".join(records)) == records
    assert rec.split(b"".join([*records, rest]))[: len(records)] == records


@given(st.binary(max_size=2000))
def test_any_bytes_may_come(data: bytes) -> None:
    found = rec.split(memoryview(data))
    assert data.startswith(b"".join(found))
    for one in found:
        rec.client_random(one)
        assert 0 <= rec.epoch(one) < 2**16


@given(st.lists(contents), st.integers(256, 1500))
def test_packing_keeps_order_and_size(parts: list[bytes], mtu: int) -> None:
    records = [record(part) for part in parts]
    datagrams = rec.pack(records, mtu)
    assert b"".join(datagrams) == b"".join(records)
    assert all(len(datagram) <= max(mtu, 313) for datagram in datagrams)
    assert [one for datagram in datagrams for one in rec.split(datagram)] == records


@pytest.mark.parametrize(
    "data",
    [
        b"",
        record(b"x")[:-1],
        record(b"x", kind=24),
        b"\x16\x03\x03" + record(b"x")[3:],  # TLS
        record(bytes(rec.LARGEST_CONTENT + 1)),
    ],
)
def test_what_is_no_record(data: bytes) -> None:
    assert rec.split(data) == []
    assert rec.split(record(b"x") + data) == [record(b"x")]


@given(st.lists(st.integers(0, 20)), st.integers(0, 5))
def test_numbers_in_the_clear_are_never_used_twice(numbers: list[int], first: int) -> None:
    clear = rec.ClearNumbers(first)
    sent = [clear.put_on(record(b"x", number)) for number in numbers]
    used = [rec.number(one) for one in sent]
    assert used == sorted(set(used))
    assert all(mine >= given for mine, given in zip(used, numbers, strict=True))
    assert used[:1] == [max(number, first) for number in numbers[:1]]


def test_numbers_with_keys_stay_as_they_are() -> None:
    clear = rec.ClearNumbers(0)
    for _ in range(2):
        assert clear.put_on(record(b"x", 5, epoch=1)) == record(b"x", 5, epoch=1)


def test_the_random_of_a_hello() -> None:
    random = bytes(range(32))
    body = bytes([1]) + bytes(11) + b"\xfe\xfd" + random
    assert rec.client_random(record(body)) == random
    assert rec.client_random(record(body[:-1])) is None
    assert rec.client_random(record(body, epoch=1)) is None
    assert rec.client_random(record(b"\x02" + body[1:])) is None
    assert rec.client_random(record(body, kind=rec.ALERT)) is None
