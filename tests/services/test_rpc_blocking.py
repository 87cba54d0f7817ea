"""The blocking client: calls from plain code, with no event loop and no thread on its side."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    RpcLimits,
    Service,
    StatusCode,
    connect_sync,
    method,
)

needs_native = pytest.mark.skipif(
    sys.platform != "linux", reason="without a native driver the client turns an asyncio loop of its own"
)
needs_signals = pytest.mark.skipif(
    not hasattr(signal, "pthread_kill"), reason="Windows has no signals to send"
)


class Desk(Service):
    """What the server calls at the client."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []
        self.token = CancelToken()

    @method
    def hear(self, news: str) -> str:
        self.heard.append((news, threading.current_thread().name))
        return f"heard {news}"

    @method
    async def later(self) -> None: ...

    @method
    def cancel(self) -> None:
        self.token.cancel("by the server's wish")


class Office(Service):
    @method
    def add(self, a: int, b: int = 0) -> int:
        return a + b

    @method
    def fail(self) -> None:
        raise RpcError(StatusCode.NOT_FOUND, "nothing here", ["looked"])

    @method
    def crash(self) -> None:
        raise ZeroDivisionError("on purpose")

    @method
    async def ask_client(self, context: CallContext, news: str) -> Any:
        return await context.peer.call("desk.hear", news)

    @method
    async def ask_client_later(self, context: CallContext) -> Any:
        return await context.peer.call("desk.later")

    @method
    async def have_it_cancelled(self, context: CallContext) -> None:
        await context.peer.call("desk.cancel")
        await asyncio.Event().wait()


@pytest.fixture
def server(run_on_real: Ground) -> Any:
    with ThreadedServer(run_on_real, Office(), Waiting()) as server:
        yield server


@pytest.fixture
def waiting(server: ThreadedServer) -> Waiting:
    service = server._services[1]
    assert isinstance(service, Waiting)
    return service


@pytest.fixture
def client(server: ThreadedServer) -> Any:
    with connect_sync(server.url, [Desk()]) as client:
        yield client


def fails(code: StatusCode, call: Callable[[], object]) -> RpcError:
    with pytest.raises(RpcError) as caught:
        call()
    assert caught.value.code is code
    return caught.value


def in_a_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


@contextmanager
def signalled(which: int, when: Callable[[], object]) -> Iterator[None]:
    """Have the main thread get a signal during the block, after `when` has returned.

    It is repeated: one that comes between two instructions of a thread about to wait wakes nobody,
    as with every system call of Python's.
    """
    over = threading.Event()

    def send() -> None:
        when()
        while not over.is_set():
            signal.pthread_kill(threading.main_thread().ident or 0, which)
            over.wait(0.1)

    thread = in_a_thread(send)
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_calls(client: BlockingClient) -> None:
    assert client.call("office.add", 2, 3) == 5
    assert client.call("office.add", a=2, b=4) == 6
    assert client.call("office.add", 1, timeout=20, meta={"tenant": 1}) == 1
    assert client.call("waiting.now", {"a": [1]}) == {"a": [1]}
    office = client.service("office")
    assert office.add(3, 4) == 7
    assert office.add(a=3, timeout=20) == 3
    assert [client.call("office.add", number) for number in range(200)] == list(range(200))
    with pytest.raises(AttributeError):
        office._private  # noqa: B018


def test_errors(client: BlockingClient, server: ThreadedServer) -> None:
    error = fails(StatusCode.NOT_FOUND, lambda: client.call("office.fail"))
    assert (error.message, error.details) == ("nothing here", ["looked"])
    fails(StatusCode.UNKNOWN, lambda: client.call("office.crash"))
    fails(StatusCode.UNIMPLEMENTED, lambda: client.call("office.no_such"))
    fails(StatusCode.INVALID_ARGUMENT, lambda: client.call("office.add", "1"))
    error = fails(StatusCode.INTERNAL, lambda: client.call("waiting.now", object()))
    assert not error.maybe_executed
    with pytest.raises(TypeError, match="not both"):
        client.call("office.add", 1, b=2)
    assert client.call("office.add", 1) == 1
    assert [name for name, _ in server.errors] == ["office.crash"]


@needs_native
def test_no_thread_is_started_and_no_loop_is_used(
    server: ThreadedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **options: Any) -> Any:
        raise AssertionError("the blocking client needs no event loop")

    for name in ("new_event_loop", "get_event_loop", "set_event_loop"):
        monkeypatch.setattr(asyncio, name, refuse)
    url = server.url.replace("127.0.0.1", "localhost")
    threads = threading.active_count()
    for address in (server.url, url):
        with connect_sync(address) as client:
            assert client.call("office.add", 1, 1) == 2
            client.notify("office.add", 1)
            with client.stream("waiting.produce", "a", 1) as stream:
                assert next(stream) == 0
            assert threading.active_count() == threads
            with pytest.raises(RuntimeError):
                asyncio.get_running_loop()
    assert threading.active_count() == threads


def test_deadlines(client: BlockingClient, waiting: Waiting, server: ThreadedServer) -> None:
    client.call("waiting.now")
    began = time.monotonic()
    error = fails(StatusCode.DEADLINE_EXCEEDED, lambda: client.call("waiting.wait", "a", timeout=0.05))
    assert time.monotonic() - began >= 0.045  # the server's clock may be uvloop's, of whole milliseconds
    assert error.maybe_executed
    server.until(lambda: "a: cancelled" in waiting.journal)
    error = fails(StatusCode.DEADLINE_EXCEEDED, lambda: client.call("waiting.wait", "b", timeout=0))
    assert not error.maybe_executed
    assert client.call("office.add", 1) == 1
    assert waiting.entries("b") == []


def test_notifications(client: BlockingClient, waiting: Waiting, server: ThreadedServer) -> None:
    waiting.gate.set()
    client.notify("waiting.wait", "a")
    client.notify("waiting.wait", name="b")
    server.until(lambda: "a: ended" in waiting.journal and "b: ended" in waiting.journal)
    client.notify(
        "waiting.swallow_nothing", bytes(3_000_000)
    )  # unknown, and large: it is gone when this returns
    assert client.call("office.add", 1) == 1


def test_the_server_calls_during_a_call(server: ThreadedServer) -> None:
    desk = Desk()
    with connect_sync(server.url, [desk]) as client:
        assert client.call("office.ask_client", "news") == "heard news"
        assert desk.heard == [("news", threading.current_thread().name)]
        error = fails(StatusCode.UNIMPLEMENTED, lambda: client.call("office.ask_client_later"))
        assert "without an event loop" in error.message


def test_what_is_pushed_between_calls_is_served_with_the_next(server: ThreadedServer) -> None:
    desk = Desk()
    with connect_sync(server.url, [desk]) as client:
        client.call("office.add", 1)
        (peer,) = server.connected

        async def push() -> None:
            peer.notify("desk.hear", "meanwhile")

        server.run(push)
        assert desk.heard == []
        client.call("office.add", 1)
        assert [news for news, _ in desk.heard] == ["meanwhile"]


# -- tokens --------------------------------------------------------------------------------------------------


def test_a_token_from_another_thread(
    client: BlockingClient, waiting: Waiting, server: ThreadedServer
) -> None:
    token = CancelToken()

    def cancel() -> None:
        server.until(lambda: "a: began" in waiting.journal)
        token.cancel("from another thread")

    thread = in_a_thread(cancel)
    error = fails(StatusCode.CANCELLED, lambda: client.call("waiting.wait", "a", cancel=token))
    thread.join()
    assert error.message == "from another thread"
    server.until(lambda: "a: cancelled" in waiting.journal)
    assert client.call("office.add", 1) == 1
    error = fails(StatusCode.CANCELLED, lambda: client.call("office.add", 1, cancel=token))
    assert not error.maybe_executed
    error = fails(StatusCode.CANCELLED, lambda: client.notify("office.add", 1, cancel=token))
    error = fails(StatusCode.CANCELLED, lambda: client.stream("office.add", 1, cancel=token))


@needs_signals
def test_a_token_from_a_signal_handler(
    client: BlockingClient, waiting: Waiting, server: ThreadedServer
) -> None:
    token = CancelToken()
    previous = signal.signal(signal.SIGUSR1, lambda *_: token.cancel("by a signal"))

    try:
        with signalled(signal.SIGUSR1, lambda: server.until(lambda: "a: began" in waiting.journal)):
            error = fails(StatusCode.CANCELLED, lambda: client.call("waiting.wait", "a", cancel=token))
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert error.message == "by a signal"
    assert client.call("office.add", 1) == 1


def test_a_token_from_a_method_of_our_own(server: ThreadedServer) -> None:
    desk = Desk()
    with connect_sync(server.url, [desk]) as client:
        error = fails(
            StatusCode.CANCELLED,
            lambda: client.call("office.have_it_cancelled", cancel=desk.token, timeout=20),
        )
        assert error.message == "by the server's wish"
        assert client.call("office.add", 1) == 1


def test_a_token_while_nobody_answers_the_connection() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0), backlog=1) as silent:
        token = CancelToken()
        with connect_sync(f"tcp://127.0.0.1:{silent.getsockname()[1]}", hello_timeout=20) as client:
            thread = in_a_thread(lambda: token.cancel("no patience"))
            error = fails(StatusCode.CANCELLED, lambda: client.call("office.add", 1, cancel=token))
            thread.join()
            assert not error.maybe_executed
            error = fails(StatusCode.DEADLINE_EXCEEDED, lambda: client.call("office.add", 1, timeout=0.02))
            assert not error.maybe_executed
            silent.close()


def test_a_token_keeps_nothing_of_calls_that_have_ended(client: BlockingClient, waiting: Waiting) -> None:
    token = CancelToken()
    waiting.gate.set()
    for _ in range(20):
        client.call("office.add", 1, cancel=token)
        client.notify("office.add", 1, cancel=token)
        assert list(client.stream("waiting.produce", "a", 3, cancel=token)) == [0, 1, 2]
    fails(StatusCode.NOT_FOUND, lambda: client.call("office.fail", cancel=token))
    assert token._callbacks == {}


# -- interrupts, loss, the end -------------------------------------------------------------------------------


@needs_signals
def test_an_interrupt_leaves_the_client_usable(
    client: BlockingClient, waiting: Waiting, server: ThreadedServer
) -> None:
    for name in "abc":
        began = f"{name}: began"
        interrupted = False
        try:
            with signalled(signal.SIGINT, lambda began=began: server.until(lambda: began in waiting.journal)):
                client.call("waiting.wait", name)
        except KeyboardInterrupt:
            interrupted = True
        assert interrupted
        assert client.call("office.add", 1, 1) == 2
        server.until(lambda name=name: f"{name}: cancelled" in waiting.journal)
    assert server.connected[0].in_flight == 0
    assert len(server.connected) == 1


@needs_native  # asyncio's own loop does not survive an interrupt between any two of its instructions
def test_interrupts_at_any_moment(client: BlockingClient, server: ThreadedServer) -> None:
    """Wherever in the driver it strikes, later calls still get their own answers."""
    assert client.call("office.add", 0) == 0
    main = threading.main_thread().ident or 0
    stop = threading.Event()

    def pester() -> None:
        while not stop.wait(0.0015):
            signal.pthread_kill(main, signal.SIGUSR1)

    def strike(*_: object) -> None:
        raise KeyboardInterrupt

    interrupted = answered = 0
    previous = signal.signal(signal.SIGUSR1, strike)
    try:
        thread = in_a_thread(pester)
        try:
            number = 0
            while number < 2000:
                number += 1
                try:
                    assert client.call("office.add", number, 1) == number + 1
                    answered += 1
                except KeyboardInterrupt:
                    interrupted += 1
        finally:
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
            stop.set()
            thread.join()
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert client.call("office.add", 1, 1) == 2
    assert interrupted > 0
    assert answered > 0


def test_a_lost_connection(client: BlockingClient, waiting: Waiting, server: ThreadedServer) -> None:
    client.call("office.add", 1)

    def cut() -> None:
        server.until(lambda: "a: began" in waiting.journal)

        async def abort() -> None:
            server.connected[0].abort()

        server.run(abort)

    thread = in_a_thread(cut)
    error = fails(StatusCode.UNAVAILABLE, lambda: client.call("waiting.wait", "a"))
    thread.join()
    assert error.maybe_executed
    assert client.call("office.add", 1) == 1
    assert len(server.connected) == 2


def test_a_server_that_restarts_is_found_again(run_on_real: Ground) -> None:
    server = ThreadedServer(run_on_real, Office())
    try:
        with connect_sync(server.url) as client:
            assert client.call("office.add", 1) == 1
            server.close()
            error = fails(StatusCode.UNAVAILABLE, lambda: client.call("office.add", 2))
            assert not error.maybe_executed
            error = fails(StatusCode.UNAVAILABLE, lambda: client.call("office.add", 2))  # fails fast
            server = ThreadedServer(run_on_real, Office(), url=server.url)
            while True:  # the client turns only while it is called; its next attempt comes within 1.2 s
                try:
                    assert client.call("office.add", 3, timeout=20) == 3
                    break
                except RpcError as error:
                    assert error.code is StatusCode.UNAVAILABLE
    finally:
        server.close()


def test_nobody_listens() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with connect_sync(f"tcp://127.0.0.1:{port}") as client:
        error = fails(StatusCode.UNAVAILABLE, lambda: client.call("office.add", 1))
        assert not error.maybe_executed
        fails(StatusCode.UNAVAILABLE, lambda: client.notify("office.add", 1))
        fails(StatusCode.UNAVAILABLE, lambda: client.stream("office.add", 1))


def test_after_closing(server: ThreadedServer) -> None:
    client = connect_sync(server.url)
    assert client.call("office.add", 1) == 1
    client.close()
    client.close()
    for given in (client.call, client.notify, client.stream):
        error = fails(StatusCode.UNAVAILABLE, lambda given=given: given("office.add", 1))
        assert error.message.endswith("the client was closed")
    connect_sync(server.url).close()  # without a call


def test_wrong_addresses() -> None:
    with pytest.raises(ValueError, match="tcp://"):
        connect_sync("127.0.0.1:80")
    gc.collect()


# -- where it can be used ------------------------------------------------------------------------------------


def test_clients_in_many_threads(server: ThreadedServer) -> None:
    answers: list[int] = []

    def work(number: int) -> None:
        with connect_sync(server.url) as client:
            answers.extend(client.call("office.add", number, step) for step in range(20))

    threads = [in_a_thread(lambda number=number: work(100 * number)) for number in range(8)]
    for thread in threads:
        thread.join()
    assert sorted(answers) == sorted(100 * number + step for number in range(8) for step in range(20))


@needs_native
def test_inside_a_running_event_loop() -> None:
    """It blocks that loop, but works: a server elsewhere answers."""
    with ThreadedServer(Standard(), Office()) as server:

        async def main() -> int:
            with connect_sync(server.url) as client:
                return client.call("office.add", 1, 1)  # type: ignore[no-any-return]

        assert asyncio.run(main()) == 2


def test_many_calls_one_after_the_other_hold_no_memory(client: BlockingClient) -> None:
    for _ in range(300):
        client.call("office.add", 1)
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(300):
        client.call("office.add", 1)
    gc.collect()
    assert len(gc.get_objects()) - before < 100


def test_a_large_answer_and_a_large_question(run_on_real: Ground) -> None:
    with (
        ThreadedServer(run_on_real, Waiting(), limits=RpcLimits(max_message_size=2**25)) as server,
        connect_sync(server.url, limits=RpcLimits(max_message_size=2**25)) as client,
    ):
        data = bytes(range(256)) * 80_000
        assert client.call("waiting.now", data) == data
