"""Compressed payloads: what is on the wire, bombs and broken frames."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rpc_codecs import JSON_SERVER, JSON_VALUES, TEXT, ZIPPED, ZSTD, codec_pair, echoed, registry
from rpc_pair import Talk, byte_by_byte, join

from helianthus.protocols.rpc import (
    CallFailed,
    Codec,
    Flow,
    ItemReceived,
    NotificationReceived,
    OversizedMessage,
    RequestReceived,
    RpcLimits,
    SessionState,
    StatusCode,
)

zstandard = pytest.importorskip("zstandard", reason="the package zstandard is not installed")


@settings(deadline=None)
@given(JSON_VALUES, st.sampled_from(["msgpack", "json"]))
def test_compressed_values_come_back(value: Any, codec: str) -> None:
    always = {"compression": "zstd", "compress_above": 0}
    pair = codec_pair({"codec": codec, **always}, {**JSON_SERVER, **always})
    assert echoed(pair, [value] * 20) == ([value] * 20, [value] * 20)


@pytest.mark.parametrize("split", [byte_by_byte])
def test_compressed_payloads_in_pieces(split: Any) -> None:
    assert echoed(codec_pair(ZIPPED, ZIPPED, split=split), TEXT) == (TEXT, TEXT)


def zipped(value: Any) -> msgpack.ExtType:
    return msgpack.ExtType(ZSTD, zstandard.ZstdCompressor(level=1).compress(msgpack.packb(value)))


def test_what_is_compressed_on_the_wire() -> None:
    talk = Talk(extended=False, codec=Codec(**ZIPPED))  # type: ignore[arg-type]
    talk.hear([2, "helianthus.hello", [{"version": 1, "credit": 9, "codecs": ["zstd"]}]])
    talk.events()
    talk.said()
    first = talk.call("m", (TEXT,), timeout=1.0)
    small = talk.call("m", ("small",))
    stream = talk.call("s", {"key": TEXT}, flow=Flow.BOTH)
    talk.session.notify("n", [TEXT])
    talk.session.send_item(stream, TEXT)
    talk.hear([0, 2, "asked", []], [0, 4, "asked", []])
    talk.session.respond(2, TEXT)
    talk.session.respond_error(4, StatusCode.ABORTED, TEXT)
    assert talk.said() == [
        [0, first, "m", zipped([TEXT]), {"timeout": 1000}],
        [0, small, "m", ["small"]],
        [0, stream, "s", zipped({"key": TEXT}), {"stream": 3}],
        [2, "n", zipped([TEXT])],
        [4, stream, zipped(TEXT)],
        [1, 2, None, zipped(TEXT)],
        [1, 4, [10, TEXT, None], None],
    ]


def test_what_does_not_shrink_is_sent_as_it_is() -> None:
    talk = Talk(extended=False, codec=Codec(**ZIPPED))  # type: ignore[arg-type]
    talk.hear([2, "helianthus.hello", [{"version": 1, "credit": 9, "codecs": ["zstd"]}]])
    talk.said()
    noise = bytes(range(256))
    msgid = talk.call("m", (noise,))
    assert talk.said() == [[0, msgid, "m", [noise]]]


@pytest.mark.parametrize(("client", "server"), [(ZIPPED, {}), ({}, ZIPPED)])
def test_an_end_that_has_not_asked_for_it_neither_gets_nor_sends_any(client: Any, server: Any) -> None:
    pair = codec_pair(client, server)
    pair.call("m", (TEXT,))
    raw = join(pair.client.take_data())
    assert len(raw) > len(TEXT)
    pair.server.receive_data(raw, 0.0)
    (request,) = pair.server.take_events()
    pair.server.respond(request.msgid, TEXT)  # type: ignore[union-attr]
    assert len(join(pair.server.take_data())) > len(TEXT)


def test_each_direction_has_its_own_bound() -> None:
    pair = codec_pair({**ZIPPED, "compress_above": 10**6}, ZIPPED)
    pair.call("m", (TEXT,))
    raw = join(pair.client.take_data())
    assert len(raw) > len(TEXT)
    pair.server.receive_data(raw, 0.0)
    (request,) = pair.server.take_events()
    pair.server.respond(request.msgid, TEXT)  # type: ignore[union-attr]
    assert len(join(pair.server.take_data())) < 200


LIMITS = RpcLimits(max_message_size=4096, max_elements=1000)


def listener() -> Talk:
    return Talk(initiator=False, limits=LIMITS, codec=Codec(LIMITS, compression="zstd", types=registry()))


FRAME = zstandard.ZstdCompressor(level=1).compress(msgpack.packb([TEXT]))
BAD_FRAMES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", ""),
    "no frame": (b"not zstd at all", ""),
    "a frame cut short": (FRAME[:-3], ""),
    "a frame cut within its header": (FRAME[:5], ""),
    "something behind the frame": (FRAME + b"more", ""),
    "another frame behind the frame": (FRAME + FRAME, ""),
    "a bit that flipped": (FRAME[:12] + bytes([FRAME[12] ^ 255]) + FRAME[13:], ""),
    "no size in the header": (
        zstandard.ZstdCompressor(write_content_size=False).compress(msgpack.packb([TEXT])),
        "must say its size",
    ),
    "a bomb": (
        zstandard.ZstdCompressor().compress(b"\xdb\x10\x00\x00\x00" + bytes(2**28)),
        "decompresses to more than max_message_size (4096 bytes)",
    ),
    "a bomb that lies": (b"\x28\xb5\x2f\xfd\x20\x10" + b"\x03\x00\x10\x00" + b"\x00" * 3, ""),
    "deep lists": (zstandard.ZstdCompressor().compress(b"\x91" * 4000), ""),
    "too many elements": (zstandard.ZstdCompressor().compress(msgpack.packb([[0] * 2000])), "max_array_len"),
    "no MessagePack": (zstandard.ZstdCompressor().compress(b"\xc1"), ""),
    "nothing compressed": (zstandard.ZstdCompressor().compress(b""), ""),
    "a bad value": (
        zstandard.ZstdCompressor().compress(msgpack.packb([msgpack.ExtType(64, b"")])),
        "16-char",
    ),
}


@pytest.mark.parametrize(("frame", "reason"), BAD_FRAMES.values(), ids=BAD_FRAMES.keys())
def test_a_bad_frame_fails_its_own_call(frame: bytes, reason: str) -> None:
    if len(frame) > 4000:  # of the bomb, only the beginning is looked at
        frame = frame[:4000]
    talk = listener()
    talk.hear([0, 1, "m", msgpack.ExtType(ZSTD, frame)], [0, 3, "m", []])
    (good,) = talk.events()
    assert isinstance(good, RequestReceived)
    ((_, msgid, error, _),) = talk.said()
    assert (msgid, error[0], error[3]) == (1, StatusCode.INVALID_ARGUMENT, False)
    assert reason in error[1]


def test_frames_in_frames_have_one_bound_together() -> None:
    value: Any = [b"x" * 1500]
    for _ in range(3):
        value = zipped(value)
    talk = listener()
    talk.hear([0, 1, "m", value])
    assert isinstance(talk.event(RequestReceived), RequestReceived)
    many = [zipped(b"x" * 1500) for _ in range(3)]
    talk.hear([0, 3, "m", many], [0, 5, "m", many[:2]], [0, 7, "m", many[:2]])
    assert [event.msgid for event in talk.events()] == [5, 7]  # type: ignore[union-attr]
    ((_, msgid, error, _),) = talk.said()
    assert (msgid, error[0]) == (3, StatusCode.INVALID_ARGUMENT)
    assert "more than max_message_size (4096 bytes)" in error[1]


def test_the_bound_holds_across_pieces_and_connections() -> None:
    codec = Codec(LIMITS, compression="zstd")
    one = Talk(initiator=False, limits=LIMITS, codec=codec, split=byte_by_byte)
    other = Talk(initiator=False, limits=LIMITS, codec=codec)
    many = msgpack.packb([0, 1, "m", [zipped(b"x" * 1500) for _ in range(3)]])
    for place in range(len(many)):
        one.session.receive_data(many[place : place + 1], 0.0)
        if place % 10 == 0:
            other.hear([2, "n", [zipped(b"x" * 1500)]])
    assert one.said()[0][2][0] == StatusCode.INVALID_ARGUMENT
    assert {type(event) for event in other.events()} == {NotificationReceived}


def test_limits_count_what_payloads_become() -> None:
    limits = RpcLimits(max_request_bytes=5000)
    talk = Talk(initiator=False, limits=limits, codec=Codec(limits, compression="zstd"))
    talk.hear(*([0, n, "m", [zipped(b"x" * 2000)]] for n in (1, 3, 5, 7)))
    assert [event.msgid for event in talk.events()] == [1, 3]  # type: ignore[union-attr]
    assert [answer[2][0] for answer in talk.said()] == [StatusCode.RESOURCE_EXHAUSTED] * 2
    talk = Talk(codec=Codec(compression="zstd"))
    stream = talk.sent_call(flow=Flow.FROM_CALLEE)
    talk.hear([4, stream, zipped(b"x" * 2000)], [4, stream, "small"])
    first, second = talk.events()
    assert isinstance(first, ItemReceived)
    assert first.size > 2000
    assert isinstance(second, ItemReceived)
    assert second.size < 20


def test_a_message_that_is_too_large_is_refused_even_if_it_would_shrink() -> None:
    pair = codec_pair(ZIPPED, ZIPPED, limits=LIMITS)
    with pytest.raises(OversizedMessage, match=r"more than max_message_size \(4096\)"):
        pair.call("m", ("x" * 5000,))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40), st.integers(0, len(FRAME) - 1), st.integers(1, 255))
def test_broken_frames_never_crash(junk: bytes, place: int, flip: int) -> None:
    talk = listener()
    broken = FRAME[:place] + bytes([FRAME[place] ^ flip]) + FRAME[place + 1 :]
    for number, frame in enumerate((junk, broken, FRAME[:place], FRAME + junk)):
        talk.hear([0, 2 * number + 1, "m", msgpack.ExtType(ZSTD, frame)])
    talk.hear([0, 99, "m", []])
    assert talk.session.state is SessionState.OPEN or isinstance(talk.events()[-1], CallFailed)
