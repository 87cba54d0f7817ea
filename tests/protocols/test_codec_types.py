"""Values that MessagePack has no form for, by its extension types."""

from __future__ import annotations

import datetime
import uuid
from decimal import Decimal
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rpc_codecs import Celsius, Point, Positive, Shape, Song, codec_pair, echoed, registry
from rpc_pair import byte_by_byte, join

from helianthus.protocols.errors import LocalProtocolError
from helianthus.protocols.rpc import Codec, RpcSession, TypeRegistry

UTC = datetime.UTC
TWO_HOURS = datetime.timezone(datetime.timedelta(hours=2))


def encoded(value: Any, types: TypeRegistry | None = None) -> bytes:
    """A value's own bytes, without the message around it."""
    return Codec(types=types).encoder(None).encode((4, 1, value))[3:]


def is_plain_decimal(value: Decimal) -> bool:
    return not value.is_snan() and str(value) not in ("-NaN",) and abs(value.adjusted()) <= 6144


VALUES = st.one_of(
    st.datetimes(timezones=st.just(UTC)),
    st.uuids(),
    st.decimals(allow_nan=False).filter(is_plain_decimal),
    st.dates(),
    st.times(),
    st.times(timezones=st.just(TWO_HOURS)),
    st.timedeltas(),
    st.builds(Point, st.integers(-(2**63), 2**64 - 1), st.integers(0, 9)),
    st.builds(Positive, st.integers(1, 9)),
    st.builds(Celsius, st.floats(allow_nan=False)),
)
NESTED = st.recursive(
    st.one_of(VALUES, st.none(), st.booleans(), st.text(max_size=5), st.binary(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
        st.dictionaries(st.uuids(), inner, max_size=2),
        st.builds(Song, st.text(max_size=3), st.lists(inner, max_size=2)),
        st.builds(
            Shape, st.text(max_size=3), st.lists(st.builds(Point, st.integers(0, 9)), max_size=2), inner
        ),
    ),
    max_leaves=12,
)


@given(NESTED)
def test_what_goes_comes_back_both_ways(value: Any) -> None:
    types = registry()
    assert echoed(codec_pair({"types": types}, {"types": types}), value) == (value, value)


@settings(max_examples=25)
@given(NESTED)
def test_what_comes_byte_by_byte_is_the_same(value: Any) -> None:
    types = registry()
    pair = codec_pair({"types": types}, {"types": types}, split=byte_by_byte)
    assert echoed(pair, value) == (value, value)


@given(st.datetimes(timezones=st.timezones()))
def test_a_datetime_is_the_standard_timestamp_and_comes_back_in_utc(moment: datetime.datetime) -> None:
    if moment.utcoffset() is None:
        return
    try:
        in_utc = moment.astimezone(UTC)
    except OverflowError:
        return
    since = in_utc - datetime.datetime(1970, 1, 1, tzinfo=UTC)
    standard = msgpack.Timestamp(since.days * 86400 + since.seconds, since.microseconds * 1000)
    assert encoded(moment) == msgpack.packb(standard)
    ((there, back)) = echoed(codec_pair(), moment)
    assert there == back == in_utc
    assert there.tzinfo is UTC


def test_the_last_microsecond_that_a_datetime_has() -> None:
    last = datetime.datetime.max.replace(tzinfo=UTC)
    assert echoed(codec_pair(), last) == (last, last)


def test_a_plain_peer_sees_the_types_that_are_documented() -> None:
    cases: list[tuple[Any, Any]] = [
        (uuid.UUID(int=42), msgpack.ExtType(64, bytes(15) + b"*")),
        (Decimal("1.50"), msgpack.ExtType(65, b"1.50")),
        (datetime.date(2024, 2, 29), msgpack.ExtType(66, b"2024-02-29")),
        (datetime.time(12, 30, tzinfo=TWO_HOURS), msgpack.ExtType(67, b"12:30:00+02:00")),
        (datetime.timedelta(-1, 5, 7), msgpack.ExtType(68, b"\xff\xff\xff\xff\0\0\0\5\0\0\0\7")),
        (Point(1, 2), msgpack.ExtType(72, msgpack.packb(["Point", {"x": 1, "y": 2}]))),
        (Celsius(1.5), msgpack.ExtType(72, msgpack.packb(["temp", 1.5]))),
        (datetime.datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), msgpack.Timestamp(1)),
    ]
    for value, seen in cases:
        assert msgpack.unpackb(encoded(value, registry())) == seen


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (datetime.datetime(2024, 1, 1), "has no time zone, so it names no instant: give it one"),
        (Decimal("sNaN"), "the Decimal sNaN has no form"),
        (Decimal("1E+6145"), "the exponent of a Decimal is beyond 6144"),
        (Decimal((0, (1,) * 5000, 0)), "more than 4096 characters"),
        ({1, 2}, "there is no form for set; register the class with a TypeRegistry"),
        (object(), "there is no form for object"),
        ([Point(1), TypeRegistry()], "there is no form for TypeRegistry"),
    ],
)
def test_what_has_no_form_is_refused_with_what_to_do(value: Any, text: str) -> None:
    session = RpcSession(0.0, initiator=False, codec=Codec(types=registry()))
    with pytest.raises(LocalProtocolError, match="cannot be encoded as MessagePack") as caught:
        session.call("m", (value,), 0.0)
    assert text in str(caught.value)
    assert session.take_data() == []
    session.call("m", (Point(1),), 0.0)
    assert msgpack.unpackb(join(session.take_data()))[2] == "m"


def test_a_time_whose_offset_depends_on_the_day_is_refused() -> None:
    class Zone(datetime.tzinfo):
        def utcoffset(self, moment: datetime.datetime | None) -> datetime.timedelta | None:
            return None

    with pytest.raises(LocalProtocolError, match="send a datetime instead"):
        encoded(datetime.time(1, tzinfo=Zone()))


def test_objects_inside_each_other_have_a_bound() -> None:
    def nested(depth: int) -> Song:
        return Song("x", [nested(depth - 1)] if depth > 1 else [])

    types = registry()
    pair = codec_pair({"types": types}, {"types": types})
    assert echoed(pair, nested(16)) == (nested(16), nested(16))
    with pytest.raises(LocalProtocolError, match="nested more than 16 deep"):
        pair.call("m", (nested(17),))
    around = Song("x")
    around.tags.append(around)
    with pytest.raises(LocalProtocolError, match="nested more than 16 deep"):
        pair.call("m", (around,))
    assert echoed(pair, nested(3)) == (nested(3), nested(3))


def test_a_to_value_that_fails_is_the_callers_mistake() -> None:
    types = TypeRegistry()
    types.register(Celsius, to_value=lambda one: one.kelvin, from_value=Celsius)
    with pytest.raises(LocalProtocolError, match=r"to_value of Celsius failed: .*kelvin"):
        encoded(Celsius(1), types)


# -- registering -------------------------------------------------------------------------------------


def test_register_is_a_decorator_with_or_without_a_name() -> None:
    types = TypeRegistry()

    @types.register
    @attrs_class
    class One:
        pass

    @types.register(name="second")
    @attrs_class
    class Two:
        pass

    assert types.names == ["One", "second"]
    assert types.of_class(Two) is types.of_name("second")
    assert isinstance(One, type)


def attrs_class(cls: type) -> type:
    import attrs

    return attrs.define(cls)


@pytest.mark.parametrize(
    ("cls", "options", "error", "text"),
    [
        (Celsius, {}, TypeError, "neither an attrs class nor a dataclass: give to_value and from_value"),
        (Celsius, {"to_value": float}, TypeError, "needs both to_value and from_value"),
        (type("Names", (list,), {}), {}, TypeError, "travels as a list already"),
        (Point(1), {}, TypeError, "only a class can be registered"),
        (Point, {"name": "n" * 201}, TypeError, "1 to 200 characters"),
        (Point, {"name": "Song"}, ValueError, "Song is registered as 'Song' already"),
        (Song, {"name": "other"}, ValueError, "Song is registered as 'Song' already"),
    ],
)
def test_what_cannot_be_registered(cls: Any, options: Any, error: type[Exception], text: str) -> None:
    types = TypeRegistry()
    types.register(Song)
    with pytest.raises(error, match=text):
        types.register(cls, **options)
    assert types.names == ["Song"]


def test_registries_know_nothing_of_each_other() -> None:
    registry()
    with pytest.raises(LocalProtocolError, match="no form for Point"):
        encoded(Point(1))


def test_both_ends_need_not_have_the_same_fields() -> None:
    import attrs

    newer, older = TypeRegistry(), TypeRegistry()
    new = attrs.make_class("P", {"x": attrs.field(), "z": attrs.field(default=3)})
    old = attrs.make_class("P", ["x", "y"])
    newer.register(new)
    older.register(old, name="P")
    pair = codec_pair({"types": older}, {"types": newer})
    pair.call("m", (old(1, 2),))
    pair.pump()
    (request,) = pair.server.take_events()
    assert request.params == [new(1, 3)]  # type: ignore[union-attr]
