"""The code on the page about DTLS does what the page says."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority

import helianthus

pytest.importorskip("OpenSSL", reason="pyOpenSSL is not installed: no DTLS")

PAGE = Path(__file__).resolve().parents[2] / "docs" / "dtls.md"


def test_serving_and_asking(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scope: dict[str, Any] = {}
    code = re.search(r"```\{code-block\} python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    exec(code[1], scope)
    authority = Authority(tmp_path)
    pair = authority.issue("server", "127.0.0.1", ecdsa=True)

    async def main() -> Any:
        serving = asyncio.create_task(scope["serve"]("dtls://127.0.0.1:0", pair.certificate, pair.key))
        printed = ""
        async with asyncio.timeout(30):
            while not (found := re.search(r"listening on (dtls://\S+)", printed)):
                await asyncio.sleep(0)
                printed += capsys.readouterr().out
            answer = await scope["ask"](found[1], authority.file)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        return answer

    assert helianthus.run(main()) == b"HELLO"
