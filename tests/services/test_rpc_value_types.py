"""Methods with parameters and results that MessagePack itself has no form for."""

from __future__ import annotations

import dataclasses
import datetime
import uuid
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any, Optional

import attrs
import pytest
from rpc_bench import Bench, Ground
from rpc_thread import ThreadedServer

from helianthus import RpcError, Service, StatusCode, TypeRegistry, connect_sync, method
from helianthus.services.rpc import Peer

pytest.importorskip("google.protobuf", reason="the package protobuf is not installed")

from google.protobuf import struct_pb2, timestamp_pb2

UTC = datetime.UTC
NOON = datetime.datetime(2024, 2, 29, 12, tzinfo=UTC)


@attrs.define
class Point:
    x: int
    y: int = 0


@dataclasses.dataclass
class Unregistered:
    x: int


def types() -> TypeRegistry:
    registry = TypeRegistry()
    registry.register(Point, name="geo.Point")
    return registry


class Typed(Service):
    @method
    def at(self, value: datetime.datetime) -> Any:
        return value

    @method
    def day(self, value: datetime.date) -> Any:
        return value

    @method
    def clock(self, value: datetime.time) -> Any:
        return value

    @method
    def span(self, value: datetime.timedelta) -> Any:
        return value

    @method
    def ident(self, value: uuid.UUID) -> Any:
        return value

    @method
    def price(self, value: Decimal) -> Any:
        return value

    @method
    def prices(self, value: dict[uuid.UUID, list[Decimal]]) -> Any:
        return value

    @method
    def maybe(self, value: Optional[datetime.datetime] = None) -> Any:  # noqa: UP045 - old code has it
        return value

    @method
    def point(self, value: Point) -> Point:
        return Point(value.y, value.x)

    @method
    def points(self, value: list[Point]) -> Any:
        return value

    @method
    def stamp(self, value: timestamp_pb2.Timestamp) -> timestamp_pb2.Timestamp:
        return value

    @method
    def unregistered(self, value: Unregistered) -> Any:
        return value

    @method
    def anything(self, value: Any) -> Any:
        return value

    @method
    async def stream(self, items: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for item in items:
            yield item

    @method
    def give(self, what: str) -> Any:
        return {"naive": NOON.replace(tzinfo=None), "unregistered": Unregistered(1)}[what]


GOOD: list[tuple[str, Any]] = [
    ("at", NOON),
    ("day", datetime.date(2024, 2, 29)),
    ("clock", datetime.time(12, 30)),
    ("span", datetime.timedelta(days=-1)),
    ("ident", uuid.UUID(int=5)),
    ("price", Decimal("1.50")),
    ("prices", {uuid.UUID(int=5): [Decimal(1)]}),
    ("maybe", None),
    ("maybe", NOON),
    ("points", [Point(1), Point(2)]),
    ("stamp", timestamp_pb2.Timestamp(seconds=1)),
    ("anything", [NOON, Point(1)]),
    ("unregistered", {"x": 1}),
]

BAD: list[tuple[str, Any, str]] = [
    ("at", "2024-02-29", "parameter 'value' must be datetime, got str"),
    ("at", datetime.date(2024, 2, 29), "must be datetime, got date"),
    ("day", NOON, "must be date, got datetime"),
    ("ident", str(uuid.UUID(int=5)), "must be UUID, got str"),
    ("price", 1, "must be Decimal, got int"),
    ("price", 1.5, "must be Decimal, got float"),
    ("prices", {uuid.UUID(int=5): [1]}, "got dict"),
    ("maybe", 5, "got int"),
    ("point", {"x": 1}, f"must be {Point.__module__}.Point, got dict"),
    ("points", [Point(1), 2], "got list"),
    ("stamp", struct_pb2.Struct(), "must be google.protobuf.Timestamp, got google.protobuf.Struct"),
    ("stamp", b"\x08\x01", "must be google.protobuf.Timestamp, got bytes"),
]


def test_values_arrive_and_come_back(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.client(await bench.serve(Typed(), types=types()), types=types())
        for name, value in GOOD:
            assert await client.call(f"typed.{name}", value) == value, name
            assert await client.call(f"typed.{name}", value=value) == value, name
        assert await client.call("typed.point", Point(1, 2)) == Point(2, 1)

    run_on(scenario)


def test_values_of_another_type_are_refused(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.client(await bench.serve(Typed(), types=types()), types=types())
        for name, value, text in BAD:
            with pytest.raises(RpcError) as caught:
                await client.call(f"typed.{name}", value)
            assert caught.value.code is StatusCode.INVALID_ARGUMENT
            assert not caught.value.maybe_executed
            assert text in caught.value.message

    run_on(scenario)


def test_stream_items_both_ways(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.client(await bench.serve(Typed(), types=types()), types=types())
        sent = [NOON, Point(1), Decimal("0.1"), {"a": uuid.UUID(int=1)}]
        async with client.stream("typed.stream") as stream:
            for item in sent:
                await stream.send(item)
            await stream.end()
            assert [item async for item in stream] == sent

    run_on(scenario)


def test_one_end_that_does_not_know_a_class_fails_that_call_only(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        knowing = await bench.serve(Typed(), types=types())
        ignorant = await bench.serve(Typed())
        client = await bench.client(ignorant, types=types())
        with pytest.raises(RpcError, match=r"no class is registered as 'geo\.Point' here") as caught:
            await client.call("typed.anything", [Point(1)])
        assert caught.value.code is StatusCode.INVALID_ARGUMENT
        assert not caught.value.maybe_executed
        await client.notify("typed.anything", Point(1))
        assert await client.call("typed.at", NOON) == NOON
        ((name, error),) = bench.take_errors()
        assert name == "typed.anything"
        assert "the notification was dropped" in str(error)

        async with client.stream("typed.stream") as stream:
            await stream.send("good")
            assert await anext(stream) == "good"
            await stream.send(Point(1))
            with pytest.raises(RpcError, match="a stream item cannot be read") as caught:
                await anext(stream)
            assert caught.value.code is StatusCode.INVALID_ARGUMENT
        assert await client.call("typed.at", NOON) == NOON

        client = await bench.client(knowing)
        back = await bench.client(knowing, types=types())
        assert await back.call("typed.anything", Point(1)) == Point(1)
        with pytest.raises(RpcError, match="there is no form for Point") as caught:
            await client.call("typed.anything", Point(1))
        assert caught.value.code is StatusCode.INTERNAL

    run_on(scenario)


class Source(Service):
    @method
    def one(self) -> Any:
        return Point(1)

    @method
    async def many(self) -> AsyncIterator[Any]:
        yield "good"
        yield Point(1)
        yield "never seen"


def test_a_result_or_an_item_that_the_client_cannot_read(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.client(await bench.serve(Source(), types=types()))
        for call in (client.call("source.one"), client.call("source.one")):
            with pytest.raises(RpcError, match="the result cannot be read: no class is registered") as caught:
                await call
            assert caught.value.code is StatusCode.INTERNAL
            assert caught.value.maybe_executed
        stream = client.stream("source.many")
        assert await anext(stream) == "good"
        with pytest.raises(RpcError, match="a stream item cannot be read") as caught:
            await anext(stream)
        assert caught.value.code is StatusCode.INTERNAL
        assert len(await client.call("node.services")) == 2

    run_on(scenario)


def test_results_that_have_no_form(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Typed())
        for what, text in (("naive", "has no time zone"), ("unregistered", "no form for Unregistered")):
            with pytest.raises(RpcError, match=text) as caught:
                await client.call("typed.give", what)
            assert caught.value.code is StatusCode.INTERNAL
        assert len(bench.take_errors()) == 2

    run_on(scenario)


def test_reflection_names_the_types(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Typed(), types=types())
        described = await client.call("node.describe", "typed")
        names = {one["name"].partition(".")[2]: one for one in described["methods"]}
        assert {
            name: names[name]["params"][0]["type"] for name in ("at", "ident", "price", "point", "stamp")
        } == {
            "at": "datetime",
            "ident": "UUID",
            "price": "Decimal",
            "point": f"{Point.__module__}.Point",
            "stamp": "google.protobuf.Timestamp",
        }
        assert names["stamp"]["returns"] == "google.protobuf.Timestamp"

    run_on(scenario)


class Inbox(Service):
    @method
    def tell(self, point: Point) -> Point:
        return point


class Caller(Service):
    @method
    async def ask(self, x: int) -> Any:
        from helianthus import current_call

        peer = current_call().peer
        assert isinstance(peer, Peer)
        return await peer.call("inbox.tell", Point(x))


def test_a_server_calls_its_client_with_objects(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Caller(), types=types())
        client = await bench.client(server, Inbox(), types=types())
        assert await client.call("caller.ask", 5) == Point(5)

    run_on(scenario)


@pytest.mark.parametrize("options", [{}, {"codec": "json"}, {"compression": "zstd"}])
def test_the_blocking_client_has_types_and_codecs_too(run_on_real: Ground, options: dict[str, Any]) -> None:
    if "compression" in options:
        pytest.importorskip("zstandard", reason="the package zstandard is not installed")
    compression = options.get("compression")
    with (
        ThreadedServer(run_on_real, Typed(), types=types(), compression=compression) as server,
        connect_sync(server.url, types=types(), **options) as client,
    ):
        if "codec" not in options:
            assert client.call("typed.point", Point(1, 2)) == Point(2, 1)
        assert client.call("typed.anything", ["text"] * 3000) == ["text"] * 3000
