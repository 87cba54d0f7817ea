"""What the tests with foreign peers share: running them, and what is expected of each."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import uuid
from collections.abc import Sequence
from typing import Any

import pytest
from processes import Node

import helianthus

CLIENT_WITHIN = 120.0
"""Seconds that a foreign client has for all of its calls."""

LINUX_ONLY = pytest.mark.skipif(sys.platform != "linux", reason="epoll exists on Linux only")
DRIVERS = [
    pytest.param("epoll", marks=LINUX_ONLY),
    "asyncio",
]


def results_of(command: Sequence[str], node: Node, env: dict[str, str] | None = None) -> dict[str, Any]:
    """Run a foreign client against a node; what it printed."""
    name = f"guest {uuid.uuid4()}"
    done = subprocess.run(
        [*command, *node.host_and_port, name],
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=CLIENT_WITHIN,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\nthe node:\n{node.running.output}"
    results: dict[str, Any] = json.loads(done.stdout)
    return results


def check_calls(results: dict[str, Any], many: int) -> None:
    """What every client has to find."""
    assert results["add"] == 5
    assert results["echo"] == {"a": [1, -1, 2**40, 1.5, None, True, "ü" * 300]}
    assert results["bytes"] is True
    assert results["many"] == [i + 1 for i in range(many)]
    assert results["signed"] == 1  # the notification before it has been carried out

    code = helianthus.StatusCode
    assert results["calculator.fail"] == [code.NOT_FOUND, "there is none", {"looked": ["here"]}]
    assert results["calculator.nothing"][0] == code.UNIMPLEMENTED
    assert results["calculator.count"][0] == code.UNIMPLEMENTED  # a plain client has no streams
    assert "stream" in results["calculator.count"][1]


def check_calling_back(results: dict[str, Any]) -> None:
    """What a client has to find that can be called, too."""
    assert results["told"] == ["notification", "news", [7]]
    assert results["asked"] == 42


async def call_plain_server(url: str, **options: Any) -> None:
    """Call a foreign server with our client."""
    name = f"guest {uuid.uuid4()}"
    async with helianthus.connect(url, **options) as client:
        assert await client.call("add", 2, 3) == 5
        value = {"a": [1, -1, 2**40, 1.5, None, True, "ü" * 300], "b": b"\x00\xff" * 500_000}
        assert await client.call("echo", value) == value
        many = await asyncio.gather(*(client.call("add", i, 1) for i in range(500)))
        assert many == [i + 1 for i in range(500)]
        await client.notify("sign", name)
        assert await client.call("signed", name) == 1

        with pytest.raises(helianthus.RpcError, match="it does not work") as failed:
            await client.call("fail")
        assert failed.value.code is helianthus.StatusCode.UNKNOWN
        with pytest.raises(helianthus.RpcError) as late:
            await client.call("never", timeout=0.1)
        assert late.value.code is helianthus.StatusCode.DEADLINE_EXCEEDED
        for use in (client.call("add", a=2, b=3), client.stream("add", 2, 3).result()):
            with pytest.raises(helianthus.RpcError) as unknown:
                await use
            assert unknown.value.code is helianthus.StatusCode.UNIMPLEMENTED

        assert await client.call("add", 2, 3) == 5  # none of that has harmed the connection
        assert client.state.value == "ready"
