"""What people do with sockets is recorded, on every driver, and does the same when it is replayed."""

from __future__ import annotations

from pathlib import Path

from rpc_bench import Bench, Ground

from helianthus import Recordings
from helianthus.drivers.choose import running_driver
from helianthus.protocols.recording import Replay, Step
from helianthus.sockets import TcpSocket, UdpSocket, listen


def steps_of(directory: Path, label: str) -> list[Step]:
    """Replay the recording whose label begins so."""
    found = []
    for path in directory.iterdir():
        with path.open("rb") as file:
            replay = Replay(file)
            if replay.header.label.startswith(label):
                found.append(list(replay.steps()))
    (steps,) = found
    assert not [step for step in steps if step.differs]
    return steps


def test_streams(run_on: Ground, tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        running_driver().recordings = Recordings(tmp_path)
        async with (
            await listen("tcp://127.0.0.1:0") as listener,
            await TcpSocket.connect(str(listener.address)) as client,
            await listener.accept() as server,
        ):
            await client.send_all(b"GET\n" + bytes(100_000))
            assert await server.recv_until(b"\n") == b"GET\n"
            assert await server.recv_exactly(100_000) == bytes(100_000)
            await server.send_all(b"thanks")
            await server.send_eof()
            assert await client.recv_exactly(6) == b"thanks"
            assert await client.recv(1) == b""

    run_on(scenario)
    client, server = steps_of(tmp_path, "socket to tcp://"), steps_of(tmp_path, "socket from 127.0.0.1:")
    sent = sum(step.output[0] for step in client if step.method == "take_data")
    taken = [step.output[0] for step in server if step.method.startswith("take_until")]
    assert sent == 100_004
    assert taken[-1] == 4
    assert "receive_eof" in {step.method for step in client}


def test_datagrams(run_on: Ground, tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        running_driver().recordings = recordings = Recordings(tmp_path)
        async with (
            await UdpSocket.bind("udp://127.0.0.1:0") as server,
            await UdpSocket.connect(str(server.local_address)) as client,
        ):
            await client.send(b"hello")
            data, source = await server.recv_from()
            await server.send_to(data, source)
            assert await client.recv() == b"hello"
        recordings.close()

    run_on(scenario)
    directory = sorted(tmp_path.iterdir())
    assert len(directory) == 2
    for path in directory:
        with path.open("rb") as file:
            steps = list(Replay(file).steps())
        assert not [step for step in steps if step.differs]
        assert "receive_datagrams" in {step.method for step in steps}
