"""Two nodes that send bytes both ways over a socket, with operations given up at chosen moments.

Each side knows what it sends and what it is to receive. A side receives by whatever operation its
generator draws, and where one is given up it draws another: what it has got at the end must be what was
sent, without a byte missing or doubled. Likewise for what it sends: after an operation that was given
up, it goes on behind the bytes that were accepted.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import random
import types
from collections import Counter
from collections.abc import Callable, Coroutine, Generator
from functools import cache
from typing import Any, TypeVar

from helianthus.errors import LimitExceeded, TransportError
from helianthus.sim import World
from helianthus.sockets import (
    ByteStreamLimits,
    CancelToken,
    ClientTls,
    IncompleteRead,
    OperationCancelled,
    OperationTimedOut,
    ServerTls,
    TcpSocket,
    TlsError,
    cancel_scope,
    connect,
    listen,
)

T = TypeVar("T")

LIMITS = ByteStreamLimits(high_water=96, low_water=24, max_queued_output=64)
MAGIC = b"hello"
LOST = (TransportError, TlsError)
GIVEN_UP = (asyncio.CancelledError, OperationCancelled, OperationTimedOut)


@cache
def options_of_tls() -> tuple[ServerTls, ClientTls]:
    """What the node `b` and its clients are given over TLS; no tickets, whose size is left to chance."""
    from certificates import Authority

    authority = Authority.of_this_process()
    node = authority.issue("b", "b")
    return ServerTls(node.certificate, node.key, session_tickets=0), ClientTls(ca=authority.file)


class Moment:
    """Gives up what runs at its n-th suspension, counted over all operations; then never again.

    Args:
        at: Which suspension, from 1 on; 0 for none.
        turns: Turns of the loop that pass before: in these the operation may have been woken.
        way: How it is given up.
        when: A time of the world's before which it is not; an operation suspends once, and much may happen.
    """

    def __init__(self, at: int, turns: int, way: str, when: float = 0.0) -> None:
        self.at = at
        self.turns = turns
        self.way = way
        self.when = when
        self.passed = 0
        self.struck = False
        self.token = CancelToken()
        self._suspended = False

    @property
    def reached(self) -> bool:
        return 0 < self.at <= self.passed

    @types.coroutine
    def watch(self, coroutine: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
        """Await an operation."""
        failure: BaseException | None = None
        while True:
            try:
                waits_for = coroutine.send(None) if failure is None else coroutine.throw(failure)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            finally:
                self._suspended = False
            self._suspended = True
            failure = None
            self.passed += 1
            if self.passed == self.at:
                loop = asyncio.get_running_loop()
                loop.call_soon(self._strike_in, self.turns, asyncio.current_task())
            try:
                yield waits_for
            except BaseException as error:  # noqa: BLE001 - it is the operation's
                failure = error

    def _strike_in(self, turns: int, task: asyncio.Task[Any] | None) -> None:
        assert task is not None
        loop = asyncio.get_running_loop()
        if not self._suspended:
            return  # it has ended by itself, and what the task does now is not to be disturbed
        if loop.time() < self.when:
            loop.call_at(self.when, self._strike_in, turns, task)
            return
        if turns:
            loop.call_soon(self._strike_in, turns - 1, task)
            return
        self.struck = True
        if self.way == "task":
            task.cancel()
        else:
            self.token.cancel("at its moment")

    def token_for(self) -> CancelToken | None:
        """What an operation is given as `cancel`."""
        return self.token if self.way == "token" and not self.token.cancelled else None


def forgive() -> None:
    """The task was cancelled on purpose, and goes on."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()


class Side:
    """One end: sends `data`, and is to receive `expected`.

    Attributes:
        received: What it has got.
        counted: Operations that were given up, by name and what was raised; and other rare things.
        pause: Seconds between two operations that send, at most.
    """

    pause = 0.01

    def __init__(self, data: bytes, expected: bytes, rng: random.Random, counted: Counter[str]) -> None:
        self.data = data
        self.expected = expected
        self.received = bytearray()
        self.rng = rng
        self.counted = counted
        self.sent = 0

    def _bounds(self, moment: Moment) -> dict[str, Any]:
        token = moment.token_for()
        return {} if token is None else {"cancel": token}

    async def receive(self, sock: TcpSocket, moment: Moment, gives_up: Callable[[], dict[str, Any]]) -> None:
        """Receive up to the end of the stream."""
        rng = self.rng
        while True:
            kind = rng.choice(["recv", "recv_exactly", "recv_until"])
            given = {**self._bounds(moment), **gives_up()}
            operation: Coroutine[Any, Any, bytes]
            if kind == "recv":
                operation = sock.recv(rng.randint(1, 60), **given)
            elif kind == "recv_exactly":
                operation = sock.recv_exactly(rng.choice([1, 7, 40, 150]), **given)
            else:
                operation = sock.recv_until(rng.choice([b"\n", b"ab", b"\0\0\0"]), limit=150, **given)
            try:
                data = await moment.watch(operation)
            except GIVEN_UP as error:
                forgive()
                self.counted[f"{kind} {type(error).__name__}"] += 1
                assert sock.bytes_received == len(self.received)
                continue
            except (IncompleteRead, LimitExceeded):
                data = await sock.recv(100)
            if not data:
                return
            self.received += data
            assert self.expected.startswith(self.received), "a byte is missing, or came twice"
            assert sock.bytes_received == len(self.received)

    async def send(self, sock: TcpSocket, moment: Moment, gives_up: Callable[[], dict[str, Any]]) -> None:
        """Send everything, then end this direction."""
        rng, data, view = self.rng, self.data, memoryview(self.data)
        while self.sent < len(data):
            kind = rng.choice(["send_all", "send", "sendfile", "flush"])
            size = min(rng.choice([1, 30, 64, 65, 500]), len(data) - self.sent)
            piece = view[self.sent : self.sent + size]
            given = {**self._bounds(moment), **gives_up()}
            before = sock.bytes_accepted
            operation: Coroutine[Any, Any, Any]
            if kind == "send_all":
                operation = sock.send_all(piece[: size // 2], piece[size // 2 :], **given)
            elif kind == "send":
                operation = sock.send(piece, b"", **given)
            elif kind == "sendfile":
                operation = sock.sendfile(io.BytesIO(data), self.sent, size, **given)
            else:
                operation = sock.flush(**given)
            try:
                await moment.watch(operation)
            except GIVEN_UP as error:
                forgive()
                self.counted[f"{kind} {type(error).__name__}"] += 1
                accepted = sock.bytes_accepted - before
                assert getattr(error, "queued", accepted) == accepted
                if kind in ("send", "flush") or (kind == "send_all" and size <= LIMITS.max_queued_output):
                    assert accepted == 0
            self.sent += sock.bytes_accepted - before
            if rng.random() < 0.5:
                await asyncio.sleep(rng.random() * self.pause)  # so that the other side has to wait
        await sock.send_eof()


def nothing() -> dict[str, Any]:
    """Bounds of an operation that has none."""
    return {}


def texts(rng: random.Random, size: int) -> bytes:
    """Bytes among which delimiters occur now and then."""
    return bytes(rng.choice(b"abcd\n\0\0xyz") for _ in range(size))


# -- every moment of one exchange ------------------------------------------------------------------------


def exchange(
    seed: int, *, reading: Moment, writing: Moment, meeting: Moment, encrypted: bool = False
) -> Counter[str]:
    """One exchange, with operations given up at these moments; raises where a byte is lost or doubled."""
    server_tls, client_tls = options_of_tls() if encrypted else (None, None)
    scheme = "tls" if encrypted else "tcp"
    rng = random.Random(seed)
    up, down = texts(rng, 1500), texts(rng, 1500)
    counted: Counter[str] = Counter()
    near, far = Side(up, down, random.Random(seed), counted), Side(down, up, random.Random(-seed), counted)
    never = Moment(0, 0, "task")

    async def serve() -> None:
        async with await listen(f"{scheme}://0.0.0.0:7", tls=server_tls, limits=LIMITS) as listener:
            while True:
                try:
                    sock = await meeting.watch(listener.accept(**near._bounds(meeting)))
                except GIVEN_UP:
                    forgive()
                    counted["accept"] += 1
                    continue
                async with sock:
                    try:
                        await sock.recv_exactly(len(MAGIC))
                    except (IncompleteRead, *LOST):
                        continue  # of a client that gave up connecting
                    far.received += MAGIC
                    far.expected = MAGIC + far.expected
                    await asyncio.gather(far.receive(sock, reading, nothing), far.send(sock, never, nothing))
                return

    async def client() -> None:
        await asyncio.sleep(0.01)
        while True:
            try:
                bounds = near._bounds(meeting)
                sock = await meeting.watch(
                    connect(f"{scheme}://b:7", tls=client_tls, limits=LIMITS, **bounds)
                )
            except GIVEN_UP:
                forgive()
                counted["connect"] += 1
            else:
                break
        async with sock:
            await sock.send_all(MAGIC)
            await asyncio.gather(near.receive(sock, never, nothing), near.send(sock, writing, nothing))

    with World(seed, splitting=0.5, send_buffer=100, window=100) as world:
        serving, calling = world.node("b").spawn(serve), world.node("a").spawn(client)
        world.run_until(calling, timeout=60)
        world.run_until(serving, timeout=60)
    assert bytes(near.received) == down
    assert bytes(far.received) == MAGIC + up
    return counted


# -- many worlds, faults included ------------------------------------------------------------------------


def run_world(seed: int, *, encrypted: bool = False) -> tuple[str, Counter[str]]:
    """Exchanges under faults, where operations are given up all the time; gives digest and what happened.

    What was received is the beginning of what was sent, and all of it where the stream ended in order.
    """
    server_tls, client_tls = options_of_tls() if encrypted else (None, None)
    scheme = "tls" if encrypted else "tcp"
    rng = random.Random(seed)
    counted: Counter[str] = Counter()
    up, down = texts(rng, 800), texts(rng, 800)
    impatience = rng.choice([0.0, 0.1, 0.5])

    def gives_up(tokens: list[CancelToken]) -> dict[str, Any]:
        if rng.random() >= impatience:
            return {}
        if rng.random() < 0.5:
            return {"timeout": rng.choice([0.0, 0.001, 0.01, 0.1])}
        token = CancelToken.after(rng.choice([0.0, 0.0005, 0.005, 0.05]))
        tokens.append(token)
        return {"cancel": CancelToken.linked(token, CancelToken())}

    async def talk(sock: TcpSocket, side: Side) -> None:
        tokens: list[CancelToken] = []
        side.pause = 0.2
        never = Moment(0, 0, "task")
        async with sock:
            with cancel_scope(timeout=900):
                try:
                    async with asyncio.TaskGroup() as group:
                        group.create_task(side.receive(sock, never, lambda: gives_up(tokens)))
                        group.create_task(side.send(sock, never, lambda: gives_up(tokens)))
                except* LOST as errors:
                    counted[type(errors.exceptions[0]).__name__] += 1
                else:
                    assert bytes(side.received) == side.expected
                    counted["whole"] += 1
        assert all(not token._callbacks and token._timer is None for token in tokens)

    async def serve() -> None:
        url = f"{scheme}://0.0.0.0:7"
        async with await listen(url, tls=server_tls, limits=LIMITS, backlog=2) as listener:
            async for sock in listener:
                side = Side(down, up, random.Random(rng.random()), counted)
                task = asyncio.ensure_future(talk(sock, side))
                tasks.add(task)
                task.add_done_callback(tasks.discard)

    async def call() -> None:
        for _ in range(2):
            try:
                patience = rng.choice([0.01, 1, 5])
                sock = await connect(f"{scheme}://b:7", tls=client_tls, limits=LIMITS, timeout=patience)
            except LOST as error:
                counted[f"connect {type(error).__name__}"] += 1
                await asyncio.sleep(0.5)
                continue
            await talk(sock, Side(up, down, random.Random(rng.random()), counted))

    tasks: set[asyncio.Task[None]] = set()
    narrow = rng.choice([{}, {"send_buffer": 100, "window": 100}])
    with World(seed, **narrow) as world:
        world.node("b").spawn(serve)
        nodes = [world.node(name) for name in ("a", "c")]
        world.run(until=0.1)
        world.chaos(until=3.0)
        callers = [node.spawn(call) for node in nodes]
        for caller in callers:
            world.run_until(caller, timeout=5000)
        with contextlib.suppress(TimeoutError):
            world.run_until(lambda: not tasks, timeout=2000)
        assert not tasks, "a side of a connection has not heard of its end"
        return world.digest(), counted
