"""Sending files: in order with what the machine says, with progress, cancellation and errors."""

from __future__ import annotations

import gzip
import hashlib
import io
from pathlib import Path
from typing import IO, Any

import pytest
from machines import EchoMachine, TalkingMachine
from pairs import End, pair
from platforms import Platform
from recording import RecordingHandler, in_time

from helianthus.drivers.errors import ConnectionReset, FileTooShort, TransferCancelled, WriteTimeout
from helianthus.drivers.file_transfer import FileTransfer
from helianthus.protocols.errors import LocalProtocolError
from helianthus.protocols.machine import Buffer, Closing

CONTENT = hashlib.shake_128(b"a file").digest(300_000)


class Xor(TalkingMachine):
    """A layer that changes what it sends: every byte is turned over, files too."""

    def __init__(self) -> None:
        super().__init__()
        self.layered = 0
        self.refuses = False

    def write_through(self, data: Buffer) -> list[Buffer]:
        if self.refuses:
            raise LocalProtocolError("not yet")
        self.layered += len(data)
        return [turned(data)]

    def take_data(self) -> list[Buffer]:
        return [turned(data) for data in super().take_data()]


TURNED = bytes(range(255, -1, -1))


def turned(data: Buffer) -> bytes:
    return bytes(data).translate(TURNED)


class Told:
    """Notes what a transfer's callbacks were told."""

    def __init__(self) -> None:
        self.progress: list[int] = []
        self.done: list[tuple[int, Exception | None]] = []

    def on_progress(self, transfer: FileTransfer) -> None:
        self.progress.append(transfer.sent)

    def on_done(self, transfer: FileTransfer) -> None:
        assert transfer.done
        self.done.append((transfer.sent, transfer.error))


@pytest.fixture(params=["descriptor", "pieces"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Opens a file with the given content: one that the kernel can send, and one that it cannot."""
    files: list[IO[bytes]] = []

    def open_file(content: bytes) -> IO[bytes]:
        path = tmp_path / f"{len(files)}"
        if request.param == "pieces":
            files.append(io.BytesIO(content))
        else:
            path.write_bytes(content)
            files.append(path.open("rb"))
        return files[-1]

    yield open_file
    for file in files:
        file.close()


def talkers(platform: Platform, machine: Any = None) -> tuple[End, End]:
    return pair(platform, machine or TalkingMachine(), TalkingMachine())


def stuff(platform: Platform, sender: End, receiver: End) -> int:
    """Have the receiver stop reading, and fill everything between both; gives bytes sent."""
    receiver.machine.wants_read = False
    receiver.link.wake()
    platform.turn_until(in_time(platform.driver, 0.01))
    sender.say(bytes(platform.bulk // 2))  # more than the system's buffers grow to
    platform.turn_until(lambda: sender.link.unsent)
    return platform.bulk // 2


def read_on(receiver: End) -> None:
    receiver.machine.wants_read = True
    receiver.link.wake()


def test_a_file_goes_between_what_is_said_before_and_after(platform: Platform, opened: Any) -> None:
    near, far = talkers(platform)
    told = Told()
    near.machine.say(b"before ")
    transfer = near.link.send_file(opened(CONTENT), on_done=told.on_done, on_progress=told.on_progress)
    assert (transfer.count, transfer.sent, transfer.done) == (len(CONTENT), 0, False)
    near.say(b" after")
    platform.turn_until(lambda: len(far.machine.received) == len(CONTENT) + 13)
    assert bytes(far.machine.received) == b"before " + CONTENT + b" after"
    assert told.done == [(len(CONTENT), None)]
    assert told.progress == sorted(told.progress)
    assert told.progress[-1] == len(CONTENT)
    near.say(b"!")
    platform.turn_until(lambda: far.machine.received.endswith(b" after!"))


def test_parts_of_files(platform: Platform, opened: Any) -> None:
    near, far = talkers(platform)
    file = opened(CONTENT)
    near.link.send_file(file, 10, 5)
    near.link.send_file(file, 299_990)
    near.link.send_file(file, 300_000)
    near.link.send_file(file, 0, 0)
    near.link.send_file(file, 3, 1)
    expected = CONTENT[10:15] + CONTENT[-10:] + CONTENT[3:4]
    platform.turn_until(lambda: len(far.machine.received) >= len(expected))
    assert bytes(far.machine.received) == expected


def test_a_file_waits_for_what_is_stuck_before_it(platform: Platform, opened: Any) -> None:
    near, far = talkers(platform)
    sent = stuff(platform, near, far)
    told = Told()
    near.machine.say(b"before ")
    near.link.send_file(opened(CONTENT), on_done=told.on_done)
    near.say(b" after")
    platform.turn_until(in_time(platform.driver, 0.01))
    assert told.done == []
    read_on(far)
    platform.turn_until(lambda: len(far.machine.received) == sent + len(CONTENT) + 13)
    assert bytes(far.machine.received[sent:]) == b"before " + CONTENT + b" after"
    assert told.done == [(len(CONTENT), None)]


def test_the_end_waits_for_files(platform: Platform, opened: Any) -> None:
    near, far = talkers(platform)
    near.machine.say(b">")
    near.link.send_file(opened(CONTENT * 4))
    near.machine.closing = Closing.FULL
    near.link.wake()
    platform.turn_until(lambda: far.machine.ended)
    assert bytes(far.machine.received) == b">" + CONTENT * 4


def test_a_large_file_lets_others_have_their_turn(platform: Platform, opened: Any) -> None:
    """No more than a megabyte goes in a tick; the echo of another link comes back meanwhile."""
    near, far = talkers(platform)
    client, _ = pair(platform, TalkingMachine(), EchoMachine())
    content = CONTENT * (platform.bulk // 4 // len(CONTENT))
    told = Told()
    near.link.send_file(opened(content), on_done=told.on_done, on_progress=told.on_progress)
    client.say(b"ping")
    platform.turn_until(lambda: client.machine.received)
    assert not told.done or len(content) <= platform.driver.fairness.file_bytes_per_tick
    platform.turn_until(lambda: len(far.machine.received) == len(content))
    assert far.machine.received == content
    platform.turn_until(lambda: told.done)
    assert told.done == [(len(content), None)]


def test_cancelling(platform: Platform, opened: Any) -> None:
    """What has gone has gone; what the machine says next follows it."""
    near, far = talkers(platform)
    sent = stuff(platform, near, far)
    told = Told()
    content = CONTENT * 10
    first = near.link.send_file(opened(content), on_done=told.on_done)
    second = near.link.send_file(opened(CONTENT), on_done=told.on_done)
    near.say(b" after")
    platform.turn_until(in_time(platform.driver, 0.01))
    first.cancel()
    first.cancel()
    platform.turn_until(lambda: told.done)
    ((taken, error),) = told.done
    assert isinstance(error, TransferCancelled)
    assert str(taken) in str(error)
    second.cancel()
    read_on(far)
    platform.turn_until(lambda: far.machine.received.endswith(b" after"))
    assert bytes(far.machine.received[sent:]) == content[: first.sent] + b" after"
    assert (first.sent, second.sent) == (taken, 0)
    second.cancel()
    assert len(told.done) == 2


def test_a_file_that_is_shortened_on_the_way(platform: Platform, tmp_path: Path) -> None:
    """The transfer fails, its callback comes before anything else is sent, and the link goes on."""
    near, far = talkers(platform)
    sent = stuff(platform, near, far)
    path = tmp_path / "shrinking"
    path.write_bytes(CONTENT)
    order: list[Any] = []
    with path.open("rb") as file:
        near.link.send_file(file, on_done=lambda transfer: order.append((transfer.error, near.machine.takes)))
        near.say(b"next")
        takes = near.machine.takes
        with path.open("r+b") as same:
            same.truncate(1000)
        read_on(far)
        platform.turn_until(lambda: len(far.machine.received) == sent + 1004)
    assert bytes(far.machine.received[sent:]) == CONTENT[:1000] + b"next"
    ((error, taken_before),) = order
    assert isinstance(error, FileTooShort)
    assert "ended after 1000 of the 300000 bytes" in str(error)
    assert taken_before == takes


def test_a_failed_transfer_can_end_the_link(platform: Platform) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(5, "the disk is broken")

    def give_up(transfer: FileTransfer) -> None:
        near.link.abort(transfer.error)

    near, far = talkers(platform)
    near.link.send_file(Broken(CONTENT), on_done=give_up)
    near.say(b"never sent")
    platform.turn_until(lambda: near.handler.closed and (far.machine.ended or far.handler.closed))
    assert "the disk is broken" in str(near.handler.error)
    assert not far.machine.received


def test_what_is_on_its_way_fails_with_the_link(platform: Platform, opened: Any) -> None:
    near, far = talkers(platform)
    stuff(platform, near, far)
    told = Told()
    near.link.send_file(opened(CONTENT), on_done=told.on_done)
    near.link.send_file(opened(CONTENT), on_done=told.on_done).cancel()
    near.link.abort()
    platform.turn_until(lambda: near.handler.closed)
    assert [type(error) for _, error in told.done] == [ConnectionReset, TransferCancelled]
    far.link.abort()


def test_a_peer_that_goes_away(platform: Platform, opened: Any) -> None:
    near, far = talkers(platform)
    told = Told()
    near.link.send_file(opened(CONTENT * 100), on_done=told.on_done)
    far.link.abort(ConnectionReset("enough"))
    platform.turn_until(lambda: near.handler.closed)
    ((_, error),) = told.done
    assert isinstance(error, ConnectionReset), error


def test_a_peer_that_takes_nothing_of_a_file(platform: Platform, opened: Any) -> None:
    platform.driver.write_deadline = 0.1
    near, far = talkers(platform)
    far.machine.wants_read = False
    far.link.wake()
    platform.turn_until(in_time(platform.driver, 0.01))
    told = Told()
    near.link.send_file(opened(CONTENT * 120), on_done=told.on_done)
    platform.turn_until(lambda: near.handler.closed)
    ((sent, error),) = told.done
    assert isinstance(error, WriteTimeout)
    assert 0 < sent < len(CONTENT) * 120
    far.link.abort()


def test_a_callback_that_fails_ends_its_link_only(platform: Platform, opened: Any) -> None:
    def broken(transfer: FileTransfer) -> None:
        raise ZeroDivisionError

    near, _ = talkers(platform)
    other, _ = pair(platform, TalkingMachine(), EchoMachine())
    near.link.send_file(opened(CONTENT), on_done=broken)
    platform.turn_until(lambda: near.handler.closed)
    assert [type(error) for error in platform.take_errors()] == [ZeroDivisionError]
    other.say(b"fine")
    platform.turn_until(lambda: other.machine.received == b"fine")


def test_files_go_through_layers(platform: Platform, opened: Any) -> None:
    near, far = talkers(platform, Xor())
    near.machine.say(b"<")
    near.link.send_file(opened(CONTENT))
    near.say(b">")
    platform.turn_until(lambda: len(far.machine.received) == len(CONTENT) + 2)
    assert turned(far.machine.received) == b"<" + CONTENT + b">"
    assert near.machine.layered == len(CONTENT)


def test_a_layer_that_cannot_send_yet(platform: Platform, opened: Any) -> None:
    near, far = talkers(platform, Xor())
    near.machine.refuses = True
    with pytest.raises(LocalProtocolError, match="not yet"):
        near.link.send_file(opened(CONTENT))
    near.machine.refuses = False
    told = Told()
    near.link.send_file(opened(CONTENT), on_done=told.on_done)
    near.machine.refuses = True
    near.say(b"goes on")
    platform.turn_until(lambda: far.machine.received)
    assert turned(far.machine.received) == b"goes on"
    ((sent, error),) = told.done
    assert sent == 0
    assert "not yet" in str(error)


def test_a_file_that_only_looks_like_one(platform: Platform, tmp_path: Path) -> None:
    """What `GzipFile.fileno()` names holds other bytes than the file has."""
    near, far = talkers(platform)
    with gzip.open(tmp_path / "packed", "wb") as file:
        file.write(CONTENT)
    with gzip.open(tmp_path / "packed", "rb") as file:
        near.link.send_file(file, 0, len(CONTENT))
        platform.turn_until(lambda: len(far.machine.received) == len(CONTENT))
    assert bytes(far.machine.received) == CONTENT


def test_what_cannot_be_sent(platform: Platform, opened: Any, tmp_path: Path) -> None:
    near, _ = talkers(platform)
    link = near.link
    file = opened(b"0123456789")
    for offset, count in ((-1, None), (0, -1)):
        with pytest.raises(ValueError, match="both must be 0 or more"):
            link.send_file(file, offset, count)
    with pytest.raises(ValueError, match="cannot send 6 bytes of a file from 5 on: it has 10 bytes"):
        link.send_file(file, 5, 6)
    with pytest.raises(ValueError, match="from 11 on: it has 10 bytes"):
        link.send_file(file, 11)
    with (tmp_path / "text").open("w+") as text, pytest.raises(ValueError, match="binary mode"):
        link.send_file(text)  # type: ignore[arg-type]
    link.abort()
    platform.turn_until(lambda: near.handler.closed)
    with pytest.raises(LocalProtocolError, match="the link is not connected, or has ended"):
        link.send_file(file)


def test_files_told_from_within_handlers(platform: Platform, opened: Any) -> None:
    """A server that answers with a file, straight from the event."""
    file = opened(CONTENT)

    def answer(handler: RecordingHandler, _: Any) -> None:
        assert handler.link is not None
        handler.link.send_file(file)

    client, _ = pair(
        platform, TalkingMachine(), TalkingMachine(), server_handler=RecordingHandler(on_events=answer)
    )
    client.say(b"?")
    platform.turn_until(lambda: len(client.machine.received) == len(CONTENT))
    assert bytes(client.machine.received) == CONTENT
