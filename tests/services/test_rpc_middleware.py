"""What stands between calls and methods, on either end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from rpc_bench import Bench, Ground, until, url_of

import helianthus
from helianthus import Middleware, Request, Response, RpcError, Service, StatusCode, method


class Desk(Service):
    """Methods of every kind."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.gate = asyncio.Event()

    @method
    def add(self, a: int, b: int) -> int:
        self.calls.append("add")
        return a + b

    @method
    async def wait(self) -> str:
        await self.gate.wait()
        return "done"

    @method
    def fail(self) -> None:
        raise ValueError("no luck")

    @method
    async def count(self, n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i

    @method
    async def total(self, items: AsyncIterator[int]) -> int:
        return sum([item async for item in items])


class Diary(Middleware):
    """Writes down what it sees."""

    def __init__(self, name: str, diary: list[Any], order: int = 100) -> None:
        self.name, self.diary, self.order = name, diary, order

    def before(self, request: Request) -> Response | None:
        self.diary.append((self.name, "before", request.method, request.params))
        return None

    def after(self, request: Request, response: Response) -> None:
        self.diary.append((self.name, "after", response.code.name, response.result))


class Refusing(Middleware):
    """Ends calls with an error."""

    order = 10

    def before(self, request: Request) -> Response | None:
        raise RpcError(StatusCode.PERMISSION_DENIED, "not today", maybe_executed=False)


async def failure(awaitable: Any) -> RpcError:
    with pytest.raises(RpcError) as caught:
        await awaitable
    return caught.value


ENDS = pytest.mark.parametrize("end", ["server", "client"])


async def joined(bench: Bench, end: str, desk: Service, *middleware: Middleware) -> helianthus.Client:
    """A client and a server, one of which has the middleware."""
    server = await bench.serve(desk, middleware=middleware if end == "server" else ())
    return await bench.client(server, middleware=middleware if end == "client" else ())


@ENDS
def test_lower_orders_stand_further_out(run_on: Ground, end: str) -> None:
    async def scenario(bench: Bench) -> None:
        diary: list[Any] = []
        middleware = [Diary("inner", diary, 200), Diary("outer", diary, 20), Diary("second", diary, 200)]
        client = await joined(bench, end, Desk(), *middleware)
        assert await client.call("desk.add", 2, 3) == 5
        assert [(name, what) for name, what, *_ in diary] == [
            ("outer", "before"),
            ("inner", "before"),
            ("second", "before"),
            ("second", "after"),
            ("inner", "after"),
            ("outer", "after"),
        ]
        assert list(diary[0][3]) == [2, 3]
        assert diary[-1][2:] == ("OK", 5)

    run_on(scenario)


@ENDS
def test_a_refusal_ends_the_call_where_it_stands(run_on: Ground, end: str) -> None:
    async def scenario(bench: Bench) -> None:
        desk, diary = Desk(), []  # type: ignore[var-annotated]
        client = await joined(bench, end, desk, Diary("outer", diary, 5), Refusing(), Diary("inner", diary))
        error = await failure(client.call("desk.add", 2, 3))
        assert (error.code, error.message) == (StatusCode.PERMISSION_DENIED, "not today")
        assert desk.calls == []
        assert [entry[:2] for entry in diary] == [("outer", "before"), ("outer", "after")]
        assert diary[1][2] == "PERMISSION_DENIED"

    run_on(scenario)


@ENDS
def test_a_response_takes_the_methods_place(run_on: Ground, end: str) -> None:
    class Cached(Middleware):
        def before(self, request: Request) -> Response | None:
            return Response("from the cache") if request.method == "desk.add" else None

    async def scenario(bench: Bench) -> None:
        desk = Desk()
        client = await joined(bench, end, desk, Cached())
        assert await client.call("desk.add", 2, 3) == "from the cache"
        assert desk.calls == []
        desk.gate.set()
        assert await client.call("desk.wait") == "done"

    run_on(scenario)


@ENDS
def test_it_can_change_parameters_and_results(run_on: Ground, end: str) -> None:
    class Tenfold(Middleware):
        def before(self, request: Request) -> Response | None:
            request.params = [10 * number for number in request.params]
            return None

        def after(self, request: Request, response: Response) -> None:
            response.result += 1

    async def scenario(bench: Bench) -> None:
        client = await joined(bench, end, Desk(), Tenfold())
        assert await client.call("desk.add", 2, 3) == 51

    run_on(scenario)


@ENDS
def test_errors_of_methods_are_seen_as_the_caller_sees_them(run_on: Ground, end: str) -> None:
    async def scenario(bench: Bench) -> None:
        diary: list[Any] = []
        client = await joined(bench, end, Desk(), Diary("it", diary))
        error = await failure(client.call("desk.fail"))
        assert error.code is StatusCode.UNKNOWN
        assert diary[-1][2] == "UNKNOWN"
        error = await failure(client.call("desk.add", "2"))
        assert error.code is StatusCode.INVALID_ARGUMENT
        assert diary[-1][2] == "INVALID_ARGUMENT"
        assert [(name, type(fault)) for name, fault in bench.take_errors()] == [("desk.fail", ValueError)]

    run_on(scenario)


@ENDS
def test_deadlines_and_cancelled_calls_come_back_through_it(run_on: Ground, end: str) -> None:
    async def scenario(bench: Bench) -> None:
        diary: list[Any] = []
        client = await joined(bench, end, Desk(), Diary("it", diary))
        error = await failure(client.call("desk.wait", timeout=0.5))
        assert error.code is StatusCode.DEADLINE_EXCEEDED
        await until(lambda: len(diary) == 2)
        assert diary.pop()[2] in {"DEADLINE_EXCEEDED", "CANCELLED"}  # whichever clock comes first
        task = asyncio.ensure_future(client.call("desk.wait"))
        await until(lambda: len(diary) == 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: len(diary) == 3)
        assert diary.pop()[2] == "CANCELLED"

    run_on(scenario)


@ENDS
def test_one_that_waits_goes_around_every_kind_of_call(run_on: Ground, end: str) -> None:
    class Around(Middleware):
        def __init__(self) -> None:
            self.seen: list[str] = []

        async def around(self, request: Request, proceed: helianthus.Proceed) -> Any:
            await asyncio.sleep(0.001)
            result = await proceed()
            self.seen.append(request.method)
            return result

    async def scenario(bench: Bench) -> None:
        around = Around()
        client = await joined(bench, end, Desk(), around)
        assert await client.call("desk.add", 2, 3) == 5
        assert around.seen == ["desk.add"]
        if end == "server":
            assert [item async for item in client.stream("desk.count", 3)] == [0, 1, 2]
            assert around.seen == ["desk.add", "desk.count"]

    run_on(scenario)


@ENDS
def test_streams_and_their_items_are_seen(run_on: Ground, end: str) -> None:
    class Items(Diary):
        def sending(self, request: Request, item: Any) -> Any:
            return item + 100

        def received(self, request: Request, item: Any) -> Any:
            return item * 2

    async def scenario(bench: Bench) -> None:
        diary: list[Any] = []
        client = await joined(bench, end, Desk(), Items("it", diary))
        counted = [item async for item in client.stream("desk.count", 3)]
        assert counted == ([100, 101, 102] if end == "server" else [0, 2, 4])
        await until(lambda: len(diary) == 2)
        async with client.stream("desk.total") as stream:
            await stream.send(1)
            await stream.send(2)
            assert await stream.result() == (6 if end == "server" else 203)
        assert [entry[1] for entry in diary] == ["before", "after"] * 2
        assert diary[3][2:] == ("OK", diary[3][3])

    run_on(scenario)


def test_an_item_can_be_refused(run_on: Ground) -> None:
    class Picky(Middleware):
        def received(self, request: Request, item: Any) -> Any:
            if item < 0:
                raise RpcError(StatusCode.OUT_OF_RANGE, f"{item} is negative")
            return item

    async def scenario(bench: Bench) -> None:
        client = await joined(bench, "server", Desk(), Picky())
        async with client.stream("desk.total") as stream:
            await stream.send(1)
            await stream.send(-2)
            error = await failure(stream.result())
        assert (error.code, error.message) == (StatusCode.OUT_OF_RANGE, "-2 is negative")

    run_on(scenario)


@ENDS
def test_a_stream_can_be_refused(run_on: Ground, end: str) -> None:
    async def scenario(bench: Bench) -> None:
        client = await joined(bench, end, Desk(), Refusing())
        error = await failure(anext(client.stream("desk.count", 3)))
        assert error.code is StatusCode.PERMISSION_DENIED
        stream = client.stream("desk.total")
        error = await failure(stream.result())
        assert error.code is StatusCode.PERMISSION_DENIED

    run_on(scenario)


@ENDS
def test_notifications_go_through_it(run_on: Ground, end: str) -> None:
    async def scenario(bench: Bench) -> None:
        diary: list[Any] = []
        desk = Desk()
        client = await joined(bench, end, desk, Diary("it", diary))
        await client.notify("desk.add", 1, 2)
        await until(lambda: desk.calls)
        assert [entry[1] for entry in diary] == ["before", "after"]

    run_on(scenario)


def test_one_that_fails_is_reported_and_the_others_hear_the_end(run_on: Ground) -> None:
    class Broken(Middleware):
        order = 50

        def __init__(self, hook: str) -> None:
            self.hook = hook

        def before(self, request: Request) -> Response | None:
            if self.hook == "before":
                raise KeyError("before")
            return None

        def after(self, request: Request, response: Response) -> None:
            if self.hook == "after":
                raise KeyError("after")

    async def scenario(bench: Bench) -> None:
        for hook, code in (("before", StatusCode.UNKNOWN), ("after", StatusCode.INTERNAL)):
            diary: list[Any] = []
            client = await joined(bench, "server", Desk(), Diary("outer", diary, 5), Broken(hook))
            error = await failure(client.call("desk.add", 2, 3))
            assert error.code is code
            assert [type(fault) for _, fault in bench.take_errors()] == [KeyError]
            assert [entry[1:3] for entry in diary] == [("before", "desk.add"), ("after", "INTERNAL")]

    run_on(scenario)


def test_methods_to_which_none_applies_stay_simple(run_on: Ground) -> None:
    class Narrow(Diary):
        def applies(self, method: str) -> bool:
            return method == "desk.wait"

    async def scenario(bench: Bench) -> None:
        diary: list[Any] = []
        desk = Desk()
        desk.gate.set()
        server = await bench.serve(desk, middleware=[Narrow("it", diary)])
        assert server._methods["desk.add"].simple
        client = await bench.client(server)
        assert await client.call("desk.add", 2, 3) == 5
        assert diary == []
        await client.call("desk.wait")
        assert [entry[1] for entry in diary] == ["before", "after"]

    run_on(scenario)


def test_a_blocking_client_has_it_too(run_on_real: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        diary: list[Any] = []
        server = await bench.serve(Desk())

        def call() -> None:
            with helianthus.connect_sync(url_of(server), middleware=[Diary("it", diary)]) as client:
                assert client.call("desk.add", 2, 3) == 5
                assert list(client.stream("desk.count", 2)) == [0, 1]
            with (
                helianthus.connect_sync(url_of(server), middleware=[Refusing()]) as client,
                pytest.raises(RpcError, match="not today"),
            ):
                next(client.stream("desk.count", 2))

        await asyncio.to_thread(call)
        assert [entry[1] for entry in diary] == ["before", "after"] * 2

    run_on_real(scenario)


def test_a_blocking_client_takes_none_that_waits() -> None:
    class Waiting(Middleware):
        async def around(self, request: Request, proceed: helianthus.Proceed) -> Any:
            return await proceed()

    with pytest.raises(TypeError, match="no event loop to wait in"):
        helianthus.connect_sync("tcp://127.0.0.1:1", middleware=[Waiting()])
