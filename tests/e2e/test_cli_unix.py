"""The command over Unix-domain sockets, as its users type it."""

from __future__ import annotations

import os
import signal
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import DRIVERS, SERVICES, helianthus, running
from processes import LISTENING

from helianthus import connect_sync

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="Python has no Unix-domain sockets on Windows"
)


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="h") as directory:
        yield Path(directory) / "node.sock"


@pytest.mark.parametrize("driver", DRIVERS)
def test_serve_and_call(driver: str, path: Path) -> None:
    """SIGTERM removes the file."""
    url = f"unix://{path}"
    listen = f"{url}?mode=0660"
    with running("serve", "--service", SERVICES, "--listen", listen, "--driver", driver) as node:
        assert node.wait_for_line(LISTENING) == url
        assert stat.S_IMODE(path.lstat().st_mode) == 0o660
        assert "probe" in helianthus("services", url).out
        assert helianthus("call", url, "probe.echo", "41").succeeded() == ["41"]
        with connect_sync(url) as client:
            assert client.call("probe.echo", 42) == 42
        again = helianthus("serve", "--service", SERVICES, "--listen", url, "--driver", driver)
        again.failed(1, f"{url} cannot be used: somebody else listens there")
        assert node.stop() == 0
    assert os.listdir(path.parent) == []


def test_after_a_kill_the_file_is_replaced(path: Path) -> None:
    url = f"unix://{path}"
    for _ in range(2):
        with running("serve", "--service", SERVICES, "--listen", url) as node:
            node.wait_for_line(LISTENING)
            assert helianthus("call", url, "probe.echo", "1").succeeded() == ["1"]
            node.process.send_signal(signal.SIGKILL)
            node.wait()
        assert path.is_socket()
    helianthus("call", url, "probe.echo", "1", "--timeout", "5").failed(1, "UNAVAILABLE", "refused")


def test_what_is_in_the_way_is_named(path: Path) -> None:
    path.write_text("precious")
    done = helianthus("serve", "--service", SERVICES, "--listen", f"unix://{path}")
    done.failed(1, "what is there is a file and no socket, and is not removed; choose another path")
    assert path.read_text() == "precious"
    helianthus("call", f"unix://{path}", "probe.echo", "1").failed(1, "what is there is a file and no socket")


def test_a_file_says_it_too(path: Path) -> None:
    config = path.with_name("node.toml")
    config.write_text(f'listen = ["unix://{path}?mode=0600"]\nservices = ["{SERVICES}"]\n')
    with running("serve", str(config)) as node:
        node.wait_for_line(LISTENING)
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    config.write_text(f'listen = ["unix://{path}?mode=rw"]\nservices = ["{SERVICES}"]\n')
    helianthus("serve", str(config)).failed(2, "listen[0]", "is 'rw'; write three octal digits")


@pytest.mark.skipif(sys.platform != "linux", reason="abstract names exist on Linux only")
def test_an_abstract_name() -> None:
    url = f"unix:///@helianthus-test-{os.getpid()}"
    with running("serve", "--service", SERVICES, "--listen", url) as node:
        assert node.wait_for_line(LISTENING) == url
        assert helianthus("call", url, "probe.echo", "1").succeeded() == ["1"]


def test_a_path_that_is_too_long(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock, pytest.raises(OSError, match="too long"):
        sock.bind(str(path) + "x" * 108)  # which is all that the system would say
    done = helianthus("serve", "--service", SERVICES, "--listen", f"unix://{path}{'x' * 108}")
    done.failed(1, "bytes, but that of a Unix-domain socket may have", "choose a shorter one")
