"""A node as users start it: the command `helianthus serve` in a process of its own."""

from __future__ import annotations

import select
import sys
from collections.abc import Iterator

import pytest
from processes import HERE, Node, serving

CONFIG = HERE / "peers" / "node.toml"


NATIVE = "kqueue" if hasattr(select, "kqueue") else "epoll"


@pytest.fixture(scope="session", params=[NATIVE, "asyncio"])
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    """A node with the services of `peers/services.py`, on each driver; shared by all tests."""
    if request.param == "epoll" and sys.platform != "linux":
        pytest.skip("epoll exists on Linux only")
    with serving(str(CONFIG), "--listen", "tcp://127.0.0.1:0", "--driver", request.param) as node:
        yield node
