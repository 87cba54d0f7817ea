"""The code on the page about TLS does what the page says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority

import helianthus
from helianthus.cli.config import read_config
from helianthus.protocols.tls import TlsLayer

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tls.md"


def blocks(language: str) -> list[str]:
    found = re.findall(
        rf"```\{{code-block\}} {language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL
    )
    assert found
    return found


class Calculator(helianthus.Service):
    @helianthus.method
    def add(self, a: float, b: float) -> float:
        return a + b


def test_a_server_and_a_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path, "ca")
    authority.issue("node", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    exec(blocks("python")[0], scope)

    async def main() -> Any:
        server = await scope["serve"]([Calculator()])
        async with server, scope["connect"](str(server.addresses[0])) as client:
            return await client.call("calculator.add", 2, 3)

    assert helianthus.run(main()) == 5


def test_a_layer() -> None:
    from helianthus.protocols.framing import DelimiterFraming

    scope: dict[str, Any] = {}
    exec(blocks("python")[1], scope)
    assert isinstance(scope["encrypted"](DelimiterFraming(), 0.0), TlsLayer)


def test_the_table(tmp_path: Path) -> None:
    (text,) = blocks("toml")
    assert tomllib.loads(text)
    path = tmp_path / "node.toml"
    path.write_text(text)
    config = read_config(path)
    assert config.auth is not None
    assert config.tls.options["client_ca"] == "clients.pem"
    rules = config.auth.authentication()
    for name, method, allowed in (
        ("cert:alice", "calculator.add", True),
        ("cert:bob", "calculator.add", True),
        ("cert:carol", "calculator.add", False),
    ):
        assert rules.explain(config.auth.identity(name), method).allowed is allowed
