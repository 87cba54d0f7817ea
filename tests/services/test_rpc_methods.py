"""What classes serve: names of services, forms of methods, and what cannot be served."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from rpc_bench import Bench, Ground

from helianthus import CallContext, RpcError, Server, Service, StatusCode, current_call, method


class UserStore(Service):
    @method
    def size(self) -> int:
        return 3


class HTTPServerV2(Service):
    @method
    def size(self) -> int:
        return 4


class Renamed(Service):
    name = "accounts"

    @method
    def size(self) -> int:
        return 5


class Heir(Renamed):
    @method
    def heritage(self) -> str:
        return "all of it"


class Shelf(Service):
    """Named by its object."""

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self._size = size

    @method
    def size(self) -> int:
        return self._size


@pytest.mark.parametrize(
    ("service", "name"),
    [
        (UserStore(), "user_store"),
        (HTTPServerV2(), "http_server_v2"),
        (Renamed(), "accounts"),
        (Heir(), "heir"),
        (Shelf("books", 1), "books"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_service_has_the_name_of_its_class_or_a_chosen_one(service: Service, name: str) -> None:
    assert service.name == name


def test_services_are_called_by_name(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(
            UserStore(), HTTPServerV2(), Renamed(), Heir(), Shelf("books", 1), Shelf("films", 2)
        )
        names = ["user_store", "http_server_v2", "accounts", "heir", "books", "films"]
        assert [await client.call(f"{name}.size") for name in names] == [3, 4, 5, 5, 1, 2]
        assert await client.call("heir.heritage") == "all of it"

    run_on(scenario)


class Forms(Service):
    """Every form that a method can have."""

    def __init__(self) -> None:
        self.noted: list[str] = []

    @method
    def plain(self, value: int) -> int:
        return value + 1

    @method
    async def coroutine(self, value: int) -> int:
        return value + 2

    @method
    async def generator(self, value: int) -> AsyncIterator[int]:
        for step in range(3):
            yield value + step

    @method
    async def collector(self, items: AsyncIterator[int], start: int = 0) -> int:
        return start + sum([item async for item in items])

    @method
    async def both(self, factor: int, items: AsyncIterator[int]) -> AsyncIterator[int]:
        async for item in items:
            yield factor * item

    @method(name="as-you-like")
    def named(self) -> str:
        return "it"

    @method(name="later")
    async def named_coroutine(self) -> str:
        return "later"

    @method
    @staticmethod
    def static(value: str) -> str:
        return value.upper()

    @method
    @classmethod
    def of_the_class(cls) -> str:
        return cls.__name__

    @method
    def with_context(self, context: CallContext, value: int) -> list[Any]:
        assert context is current_call()
        return [context.method, value, context.deadline]

    @method
    async def with_context_last(self, value: int, *, context: CallContext) -> list[Any]:
        assert context is current_call()
        return [context.method, value]

    def not_marked(self) -> str:
        raise AssertionError("nobody may call this from outside")

    _private = 1


def test_plain_functions_and_coroutines(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Forms())
        assert await client.call("forms.plain", 1) == 2
        assert await client.call("forms.coroutine", 1) == 3
        assert await client.call("forms.plain", value=5) == 6
        assert await client.call("forms.coroutine", value=5) == 7
        assert await client.call("forms.static", "loud") == "LOUD"
        assert await client.call("forms.of_the_class") == "Forms"

    run_on(scenario)


def test_async_generators_are_streams(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Forms())
        assert [item async for item in client.stream("forms.generator", 7)] == [7, 8, 9]
        assert await client.stream("forms.generator", value=7) is None

        collector = client.stream("forms.collector", 100)
        for item in (1, 2, 3):
            await collector.send(item)
        assert await collector == 106

        both = client.stream("forms.both", factor=10)
        for item in (1, 2, 3):
            await both.send(item)
            assert await anext(both) == 10 * item
        await both.end()
        assert [item async for item in both] == []

    run_on(scenario)


def test_explicit_names_replace_the_functions_own(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Forms())
        assert await client.call("forms.as-you-like") == "it"
        assert await client.call("forms.later") == "later"
        for hidden in ("named", "named_coroutine"):
            with pytest.raises(RpcError) as caught:
                await client.call(f"forms.{hidden}")
            assert caught.value.code is StatusCode.UNIMPLEMENTED

    run_on(scenario)


def test_a_method_may_ask_for_its_context(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Forms())
        assert await client.call("forms.with_context", 4) == ["forms.with_context", 4, None]
        assert await client.call("forms.with_context_last", 4) == ["forms.with_context_last", 4]
        assert await client.call("forms.with_context", value=4) == ["forms.with_context", 4, None]
        _, _, deadline = await client.call("forms.with_context", 4, timeout=20)
        assert 0 < deadline - bench.driver.now() <= 20
        with pytest.raises(RpcError) as caught:
            await client.call("forms.with_context", value=4, context="mine")
        assert caught.value.code is StatusCode.INVALID_ARGUMENT
        assert current_call() is None

    run_on(scenario)


@pytest.mark.parametrize(
    "called",
    [
        "forms.not_marked",
        "forms.no_such",
        "no_such.plain",
        "plain",
        "forms",
        "",
        "forms._private",
        "forms.__init__",
    ],
)
def test_what_is_not_served_is_unimplemented(run_on: Ground, called: str) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Forms())
        with pytest.raises(RpcError) as caught:
            await client.call(called)
        assert caught.value.code is StatusCode.UNIMPLEMENTED
        assert repr(called) in caught.value.message
        assert await client.call("forms.plain", 1) == 2

    run_on(scenario)


def test_an_unknown_stream_is_unimplemented(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Forms())
        with pytest.raises(RpcError) as caught:
            await anext(client.stream("forms.no_such"))
        assert caught.value.code is StatusCode.UNIMPLEMENTED
        sending = client.stream("forms.no_such")
        with pytest.raises(RpcError) as caught:
            while True:
                await sending.send(1)
        assert caught.value.code is StatusCode.UNIMPLEMENTED

    run_on(scenario)


def test_a_stream_called_as_a_unary_method_is_unimplemented(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Forms())
        for name in ("generator", "collector", "both"):
            with pytest.raises(RpcError, match="stream") as caught:
                await client.call(f"forms.{name}", 1)
            assert caught.value.code is StatusCode.UNIMPLEMENTED

    run_on(scenario)


def test_a_unary_method_called_as_a_stream_gives_its_result(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Forms())
        for name, result in (("plain", 2), ("coroutine", 3)):
            assert await client.stream(f"forms.{name}", 1) == result
            stream = client.stream(f"forms.{name}", 1)
            assert [item async for item in stream] == []
            assert await stream == result

    run_on(scenario)


def test_two_methods_of_one_name_are_refused() -> None:
    class Twice(Service):
        @method
        def one(self) -> None: ...

        @method(name="one")
        def other(self) -> None: ...

    with pytest.raises(TypeError, match="two methods named 'one'"):
        Server([Twice()])


def test_two_services_of_one_name_are_refused() -> None:
    with pytest.raises(TypeError, match="two services are named 'books'"):
        Server([Shelf("books", 1), Shelf("books", 2)])
    with pytest.raises(TypeError, match="two services are named 'node'"):
        Server([Shelf("node", 1)])


def test_a_class_is_no_service_object() -> None:
    with pytest.raises(TypeError, match="pass an instance"):
        Server([UserStore])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="no Service object"):
        Server([object()])  # type: ignore[list-item]


def test_a_plain_function_cannot_take_a_stream() -> None:
    class Hasty(Service):
        @method
        def drink(self, items: AsyncIterator[int]) -> None: ...

    with pytest.raises(TypeError, match=r"hasty\.drink takes a stream"):
        Server([Hasty()])


def test_a_plain_generator_is_no_stream() -> None:
    class Sudden(Service):
        @method
        def count(self) -> Iterator[int]:
            yield 1

    with pytest.raises(TypeError, match=r"sudden\.count is a plain generator; write it with `async def`"):
        Server([Sudden()])


def test_a_stream_or_context_cannot_stand_beside_any_number_of_parameters() -> None:
    class Greedy(Service):
        @method
        async def drink(self, items: AsyncIterator[int], *rest: int) -> None: ...

    with pytest.raises(TypeError, match=r"greedy\.drink cannot have both"):
        Server([Greedy()])


def test_a_filled_parameter_cannot_stand_beside_positional_only_ones() -> None:
    class Strict(Service):
        @method
        def take(self, context: CallContext, value: int, /) -> None: ...

    with pytest.raises(TypeError, match=r"strict\.take"):
        Server([Strict()])


def test_a_service_may_be_served_by_many_servers(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        shelf = Shelf("books", 9)
        clients = [await bench.pair(shelf) for _ in range(3)]
        assert [await client.call("books.size") for client in clients] == [9, 9, 9]

    run_on(scenario)


def test_a_decorated_method_keeps_its_form(run_on: Ground) -> None:
    def doubled(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def wrapper(*args: Any) -> Any:
            return 2 * await function(*args)

        return wrapper

    class Wrapped(Service):
        @method
        @doubled
        async def add(self, a: int, b: int) -> int:
            return a + b

    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Wrapped())
        assert await client.call("wrapped.add", 2, 3) == 10
        with pytest.raises(RpcError, match="'b' is missing"):
            await client.call("wrapped.add", 2)

    run_on(scenario)


def test_overriding_a_method_serves_the_new_one(run_on: Ground) -> None:
    class Base(Service):
        @method
        def who(self) -> str:
            return "base"

        @method
        def only_base(self) -> str:
            return "still here"

    class Derived(Base):
        @method
        def who(self) -> str:
            return "derived, over " + super().who()

    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Base(), Derived())
        assert await client.call("base.who") == "base"
        assert await client.call("derived.who") == "derived, over base"
        assert await client.call("derived.only_base") == "still here"

    run_on(scenario)


def test_a_notification_runs_every_form(run_on: Ground) -> None:
    class Noting(Service):
        def __init__(self) -> None:
            self.noted: list[Any] = []

        @method
        def plain(self, value: int) -> None:
            self.noted.append(["plain", value])

        @method
        async def coroutine(self, value: int) -> None:
            self.noted.append(["coroutine", value])

        @method
        async def generator(self, value: int) -> AsyncIterator[int]:
            yield value
            self.noted.append(["generator", value])
            yield value

        @method
        async def collector(self, items: AsyncIterator[int]) -> None:
            self.noted.append(["collector", [item async for item in items]])

        @method
        def after_all(self) -> int:
            return len(self.noted)

    async def scenario(bench: Bench) -> None:
        service = Noting()
        client = await bench.pair(service)
        await client.notify("noting.plain", 1)
        await client.notify("noting.coroutine", value=2)
        await client.notify("noting.generator", 3)
        await client.notify("noting.collector")
        await client.notify("noting.no_such", 5)
        while await client.call("noting.after_all") < 4:
            pass
        assert sorted(service.noted) == [["collector", []], ["coroutine", 2], ["generator", 3], ["plain", 1]]

    run_on(scenario)
