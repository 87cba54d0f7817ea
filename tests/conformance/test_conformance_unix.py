"""Unix-domain sockets: whose file it is, who may connect, who has."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from machines import BulkMachine, EchoMachine, TalkingMachine
from pairs import End, connect
from peers import Peers
from platforms import Platform
from recording import Accepting, RecordingHandler

from helianthus.drivers.address import Address
from helianthus.drivers.base import Listener
from helianthus.drivers.errors import (
    AddressInUse,
    AddressNotAvailable,
    AddressNotSupported,
    ConnectionRefused,
    PermissionDenied,
    TransportError,
)
from helianthus.drivers.unix_socket import AF_UNIX, SUN_PATH
from helianthus.protocols.machine import Closing

PIECE = 100_000

needs_unix = pytest.mark.skipif(AF_UNIX is None, reason="Python has no Unix-domain sockets on this platform")
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="exists on Linux only")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a short name."""
    with tempfile.TemporaryDirectory(prefix="h") as directory:
        yield Path(directory)


def at(path: Path | str, mode: int | None = None) -> Address:
    return Address("", 0, "unix", str(path), mode)


def offering(handler: RecordingHandler, _: Any) -> None:
    """Put the next piece before the driver when it has taken one."""
    handler.link.machine.offer()
    handler.link.wake()


def pair_at(
    platform: Platform,
    address: Address,
    client: Any,
    server: Any,
    handler: Callable[[], RecordingHandler] = RecordingHandler,
) -> tuple[End, End, Listener]:
    """Connect two machines; gives client, server and the listener."""
    accepting = Accepting(lambda: server, handler)
    listener = platform.driver.listen(address, accepting)
    near = connect(platform, listener, client, handler())
    platform.turn_until(lambda: near.handler.ready and accepting.handlers and accepting.handlers[0].ready)
    return near, End(server, accepting.handlers[0]), listener


def fails(platform: Platform, address: Address) -> Exception | None:
    """Try to connect; gives the error."""
    handler = RecordingHandler()
    platform.driver.connect(address, TalkingMachine(), handler)
    platform.turn_until(lambda: handler.closed)
    assert not handler.ready
    return handler.error


def stale(path: Path) -> None:
    """Leave a socket file behind to which nobody listens."""
    with socket.socket(AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()


@contextlib.contextmanager
def mere_mortal() -> Iterator[None]:
    """Be somebody whom permission bits concern, as they do not concern root."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


# -- what is the same for every driver, the simulator's too ----------------------------------------------


@needs_unix
def test_two_machines_talk(platform: Platform, place: Path) -> None:
    """And are told who is at the other end."""
    address = at(place / "a.sock")
    client, server, listener = pair_at(platform, address, TalkingMachine(b"hello"), EchoMachine())
    platform.turn_until(lambda: client.machine.received == b"hello")
    assert listener.address == address
    assert client.link.peer_address == server.link.local_address == f"unix://{address.path}"
    assert client.link.local_address == "unix:"
    if not platform.sockets:
        assert server.link.peer_address == "unix:pid=1,uid=0,gid=0"
    elif sys.platform == "linux":
        assert server.link.peer_address == f"unix:pid={os.getpid()},uid={os.getuid()},gid={os.getgid()}"
    else:
        assert server.link.peer_address == "unix:"
    listener.close()


@needs_unix
def test_accept_is_told_who_connects(platform: Platform, place: Path) -> None:
    accepting = Accepting(EchoMachine)
    listener = platform.driver.listen(at(place / "a.sock"), accepting)
    connect(platform, listener, TalkingMachine())
    platform.turn_until(lambda: accepting.handlers and accepting.handlers[0].ready)
    assert accepting.peers == [accepting.handlers[0].link.peer_address]
    listener.close()


@needs_unix
def test_a_name_is_looked_up_as_itself(platform: Platform, place: Path) -> None:
    address = at(place / "a.sock")
    found: list[Any] = []
    platform.driver.resolve(address, lambda *outcome: found.append(outcome))
    assert found == [], "told from within"
    platform.turn_until(lambda: found)
    assert found == [([address], None)]


@needs_unix
def test_much_goes_both_ways(platform: Platform, place: Path) -> None:
    """With partial writes and backpressure, byte for byte."""
    size = platform.bulk // 4
    client, server, listener = pair_at(
        platform,
        at(place / "a.sock"),
        BulkMachine(size, PIECE, seed=1),
        BulkMachine(size, PIECE, seed=2),
        lambda: RecordingHandler(on_events=offering),
    )
    for end in (client, server):
        end.machine.offer()
        end.link.wake()
    platform.turn_until(lambda: client.handler.closed and server.handler.closed)
    for sender, receiver in ((client, server), (server, client)):
        assert sender.machine.sent == receiver.machine.received == size
        assert sender.machine.checksum_sent == receiver.machine.checksum_received
    listener.close()


@needs_unix
def test_each_direction_ends_by_itself(platform: Platform, place: Path) -> None:
    client, server, listener = pair_at(platform, at(place / "a.sock"), TalkingMachine(), TalkingMachine())
    client.machine.closing = Closing.HALF
    client.link.wake()
    platform.turn_until(lambda: server.machine.ended)
    server.say(b"still here")
    platform.turn_until(lambda: client.machine.received == b"still here")
    server.machine.closing = Closing.FULL
    server.link.wake()
    platform.turn_until(lambda: client.handler.closed and server.handler.closed)
    assert client.handler.error is None
    assert server.handler.error is None
    listener.close()


@needs_unix
def test_nobody_listens(platform: Platform, place: Path) -> None:
    error = fails(platform, at(place / "a.sock"))
    assert isinstance(error, ConnectionRefused)
    assert str(place / "a.sock") in str(error)


@needs_unix
def test_a_path_is_taken_while_somebody_listens(platform: Platform, place: Path) -> None:
    """And free as soon as they have closed."""
    address = at(place / "a.sock")
    client, server, listener = pair_at(platform, address, TalkingMachine(b"x"), EchoMachine())
    with pytest.raises(AddressInUse, match="somebody else listens there") as caught:
        platform.driver.listen(address, Accepting(EchoMachine))
    assert str(address) in str(caught.value)
    listener.close()
    assert isinstance(fails(platform, address), ConnectionRefused)
    _, _, again = pair_at(platform, address, TalkingMachine(), EchoMachine())
    client.say(b"y")
    platform.turn_until(lambda: client.machine.received == b"xy")
    assert not server.handler.closed
    again.close()
    again.close()


@needs_unix
def test_the_driver_closes_its_listeners(platform: Platform, place: Path) -> None:
    platform.driver.listen(at(place / "a.sock"), Accepting(EchoMachine))
    platform.driver.close()
    assert os.listdir(place) == []


def test_pipes_are_not_for_every_driver(platform: Platform) -> None:
    if platform.driver.name == "iocp":
        pytest.skip("it has named pipes; tests/drivers/test_iocp_pipes.py is about them")
    address = Address.parse("pipe:///helianthus")
    with pytest.raises(AddressNotSupported, match=r"no named pipes.* use unix:///path or tcp://host:port"):
        platform.driver.listen(address, Accepting(EchoMachine))
    error = fails(platform, address)
    assert isinstance(error, AddressNotSupported)
    assert error.address == "pipe:///helianthus"


@pytest.mark.skipif(AF_UNIX is not None, reason="Python has Unix-domain sockets on this platform")
def test_a_platform_without_says_so(socket_platform: Platform) -> None:
    address = at("/a.sock")
    with pytest.raises(AddressNotSupported, match=r"no Unix-domain sockets.* use tcp://host:port"):
        socket_platform.driver.listen(address, Accepting(EchoMachine))
    assert isinstance(fails(socket_platform, address), AddressNotSupported)


# -- files --------------------------------------------------------------------------------------------------


@needs_unix
def test_a_stale_file_is_replaced(socket_platform: Platform, place: Path) -> None:
    stale(place / "a.sock")
    assert isinstance(fails(socket_platform, at(place / "a.sock")), ConnectionRefused)
    client, _, listener = pair_at(socket_platform, at(place / "a.sock"), TalkingMachine(b"x"), EchoMachine())
    socket_platform.turn_until(lambda: client.machine.received == b"x")
    listener.close()
    assert os.listdir(place) == []


@needs_unix
def test_one_that_somebody_listens_to_is_not(socket_platform: Platform, place: Path) -> None:
    """Not even if they know nothing of our lock, or are too busy to accept."""
    for backlog in (16, 0):
        path = place / f"{backlog}.sock"
        with socket.socket(AF_UNIX) as other, socket.socket(AF_UNIX) as waiting:
            other.bind(str(path))
            other.listen(backlog)
            waiting.connect(str(path))
            with pytest.raises(AddressInUse, match="somebody else listens there"):
                socket_platform.driver.listen(at(path), Accepting(EchoMachine))
            other.accept()[0].close()
        assert path.is_socket()


@needs_unix
def test_a_datagram_socket_is_not(socket_platform: Platform, place: Path) -> None:
    with socket.socket(AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(place / "a.sock"))
        with pytest.raises(AddressInUse, match="a socket is there already"):
            socket_platform.driver.listen(at(place / "a.sock"), Accepting(EchoMachine))
        error = fails(socket_platform, at(place / "a.sock"))
        assert isinstance(error, TransportError)
        assert "not for connections" in str(error)


@needs_unix
@pytest.mark.parametrize(
    ("kind", "name"), [("file", "a file"), ("directory", "a directory"), ("link", "a symbolic link")]
)
def test_what_is_no_socket_is_never_removed(
    socket_platform: Platform, place: Path, kind: str, name: str
) -> None:
    path = place / "a.sock"
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    else:
        stale(place / "elsewhere")
        path.symlink_to(place / "elsewhere")
    before = sorted(os.listdir(place))
    with pytest.raises(AddressInUse, match=f"what is there is {name} and no socket, and is not removed"):
        socket_platform.driver.listen(at(path), Accepting(EchoMachine))
    assert sorted(os.listdir(place)) == before
    assert kind != "file" or path.read_text() == "precious"
    error = fails(socket_platform, at(path))
    assert isinstance(error, ConnectionRefused)
    if kind != "link":  # which leads to a socket
        assert f"what is there is {name} and no socket; is the path right?" in str(error)


@needs_unix
def test_only_our_own_file_is_removed(socket_platform: Platform, place: Path) -> None:
    """Somebody has moved it away and put another one there."""
    path = place / "a.sock"
    listener = socket_platform.driver.listen(at(path), Accepting(EchoMachine))
    path.rename(place / "moved")
    stale(path)
    listener.close()
    assert sorted(os.listdir(place)) == ["a.sock", "moved"]


@needs_unix
def test_a_file_that_is_gone_is_not_missed(socket_platform: Platform, place: Path) -> None:
    path = place / "sub" / "a.sock"
    path.parent.mkdir()
    listener = socket_platform.driver.listen(at(path), Accepting(EchoMachine))
    for file in path.parent.iterdir():
        file.unlink()
    path.parent.rmdir()
    listener.close()


@needs_unix
def test_the_killed_leave_a_file_that_is_replaced(socket_platform: Platform, place: Path) -> None:
    """While they live the path is theirs; the kernel releases their lock."""
    path = place / "a.sock"
    program = (
        "import sys, helianthus\n"
        "from helianthus.drivers.address import Address\n"
        "driver = helianthus.driver('asyncio')\n"
        "driver.listen(Address('', 0, 'unix', sys.argv[1]), lambda peer: None)\n"
        "print('listening', flush=True)\n"
        "sys.stdin.read()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"listening\n"
        with pytest.raises(AddressInUse):
            socket_platform.driver.listen(at(path), Accepting(EchoMachine))
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert path.is_socket()
    socket_platform.driver.listen(at(path), Accepting(EchoMachine)).close()
    assert os.listdir(place) == []


@needs_unix
def test_a_forked_child_leaves_the_file_and_the_lock(socket_platform: Platform, place: Path) -> None:
    """However it ends, and whatever it closes."""
    path = place / "a.sock"
    listener = socket_platform.driver.listen(at(path), Accepting(EchoMachine))
    child = os.fork()
    if child == 0:
        try:
            listener.close()
            socket_platform.driver.close()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert path.is_socket()
    with pytest.raises(AddressInUse):
        socket_platform.driver.listen(at(path), Accepting(EchoMachine))
    client = connect(socket_platform, listener, TalkingMachine(b"x"))
    socket_platform.turn_until(lambda: client.machine.received == b"x")
    listener.close()
    assert os.listdir(place) == []


@needs_unix
def test_a_directory_that_is_not_there(socket_platform: Platform, place: Path) -> None:
    (place / "file").write_text("")
    for path in (place / "none" / "a.sock", place / "file" / "a.sock"):
        with pytest.raises(AddressNotAvailable, match=rf"the directory {path.parent} does not exist"):
            socket_platform.driver.listen(at(path), Accepting(EchoMachine))


@needs_unix
def test_a_directory_that_is_not_ours(socket_platform: Platform, place: Path) -> None:
    place.chmod(0o500)
    with mere_mortal(), pytest.raises(PermissionDenied, match=r"a\.sock\.lock"):
        socket_platform.driver.listen(at(place / "a.sock"), Accepting(EchoMachine))
    place.chmod(0o700)


@needs_unix
def test_a_path_that_is_too_long(socket_platform: Platform, place: Path) -> None:
    """The longest that fits does work."""
    longest = str(place / "x").ljust(SUN_PATH - 1, "x")
    socket_platform.driver.listen(at(longest), Accepting(EchoMachine)).close()
    address = at(longest + "x")
    said = f"the path has {SUN_PATH} bytes, but .* may have {SUN_PATH - 1} at most here; choose a shorter one"
    with pytest.raises(AddressNotAvailable, match=said):
        socket_platform.driver.listen(address, Accepting(EchoMachine))
    assert isinstance(fails(socket_platform, address), AddressNotAvailable)
    assert os.listdir(place) == []


@needs_unix
def test_a_path_that_is_no_text(socket_platform: Platform, place: Path) -> None:
    """File names are bytes."""
    if sys.platform == "darwin":
        pytest.skip("file names are UTF-8 on macOS")
    path = os.fsdecode(os.fsencode(place) + b"/\xff%? #.sock")
    client, server, listener = pair_at(socket_platform, at(path), TalkingMachine(b"x"), EchoMachine())
    socket_platform.turn_until(lambda: client.machine.received == b"x")
    assert Address.parse(server.link.local_address) == at(path)
    listener.close()


# -- who may connect ---------------------------------------------------------------------------------------


@needs_unix
def test_mode_bits(socket_platform: Platform, place: Path) -> None:
    """Whatever the umask; and they do not count as a part of where it is."""
    path = place / "a.sock"
    before = os.umask(0o022)
    try:
        for mode in (0o600, 0o666, 0o777, 0o000):
            listener = socket_platform.driver.listen(at(path, mode), Accepting(EchoMachine))
            assert stat.S_IMODE(path.lstat().st_mode) == mode
            assert listener.address == at(path)
            listener.close()
        os.umask(0o077)
        listener = socket_platform.driver.listen(at(path), Accepting(EchoMachine))
        assert stat.S_IMODE(path.lstat().st_mode) == 0o700
        listener.close()
    finally:
        os.umask(before)


@needs_unix
def test_who_may_not_write_to_the_file_cannot_connect(socket_platform: Platform, place: Path) -> None:
    place.chmod(0o755)
    listener = socket_platform.driver.listen(at(place / "a.sock", 0o000), Accepting(EchoMachine))
    with mere_mortal():
        error = fails(socket_platform, listener.address)
        assert isinstance(error, PermissionDenied)
        assert str(listener.address) in str(error)
    listener.close()


@needs_unix
def test_the_mode_is_set_before_anybody_can_connect(
    socket_platform: Platform, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = place / "a.sock"
    refusals: list[int] = []
    chmod = os.chmod

    def look(name: Any, mode: int) -> None:
        with socket.socket(AF_UNIX) as early:
            refusals.append(early.connect_ex(str(path)))
        chmod(name, mode)

    monkeypatch.setattr(os, "chmod", look)
    socket_platform.driver.listen(at(path, 0o660), Accepting(EchoMachine)).close()
    assert len(refusals) == 1
    assert refusals[0] != 0


# -- the rest -----------------------------------------------------------------------------------------------


@linux_only
def test_abstract_names(socket_platform: Platform) -> None:
    """No file, nothing to lock; free when the listener is closed."""
    address = at(f"/@helianthus-{os.getpid()}-{socket_platform.name}")
    client, server, listener = pair_at(socket_platform, address, TalkingMachine(b"x"), EchoMachine())
    socket_platform.turn_until(lambda: client.machine.received == b"x")
    assert client.link.peer_address == server.link.local_address == str(address)
    with pytest.raises(AddressInUse):
        socket_platform.driver.listen(address, Accepting(EchoMachine))
    listener.close()
    client.link.abort()
    socket_platform.turn_until(lambda: client.handler.closed and server.handler.closed)
    assert isinstance(fails(socket_platform, address), ConnectionRefused)
    with pytest.raises(AddressNotAvailable, match="the name has 108 bytes"):
        socket_platform.driver.listen(at("/@" + "x" * 108), Accepting(EchoMachine))


@needs_unix
@pytest.mark.skipif(sys.platform not in ("linux", "win32"), reason="a BSD refuses when the backlog is full")
def test_a_full_backlog_is_waited_for(socket_platform: Platform, peers: Peers, place: Path) -> None:
    """Linux does not say when there is room; nobody is refused, and nobody taken for connected."""
    path = place / "a.sock"
    with socket.socket(AF_UNIX) as listening, socket.socket(AF_UNIX) as first:
        listening.bind(str(path))
        listening.listen(0)
        first.connect(str(path))
        handler, gone = RecordingHandler(), RecordingHandler()
        machine = TalkingMachine(b"hello")
        socket_platform.driver.connect(at(path), machine, handler)
        given_up = socket_platform.driver.connect(at(path), TalkingMachine(), gone)
        for _ in range(3):
            socket_platform.turn(0.005)
        assert not handler.ready
        assert not handler.closed
        given_up.abort()
        socket_platform.turn_until(lambda: gone.closed)
        peers.accept(listening)
        socket_platform.turn_until(lambda: handler.ready)
        assert peers.work(peers.accept(listening).recv, 5) is not None
        socket_platform.turn_until(lambda: not handler.link.unsent)
        handler.link.abort()
        socket_platform.turn_until(lambda: handler.closed)


@needs_unix
def test_many_connections_leave_nothing(socket_platform: Platform, place: Path) -> None:
    """The fixture counts descriptors."""
    accepting = Accepting(EchoMachine)
    listener = socket_platform.driver.listen(at(place / "a.sock"), accepting)
    ends = [connect(socket_platform, listener, TalkingMachine(b"%d" % number)) for number in range(200)]
    socket_platform.turn_until(lambda: all(end.machine.received for end in ends))
    assert [bytes(end.machine.received) for end in ends] == [b"%d" % number for number in range(200)]
    for end in ends:
        end.link.abort()
    socket_platform.turn_until(lambda: all(handler.closed for handler in accepting.handlers))
    listener.close()
    gc.collect()
