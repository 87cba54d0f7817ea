"""A native reactor as the selector of a standard asyncio loop: plain asyncio code runs on it."""

from __future__ import annotations

import asyncio
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from helianthus.drivers.address import Address

if sys.platform == "win32":
    pytest.skip("Windows has no reactor", allow_module_level=True)

from helianthus.drivers.reactor import Reactor
from helianthus.protocols.machine import Closing

Main = Callable[[], Awaitable[Any]]


def make_epoll() -> Reactor:
    if sys.platform != "linux":
        pytest.skip("epoll exists on Linux only")
    from helianthus.drivers.epoll import EpollReactor

    return EpollReactor()


def make_kqueue() -> Reactor:
    """On the system's kqueue, or on Linux on its double."""
    from helianthus.drivers.kqueue import KqueueReactor

    if sys.platform != "linux":
        return KqueueReactor()
    import kqueue_double

    return KqueueReactor(system=kqueue_double)


@pytest.fixture(params=[make_epoll, make_kqueue], ids=["epoll", "kqueue"])
def make_reactor(request: pytest.FixtureRequest) -> Callable[[], Reactor]:
    """Each of the reactors in turn."""
    made: Callable[[], Reactor] = request.param
    return made


@pytest.fixture
def reactor(make_reactor: Callable[[], Reactor]) -> Iterator[Reactor]:
    made = make_reactor()
    yield made
    made.close()


@pytest.fixture
def run(reactor: Reactor) -> Iterator[Callable[[Any], Any]]:
    """Runs coroutines on a loop over the reactor."""
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(reactor)) as runner:
        yield runner.run


class Echo:
    """Machine and handler in one: echoes, and notes what it received."""

    wants_read = True
    closing = Closing.OPEN

    def __init__(self, on_event: Callable[[bytes], None] | None = None, echo: bool = True) -> None:
        self.link: Any = None
        self.closed = False
        self.output: list[bytes] = []
        self.events: list[bytes] = []
        self._on_event = on_event
        self._echo = echo

    def deadline(self) -> None:
        return None

    def handle_timeout(self, now: float) -> None:
        pass

    def take_data(self) -> list[bytes]:
        output, self.output = self.output, []
        return output

    def take_actions(self) -> list[Any]:
        return []

    def take_events(self) -> list[bytes]:
        events, self.events = self.events, []
        return events

    def receive_data(self, data: Any, now: float) -> None:
        self.events.append(bytes(data))
        if self._echo:
            self.output.append(bytes(data))

    def receive_eof(self, now: float) -> None:
        self.closing = Closing.FULL

    def connection_lost(self, error: Exception | None, now: float) -> None:
        pass

    def on_ready(self, link: Any) -> None:
        self.link = link

    def on_events(self, events: list[bytes]) -> None:
        if self._on_event is not None:
            for event in events:
                self._on_event(event)

    def on_writable(self) -> None:
        pass

    def on_closed(self, error: Exception | None) -> None:
        self.closed = True


# -- plain asyncio ---------------------------------------------------------------------------------------


def test_streams(run: Callable[[Any], Any]) -> None:
    """`start_server` and `open_connection`, with more data than fits the buffers."""
    payload = os.urandom(3_000_000)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(len(payload)))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main() -> bytes:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(payload)
            answer = await reader.read(-1)
            writer.close()
            await writer.wait_closed()
        return answer

    assert run(main()) == payload


def test_create_server_and_create_connection(run: Callable[[Any], Any]) -> None:
    """The same with protocols."""
    lost: list[str] = []

    class Server(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(data.upper())
            self.transport.close()

    class Client(asyncio.Protocol):
        def __init__(self, answer: asyncio.Future[bytes]) -> None:
            self.answer = answer

        def connection_made(self, transport: Any) -> None:
            transport.write(b"hello")

        def data_received(self, data: bytes) -> None:
            self.answer.set_result(data)

        def connection_lost(self, exc: Exception | None) -> None:
            lost.append("client")

    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Server, "127.0.0.1", 0)
        answer: asyncio.Future[bytes] = loop.create_future()
        await loop.create_connection(lambda: Client(answer), *server.sockets[0].getsockname())
        received = await answer
        while not lost:
            await asyncio.sleep(0.001)
        server.close()
        await server.wait_closed()
        return received

    assert run(main()) == b"HELLO"


def test_a_refused_connection(run: Callable[[Any], Any]) -> None:
    """An error that comes with a hang-up reaches the one who waits to write."""

    async def main() -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = probe.getsockname()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)

    run(main())


def test_subprocess(run: Callable[[Any], Any]) -> None:
    """Pipes to and from a child, which are watched for hang-ups too."""

    async def main() -> tuple[bytes, int | None]:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            "import sys; sys.stdout.write(sys.stdin.read().upper())",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await child.communicate(b"abc" * 100_000)
        return output, child.returncode

    output, code = run(main())
    assert output == b"ABC" * 100_000
    assert code == 0


def test_a_child_that_closes_its_input(run: Callable[[Any], Any]) -> None:
    """A pipe without a reader is noticed while there is nothing to write."""

    async def main() -> None:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "import sys; sys.stdin.close()", stdin=asyncio.subprocess.PIPE
        )
        assert child.stdin is not None
        await asyncio.wait_for(child.stdin.wait_closed(), 20)
        await child.wait()

    run(main())


def test_call_soon_threadsafe(run: Callable[[Any], Any]) -> None:
    """It wakes a loop that waits in the reactor."""

    async def main() -> str:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[str] = loop.create_future()
        thread = threading.Thread(target=lambda: loop.call_soon_threadsafe(answer.set_result, "done"))
        thread.start()
        result = await asyncio.wait_for(answer, 20)
        thread.join()
        return result

    assert run(main()) == "done"


def test_executor_and_name_lookup(run: Callable[[Any], Any]) -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        await loop.getaddrinfo("localhost", 80)
        return await asyncio.to_thread(threading.get_ident)

    assert run(main()) != threading.get_ident()


def test_signal_handlers(run: Callable[[Any], Any]) -> None:
    """`add_signal_handler` works through asyncio's own wake-up socket."""

    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        caught: list[str] = []
        arrived = asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR1, lambda: (caught.append("USR1"), arrived.set()))
        try:
            os.kill(os.getpid(), signal.SIGUSR1)
            await asyncio.wait_for(arrived.wait(), 20)
        finally:
            loop.remove_signal_handler(signal.SIGUSR1)
        return caught

    assert run(main()) == ["USR1"]


def test_sleep_timeout_and_task_group(run: Callable[[Any], Any]) -> None:
    async def main() -> list[int]:
        order: list[int] = []

        async def wait(number: int) -> None:
            await asyncio.sleep(number * 0.005)
            order.append(number)

        async with asyncio.TaskGroup() as group:
            for number in (3, 1, 2):
                group.create_task(wait(number))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.005):
                await asyncio.Event().wait()
        return order

    assert run(main()) == [1, 2, 3]


def test_datagrams_and_readers(run: Callable[[Any], Any]) -> None:
    """`create_datagram_endpoint`, `add_reader` and `add_writer` on the same loop."""

    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        arrived: asyncio.Future[bytes] = loop.create_future()

        class Receiver(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: Any) -> None:
                arrived.set_result(data)

        receiver, _ = await loop.create_datagram_endpoint(Receiver, local_addr=("127.0.0.1", 0))
        near, far = socket.socketpair()
        with near, far:
            near.setblocking(False)
            far.setblocking(False)
            readable, writable = asyncio.Event(), asyncio.Event()
            loop.add_reader(near, readable.set)
            loop.add_writer(near, writable.set)
            await asyncio.wait_for(writable.wait(), 20)
            assert not readable.is_set()
            far.send(b"x")
            await asyncio.wait_for(readable.wait(), 20)
            assert loop.remove_reader(near)
            assert loop.remove_writer(near)
            assert not loop.remove_writer(near)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"datagram", receiver.get_extra_info("sockname"))
        data = await asyncio.wait_for(arrived, 20)
        receiver.close()
        return data

    assert run(main()) == b"datagram"


def test_an_idle_loop_sleeps(run: Callable[[Any], Any]) -> None:
    """Neither the reactor nor asyncio turns while there is nothing to do."""

    async def main() -> float:
        before = time.process_time()
        await asyncio.sleep(0.3)
        return time.process_time() - before

    assert run(main()) < 0.15


# -- both at once -----------------------------------------------------------------------------------------


def test_coroutines_and_links_together(reactor: Reactor, run: Callable[[Any], Any]) -> None:
    """A task waits for what a link's handler hears; streams go on beside it."""

    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        arrived: asyncio.Future[bytes] = loop.create_future()

        def accept(peer: str) -> tuple[Any, Any]:
            echo = Echo()
            return echo, echo

        listener = reactor.listen(Address("127.0.0.1", 0), accept)
        client = Echo(arrived.set_result, echo=False)
        client.output.append(b"through the reactor")
        reactor.connect(listener.address, client, client)
        answer = await asyncio.wait_for(arrived, 20)
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.address.port)
        writer.write(b"!")
        answer += await reader.read(10)
        writer.close()
        await writer.wait_closed()
        listener.close()
        return answer

    assert run(main()) == b"through the reactor!"


def test_an_event_at_the_beginning_of_a_tick_wakes_its_task(
    reactor: Reactor, run: Callable[[Any], Any]
) -> None:
    """The loop has decided how long to wait before the reactor settles what was commanded.

    If settling resolves a future, the task that awaits it must run now, not after that wait.
    """

    async def main() -> float:
        loop = asyncio.get_running_loop()
        heard: asyncio.Future[bytes] = loop.create_future()
        machine = Echo(heard.set_result)
        host = reactor.host(machine, machine)
        await asyncio.sleep(0.01)
        machine.events.append(b"settled")
        before = loop.time()
        alarm = loop.call_later(5.0, heard.cancel)
        host.wake()
        await heard
        alarm.cancel()
        return loop.time() - before

    assert run(main()) < 2.0


def test_on_closed_at_the_beginning_of_a_tick_wakes_its_task(
    reactor: Reactor, run: Callable[[Any], Any]
) -> None:
    """The same for a link that is aborted from a coroutine."""

    async def main() -> float:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        class Ending(Echo):
            def on_closed(self, error: Exception | None) -> None:
                if not ended.done():
                    ended.set_result(None)

        listener = reactor.listen(Address("127.0.0.1", 0), lambda peer: (Echo(), Echo()))
        client = Ending()
        reactor.connect(listener.address, client, client)
        while client.link is None:
            await asyncio.sleep(0.001)
        before = loop.time()
        alarm = loop.call_later(5.0, ended.cancel)
        client.link.abort()
        await ended
        alarm.cancel()
        listener.close()
        return loop.time() - before

    assert run(main()) < 2.0


def test_timers_of_both_are_kept(reactor: Reactor, run: Callable[[Any], Any]) -> None:
    """The reactor's timers end the wait of a loop that has none, and the other way round."""

    async def main() -> list[str]:
        rung: list[str] = []
        done = asyncio.Event()
        reactor.call_at(reactor.now() + 0.02, lambda: (rung.append("reactor"), done.set()))
        asyncio.get_running_loop().call_later(0.01, rung.append, "loop")
        await asyncio.wait_for(done.wait(), 20)
        return rung

    assert run(main()) == ["loop", "reactor"]


def test_closing_the_loop_closes_the_reactor(make_reactor: Callable[[], Reactor]) -> None:
    """It is the loop's selector, and the loop closes its selector."""
    reactor = make_reactor()
    closed: list[bool] = []

    class Noting(Echo):
        def on_closed(self, error: Exception | None) -> None:
            closed.append(True)

    async def main() -> None:
        listener = reactor.listen(Address("127.0.0.1", 0), lambda peer: (Echo(), Echo()))
        client = Noting()
        reactor.connect(listener.address, client, client)
        while client.link is None:
            await asyncio.sleep(0.001)

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(reactor)) as runner:
        runner.run(main())
    assert closed == [True]
    with pytest.raises(RuntimeError, match="closed"):
        reactor.poll(0.0)


# -- the selector by itself ---------------------------------------------------------------------------------


def test_it_is_a_selector(reactor: Reactor) -> None:
    near, far = socket.socketpair()
    with near, far:
        key = reactor.register(near, selectors.EVENT_READ, "data")
        assert key == selectors.SelectorKey(near, near.fileno(), selectors.EVENT_READ, "data")
        assert reactor.get_key(near) == key
        assert reactor.get_map()[near.fileno()] == key
        assert reactor.select(0) == []
        far.send(b"x")
        assert reactor.select(5) == [(key, selectors.EVENT_READ)]
        assert reactor.select(5) == [(key, selectors.EVENT_READ)], "it is level-triggered"
        key = reactor.modify(near, selectors.EVENT_READ | selectors.EVENT_WRITE, "more")
        assert reactor.select(5) == [(key, selectors.EVENT_READ | selectors.EVENT_WRITE)]
        key = reactor.modify(near, selectors.EVENT_WRITE, "more")
        assert reactor.select(5) == [(key, selectors.EVENT_WRITE)]
        assert reactor.modify(near, selectors.EVENT_WRITE, "other data").data == "other data"
        assert reactor.unregister(near).data == "other data"
        assert reactor.select(0) == []


def test_what_a_selector_refuses(reactor: Reactor) -> None:
    near, far = socket.socketpair()
    with near, far:
        reactor.register(near, selectors.EVENT_READ)
        with pytest.raises(KeyError):
            reactor.register(near, selectors.EVENT_READ)
        with pytest.raises(KeyError):
            reactor.unregister(far)
        with pytest.raises(KeyError):
            reactor.modify(far, selectors.EVENT_READ)
        with pytest.raises(KeyError):
            reactor.get_key(far)
        with pytest.raises(ValueError, match="no valid file descriptor"):
            reactor.register(-1, selectors.EVENT_READ)
        reactor.unregister(near)
    with pytest.raises(ValueError, match="no valid file descriptor"):
        reactor.register(near, selectors.EVENT_READ)


def test_a_file_object_that_was_closed_can_be_unregistered(reactor: Reactor) -> None:
    near, far = socket.socketpair()
    with far:
        reactor.register(near, selectors.EVENT_READ)
        near.close()
        reactor.unregister(near)
        assert not reactor.get_map()


def test_a_hang_up_is_reported_for_both_directions(reactor: Reactor) -> None:
    reader, writer = os.pipe()
    try:
        key = reactor.register(writer, selectors.EVENT_READ)  # how asyncio notices a lost reader
        assert reactor.select(0) == []
        os.close(reader)
        assert reactor.select(5) == [(key, selectors.EVENT_READ)]
        reactor.unregister(writer)
    finally:
        os.close(writer)


def test_the_reactors_own_descriptors_are_not_the_loops(reactor: Reactor) -> None:
    """Neither its links nor its wake-up pipe show up in what `select` returns."""
    server, client = Echo(), Echo(echo=False)
    listener = reactor.listen(Address("127.0.0.1", 0), lambda peer: (server, server))
    client.output.append(b"x")
    received: list[bytes] = []
    client._on_event = received.append
    reactor.connect(listener.address, client, client)
    reactor.post(lambda: None)
    end = time.monotonic() + 20
    while not received:
        assert reactor.select(1.0) == []
        assert time.monotonic() < end
    assert not reactor.get_map()
