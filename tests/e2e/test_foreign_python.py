"""Python programs that Helianthus has no part in: pynvim, aio-msgpack-rpc."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from foreign import DRIVERS, call_plain_server, check_calling_back, check_calls, results_of
from processes import HERE, LISTENING, Node, Running, helianthus_command

import helianthus

PEERS = HERE / "peers"


def test_pynvim_calls_our_node(node: Node) -> None:
    pytest.importorskip("pynvim", reason="pynvim is not installed")
    results = results_of([sys.executable, str(PEERS / "pynvim_client.py")], node)
    check_calls(results, many=100)
    check_calling_back(results)


def test_aio_msgpack_rpc_calls_our_node(node: Node) -> None:
    pytest.importorskip("aio_msgpack_rpc", reason="aio-msgpack-rpc is not installed")
    results = results_of([sys.executable, str(PEERS / "aio_client.py")], node)
    check_calls(results, many=500)


@pytest.fixture(scope="module")
def aio_server() -> Iterator[str]:
    """The address of a server made with aio-msgpack-rpc."""
    pytest.importorskip("aio_msgpack_rpc", reason="aio-msgpack-rpc is not installed")
    running = Running([sys.executable, str(PEERS / "aio_server.py")])
    try:
        yield running.wait_for_line(LISTENING)
    finally:
        running.kill()


@pytest.mark.parametrize("driver", DRIVERS)
def test_our_client_calls_a_server_that_is_known_to_be_plain(driver: str, aio_server: str) -> None:
    helianthus.run(call_plain_server(aio_server, extensions=False), driver=driver)


@pytest.mark.parametrize("driver", DRIVERS)
def test_our_client_finds_out_that_a_server_is_plain(driver: str, aio_server: str) -> None:
    helianthus.run(call_plain_server(aio_server, hello_timeout=0.2), driver=driver)


def test_our_blocking_client_calls_a_plain_server(aio_server: str) -> None:
    with helianthus.connect_sync(aio_server, extensions=False) as client:
        assert client.call("add", 2, 3, timeout=10.0) == 5
        with pytest.raises(helianthus.RpcError, match="it does not work"):
            client.call("fail", timeout=10.0)


def test_our_command_calls_a_plain_server(aio_server: str) -> None:
    command, environment = helianthus_command()
    done = subprocess.run(
        [*command, "call", "--plain", aio_server, "add", "2", "3"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60.0,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "5\n", "")
