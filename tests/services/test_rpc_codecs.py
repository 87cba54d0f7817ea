"""JSON and compressed payloads, with both ends that have agreed on them and ends that have not."""

from __future__ import annotations

import datetime
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from rpc_bench import Bench, Ground
from rpc_raw import HELLO, RawServer, raw_client

from helianthus import RpcError, RpcLimits, Service, StatusCode, connect, connect_sync, method

TEXT = "a line of text that is much like the next\n" * 500


class Echo(Service):
    @method
    def back(self, value: Any) -> Any:
        return value

    @method
    def join(self, first: str, second: str = "!") -> str:
        return first + second

    @method
    async def stream(self, items: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for item in items:
            yield item

    @method
    def now(self) -> datetime.datetime:
        return datetime.datetime(2024, 2, 29, tzinfo=datetime.UTC)


async def exercise(client: Any, value: Any) -> None:
    """Parameters by position and by name, a result, items both ways, a notification."""
    assert await client.call("echo.back", value) == value
    assert await client.call("echo.back", value=value) == value
    async with client.stream("echo.stream") as stream:
        for _ in range(3):
            await stream.send(value)
        await stream.end()
        assert [item async for item in stream] == [value] * 3
    await client.notify("echo.back", value)


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_json_clients(run_on: Ground, compression: str | None) -> None:
    needs_zstandard(compression)

    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Echo(), compression=compression)
        client = await bench.client(server, codec="json", compression=compression)
        await exercise(client, {"text": TEXT, "numbers": [1, 2.5, None, True, "ü"]})
        assert await client.call("echo.join", first="a", second="b") == "ab"
        with pytest.raises(RpcError, match="cannot be encoded as JSON") as caught:
            await client.call("echo.back", b"bytes")
        assert caught.value.code is StatusCode.INTERNAL
        assert not caught.value.maybe_executed
        with pytest.raises(RpcError, match="JSON has no form for datetime") as caught:
            await client.call("echo.now")
        assert caught.value.code is StatusCode.INTERNAL
        assert len(bench.take_errors()) == 1
        with pytest.raises(RpcError, match="parameter 'first' must be str, got int"):
            await client.call("echo.join", 1)
        other = await bench.client(server)
        assert await other.call("echo.back", b"bytes") == b"bytes"

    run_on(scenario)


@pytest.mark.parametrize(
    ("client_options", "server_options"),
    [
        ({"compression": "zstd"}, {"compression": "zstd"}),
        ({"compression": "zstd", "compress_above": 0}, {"compression": "zstd", "compress_above": 10**9}),
        ({"compression": "zstd"}, {}),
        ({}, {"compression": "zstd"}),
    ],
)
def test_compression(run_on: Ground, client_options: Any, server_options: Any) -> None:
    needs_zstandard("zstd")

    async def scenario(bench: Bench) -> None:
        client = await bench.client(await bench.serve(Echo(), **server_options), **client_options)
        await exercise(client, {"text": TEXT, "raw": bytes(100), "small": 1})

    run_on(scenario)


def test_a_server_that_allows_messagepack_only(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Echo(), codecs=["msgpack"])
        client = await bench.client(server, codec="json")
        for call in (
            client.call("echo.back", 1),
            client.notify("echo.back", 1),
            client.stream("echo.stream").result(),
        ):
            with pytest.raises(RpcError, match="does not take payloads in JSON") as caught:
                await call
            assert caught.value.code is StatusCode.UNIMPLEMENTED
            assert not caught.value.maybe_executed

    run_on(scenario)


def test_a_plain_server_is_sent_no_json(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = RawServer()
        bench.at_the_end(server.close)
        client = await bench.client(server.address, codec="json", hello_timeout=0.05)
        with pytest.raises(RpcError, match="has not announced anything") as caught:
            await client.call("m", 1)
        assert caught.value.code in (StatusCode.UNAVAILABLE, StatusCode.UNIMPLEMENTED)
        end = await server.accepted()
        assert (await end.hear())[2][0]["codec"] == "json"

    run_on(scenario)


def test_a_plain_client_is_sent_messagepack(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Echo(), compress_above=10)
        end = await raw_client(server)
        end.say([0, 1, "echo.back", [TEXT]])
        assert await end.hear() == [1, 1, None, TEXT]
        end.say(HELLO, [0, 3, "echo.back", [TEXT]])
        assert await end.hear() == HELLO
        assert await end.hear() == [1, 3, None, TEXT]
        end.finish()

    run_on(scenario)


def test_a_bomb_costs_its_own_call(run_on: Ground) -> None:
    needs_zstandard("zstd")

    async def scenario(bench: Bench) -> None:
        import msgpack
        import zstandard

        limits = RpcLimits(max_message_size=10_000)
        server = await bench.serve(Echo(), limits=limits, compression="zstd")
        end = await raw_client(server)
        bomb = zstandard.ZstdCompressor().compress(msgpack.packb([bytes(20_000)]))
        end.say(HELLO, [0, 1, "echo.back", msgpack.ExtType(81, bomb)], [0, 3, "echo.back", [1]])
        await end.hear()
        assert (await end.hear())[2] == [
            StatusCode.INVALID_ARGUMENT,
            "the parameters of echo.back cannot be read: "
            "a message decompresses to more than max_message_size (10000 bytes)",
            None,
            False,
        ]
        assert await end.hear() == [1, 3, None, 1]
        end.finish()

    run_on(scenario)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"codec": "xml"}, "codec must be one of msgpack, json"),
        ({"compression": "gzip"}, "compression must be one of zstd"),
        ({"codec": "json", "extensions": False}, "leave out extensions=False"),
        ({"compress_above": -1}, "compress_above must be 0 or more"),
    ],
)
def test_wrong_options_are_told_at_once(options: dict[str, Any], text: str) -> None:
    for make in (connect, connect_sync):
        with pytest.raises(ValueError, match=text):
            make("tcp://127.0.0.1:1", **options)


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'helianthus\[zstd\]'"):
        connect("tcp://127.0.0.1:1", compression="zstd")


def needs_zstandard(compression: str | None) -> None:
    if compression is not None:
        pytest.importorskip("zstandard", reason="the package zstandard is not installed")
