"""What is peculiar to completion ports; what every driver does is in tests/conformance."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import pytest
from iocp_ends import PATIENCE, End, turn_until

if sys.platform != "win32":
    pytest.skip("IOCP exists on Windows only", allow_module_level=True)

import helianthus
from helianthus.drivers import iocp_connector, iocp_link
from helianthus.drivers.address import Address
from helianthus.drivers.choose import running_driver
from helianthus.drivers.errors import (
    AcceptPaused,
    ConnectionRefused,
    ConnectionReset,
    FileTooShort,
    PermissionDenied,
    TimedOut,
    TransportError,
    Unreachable,
)
from helianthus.drivers.file_transfer import FileTransfer
from helianthus.drivers.iocp import IocpDriver, loop_on
from helianthus.drivers.iocp_listener import ACCEPTS, IocpListener
from helianthus.drivers.overlapped import Overlapped, kernel, new_operation
from helianthus.drivers.write_piece import PIECE

ANYWHERE = Address("127.0.0.1", 0)


@pytest.fixture
def driver() -> Iterator[IocpDriver]:
    made = IocpDriver()
    errors: list[Exception] = []
    made.on_error = errors.append
    yield made
    made.close()
    assert made._operations == {}
    assert errors == []


def serve(driver: IocpDriver) -> tuple[IocpListener, list[End]]:
    ends: list[End] = []

    def accept(peer: str) -> tuple[Any, Any]:
        ends.append(End(echoes=True))
        return ends[-1], ends[-1]

    return driver.listen(ANYWHERE, accept), ends


def pair(driver: IocpDriver) -> tuple[End, End]:
    listener, ends = serve(driver)
    client = End()
    driver.connect(listener.address, client, client)
    turn_until(driver, lambda: client.link and ends and ends[0].link)
    listener.close()
    return client, ends[0]


# -- operations and their buffers -----------------------------------------------------------------------


def test_a_cancelled_operation_is_kept_until_it_has_completed(driver: IocpDriver) -> None:
    """And so is its buffer: the kernel may still write into it."""
    client, _ = pair(driver)
    driver.poll(0.0)
    operation = client.link._operation
    assert operation.pending
    leased = driver.buffers.statistics().leased
    client.link.abort()
    assert operation.address in driver._operations
    assert driver.buffers.statistics().leased == leased
    address = operation.address
    del operation
    turn_until(driver, lambda: address not in driver._operations)
    assert driver.buffers.statistics().leased < leased
    assert driver.buffers.statistics().stranded == 0


def test_closing_the_driver_waits_for_every_operation() -> None:
    driver = IocpDriver()
    client, _ = pair(driver)
    datagrams = End()
    driver.bind(ANYWHERE, datagrams, datagrams)
    listener, _ = serve(driver)
    driver.poll(0.0)
    assert len(driver._operations) > ACCEPTS
    driver.close()
    assert driver._operations == {}
    assert client.closed
    assert driver.buffers.statistics().leased == 0
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((listener.address.host, listener.address.port))


def test_more_than_the_small_buffer_holds_is_read_at_once(driver: IocpDriver) -> None:
    client, server = pair(driver)
    client.output.append(bytes(range(256)) * 1000)
    client.link.wake()
    turn_until(driver, lambda: len(client.received) == 256_000)
    assert client.received == bytes(range(256)) * 1000 == server.received


def test_a_paused_link_keeps_what_has_arrived(driver: IocpDriver) -> None:
    """The read was under way when the machine had enough; its result is not lost, nor handed on early."""
    client, server = pair(driver)
    driver.poll(0.0)
    server.wants_read = False
    server.link.wake()
    client.output.append(b"later")
    client.link.wake()
    turn_until(driver, lambda: server.link._arrived is not None)
    assert server.received == b""
    server.wants_read = True
    server.link.wake()
    turn_until(driver, lambda: server.received == b"later")


class EndsBadlyAtOnce:
    """An operation that fails between its beginning and the first look at it."""

    pending = False

    def __init__(self, operation: Overlapped) -> None:
        self._operation = operation

    def __getattr__(self, name: str) -> Any:
        return getattr(self._operation, name)

    def getresult(self) -> Any:
        raise OSError(None, "gone", None, 10054)


@pytest.mark.parametrize("sends", ["bytes", "a file"])
def test_a_write_that_fails_at_once_ends_the_link(
    driver: IocpDriver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sends: str
) -> None:
    driver.transmits_files = True
    client, _ = pair(driver)
    driver.poll(0.0)  # which begins to read
    path = tmp_path / "file"
    path.write_bytes(bytes(100))
    with path.open("rb") as file, monkeypatch.context() as patched:
        patched.setattr(iocp_link, "new_operation", lambda: EndsBadlyAtOnce(new_operation()))
        if sends == "bytes":
            client.output.append(b"x")
            client.link.wake()
        else:
            client.link.send_file(file)
        turn_until(driver, lambda: client.closed)
    assert isinstance(client.error, ConnectionReset)


# -- files ----------------------------------------------------------------------------------------------


CONTENT = bytes(range(256)) * 4096


def stalled_transfer(driver: IocpDriver, path: Path) -> tuple[End, End, FileTransfer, BinaryIO]:
    """A file on its way to a peer that does not read, and that the kernel has a piece of.

    The sockets' buffers hold less than a piece, so that it cannot be done.
    """
    driver.transmits_files = True
    listener, ends = serve(driver)
    listener._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PIECE // 4)
    client = End()
    driver.connect(listener.address, client, client)
    turn_until(driver, lambda: client.link and ends and ends[0].link)
    client.link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIECE // 4)
    server = ends[0]
    server.echoes = server.wants_read = False
    server.link.wake()
    path.write_bytes(CONTENT)
    file = path.open("rb")
    transfer = client.link.send_file(file, on_done=lambda _: file.close())
    turn_until(driver, lambda: client.link.unsent)
    return client, server, transfer, file


def test_a_piece_that_has_begun_is_sent_although_its_file_was_closed(
    driver: IocpDriver, tmp_path: Path
) -> None:
    client, server, transfer, file = stalled_transfer(driver, tmp_path / "file")
    transfer.cancel()
    turn_until(driver, lambda: transfer.done)
    assert file.closed
    assert client.link.unsent
    client.output.append(b"behind it")
    client.link.wake()
    server.wants_read = True
    server.link.wake()
    turn_until(driver, lambda: server.received.endswith(b"behind it"))
    sent = len(server.received) - len(b"behind it")
    assert sent == transfer.sent < transfer.count
    assert server.received[:sent] == CONTENT[:sent]


def test_a_link_may_end_while_the_kernel_sends_a_file(driver: IocpDriver, tmp_path: Path) -> None:
    client, _, transfer, file = stalled_transfer(driver, tmp_path / "file")
    operation = client.link._sending
    assert operation.pending
    client.link.abort()
    turn_until(driver, lambda: operation.address not in driver._operations)
    assert client.closed
    assert transfer.done
    assert file.closed


def test_a_file_that_ends_within_a_piece(
    driver: IocpDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was shortened just before the kernel was asked for the piece.

    If that is done at once it is known how much was sent, and if it is waited for the link ends.
    """
    driver.transmits_files = True
    client, server = pair(driver)
    path = tmp_path / "file"
    path.write_bytes(bytes(1000))
    longer = os.stat_result([0] * 6 + [5000] + [0] * 3)
    monkeypatch.setattr("helianthus.drivers.iocp_link.os.fstat", lambda _: longer)
    with path.open("rb") as file:
        transfer = client.link.send_file(file, 0, 3000)
        turn_until(driver, lambda: transfer.done)
    assert isinstance(transfer.error, FileTooShort)
    if client.closed:
        assert client.error is transfer.error
        turn_until(driver, lambda: server.closed or server.ended)
    else:
        assert transfer.sent == 1000
        client.output.append(b"behind it")
        client.link.wake()
        turn_until(driver, lambda: server.received == bytes(1000) + b"behind it")


def test_a_file_that_ends_within_a_piece_that_was_waited_for(driver: IocpDriver, tmp_path: Path) -> None:
    """All of the piece counts as sent by then, so the link ends: what followed would be misplaced."""
    client, server, transfer, _ = stalled_transfer(driver, tmp_path / "file")
    address = client.link._sending.address
    operation, done = driver._operations[address]
    driver._operations[address] = operation, lambda count, error: done(count - 1, error)
    server.wants_read = True
    server.link.wake()
    turn_until(driver, lambda: client.closed)
    assert isinstance(client.error, FileTooShort)
    assert "shortened while 65536 bytes of it were sent: 65535 were" in str(client.error)
    assert transfer.error is client.error


# -- waiting and waking ---------------------------------------------------------------------------------


def test_one_wait_a_tick(driver: IocpDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has come besides is taken without waiting."""
    waits: list[int] = []
    take = kernel.GetQueuedCompletionStatus

    def counted(port: int, milliseconds: int) -> Any:
        if milliseconds:
            waits.append(milliseconds)
        return take(port, milliseconds)

    monkeypatch.setattr(kernel, "GetQueuedCompletionStatus", counted)
    pair(driver)
    waits.clear()
    called: list[int] = []
    while not waits:  # a machine that is busy may come to the wait when the timer's time has come
        timers = len(called)
        driver.call_at(driver.now() + 0.01, lambda: called.append(1))
        while len(called) == timers:
            before = len(waits)
            driver.poll(5.0)
            assert len(waits) <= before + 1
    assert max(waits) <= 11


def test_many_posts_are_one_packet(driver: IocpDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    packets: list[int] = []
    put = kernel.PostQueuedCompletionStatus

    def counted(*arguments: int) -> None:
        packets.append(1)
        put(*arguments)

    monkeypatch.setattr(kernel, "PostQueuedCompletionStatus", counted)
    called: list[int] = []
    for _ in range(1000):
        driver.post(lambda: called.append(1))
    driver.poll(5.0)
    assert len(called) == 1000
    assert len(packets) == 1


def test_ctrl_c_ends_a_wait_without_end(driver: IocpDriver) -> None:
    """Windows does not interrupt the wait; Python looks when it is over, and it never lasts long."""
    entered = threading.Event()
    driver.post(entered.set)

    def interrupt() -> None:
        entered.wait(PATIENCE)
        signal.raise_signal(signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        while True:
            driver.poll(None)
    thread.join()


# -- accepting and connecting ---------------------------------------------------------------------------


class Abandoned(socket.socket):
    """An accepted connection that turns out to have been reset."""

    failures: ClassVar[list[int]] = []

    def setsockopt(self, *arguments: Any) -> None:
        if arguments[1] == kernel.SO_UPDATE_ACCEPT_CONTEXT and self.failures:
            raise OSError(None, "gone", None, self.failures.pop(0))
        super().setsockopt(*arguments)


def test_accept_that_fails_with_a_visitors_error(driver: IocpDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(socket, "socket", Abandoned)
        listener, ends = serve(driver)
    Abandoned.failures[:] = [10054, 64, 10057]
    clients = [End([b"x"]) for _ in range(5)]
    for client in clients:
        driver.connect(listener.address, client, client)
    turn_until(driver, lambda: sum(client.received == b"x" for client in clients) == 2)
    assert Abandoned.failures == []
    assert len(ends) == 2


def test_a_listener_rests_when_handles_have_run_out(
    driver: IocpDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reports that once, and accepts again when there are some."""
    listener, _ = serve(driver)
    reported: list[Exception] = []
    driver.on_error = reported.append

    def none_left(*_: Any, **__: Any) -> None:
        raise OSError(None, "no more sockets", None, 10024)

    with monkeypatch.context() as patched:
        peers = [socket.create_connection((listener.address.host, listener.address.port)) for _ in range(3)]
        patched.setattr(socket, "socket", none_left)
        turn_until(driver, lambda: reported)
        driver.poll(0.0)
    assert len(reported) == 1
    assert isinstance(reported[0], AcceptPaused)
    assert "fewer connections" in str(reported[0])
    last = End([b"x"])
    driver.connect(listener.address, last, last)
    turn_until(driver, lambda: last.received == b"x")
    turn_until(driver, lambda: len(listener._under_way) == ACCEPTS)
    for peer in peers:
        peer.close()
    driver.on_error = lambda error: pytest.fail(str(error))


class Failing:
    """An operation that fails, at once or later."""

    def __init__(self, code: int, *, later: bool) -> None:
        self._code = code
        self._later = later
        self._real: Overlapped = new_operation()
        self.address = self._real.address
        self.pending = False

    def ConnectEx(self, *arguments: Any) -> None:  # noqa: N802
        if not self._later:
            raise OSError(None, "as told", None, self._code)
        self._real.ConnectEx(*arguments)

    def getresult(self) -> None:
        raise OSError(None, "as told", None, self._code)

    def cancel(self) -> None:
        self._real.cancel()


@pytest.mark.parametrize("later", [False, True], ids=["at once", "later"])
@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (1225, ConnectionRefused),
        (10061, ConnectionRefused),
        (121, TimedOut),
        (10060, TimedOut),
        (1231, Unreachable),
        (1232, Unreachable),
        (10051, Unreachable),
        (64, ConnectionReset),
        (1236, ConnectionReset),
        (10013, PermissionDenied),
        (59, TransportError),
    ],
)
def test_connect_that_fails(
    driver: IocpDriver, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[TransportError], later: bool
) -> None:
    listener, _ = serve(driver)
    client = End()
    with monkeypatch.context() as patched:
        patched.setattr(iocp_connector, "new_operation", lambda: Failing(code, later=later))
        driver.connect(listener.address, client, client)
        turn_until(driver, lambda: client.closed)
    assert type(client.error) is kind
    assert client.error.errno == code
    assert client.link is None


# -- datagrams ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1234, 10054])
def test_datagrams_survive_a_port_that_nobody_is_bound_to(driver: IocpDriver, code: int) -> None:
    """Windows fails a receive for it, which Wine does not do; so the failure is made here."""
    machine = End()
    link = driver.bind(ANYWHERE, machine, machine)
    driver.poll(0.0)
    operation, done = driver._operations[link._operation.address]
    driver._operations[operation.address] = (
        operation,
        lambda result, error: done(None, OSError(None, "nobody", None, code)),
    )
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    where = link.local_address.host, link.local_address.port
    sender.sendto(b"lost with the error", where)
    turn_until(driver, lambda: machine.errors)
    assert isinstance(machine.errors[0], ConnectionRefused)
    sender.sendto(b"heard", where)
    turn_until(driver, lambda: machine.received == b"heard")
    sender.close()
    assert not machine.closed


# -- behind asyncio's loop ------------------------------------------------------------------------------


def test_asyncio_runs_on_it_beside_links(driver: IocpDriver) -> None:
    """Streams, datagrams, threads, sleeping: each loop operation ends in the driver's port."""

    async def main() -> None:
        assert running_driver() is driver
        client, server = End([b"over a link"]), []
        listener = driver.listen(ANYWHERE, lambda _: (server.append(End(echoes=True)), server[-1])[1:] * 2)
        driver.connect(listener.address, client, client)

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write((await reader.readline()).upper())
            writer.close()

        serving = await asyncio.start_server(answer, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*serving.sockets[0].getsockname())
        writer.write(b"hello\n")
        assert await reader.readline() == b"HELLO\n"
        writer.close()
        assert await asyncio.to_thread(lambda: 7) == 7
        await asyncio.sleep(0.01)
        async with asyncio.timeout(PATIENCE):
            while client.received != b"over a link":
                await asyncio.sleep(0.001)
        serving.close()
        await serving.wait_closed()
        with pytest.raises(RuntimeError, match="asyncio loop turns it"):
            driver.poll(0.0)

    loop = loop_on(driver)
    loop.run_until_complete(main())
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        driver.poll(0.0)


def test_processes_end_in_the_same_port(driver: IocpDriver) -> None:
    """asyncio waits for them by registering a wait with the port."""

    async def main() -> bytes:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "print(6 * 7)", stdout=asyncio.subprocess.PIPE
        )
        output, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
        assert process.returncode == 0
        return output.strip()

    loop = loop_on(driver)
    assert loop.run_until_complete(main()) == b"42"
    loop.close()


def test_run_takes_it_by_itself() -> None:
    async def main() -> str:
        return running_driver().name

    assert helianthus.run(main()) == "iocp"
    assert helianthus.run(main(), driver="iocp") == "iocp"
