"""How a request is answered: with its result, or with the right error."""

from __future__ import annotations

import asyncio
import decimal
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from rpc_bench import Bench, Ground, until

from helianthus import Client, RpcError, RpcLimits, Service, StatusCode, method

MIB = 1024 * 1024


class Fault(Exception):
    """What a method lets out that was no part of the plan."""


class Mute(Exception):
    """An exception that cannot even be turned into text."""

    def __str__(self) -> str:
        raise Fault("no words")


RESULTS: dict[str, Any] = {
    "none": None,
    "zero": 0,
    "big": 2**64 - 1,
    "negative": -(2**63),
    "float": -0.25,
    "empty": "",
    "text": "grün \U0001f33b\0",
    "bytes": bytes(range(256)),
    "list": [1, [2, [3, []]]],
    "map": {"a": {"b": [None, True]}, "c": {}, "1": 1},
    "number_keys": {1: "one", -2: "minus two"},
    "long": "x" * 100_000,
}
UNSENDABLE: dict[str, Any] = {
    "object": object(),
    "set": {1, 2},
    "nested": [1, {"a": [decimal.Context()]}],
    "too_big": 2**64,
    "function": len,
    "surrogate": "\udcff",
    "generator": (i for i in range(3)),
}


class Answering(Service):
    @method
    def give(self, name: str) -> Any:
        return RESULTS[name]

    @method
    async def give_later(self, name: str) -> Any:
        await asyncio.sleep(0)
        return RESULTS[name]

    @method
    def unsendable(self, name: str) -> Any:
        return UNSENDABLE[name]

    @method
    async def unsendable_later(self, name: str) -> Any:
        await asyncio.sleep(0)
        return UNSENDABLE[name]

    @method
    async def unsendable_item(self, name: str) -> AsyncIterator[Any]:
        yield 1
        yield UNSENDABLE[name]
        yield 3

    @method
    def large(self, size: int) -> bytes:
        return bytes(size)

    @method
    async def large_later(self, size: int) -> bytes:
        await asyncio.sleep(0)
        return bytes(size)

    @method
    async def large_item(self, size: int) -> AsyncIterator[bytes]:
        yield b"small"
        yield bytes(size)

    @method
    def raise_now(self, kind: str) -> None:
        raise FAILURES[kind]()

    @method
    async def raise_later(self, kind: str) -> None:
        await asyncio.sleep(0)
        raise FAILURES[kind]()

    @method
    async def raise_in_stream(self, kind: str) -> AsyncIterator[int]:
        yield 1
        yield 2
        raise FAILURES[kind]()

    @method
    def swallow(self, data: bytes) -> int:
        return len(data)


FAILURES: dict[str, Callable[[], BaseException]] = {
    "fault": lambda: Fault("something secret at line 7"),
    "key": lambda: KeyError("missing"),
    "mute": Mute,
    "surrogate": lambda: OSError("no file \udcff"),
    "stop": lambda: StopAsyncIteration("odd"),
    "cancelled": asyncio.CancelledError,
    "timeout": lambda: TimeoutError("inner"),
    "rpc": lambda: RpcError(StatusCode.NOT_FOUND, "no such book", {"book": 7, "near": [6, 8]}),
    "rpc_bare": lambda: RpcError(StatusCode.ABORTED, "again, please"),
    "rpc_odd_details": lambda: RpcError(StatusCode.DATA_LOSS, "gone", object()),
    "rpc_long": lambda: RpcError(StatusCode.DATA_LOSS, "x" * (5 * MIB)),
    "rpc_object": lambda: RpcError(StatusCode.DATA_LOSS, KeyError("k")),  # type: ignore[arg-type]
    "rpc_surrogate": lambda: RpcError(StatusCode.DATA_LOSS, "\udcff gone"),
    "rpc_number": lambda: RpcError(9, "a bare number"),  # type: ignore[arg-type]
    "rpc_ok": lambda: RpcError(StatusCode.OK, "all is well"),
    "rpc_no_code": lambda: RpcError("NOT_FOUND", "by name"),  # type: ignore[arg-type]
}


WAYS = ["raise_now", "raise_later", "raise_in_stream"]


async def error_of(client: Client, name: str, *params: Any) -> RpcError:
    """The error of a call, or of a stream where that is the method's form."""
    with pytest.raises(RpcError) as caught:
        if name.endswith(("_item", "_stream")):
            await client.stream(f"answering.{name}", *params)
        else:
            await client.call(f"answering.{name}", *params)
    return caught.value


def test_results_arrive_as_they_were(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Answering())
        for name, result in RESULTS.items():
            for way in ("give", "give_later"):
                assert await client.call(f"answering.{way}", name) == result

    run_on(scenario)


def test_a_result_that_cannot_be_encoded_is_internal(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Answering())
        for name in UNSENDABLE:
            for way in ("unsendable", "unsendable_later", "unsendable_item"):
                error = await error_of(client, way, name)
                assert error.code is StatusCode.INTERNAL
                assert f"answering.{way}" in error.message or way == "unsendable_item"
                assert "MessagePack" in error.message
                ((reported, _),) = bench.take_errors()
                assert reported == f"answering.{way}"
        assert await client.call("answering.give", "zero") == 0

    run_on(scenario)


def test_items_before_one_that_cannot_be_encoded_arrive(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Answering())
        stream = client.stream("answering.unsendable_item", "set")
        assert await anext(stream) == 1
        with pytest.raises(RpcError):
            await anext(stream)
        bench.take_errors()

    run_on(scenario)


def test_a_result_that_is_too_large_exhausts_resources(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Answering(), limits=RpcLimits(max_message_size=MIB))
        assert len(await client.call("answering.large", MIB - 100)) == MIB - 100
        for way in ("large", "large_later", "large_item"):
            error = await error_of(client, way, MIB)
            assert error.code is StatusCode.RESOURCE_EXHAUSTED
            assert str(MIB) in error.message
            bench.take_errors()
        assert await client.call("answering.give", "zero") == 0

    run_on(scenario)


def test_parameters_that_are_too_large_are_never_sent(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.client(await bench.serve(Answering()), limits=RpcLimits(max_message_size=MIB))
        assert await client.call("answering.swallow", bytes(MIB - 100)) == MIB - 100
        for given in (
            client.call("answering.swallow", bytes(MIB)),
            client.notify("answering.swallow", bytes(MIB)),
        ):
            with pytest.raises(RpcError, match="max_message_size") as caught:
                await given
            assert caught.value.code is StatusCode.RESOURCE_EXHAUSTED
            assert not caught.value.maybe_executed
        assert await client.call("answering.swallow", b"x") == 1

    run_on(scenario)


def test_parameters_that_cannot_be_encoded_are_never_sent(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Answering())
        for value in UNSENDABLE.values():
            for given in (
                client.call("answering.swallow", value),
                client.notify("answering.swallow", data=value),
            ):
                with pytest.raises(RpcError, match="MessagePack") as caught:
                    await given
                assert caught.value.code is StatusCode.INTERNAL
                assert not caught.value.maybe_executed
        assert await client.call("answering.swallow", b"x") == 1
        assert len(bench.connected) == 1

    run_on(scenario)


@pytest.mark.parametrize("way", WAYS)
def test_an_exception_is_unknown_and_reported(run_on: Ground, way: str) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Answering())
        for kind, type_name in (("fault", "Fault"), ("key", "KeyError"), ("timeout", "TimeoutError")):
            error = await error_of(client, way, kind)
            assert error.code is StatusCode.UNKNOWN
            assert type_name in error.message
            assert error.details is None
            assert error.maybe_executed
            for leaked in ("Traceback", "File ", ".py", "line 1"):
                assert leaked not in error.message
            ((reported, original),) = bench.take_errors()
            assert reported == f"answering.{way}"
            assert type(original) is type(FAILURES[kind]())
            assert original.__traceback__ is not None
        assert await client.call("answering.give", "zero") == 0

    run_on(scenario)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["mute", "surrogate", "stop"])
def test_an_exception_that_is_hard_to_describe_is_answered_too(run_on: Ground, way: str, kind: str) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Answering())
        beside = [asyncio.ensure_future(client.call("answering.give_later", "zero")) for _ in range(3)]
        error = await error_of(client, way, kind)
        assert error.code is StatusCode.UNKNOWN
        assert len(bench.take_errors()) == 1
        assert await asyncio.gather(*beside) == [0, 0, 0]
        assert len(bench.connected) == 1

    run_on(scenario)


@pytest.mark.parametrize("way", WAYS)
def test_an_rpc_error_arrives_as_it_was_raised(run_on: Ground, way: str) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Answering())
        error = await error_of(client, way, "rpc")
        assert error.code is StatusCode.NOT_FOUND
        assert error.message == "no such book"
        assert error.details == {"book": 7, "near": [6, 8]}
        assert str(error) == "NOT_FOUND: no such book"
        error = await error_of(client, way, "rpc_bare")
        assert (error.code, error.message, error.details) == (StatusCode.ABORTED, "again, please", None)
        error = await error_of(client, way, "rpc_number")
        assert (error.code, error.message) == (StatusCode.FAILED_PRECONDITION, "a bare number")
        assert bench.errors == []  # meant for the caller: nothing is reported

    run_on(scenario)


@pytest.mark.parametrize("way", WAYS)
def test_an_rpc_error_that_cannot_be_sent_whole_keeps_its_code(run_on: Ground, way: str) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Answering())
        error = await error_of(client, way, "rpc_odd_details")
        assert (error.code, error.message, error.details) == (StatusCode.DATA_LOSS, "gone", None)
        error = await error_of(client, way, "rpc_long")
        assert error.code is StatusCode.DATA_LOSS
        assert error.message.startswith("xxxx")
        error = await error_of(client, way, "rpc_object")
        assert error.code is StatusCode.DATA_LOSS
        assert "k" in error.message
        error = await error_of(client, way, "rpc_surrogate")
        assert error.code is StatusCode.DATA_LOSS
        assert "gone" in error.message
        assert await client.call("answering.give", "zero") == 0
        assert len(bench.connected) == 1

    run_on(scenario)


@pytest.mark.parametrize("way", WAYS)
def test_an_rpc_error_needs_the_code_of_an_error(run_on: Ground, way: str) -> None:
    """Otherwise it is the method's fault, and reported like others."""

    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Answering())
        for kind in ("rpc_ok", "rpc_no_code"):
            error = await error_of(client, way, kind)
            assert error.code is StatusCode.UNKNOWN
            assert "ValueError" in error.message
            assert len(bench.take_errors()) == 1

    run_on(scenario)


@pytest.mark.parametrize("way", ["raise_later", "raise_in_stream"])
def test_a_method_that_cancels_itself_is_answered_as_cancelled(run_on: Ground, way: str) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Answering())
        error = await error_of(client, way, "cancelled")
        assert error.code is StatusCode.CANCELLED
        assert await client.call("answering.give", "zero") == 0

    run_on(scenario)


def test_items_before_an_exception_arrive(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Answering())
        got = []
        with pytest.raises(RpcError) as caught:
            async for item in client.stream("answering.raise_in_stream", "rpc"):
                got.append(item)  # noqa: PERF401 - what came before the exception is kept
        assert got == [1, 2]
        assert caught.value.code is StatusCode.NOT_FOUND

    run_on(scenario)


def test_failing_notifications_are_reported(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Answering())
        for way in WAYS:
            await client.notify(f"answering.{way}", "fault")
        await until(lambda: len(bench.errors) == 3)
        assert sorted(name for name, _ in bench.take_errors()) == sorted(f"answering.{way}" for way in WAYS)
        assert await client.call("answering.give", "zero") == 0

    run_on(scenario)
