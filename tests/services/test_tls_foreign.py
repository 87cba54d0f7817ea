"""TLS with others: OpenSSL's own client and server, and Python's socket."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import msgpack
import pytest
from rpc_bench import Bench, Ground, until
from rpc_thread import ThreadedServer
from tls_node import LOCAL, Certificates, Probe

from helianthus.drivers.address import Address
from helianthus.protocols.machine import Closing
from helianthus.services.tls.layers import ClientSecurity

OPENSSL = shutil.which("openssl")
WITHIN = 30.0

needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="the command openssl is not installed")
versions = pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])

REQUEST = msgpack.packb([0, 1, "probe.add", [2, 3]])


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@contextlib.contextmanager
def openssl(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command of OpenSSL's until the block ends."""
    process = subprocess.Popen(
        [OPENSSL or "openssl", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
    )
    watchdog = threading.Timer(WITHIN, process.kill)  # then whoever reads from it comes to an end
    watchdog.start()
    try:
        yield process
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def read_until(output: IO[bytes] | None, pattern: bytes) -> bytes:
    """What a process says, up to what matches a pattern."""
    assert output is not None
    seen = b""
    while not re.search(pattern, seen, re.DOTALL):
        data = output.read(65536)
        assert data, f"it ended without {pattern!r}:\n{seen!r}"
        seen += data
    return seen


def write(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(data)


def s_client(server: ThreadedServer, certificates: Certificates, *options: str) -> list[str]:
    host = server.url.removeprefix("tls://")
    trust = ["-CAfile", str(certificates.authority.file), "-verify_return_error", "-verify_ip", "127.0.0.1"]
    return ["s_client", "-connect", host, *trust, *options]


ANSWER = re.escape(msgpack.packb([1, 1, None, 5]))


@needs_openssl
@versions
def test_openssl_calls_a_node(run_on_real: Ground, certificates: Certificates, version: str) -> None:
    with ThreadedServer(run_on_real, Probe(), url=LOCAL, tls=certificates.server()) as server:
        command = s_client(server, certificates, version, "-quiet", "-no_ign_eof", "-alpn", "helianthus/1")
        with openssl(*command) as client:
            write(client, REQUEST)
            read_until(client.stdout, ANSWER)
            large = bytes(range(256)) * 200
            write(client, msgpack.packb([0, 3, "probe.echo", [large]]))
            read_until(client.stdout, re.escape(large))
            assert client.stdin is not None
            client.stdin.close()  # it says close_notify, and goes
            client.wait(WITHIN)
        server.until(lambda: not server.server.peers)
        tls = server.connected[0].tls
        assert tls is not None
        assert tls.version == version.replace("-tls1_", "TLSv1.")
        assert tls.alpn == "helianthus/1"
        assert server.errors == []


@needs_openssl
@versions
def test_openssl_resumes_a_session(
    run_on_real: Ground, certificates: Certificates, version: str, tmp_path: Path
) -> None:
    kept = str(tmp_path / "session.pem")
    alice = certificates.alice
    show = ["-cert", str(alice.certificate), "-key", str(alice.key)]
    tls = certificates.server(client_ca=certificates.authority.file)
    with ThreadedServer(run_on_real, Probe(), url=LOCAL, tls=tls) as server:
        for session in ("-sess_out", "-sess_in"):
            with openssl(*s_client(server, certificates, version, *show, session, kept)) as client:
                write(client, REQUEST)
                seen = read_until(client.stdout, ANSWER)
                assert (b"Reused, TLSv1" in seen) is (session == "-sess_in")
                assert client.stdin is not None
                client.stdin.close()
                client.wait(WITHIN)
        assert [peer.tls.resumed for peer in server.connected] == [False, True]  # type: ignore[union-attr]
        assert [peer.identity.name for peer in server.connected] == ["cert:alice"] * 2  # type: ignore[union-attr]


@needs_openssl
def test_openssl_may_not_renegotiate(run_on_real: Ground, certificates: Certificates) -> None:
    with ThreadedServer(run_on_real, Probe(), url=LOCAL, tls=certificates.server()) as server:
        with openssl(*s_client(server, certificates, "-tls1_2")) as client:
            write(client, REQUEST)
            read_until(client.stdout, ANSWER)
            write(client, b"R\n")
            read_until(client.stdout, b"no renegotiation")
        server.until(lambda: not server.server.peers)
        with openssl(*s_client(server, certificates, "-quiet")) as client:
            write(client, REQUEST)
            read_until(client.stdout, ANSWER)


@needs_openssl
def test_openssl_is_refused_without_a_certificate(run_on_real: Ground, certificates: Certificates) -> None:
    tls = certificates.server(client_ca=certificates.authority.file)
    with ThreadedServer(run_on_real, Probe(), url=LOCAL, tls=tls) as server:
        with openssl(*s_client(server, certificates, "-quiet")) as client:
            read_until(client.stdout, b"certificate required")
        server.until(lambda: server.errors)
        assert "the client shows no certificate" in str(server.errors[0][1])


@contextlib.contextmanager
def s_server(certificates: Certificates, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """OpenSSL's server at a free port."""
    node = certificates.node
    files = ["-cert", str(node.certificate), "-key", str(node.key)]
    with openssl("s_server", "-accept", "127.0.0.1:0", *files, *options) as process:
        told = read_until(process.stdout, rb"ACCEPT \S*:(\d+)\s")
        port = re.search(rb"ACCEPT \S*:(\d+)\s", told)
        assert port is not None
        yield process, int(port[1])


@needs_openssl
@versions
def test_a_node_of_openssl_is_called(run_on_real: Ground, certificates: Certificates, version: str) -> None:
    """Somebody types the answer at its keyboard."""
    with s_server(certificates, version) as (process, port):

        async def scenario(bench: Bench) -> None:
            url = f"tls://127.0.0.1:{port}"
            client = await bench.client(url, tls=certificates.client(), extensions=False)
            answer = asyncio.ensure_future(client.call("probe.add", 2, 3))
            await asyncio.to_thread(read_until, process.stdout, rb"probe\.add")
            write(process, msgpack.packb([1, 1, None, 5]))
            assert await answer == 5

        run_on_real(scenario)


class Lines:
    """A child, and its handler, that sends lines and hears what comes back."""

    def __init__(self, *lines: bytes) -> None:
        self.closing = Closing.OPEN
        self.wants_read = True
        self.heard = bytearray()
        self.ended = False
        self.events: list[Any] = []
        self.closed = False
        self._output: list[Any] = list(lines)

    def receive_data(self, data: Any, now: float) -> None:
        self.heard += data

    def receive_eof(self, now: float) -> None:
        self.ended = True
        self.closing = Closing.FULL

    def connection_lost(self, error: Exception | None, now: float) -> None:
        self.closing = Closing.ABORT

    def take_data(self) -> list[Any]:
        output, self._output = self._output, []
        return output

    def deadline(self) -> None:
        return None

    def handle_timeout(self, now: float) -> None: ...

    def take_events(self) -> list[Any]:
        return []

    take_actions = take_events

    def complete(self, action_id: int, outcome: Any, now: float) -> None: ...

    def on_ready(self, link: Any) -> None: ...

    def on_events(self, events: Any) -> None:
        self.events += events

    def on_actions(self, actions: Any) -> None: ...

    def on_writable(self) -> None: ...

    def on_closed(self, error: Exception | None) -> None:
        self.closed = True


@needs_openssl
@versions
def test_a_session_with_a_server_of_openssl(
    run_on_real: Ground, certificates: Certificates, version: str
) -> None:
    """It sends each line back reversed; the second session is a resumed one."""
    tls = certificates.client()
    with s_server(certificates, version, "-rev") as (_, port):

        async def scenario(bench: Bench) -> None:
            address = Address("127.0.0.1", port, "tls")
            for resumed in (False, True):
                child = Lines(b"hello, world\n", b"a" * 5_000 + b"b\n")
                layer, keep = ClientSecurity(tls).around(child, address, bench.driver.now())
                link = bench.driver.connect(address, layer, child)
                await until(lambda child=child: child.heard.count(b"\n") == 2)
                assert child.heard == b"dlrow ,olleh\nb" + b"a" * 5_000 + b"\n"
                established, *sessions = child.events
                assert established.resumed is resumed
                keep(sessions[-1].session)
                child.closing = Closing.FULL
                link.wake()
                await until(lambda child=child: child.closed)

        run_on_real(scenario)


@pytest.mark.parametrize("unwraps", [True, False])
def test_pythons_own_socket(run_on_real: Ground, certificates: Certificates, unwraps: bool) -> None:
    with ThreadedServer(run_on_real, Probe(), url=LOCAL, tls=certificates.server()) as server:
        host, _, port = server.url.removeprefix("tls://").rpartition(":")
        context = ssl.create_default_context(cafile=certificates.authority.file)
        with (
            socket.create_connection((host, int(port)), WITHIN) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as sock,
        ):
            large = bytes(range(256)) * 2000
            sock.sendall(REQUEST)
            sock.sendall(msgpack.packb([0, 3, "probe.echo", [large]]))
            unpacker = msgpack.Unpacker(max_buffer_size=2**24)
            answers: list[Any] = []
            while len(answers) < 2:
                unpacker.feed(sock.recv(65536))
                answers += unpacker
            assert answers == [[1, 1, None, 5], [1, 3, None, large]]
            if unwraps:
                sock.unwrap()
        server.until(lambda: not server.server.peers)
        assert server.errors == []
