"""Services that read like objects: by name, and by a class that declares them."""

from __future__ import annotations

import pickle
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from rpc_bench import SOON, Bench, Ground, until
from rpc_waiting import Waiting

from helianthus import CancelToken, RpcError, Service, StatusCode, method


class Calculator(Service):
    def __init__(self) -> None:
        self.noted: list[int] = []

    @method
    def add(self, a: int, b: int = 0) -> int:
        return a + b

    @method
    async def double(self, a: int) -> int:
        return 2 * a

    @method
    async def count(self, n: int) -> AsyncIterator[int]:
        for number in range(n):
            yield number

    @method
    async def total(self, items: AsyncIterator[int]) -> int:
        return sum([item async for item in items])

    @method
    def note(self, value: int) -> None:
        self.noted.append(value)

    @method(name="is")
    def is_(self) -> str:
        return "a keyword"


class ICalculator:
    """What a client knows of a calculator."""

    name = "calculator"

    async def add(self, a: int, b: int = 0) -> int:
        raise NotImplementedError

    async def count(self, n: int) -> AsyncIterator[int]:
        raise NotImplementedError
        yield

    def stubbed(self, n: int) -> AsyncIterator[int]:
        raise NotImplementedError

    async def not_served(self) -> None:
        raise NotImplementedError


class WaitingRoom:
    """Served under its own name in snake case, by nobody."""

    async def sit(self) -> None: ...


def test_positions_and_keywords_go_together_where_a_class_names_the_parameters(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Calculator())
        declared = client.service(ICalculator)
        assert await declared.add(2, b=3) == 5
        assert await declared.add(2, b=3, timeout=5.0) == 5
        assert await declared.add(2, timeout=5.0) == 2
        with pytest.raises(TypeError, match=r"calculator.add got more than one value for a"):
            declared.add(2, a=3)
        with pytest.raises(TypeError, match=r"calculator.add takes 2 parameters by position, got 3"):
            declared.add(1, 2, 3, c=4)  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="by position or by keyword, not both"):
            client.service("calculator").add(2, b=3)

    run_on(scenario)


def test_a_proxy_by_name(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Calculator())
        calculator = client.service("calculator")
        assert await calculator.add(2, 3) == 5
        assert await calculator.add(2) == 2
        assert await calculator.add(a=2, b=4) == 6
        assert await calculator.double(4) == 8
        with pytest.raises(RpcError) as caught:
            await calculator.no_such(1)
        assert caught.value.code is StatusCode.UNIMPLEMENTED
        assert "calculator.no_such" in caught.value.message

    run_on(scenario)


def test_the_methods_of_a_proxy_stream_and_notify(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Calculator()
        client = await bench.pair(service)
        calculator = client.service("calculator")
        assert [item async for item in calculator.count.stream(3)] == [0, 1, 2]
        async with calculator.total.stream() as stream:
            for item in (1, 2, 3):
                await stream.send(item)
            assert await stream == 6
        await calculator.note.notify(1)
        await calculator.note.notify(value=2)
        assert await calculator.add(0) == 0
        assert service.noted == [1, 2]

    run_on(scenario)


def test_options_pass_through_a_proxy(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        waiting = client.service("waiting")
        with pytest.raises(RpcError) as caught:
            await waiting.wait("a", timeout=SOON)
        assert caught.value.code is StatusCode.DEADLINE_EXCEEDED
        token = CancelToken()
        token.cancel("no")
        with pytest.raises(RpcError, match="no"):
            await waiting.now(1, cancel=token)
        service.gate.set()
        assert await waiting.wait(name="b", meta={"tenant": 3}) == "b"
        assert service.contexts["b"].meta == {"tenant": 3}

    run_on(scenario)


def test_a_proxy_by_class(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Calculator())
        calculator = client.service(ICalculator)
        assert await calculator.add(2, 3) == 5
        assert await calculator.add(a=1, b=1) == 2
        assert [item async for item in calculator.count(4)] == [0, 1, 2, 3]
        with pytest.raises(RpcError, match=r"calculator\.stubbed"):  # a stream, or it would not be iterable
            async for _ in calculator.stubbed(4):
                pass
        async with aclosing(calculator.count(1000)) as numbers:  # type: ignore[type-var]
            async for item in numbers:
                if item == 3:
                    break
        with pytest.raises(AttributeError, match="ICalculator declares no method 'double'"):
            calculator.double  # type: ignore[attr-defined]  # noqa: B018
        with pytest.raises(RpcError) as caught:
            await calculator.not_served()
        assert caught.value.code is StatusCode.UNIMPLEMENTED

    run_on(scenario)


def test_the_class_of_the_service_itself_declares_it_too(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Calculator())
        calculator = client.service(Calculator)
        assert await calculator.double(4) == 8
        assert [item async for item in calculator.count(2)] == [0, 1]
        assert await calculator.add(1, 2) == 3  # type: ignore[misc]  # a plain function there, not here
        assert await calculator.is_() == "a keyword"  # type: ignore[misc]  # served under another name

    run_on(scenario)


def test_a_class_without_a_name_gives_its_own(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Calculator())
        with pytest.raises(RpcError, match=r"waiting_room\.sit"):
            await client.service(WaitingRoom).sit()

    run_on(scenario)


def test_a_proxy_has_no_private_names(run_on: Ground) -> None:
    """So that `copy`, `pickle` and debuggers do not call the server."""

    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Calculator())
        calculator = client.service("calculator")
        for name in ("_secret", "__len__", "__deepcopy__", "__wrapped__"):
            assert not hasattr(calculator, name)
        with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
            pickle.dumps(calculator)

    run_on(scenario)


def test_methods_of_odd_names(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Calculator())
        assert await getattr(client.service("calculator"), "is")() == "a keyword"

    run_on(scenario)


def test_a_method_of_a_proxy_can_be_kept(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Calculator()
        client = await bench.pair(service)
        add = client.service("calculator").add
        assert [await add(number, 1) for number in range(3)] == [1, 2, 3]
        note = client.service("calculator").note
        await note.notify(7)
        await until(lambda: service.noted == [7])

    run_on(scenario)
