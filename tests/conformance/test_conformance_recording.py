"""What a link's machine was given can be given to it again, without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datagrams import Echo, Talk, bind
from pairs import pair
from peers import Peers, reset
from platforms import FORGOTTEN_RESET, Platform
from recording import Accepting, RecordingHandler

from helianthus.drivers.errors import ConnectionReset
from helianthus.drivers.recordings import Recordings
from helianthus.protocols.framing import ConnectionLost, EndOfStream, LengthPrefix, LengthPrefixFraming
from helianthus.protocols.recording import Replay, Step


def replayed(path: Path, *allow: str) -> tuple[Replay, list[Step]]:
    with path.open("rb") as file:
        replay = Replay(file, allow)
        return replay, list(replay.steps())


def lines(events: list[Any]) -> bytes:
    return "\n".join(map(repr, events)).encode()


def events_of(steps: list[Step]) -> bytes:
    return "\n".join(event for step in steps for event in step.events).encode()


def framing(platform: Platform, label: str) -> Any:
    return platform.driver.make_machine(label, LengthPrefixFraming, LengthPrefix.UINT16_BE)


def test_both_ends_of_a_connection_are_replayed(platform: Platform, tmp_path: Path) -> None:
    platform.driver.recordings = Recordings(tmp_path)
    client, server = pair(platform, framing(platform, "client"), framing(platform, "server"))
    for size in (0, 1, 1000, 65_535):
        client.machine.send_frame(bytes(range(256)) * (size // 256) + bytes(size % 256))
    client.link.wake()
    platform.turn_until(lambda: len(server.handler.events) == 4)
    server.machine.send_frame(b"enough")
    server.machine.close()
    server.link.wake()
    platform.turn_until(lambda: EndOfStream() in client.handler.events)
    client.machine.close()
    client.link.wake()
    platform.turn_until(lambda: client.handler.closed and server.handler.closed)
    for end, label in ((client, "client"), (server, "server")):
        (path,) = tmp_path.glob(f"*-{label}.recording")
        replay, steps = replayed(path)
        assert events_of(steps) == lines(end.handler.events)
        assert not [step for step in steps if step.differs]
        assert replay.header.notes["driver"] == platform.driver.name
        times = [step.now for step in steps if step.now is not None]
        assert times == sorted(times)


def test_a_lost_connection_is_replayed(socket_platform: Platform, peers: Peers, tmp_path: Path) -> None:
    if not socket_platform.hears_resets:
        pytest.skip(FORGOTTEN_RESET)
    socket_platform.driver.recordings = Recordings(tmp_path)
    accepting = Accepting(lambda: framing(socket_platform, "victim"), RecordingHandler)
    listener = socket_platform.driver.listen(socket_platform.address(), accepting)
    peer = peers.dial(listener.address)
    peer.sendall(b"\0\3abc\0")
    socket_platform.turn_until(lambda: len(accepting) == 1 and bool(accepting.handlers[0].events))
    reset(peer)
    handler = accepting.handlers[0]
    socket_platform.turn_until(lambda: handler.closed)
    assert isinstance(handler.error, ConnectionReset)
    (path,) = tmp_path.iterdir()
    _, steps = replayed(path)
    assert events_of(steps) == lines(handler.events)
    assert "ConnectionLost" in steps[-1].events[-1]
    assert isinstance(handler.events[-1], ConnectionLost)
    (lost,) = [step for step in steps if step.method == "connection_lost"]
    assert (type(lost.args[0]), lost.args[0].errno) == (ConnectionReset, handler.error.errno)
    listener.close()


def test_datagrams_are_replayed(platform: Platform, tmp_path: Path) -> None:
    platform.driver.recordings = recordings = Recordings(tmp_path)
    server = bind(platform, platform.driver.make_machine("server", Echo))
    client = bind(platform, platform.driver.make_machine("client", Talk))
    client.say(b"one", b"two", bytes(1000), to=server.address)
    platform.turn_until(lambda: len(client.machine.received) == 3)
    recordings.close()
    for end, label in ((client, "client"), (server, "server")):
        (path,) = tmp_path.glob(f"*-{label}.recording")
        _, steps = replayed(path, Talk.__module__)
        assert events_of(steps) == lines(end.handler.events)
        assert not [step for step in steps if step.differs]


def test_recordings_are_bounded_in_size_and_number(platform: Platform, tmp_path: Path) -> None:
    platform.driver.recordings = Recordings(tmp_path, max_recordings=1, max_size=3000)
    client, server = pair(platform, framing(platform, "first"), framing(platform, "second"))
    for _ in range(100):
        client.machine.send_frame(bytes(100))
        client.link.wake()
    platform.turn_until(lambda: len(server.handler.events) == 100)
    (path,) = tmp_path.iterdir()
    assert path.name.endswith("-first.recording")
    assert 1500 < path.stat().st_size <= 3000
    _, steps = replayed(path)
    assert steps
    assert not [step for step in steps if step.differs]
