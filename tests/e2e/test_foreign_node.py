"""Programs for Node.js that Helianthus has no part in: msgpack5rpc, msgpack-rpc-lite."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from foreign import DRIVERS, call_plain_server, check_calling_back, check_calls, results_of
from processes import HERE, LISTENING, Node, Running

import helianthus

PROGRAMS = HERE / "node"
MANIFEST = ("package.json", "package-lock.json", ".npmrc")

INSTALL_WITHIN = 300.0
"""Seconds that npm has to install a handful of small packages."""


@pytest.fixture(scope="session")
def node_environment(request: pytest.FixtureRequest) -> dict[str, str]:
    """Variables with which Node.js finds the packages, installed once into pytest's cache."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("Node.js and npm are not installed")
    digest = hashlib.sha256(b"".join((PROGRAMS / name).read_bytes() for name in MANIFEST)).hexdigest()
    assert request.config.cache is not None
    cache = request.config.cache.mkdir("node")
    installed = cache / digest[:16]
    if not installed.exists():
        place = Path(tempfile.mkdtemp(dir=cache))
        _install(npm, place)
        try:
            place.rename(installed)
        except OSError:  # another process that runs these tests was quicker
            shutil.rmtree(place)
    return {**os.environ, "NODE_PATH": str(installed / "node_modules")}


def _install(npm: str, place: Path) -> None:
    for name in MANIFEST:
        shutil.copy(PROGRAMS / name, place)
    try:
        done = subprocess.run(
            [npm, "ci", "--ignore-scripts", "--no-update-notifier"],
            cwd=place,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=INSTALL_WITHIN,
            check=False,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not install the packages within {INSTALL_WITHIN:g} s")
    if done.returncode != 0:
        pytest.skip(f"npm cannot install the packages: {done.stderr.strip()[-500:]}")


def test_msgpack5rpc_calls_our_node(node: Node, node_environment: dict[str, str]) -> None:
    command = ["node", str(PROGRAMS / "msgpack5rpc_client.js")]
    results = results_of(command, node, node_environment)
    check_calls(results, many=500)
    check_calling_back(results)


def test_msgpack_rpc_lite_calls_our_node(node: Node, node_environment: dict[str, str]) -> None:
    command = ["node", str(PROGRAMS / "msgpack_rpc_lite_client.js")]
    results = results_of(command, node, node_environment)
    check_calls(results, many=500)


@pytest.fixture(scope="module")
def node_server(node_environment: dict[str, str]) -> Iterator[str]:
    """The address of a server made with msgpack5rpc."""
    running = Running(["node", str(PROGRAMS / "msgpack5rpc_server.js")], env=node_environment)
    try:
        yield running.wait_for_line(LISTENING)
    finally:
        running.kill()


@pytest.mark.parametrize("driver", DRIVERS)
def test_our_client_calls_a_server_on_node(driver: str, node_server: str) -> None:
    helianthus.run(call_plain_server(node_server, hello_timeout=0.2), driver=driver)
