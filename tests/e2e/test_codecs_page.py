"""The code on the page about what calls carry does what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import helianthus

PAGE = Path(__file__).resolve().parents[2] / "docs" / "codecs.md"


def blocks() -> list[str]:
    return re.findall(r"```\{code-block\} python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_registering_a_class() -> None:
    scope: dict[str, Any] = {}
    exec(blocks()[0], scope)
    point, server, types = scope["Point"], scope["server"], scope["types"]

    async def main() -> Any:
        address = await server.listen("tcp://127.0.0.1:0")
        async with server, helianthus.connect(str(address), types=types) as client:
            return await client.call("plane.mirror", point(1, 2))

    assert helianthus.run(main()) == point(2, 1)


def test_a_message_as_a_parameter() -> None:
    pytest.importorskip("google.protobuf", reason="the package protobuf is not installed")
    scope: dict[str, Any] = {"helianthus": helianthus}
    exec(blocks()[1], scope)

    async def main() -> Any:
        server = helianthus.Server([scope["Clock"]()])
        address = await server.listen("tcp://127.0.0.1:0")
        async with server, helianthus.connect(str(address)) as client:
            assert await client.call("clock.next", scope["Timestamp"](seconds=5)) is None
            with pytest.raises(helianthus.RpcError, match=r"must be google\.protobuf\.Timestamp, got int"):
                await client.call("clock.next", 5)

    helianthus.run(main())
