"""Arguments are checked against the method's annotations before it runs."""

from __future__ import annotations

import collections.abc
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NewType, Optional, TypedDict, Union

import pytest
from rpc_bench import Bench, Ground

from helianthus import CallContext, Client, RpcError, Service, StatusCode, method

if TYPE_CHECKING:
    from nowhere import Unknown

UserId = NewType("UserId", int)


class Point(TypedDict):
    x: int
    y: int


class Checked(Service):
    """One method for each kind of annotation; each gives back what it got."""

    @method
    def integer(self, value: int) -> Any:
        return value

    @method
    def floating(self, value: float) -> Any:
        return value

    @method
    def boolean(self, value: bool) -> Any:
        return value

    @method
    def text(self, value: str) -> Any:
        return value

    @method
    def raw(self, value: bytes) -> Any:
        return value

    @method
    def nothing(self, value: None) -> Any:
        return value

    @method
    def optional(self, value: Optional[int]) -> Any:  # noqa: UP045 - old code has it
        return value

    @method
    def either(self, value: Union[int, str]) -> Any:  # noqa: UP007 - old code has it
        return value

    @method
    def one_of_many(self, value: int | list[str] | None) -> Any:
        return value

    @method
    def numbers(self, value: list[int]) -> Any:
        return value

    @method
    def matrix(self, value: list[list[float]]) -> Any:
        return value

    @method
    def any_list(self, value: list) -> Any:  # type: ignore[type-arg]
        return value

    @method
    def sequence(self, value: Sequence[str]) -> Any:
        return value

    @method
    def bare_sequence(self, value: collections.abc.Sequence) -> Any:  # type: ignore[type-arg]
        return value

    @method
    def table(self, value: dict[str, int]) -> Any:
        return value

    @method
    def any_table(self, value: dict) -> Any:  # type: ignore[type-arg]
        return value

    @method
    def mapping(self, value: Mapping[str, list[int]]) -> Any:
        return value

    @method
    def bare_mapping(self, value: Mapping) -> Any:  # type: ignore[type-arg]
        return value

    @method
    def literal(self, value: Literal["red", "green", 3]) -> Any:
        return value

    @method
    def pair(self, value: tuple[int, str]) -> Any:
        return value

    @method
    def many(self, value: tuple[int, ...]) -> Any:
        return value

    @method
    def point(self, value: Point) -> Any:
        return value

    @method
    def annotated(self, value: Annotated[int, "seconds"]) -> Any:
        return value

    @method
    def anything(self, value: Any) -> Any:
        return value

    @method
    def untyped(self, value):  # type: ignore[no-untyped-def]
        return value

    @method
    def thing(self, value: object) -> Any:
        return value

    @method
    def new_type(self, value: UserId) -> Any:
        return value


GOOD = [
    ("integer", [0, -(2**63), 2**64 - 1]),
    ("floating", [1.5, 2]),
    ("boolean", [True, False]),
    ("text", ["", "grün"]),
    ("raw", [b"", b"\xff"]),
    ("nothing", [None]),
    ("optional", [None, 3]),
    ("either", [1, "one"]),
    ("one_of_many", [None, 1, [], ["a", "b"]]),
    ("numbers", [[], [1, 2]]),
    ("matrix", [[], [[1.0, 2], []]]),
    ("any_list", [[1, "a", None]]),
    ("sequence", [[], ["a"]]),
    ("bare_sequence", [[], [1, "a"]]),
    ("table", [{}, {"a": 1}]),
    ("any_table", [{}, {1: "a", "b": None}]),
    ("mapping", [{"a": [1]}]),
    ("bare_mapping", [{"a": 1}]),
    ("literal", ["red", "green", 3]),
    ("pair", [[1, "a"]]),
    ("many", [[], [1], [1, 2, 3]]),
    ("point", [{"x": 1, "y": 2}]),
    ("annotated", [1]),
    ("anything", [None, 1, "a", [1], {"a": 1}]),
    ("untyped", [None, 1, "a", [1], {"a": 1}]),
    ("thing", [None, 1, "a", [1]]),
    ("new_type", [1]),
]
BAD = [
    ("integer", ["1", 1.0, True, None, [1], {}]),
    ("floating", ["1.5", True, None]),
    ("boolean", [0, 1, None, "true"]),
    ("text", [b"raw", 1, None, ["a"]]),
    ("raw", ["text", 1]),
    ("nothing", [0, False, ""]),
    ("optional", ["3", 3.0, False]),
    ("either", [None, 1.5, b"one", [1]]),
    ("one_of_many", ["a", [1], {}, 1.0]),
    ("numbers", [None, 1, "12", [1, "2"], [1.0], [True], {"a": 1}]),
    ("matrix", [[1.0], [[1.0, "2"]], [[None]]]),
    ("any_list", [None, "abc", {}]),
    ("sequence", ["abc", [1], {"a": 1}]),
    ("bare_sequence", ["abc", {"a": 1}, None]),
    ("table", [[], {"a": "1"}, {1: 1}, {"a": None}]),
    ("any_table", [[], None, "{}"]),
    ("mapping", [{"a": 1}, {"a": ["b"]}, [["a", [1]]]]),
    ("bare_mapping", [[], None]),
    ("literal", ["blue", 4, "3", 3.0, None, ["red"]]),
    ("pair", [[1], [1, "a", 2], ["a", 1], {}, None]),
    ("many", [[1, "a"], 1, [None]]),
    ("point", [[1, 2], None]),
    ("annotated", ["1", None]),
    ("new_type", ["1", None, True]),
]


@pytest.mark.parametrize(("name", "values"), GOOD, ids=[name for name, _ in GOOD])
def test_values_of_the_right_type_pass(run_on: Ground, name: str, values: list[Any]) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Checked())
        for value in values:
            for given in (
                client.call(f"checked.{name}", value),
                client.call(f"checked.{name}", value=value),
                client.call(f"checked.{name}", value, timeout=20),  # with meta, which takes another way
            ):
                got = await given
                assert got == value
                assert type(got) is type(value)

    run_on(scenario)


@pytest.mark.parametrize(("name", "values"), BAD, ids=[name for name, _ in BAD])
def test_values_of_another_type_are_refused_by_the_parameters_name(
    run_on: Ground, name: str, values: list[Any]
) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Checked())
        for value in values:
            for given in (
                client.call(f"checked.{name}", value),
                client.call(f"checked.{name}", value=value),
                client.call(f"checked.{name}", value, timeout=20),
            ):
                await refused(given, f"checked.{name}", "'value'", f"got {type(value).__name__}")

    run_on(scenario)


async def refused(given: Any, *parts: str) -> None:
    """A call is refused for its arguments, and the message has all of those parts."""
    with pytest.raises(RpcError) as caught:
        await given
    assert caught.value.code is StatusCode.INVALID_ARGUMENT
    for part in parts:
        assert part in caught.value.message


class Shaped(Service):
    """One method for each shape of parameters."""

    @method
    def none(self) -> str:
        return "none"

    @method
    def two(self, a: int, b: str) -> list[Any]:
        return [a, b]

    @method
    def defaults(self, a: int, b: str = "b", c: float = 1.5) -> list[Any]:
        return [a, b, c]

    @method
    def rest(self, first: str, *others: int) -> list[Any]:
        return [first, *others]

    @method
    def keyword_only(self, a: int, *, b: int, c: int = 3) -> list[Any]:
        return [a, b, c]

    @method
    def positional_only(self, a: int, /, b: int) -> list[Any]:
        return [a, b]

    @method
    def any_keywords(self, a: int, **others: int) -> list[Any]:
        return [a, others]

    @method
    async def coroutine(self, a: int, b: str = "b") -> list[Any]:
        return [a, b]

    @method
    async def generator(self, a: int, b: str = "b") -> AsyncIterator[Any]:
        yield a
        yield b

    @method
    async def filled(
        self, context: CallContext, a: int, items: AsyncIterator[int], b: str = "b"
    ) -> list[Any]:
        return [a, b, [item async for item in items]]


def test_defaults_fill_what_is_left_out(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Shaped())
        assert await client.call("shaped.none") == "none"
        assert await client.call("shaped.defaults", 1) == [1, "b", 1.5]
        assert await client.call("shaped.defaults", 1, "x") == [1, "x", 1.5]
        assert await client.call("shaped.defaults", a=1, c=2) == [1, "b", 2]
        assert await client.call("shaped.rest", "a") == ["a"]
        assert await client.call("shaped.rest", "a", 1, 2) == ["a", 1, 2]
        assert await client.call("shaped.keyword_only", a=1, b=2) == [1, 2, 3]
        assert await client.call("shaped.positional_only", 1, 2) == [1, 2]
        assert await client.call("shaped.coroutine", b="x", a=1) == [1, "x"]
        assert [item async for item in client.stream("shaped.generator", 1)] == [1, "b"]

    run_on(scenario)


def test_a_wrong_number_of_arguments_is_refused(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Shaped())
        await refused(client.call("shaped.none", 1), "takes 0 parameters, got 1")
        await refused(client.call("shaped.two", 1), "takes 2 parameters, got 1", "'b' is missing")
        await refused(client.call("shaped.two"), "got 0", "'a', 'b' is missing")
        await refused(client.call("shaped.two", 1, "b", 3), "takes 2 parameters, got 3")
        await refused(client.call("shaped.defaults"), "takes 1 to 3 parameters, got 0", "'a'")
        await refused(client.call("shaped.defaults", 1, "b", 1.5, 4), "takes 1 to 3 parameters, got 4")
        await refused(client.call("shaped.rest"), "takes 1 or more parameters, got 0", "'first'")
        await refused(client.call("shaped.keyword_only", 1), "'b' is missing")
        await refused(client.call("shaped.keyword_only", 1, 2), "got 2")
        await refused(client.call("shaped.coroutine"), "'a' is missing")
        await refused(anext(client.stream("shaped.generator")), "'a' is missing")

    run_on(scenario)


def test_wrong_keywords_are_refused(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Shaped())
        await refused(client.call("shaped.two", a=1, c="b"), "no parameter 'c'")
        await refused(client.call("shaped.two", a=1), "'b' is missing")
        await refused(client.call("shaped.two", a="1", b="b"), "'a' must be int, got str")
        await refused(client.call("shaped.none", self=1), "no parameter 'self'")
        await refused(client.call("shaped.rest", first="a", others=1), "no parameter 'others'")
        await refused(client.call("shaped.positional_only", a=1, b=2), "'a'")

    run_on(scenario)


def test_any_keywords_pass_where_the_method_takes_any(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Shaped())
        assert await client.call("shaped.any_keywords", 1) == [1, {}]
        assert await client.call("shaped.any_keywords", a=1, b=2, c=3) == [1, {"b": 2, "c": 3}]
        await refused(client.call("shaped.any_keywords", b=2), "'a' is missing")
        await refused(client.call("shaped.any_keywords", a=1, b="2"), "'b' must be int, got str")

    run_on(scenario)


def test_any_number_of_values_is_checked_one_by_one(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Shaped())
        await refused(client.call("shaped.rest", "a", 1, "2"), "'others' must be int, got str")
        await refused(client.call("shaped.rest", 1), "'first' must be str, got int")

    run_on(scenario)


def test_filled_parameters_do_not_count(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Shaped())
        for stream in (client.stream("shaped.filled", 1), client.stream("shaped.filled", a=1)):
            await stream.send(7)
            assert await stream == [1, "b", [7]]
        assert await client.stream("shaped.filled", 1, "x") == [1, "x", []]
        await refused(client.stream("shaped.filled"), "takes 1 to 2 parameters, got 0", "'a'")
        await refused(client.stream("shaped.filled", 1, "x", 3), "got 3")
        await refused(client.stream("shaped.filled", "1"), "'a' must be int, got str")
        await refused(client.stream("shaped.filled", a=1, items=[]), "no parameter 'items'")
        await refused(client.stream("shaped.filled", a=1, context=None), "no parameter 'context'")

    run_on(scenario)


def test_positions_and_keywords_together_are_the_callers_mistake(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Shaped())
        with pytest.raises(TypeError, match="by position or by keyword, not both"):
            client.call("shaped.two", 1, b="b")
        with pytest.raises(TypeError, match="by position or by keyword, not both"):
            await client.notify("shaped.two", 1, b="b")
        with pytest.raises(TypeError, match="by position or by keyword, not both"):
            client.stream("shaped.two", 1, b="b")

    run_on(scenario)


def test_a_parameter_may_have_the_name_of_an_option(run_on: Ground) -> None:
    """Options of the call win; such a parameter is given by position."""

    class Odd(Service):
        @method
        def wait(self, timeout: int, method: str) -> list[Any]:
            return [timeout, method]

    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Odd())
        assert await client.call("odd.wait", 5, "m") == [5, "m"]
        await refused(client.call("odd.wait", method="m", timeout=20), "'timeout' is missing")

    run_on(scenario)


class Forward(Service):
    """Annotations that cannot be resolved are not checked; those beside them are."""

    @method
    def unknown(self, value: Unknown, count: int) -> Unknown:
        return [value, count]  # type: ignore[return-value]

    @method
    def nonsense(self, value: "this is no type", count: int) -> Any:  # type: ignore[valid-type]  # noqa: F722
        return [value, count]

    @method
    async def sum(self, weight: Unknown, items: AsyncIterator[int], context: CallContext) -> Any:
        return [context.method, weight, sum([item async for item in items])]


def test_annotations_that_cannot_be_resolved(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Forward())
        for name in ("unknown", "nonsense"):
            for value in (1, "a", None, [1]):
                assert await client.call(f"forward.{name}", value, 3) == [value, 3]
            await refused(client.call(f"forward.{name}", 1, "3"), "'count' must be int, got str")
            await refused(client.call(f"forward.{name}", 1), "'count' is missing")
        stream = client.stream("forward.sum", "kg")
        for item in (1, 2):
            await stream.send(item)
        assert await stream == ["forward.sum", "kg", 3]
        described = {m["name"]: m for m in (await client.call("node.describe", "forward"))["methods"]}
        assert [p["type"] for p in described["forward.unknown"]["params"]] == ["Any", "int"]
        assert described["forward.sum"]["items"] == "int"

    run_on(scenario)


def test_a_wrong_notification_is_reported_and_not_run(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Shaped())
        await client.notify("shaped.two", "a", 1)
        assert await client.call("shaped.none") == "none"  # behind the notification
        ((name, error),) = bench.take_errors()
        assert name == "shaped.two"
        assert isinstance(error, RpcError)
        assert error.code is StatusCode.INVALID_ARGUMENT

    run_on(scenario)


def test_refusals_leave_the_connection_as_it_is(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client: Client = await bench.pair(Shaped())
        for _ in range(50):
            await refused(client.call("shaped.two", "a", 1), "'a'")
        assert await client.call("shaped.two", 1, "a") == [1, "a"]
        assert len(bench.connected) == 1
        assert bench.connected[0].in_flight == 0

    run_on(scenario)
