"""Streams of the blocking client: every kind, at its own pace, and given up early."""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from rpc_bench import Ground, Standard
from rpc_thread import ThreadedServer
from rpc_waiting import Waiting

from helianthus import (
    BlockingClient,
    CallContext,
    CancelToken,
    RpcError,
    Service,
    StatusCode,
    connect_sync,
    method,
)

WINDOW = 256


class Flow(Service):
    def __init__(self) -> None:
        self.produced = 0
        self.taken: list[int] = []
        self.noted: list[str] = []

    @method
    def note(self, text: str) -> None:
        self.noted.append(text)

    @method
    async def count(self, n: int) -> AsyncIterator[int]:
        for number in range(n):
            self.produced += 1
            yield number

    @method
    async def total(self, items: AsyncIterator[int]) -> int:
        async for item in items:
            self.taken.append(item)
        return sum(self.taken)

    @method
    async def running_total(self, items: AsyncIterator[int]) -> AsyncIterator[int]:
        total = 0
        async for item in items:
            total += item
            yield total

    @method
    async def fail_after(self, n: int) -> AsyncIterator[int]:
        for number in range(n):
            yield number
        raise RpcError(StatusCode.OUT_OF_RANGE, "no more")

    @method
    def add(self, a: int, b: int) -> int:
        return a + b

    @method
    async def cut_after(self, context: CallContext, n: int) -> AsyncIterator[int]:
        for number in range(n):
            yield number
        context.peer.abort()


@pytest.fixture
def server(run_on_real: Ground) -> Iterator[ThreadedServer]:
    with ThreadedServer(run_on_real, Flow(), Waiting()) as server:
        yield server


@pytest.fixture
def flow(server: ThreadedServer) -> Any:
    return server._services[0]


@pytest.fixture
def waiting(server: ThreadedServer) -> Any:
    return server._services[1]


@pytest.fixture
def client(server: ThreadedServer) -> Iterator[BlockingClient]:
    with connect_sync(server.url) as client:
        yield client


@pytest.mark.parametrize("n", [0, 1, WINDOW, WINDOW + 1, 1000])
def test_items_of_the_callee(client: BlockingClient, n: int) -> None:
    stream = client.stream("flow.count", n)
    assert list(stream) == list(range(n))
    assert list(stream) == []
    assert stream.result() is None


@pytest.mark.parametrize("n", [0, 1, WINDOW, WINDOW + 1, 1000])
def test_items_of_the_caller(client: BlockingClient, n: int) -> None:
    stream = client.stream("flow.total")
    for number in range(n):
        stream.send(number)
    assert stream.result() == sum(range(n))
    assert stream.result() == sum(range(n))


def test_items_both_ways(client: BlockingClient) -> None:
    with client.stream("flow.running_total") as stream:
        total = 0
        for number in range(200):
            stream.send(number)
            total += number
            assert next(stream) == total
        stream.end()
        stream.end()
        assert list(stream) == []


class IFlow:
    """What a blocking client knows of it."""

    name = "flow"

    def count(self, n: int) -> Iterator[int]:
        raise NotImplementedError
        yield

    def fail_after(self, n: int) -> Iterator[int]:
        raise NotImplementedError

    def add(self, a: int, b: int) -> int:
        raise NotImplementedError

    @method(name="note")
    def write_down(self, text: str) -> None:
        raise NotImplementedError


def test_a_proxy_by_name(client: BlockingClient, flow: Flow, server: ThreadedServer) -> None:
    proxy = client.service("flow")
    assert proxy.add(2, 3) == 5
    assert list(proxy.count.stream(3)) == [0, 1, 2]
    with proxy.total.stream(timeout=20) as stream:
        stream.send(4)
        assert stream.result() == 4
    proxy.note.notify("a")
    server.until(lambda: flow.noted == ["a"])


def test_a_proxy_by_class(client: BlockingClient, flow: Flow) -> None:
    proxy = client.service(IFlow)
    assert proxy.add(2, 3) == 5
    assert list(proxy.count(3)) == [0, 1, 2]
    items = proxy.fail_after(1)
    assert next(items) == 0
    with pytest.raises(RpcError, match="no more"):
        next(items)
    proxy.write_down("b")
    assert flow.noted == ["b"]
    with pytest.raises(AttributeError, match="IFlow declares no method 'total'"):
        proxy.total  # type: ignore[attr-defined]  # noqa: B018


def test_a_unary_method_as_a_stream(client: BlockingClient) -> None:
    assert client.stream("flow.add", 2, 3).result() == 5
    assert list(client.stream("flow.add", a=2, b=3)) == []


def test_what_is_sent_arrives_without_another_turn(
    client: BlockingClient, flow: Flow, waiting: Waiting, server: ThreadedServer
) -> None:
    """Nothing turns between two operations, so each gives the operating system what it has."""
    stream = client.stream("flow.total")
    for number in range(3):
        stream.send(number)
        server.until(lambda number=number: flow.taken == list(range(number + 1)))
    ended = client.stream("waiting.consume", "ended")
    ended.end()
    server.until(lambda: "ended: finally" in waiting.journal)
    with client.stream("waiting.consume", "left") as left:
        left.send(1)
        server.until(lambda: "left: began" in waiting.journal)
    server.until(lambda: "left: cancelled" in waiting.journal)
    client.notify("waiting.slow_clean_up", "notified")
    server.until(lambda: "notified: began" in waiting.journal)
    waiting.gate.set()


def test_streams_and_calls_side_by_side(client: BlockingClient) -> None:
    counts = [client.stream("flow.count", 300) for _ in range(5)]
    for number in range(300):
        assert [next(stream) for stream in counts] == [number] * 5
        assert client.call("flow.add", number, 1) == number + 1
    assert [list(stream) for stream in counts] == [[]] * 5


def test_a_slow_consumer_holds_the_producer(client: BlockingClient, flow: Flow) -> None:
    stream = client.stream("flow.count", 10_000)
    for taken in range(1, 201):
        assert next(stream) == taken - 1
        assert flow.produced <= taken + WINDOW + 1
    stream._stream.give_up()


def test_errors_come_after_the_items(client: BlockingClient) -> None:
    stream = client.stream("flow.fail_after", 3)
    got = []
    with pytest.raises(RpcError) as caught:
        for item in stream:
            got.append(item)  # noqa: PERF402 - what came before the error is kept
    assert got == [0, 1, 2]
    assert caught.value.code is StatusCode.OUT_OF_RANGE
    for operation in (stream.result, lambda: stream.send(1), lambda: next(stream)):
        with pytest.raises(RpcError, match="no more"):
            operation()
    for name, code in (
        ("flow.no_such", StatusCode.UNIMPLEMENTED),
        ("flow.count", StatusCode.INVALID_ARGUMENT),
    ):
        with pytest.raises(RpcError) as caught:
            next(client.stream(name))
        assert caught.value.code is code


def test_deadlines(client: BlockingClient, waiting: Waiting, server: ThreadedServer) -> None:
    stream = client.stream("waiting.produce", "a", 2, timeout=0.1)
    got = []
    with pytest.raises(RpcError) as caught:
        for item in stream:
            got.append(item)  # noqa: PERF402 - what came before the deadline is kept
    assert got == [0, 1]
    assert caught.value.code is StatusCode.DEADLINE_EXCEEDED
    server.until(lambda: "a: cancelled" in waiting.journal)
    with pytest.raises(RpcError) as caught:
        client.stream("waiting.produce", "b", 2, timeout=0)
    assert caught.value.code is StatusCode.DEADLINE_EXCEEDED


def test_a_token_from_another_thread(
    client: BlockingClient, waiting: Waiting, server: ThreadedServer
) -> None:
    token = CancelToken()
    stream = client.stream("waiting.produce", "a", 1, cancel=token)
    assert next(stream) == 0

    def cancel() -> None:
        server.until(lambda: "a: all sent" in waiting.journal)
        token.cancel("enough")

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(RpcError, match="enough") as caught:
        next(stream)
    thread.join()
    assert caught.value.code is StatusCode.CANCELLED
    server.until(lambda: "a: cancelled" in waiting.journal)
    assert client.call("flow.add", 1, 1) == 2


def test_leaving_the_block_and_dropping(
    client: BlockingClient, waiting: Waiting, server: ThreadedServer
) -> None:
    with client.stream("waiting.produce", "a", 1000) as stream:
        for item in stream:
            if item == 3:
                break
    server.until(lambda: "a: finally" in waiting.journal)
    with pytest.raises(RpcError) as caught:
        next(stream)
    assert caught.value.code is StatusCode.CANCELLED

    stream = client.stream("waiting.produce", "b", 1000)
    assert next(stream) == 0
    del stream
    gc.collect()
    client.call("flow.add", 1, 1)  # nothing turns before
    server.until(lambda: "b: finally" in waiting.journal)


def test_a_lost_connection(client: BlockingClient) -> None:
    stream = client.stream("flow.cut_after", 3)
    got = []
    with pytest.raises(RpcError) as caught:
        for item in stream:
            got.append(item)  # noqa: PERF402 - what came before the loss is kept
    assert got == list(range(len(got)))
    assert caught.value.code is StatusCode.UNAVAILABLE
    with pytest.raises(RpcError):
        stream.send(1)
    assert client.call("flow.add", 1, 1) == 2


def test_closing_the_client_ends_its_streams(server: ThreadedServer, waiting: Waiting) -> None:
    client = connect_sync(server.url)
    stream = client.stream("waiting.produce", "a", 1)
    assert next(stream) == 0
    client.close()
    for operation in (lambda: next(stream), stream.result, lambda: stream.send(1)):
        with pytest.raises(RpcError) as caught:
            operation()
        assert caught.value.code is StatusCode.CANCELLED
    stream.end()
    server.until(lambda: "a: finally" in waiting.journal)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="Windows has no signals to send")
def test_an_interrupt_leaves_the_stream_usable() -> None:
    with (
        ThreadedServer(Standard(), service := Waiting()) as server,
        connect_sync(server.url) as client,
        client.stream("waiting.produce", "a", 2) as stream,
    ):
        assert [next(stream), next(stream)] == [0, 1]
        over = threading.Event()

        def interrupt() -> None:
            server.until(lambda: "a: all sent" in service.journal)
            while not over.wait(0.05):
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        interrupted = False
        try:
            try:
                next(stream)
            finally:
                over.set()
                thread.join()
        except KeyboardInterrupt:
            interrupted = True
        assert interrupted
        server.loop.call_soon_threadsafe(service.gate.set)
        assert list(stream) == []
        assert stream.result() is None
