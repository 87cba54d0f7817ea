"""Files that are sent: whole, in part, by path and by object."""

from __future__ import annotations

import asyncio
import gzip
import io
import os
from pathlib import Path

import attrs
import pytest
from rpc_bench import Bench, Ground
from sockets_pairs import TINY, pair

from helianthus.sockets import CancelToken, OperationCancelled, SocketClosed, TcpSocket

DATA = bytes(range(253)) * 4000


async def received_by(far: TcpSocket, size: int) -> bytes:
    return await far.recv_exactly(size)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    place = tmp_path / "file"
    place.write_bytes(DATA)
    return place


def test_a_whole_file_behind_what_was_queued(run_on: Ground, path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        async with pair() as (near, far):
            receiving = asyncio.ensure_future(far.recv_exactly(5 + len(DATA) + 6))
            await near.send_all(b"head:")
            assert await near.sendfile(path) == len(DATA)
            await near.send_all(b":tail.")
            assert await receiving == b"head:" + DATA + b":tail."

    run_on(scenario)


@pytest.mark.parametrize(
    ("offset", "count"),
    [(0, 10), (100, 10), (len(DATA) - 5, 10), (0, 0), (500_000, None), (len(DATA), None), (len(DATA) + 9, 9)],
)
def test_a_part(run_on: Ground, path: Path, offset: int, count: int | None) -> None:
    expected = DATA[offset:] if count is None else DATA[offset : offset + count]

    async def scenario(bench: Bench) -> None:
        async with pair() as (near, far):
            receiving = asyncio.ensure_future(far.recv_exactly(len(expected)))
            assert await near.sendfile(str(path), offset, count) == len(expected)
            assert await receiving == expected

    run_on(scenario)


def test_open_files(run_on: Ground, path: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(DATA))

    async def scenario(bench: Bench) -> None:
        async with pair() as (near, far):
            with (
                path.open("rb") as buffered,
                path.open("rb", buffering=0) as raw,
                gzip.open(packed) as unpacking,
            ):
                for file in (buffered, raw, unpacking, io.BytesIO(DATA)):
                    receiving = asyncio.ensure_future(far.recv_exactly(200_000))
                    assert await near.sendfile(file, 1000, 200_000) == 200_000
                    assert await receiving == DATA[1000:201_000]
                    assert file.read(10) == DATA[201_000:201_010]

    run_on(scenario)


def test_little_room(run_on: Ground, path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        async with pair(TINY) as (near, far):
            receiving = asyncio.ensure_future(far.recv_exactly(2000))
            assert await near.sendfile(path, count=2000) == 2000
            assert await receiving == DATA[:2000]

    run_on(scenario)


def test_files_that_cannot_be_sent(run_on: Ground, path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        async with pair() as (near, far):
            with pytest.raises(FileNotFoundError):
                await near.sendfile(path.parent / "none")
            with pytest.raises((IsADirectoryError, PermissionError)):  # the second on Windows
                await near.sendfile(path.parent)
            for offset, count in ((-1, None), (0, -1)):
                with pytest.raises(ValueError, match="less than 0"):
                    await near.sendfile(path, offset, count)
            with path.open("ab") as unreadable, pytest.raises(ValueError, match="not open for"):
                await near.sendfile(unreadable)
            await near.send_all(b"fine")
            assert await far.recv() == b"fine"

    run_on(scenario)


def test_closing_meanwhile(run_on: Ground, path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        async with pair() as (near, far):
            sending = asyncio.ensure_future(near.sendfile(path))
            await asyncio.sleep(0)
            await near.close()
            with pytest.raises(SocketClosed) as caught:
                await sending
            received = bytearray()
            while data := await far.recv():
                received += data
            assert DATA.startswith(received)
            assert len(received) == caught.value.queued

    run_on(scenario)


def test_what_comes_behind_a_file_that_was_given_up(run_on: Ground) -> None:
    """The end of the stream comes behind what was queued meanwhile, and not behind the file."""

    async def scenario(bench: Bench) -> None:
        async with pair() as (near, far):
            bench.driver.fairness = attrs.evolve(bench.driver.fairness, file_bytes_per_tick=1000)
            receiving = asyncio.ensure_future(received_to_the_end(far))
            token = CancelToken()

            async def send() -> int:
                try:
                    return await near.sendfile(io.BytesIO(DATA), cancel=token)
                except OperationCancelled as cancelled:
                    await near.send_all(b"tail")  # in the same turn in which the file was given up
                    await near.send_eof()
                    return cancelled.queued

            sending = asyncio.ensure_future(send())
            while not near.bytes_accepted:
                await asyncio.sleep(0)
            token.cancel("enough")
            sent = await sending
            assert sent < len(DATA)
            assert await receiving == DATA[:sent] + b"tail"

    run_on(scenario)


async def received_to_the_end(far: TcpSocket) -> bytes:
    received = bytearray()
    while data := await far.recv():
        received += data
    return bytes(received)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no FIFOs")
def test_a_fifo_is_refused_at_once(run_on: Ground, tmp_path: Path) -> None:
    """To open one waits for a writer, in a thread that the end of the process waits for."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    async def scenario(bench: Bench) -> None:
        async with pair() as (near, far):
            with pytest.raises(ValueError, match="fifo is not a regular file"):
                await near.sendfile(fifo, timeout=20)
            with pytest.raises(ValueError, match="is not a regular file"):
                await near.sendfile("/dev/zero", 0, 100)
            with (
                open(os.open(fifo, os.O_RDWR | os.O_NONBLOCK), "rb", buffering=0) as opened,
                pytest.raises(ValueError, match="is not a regular file"),
            ):
                await near.sendfile(opened)
            with open("/dev/zero", "rb") as zero, pytest.raises(ValueError, match="is not a regular file"):
                await near.sendfile(zero, 0, 100)
            await near.send_all(b"goes on")
            assert await far.recv() == b"goes on"

    run_on(scenario)
