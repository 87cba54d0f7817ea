"""The code on the page about sockets does what the page says."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import helianthus
from helianthus.sim import run_in_simulation
from helianthus.sockets import ByteStreamLimits, CancelToken, connect, listen

PAGE = Path(__file__).resolve().parents[2] / "docs" / "sockets.md"
LOCAL = "tcp://127.0.0.1:0"

Runner = Callable[[Coroutine[Any, Any, Any]], Any]
everywhere = pytest.mark.parametrize("run", [helianthus.run, asyncio.run, run_in_simulation])


def scope() -> dict[str, Any]:
    """All code of the page, as one program."""
    names: dict[str, Any] = {}
    for block in re.findall(r"```\{code-block\} python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL):
        exec(block, names)
    return names


@everywhere
def test_the_first_program(run: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    run(scope()["main"]())
    assert capsys.readouterr().out == "b'hello, sunflower\\n'\n"


@everywhere
def test_asking_with_bounds(run: Runner) -> None:
    ask = scope()["ask"]

    async def main() -> None:
        async with await listen(LOCAL) as listener:
            sock = await connect(str(listener.address))
            peer = await listener.accept()
        async with sock, peer:
            token = CancelToken()
            await peer.send_all(b"42\n")
            assert await ask(sock, b"what is it?", token) == b"42\n"
            token.cancel("never mind")
            assert await ask(sock, b"and now?", token) == b"never mind"
            if run is run_in_simulation:  # where two seconds are no time
                assert await ask(sock, b"hello?", CancelToken()) == b"no answer\n"

    run(main())


@everywhere
def test_sending_within_a_time(run: Runner) -> None:
    send_within = scope()["send_within"]

    async def main() -> None:
        async with await listen(LOCAL, limits=ByteStreamLimits(high_water=1000, low_water=1)) as listener:
            sock = await connect(str(listener.address))
            peer = await listener.accept()
        async with sock, peer:
            data = bytes(range(256)) * 100_000
            rest = await send_within(sock, data, 0.05)
            assert 0 < len(rest) < len(data)
            assert data.endswith(rest)
            sending = asyncio.ensure_future(sock.send_all(rest))
            assert await peer.recv_exactly(len(data)) == data
            await sending

    run(main())


@everywhere
def test_datagrams(run: Runner) -> None:
    assert run(scope()["echo_once"]()) == b"hello"


@everywhere
def test_greeting_over_tls(run: Runner, tmp_path: Path) -> None:
    authority = pytest.importorskip("certificates").Authority(tmp_path)
    node = authority.issue("node", "127.0.0.1")
    greet = scope()["greet_in_private"]
    assert run(greet(node.certificate, node.key, authority.file)) == ("TLSv1.3", b"hello\n")
