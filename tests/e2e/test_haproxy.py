"""A node behind haproxy, which sends PROXY headers of both versions."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import msgpack
import pytest
from commands import DRIVERS, END_WITHIN, helianthus, running
from processes import LISTENING, Running

from helianthus import RpcError, connect_sync
from helianthus.protocols.proxy_header import TlvType

HAPROXY = shutil.which("haproxy", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))

pytestmark = pytest.mark.skipif(
    HAPROXY is None, reason="haproxy is not installed: apt-get install haproxy, and the like"
)

SERVE = ("serve", "--service", "front_services:Front", "--proxy-protocol")

CONFIG = """
global
    maxconn 100
defaults
    mode tcp
    timeout connect 10s
    timeout client 60s
    timeout server 60s
frontend front
    bind fd@{fd} {bind}
    default_backend node
backend node
    server node {address} {server}
"""


@attrs.frozen
class Proxy:
    """A haproxy that runs.

    Attributes:
        host, port: Where it listens.
    """

    host: str
    port: int

    @property
    def url(self) -> str:
        return f"tcp://{self.host}:{self.port}"


@contextlib.contextmanager
def haproxy(place: Path, address: str, server: str, bind: str = "") -> Iterator[Proxy]:
    """Run haproxy in front of an address.

    It is given a socket that listens already: nobody has to guess a free port, or when it is ready.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = place / "haproxy.cfg"
        config.write_text(CONFIG.format(fd=listening.fileno(), bind=bind, address=address, server=server))
        process = subprocess.Popen(
            [str(HAPROXY), "-db", "-f", str(config)],
            pass_fds=[listening.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        with process:
            try:
                yield Proxy(*listening.getsockname())
                assert process.poll() is None, "haproxy has ended"
            finally:
                process.terminate()
                assert process.stdout is not None
                print(process.stdout.read().decode())  # shown where the test fails


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="h") as directory:
        yield Path(directory)


@contextlib.contextmanager
def node(*arguments: str, listen: str = "tcp://127.0.0.1:0") -> Iterator[tuple[Running, str]]:
    """A node that asks for headers; gives it and where it listens, as haproxy writes it."""
    with running(*SERVE, "--listen", listen, *arguments) as process:
        url = process.wait_for_line(LISTENING)
        yield process, url.removeprefix("tcp://").replace("unix://", "unix@")


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_node_sees_the_client(place: Path, driver: str) -> None:
    """Not the proxy; and a health check is nobody's fault."""
    with node("--driver", driver) as (process, address):
        for option, version in (("send-proxy", 1), ("send-proxy-v2", 2)):
            with haproxy(place, address, f"{option} check inter 50ms") as proxy:
                with PlainClient(proxy) as client:
                    mine = "{}:{}".format(*client.sock.getsockname())
                    assert client.call("front.who") == mine
                    told = client.call("front.told")
                    assert told["version"] == version
                    assert told["source"] == mine
                    assert told["destination"] == f"{proxy.host}:{proxy.port}"
                with connect_sync(proxy.url) as client:
                    who = client.call("front.who")
                    addresses = [peer["address"] for peer in client.call("node.stats")["peers"]]
                    assert addresses.count(who) == 1
                assert helianthus("call", proxy.url, "front.who").succeeded()[0].startswith('"127.0.0.1:')
        assert process.stop() == 0
        assert "WARNING" not in process.output
        assert "ERROR" not in process.output


def test_over_a_unix_domain_socket(place: Path) -> None:
    with (
        node(listen=f"unix://{place}/node.sock") as (_, address),
        haproxy(place, address, "send-proxy-v2") as proxy,
        PlainClient(proxy) as client,
    ):
        assert client.call("front.who") == "{}:{}".format(*client.sock.getsockname())


def test_what_it_tells_of_tls(place: Path) -> None:
    """The client's certificate, SNI and ALPN, under a checksum."""
    certificate(place, "node.example")
    certificate(place, "alice")
    options = "proxy-v2-options ssl,cert-cn,ssl-cipher,cert-key,crc32c,authority"
    bind = f"ssl crt {place}/node.example.pem ca-file {place}/alice.crt verify required alpn helianthus/1"
    context = ssl.create_default_context(cafile=str(place / "node.example.crt"))
    context.load_cert_chain(place / "alice.crt", place / "alice.key")
    context.set_alpn_protocols(["helianthus/1"])
    with (
        node() as (_, address),
        haproxy(place, address, f"send-proxy-v2 {options}", bind) as proxy,
        PlainClient(proxy, context, "node.example") as client,
    ):
        told = client.call("front.told")
        assert told["authority"] == "node.example"
        assert told["alpn"] == b"helianthus/1"
        assert TlvType.CRC32C in told["kinds"]
        version, cipher, name, verified, key = told["ssl"]
        assert (version, name, verified) == (client.sock.version(), "alice", True)
        assert cipher == client.sock.cipher()[0]
        assert key.startswith("EC")


def test_a_proxy_that_sends_none_is_told_to(place: Path) -> None:
    with node() as (process, address), haproxy(place, address, "") as proxy:
        with connect_sync(proxy.url) as client, pytest.raises(RpcError):
            client.call("front.who", timeout=END_WITHIN)
        process.wait_for_line("WARNING: 127.0.0.1:")
        assert "takes connections with a PROXY header only" in process.output
        assert "in haproxy: send-proxy or send-proxy-v2" in process.output


def test_only_those_it_trusts(place: Path) -> None:
    with node("--proxy-from", "127.0.0.0/8") as (_, address), haproxy(place, address, "send-proxy") as proxy:
        assert helianthus("call", proxy.url, "front.who").succeeded()
    with (
        node("--proxy-from", "10.0.0.0/8", "--proxy-from", "::1") as (process, address),
        haproxy(place, address, "send-proxy") as proxy,
    ):
        helianthus("call", proxy.url, "front.who", "--timeout", "5").failed(1, "UNAVAILABLE")
        process.wait_for_line("WARNING: 127.0.0.1:")
        assert "is not among those who may send a PROXY header here (10.0.0.0/8, ::1)" in process.output


class PlainClient:
    """Plain MessagePack-RPC over a socket whose address is known."""

    def __init__(self, proxy: Proxy, context: ssl.SSLContext | None = None, name: str = "") -> None:
        sock = socket.create_connection((proxy.host, proxy.port), END_WITHIN)
        self.sock: Any = sock if context is None else context.wrap_socket(sock, server_hostname=name)
        self._unpacker = msgpack.Unpacker()

    def __enter__(self) -> PlainClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.sock.close()

    def call(self, method: str) -> Any:
        self.sock.sendall(msgpack.packb([0, 1, method, []]))
        while True:
            data = self.sock.recv(65536)
            assert data, "the connection has ended"
            self._unpacker.feed(data)
            for kind, _, error, result in self._unpacker:
                assert (kind, error) == (1, None)
                return result


def certificate(place: Path, name: str) -> None:
    """Make a key and a certificate that is its own authority; haproxy wants both in one file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed, to make certificates with")
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"),
            *("-keyout", f"{place}/{name}.key", "-out", f"{place}/{name}.crt"),
        ],
        check=True,
        capture_output=True,
    )
    pem = (place / f"{name}.crt").read_text() + (place / f"{name}.key").read_text()
    (place / f"{name}.pem").write_text(pem)
