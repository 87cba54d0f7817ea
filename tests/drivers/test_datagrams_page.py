"""The code on the page about datagrams does what the page says."""

from __future__ import annotations

import re
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

import helianthus

PAGE = Path(__file__).resolve().parents[2] / "docs" / "datagrams.md"


@pytest.mark.parametrize("name", ["auto", "asyncio"])
def test_the_echo(name: str) -> None:
    (block,) = re.findall(r"```\{code-block\} python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    scope: dict[str, Any] = {}
    exec(block, scope)
    driver = helianthus.driver(name)
    link = scope["serve"](driver)
    answers: list[bytes] = []

    def ask() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(20)
            sock.sendto(b"hello", (link.local_address.host, link.local_address.port))
            answers.append(sock.recv(100))
        driver.post(lambda: None)

    asking = threading.Thread(target=ask)
    asking.start()
    while asking.is_alive() and not answers:
        driver.poll(20)
    asking.join()
    assert answers == [b"hello"]
    assert link.statistics.sent == 1
    driver.close()
