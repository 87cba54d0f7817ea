"""Sockets over TLS with others: OpenSSL's own client and server, and Python's sockets."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable

import pytest
from rpc_bench import Bench, Ground
from test_tls_foreign import WITHIN, needs_openssl, openssl, read_until, s_server, versions, write
from tls_node import LOCAL, Certificates

from helianthus.sockets import TlsTruncated, connect, listen

LARGE = bytes(range(256)) * 4000


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def python_client(certificates: Certificates, port: int, talk: Callable[[ssl.SSLSocket], None]) -> None:
    """One of Python's sockets, that blocks; for a thread."""
    context = ssl.create_default_context(cafile=certificates.authority.file)
    with (
        socket.create_connection(("127.0.0.1", port), WITHIN) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as sock,
    ):
        talk(sock)


@pytest.mark.parametrize("unwraps", [True, False])
def test_pythons_client(run_on_real: Ground, certificates: Certificates, unwraps: bool) -> None:
    def talk(sock: ssl.SSLSocket) -> None:
        sock.sendall(LARGE)
        received = bytearray()
        while len(received) < len(LARGE):
            received += sock.recv(65536)
        assert received == LARGE
        if unwraps:
            sock.unwrap()

    async def scenario(bench: Bench) -> None:
        async with await listen(LOCAL, tls=certificates.server()) as listener:
            talking = asyncio.to_thread(python_client, certificates, listener.address.port, talk)
            client = asyncio.ensure_future(talking)
            async with await listener.accept() as far:
                assert far.tls is not None
                assert far.tls.server_name == "localhost"
                await far.send_all(await far.recv_exactly(len(LARGE)))
                if unwraps:
                    assert await far.recv() == b""
                    await far.send_eof()
                else:
                    with pytest.raises(TlsTruncated):
                        await far.recv()
                await client

    run_on_real(scenario)


def test_pythons_server(run_on_real: Ground, certificates: Certificates) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.node.certificate, certificates.node.key)

    def serve(listening: socket.socket) -> None:
        listening.settimeout(WITHIN)
        plain, _ = listening.accept()
        plain.settimeout(WITHIN)
        with context.wrap_socket(plain, server_side=True) as sock:
            received = bytearray()
            while data := sock.recv(65536):  # to the end of the other half
                received += data
            sock.sendall(received[::-1])
            sock.unwrap()

    async def scenario(bench: Bench) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            serving = asyncio.ensure_future(asyncio.to_thread(serve, listening))
            url = f"tls://127.0.0.1:{listening.getsockname()[1]}"
            async with await connect(url, tls=certificates.client()) as near:
                await near.send_all(LARGE)
                await near.send_eof()
                assert await near.recv_exactly(len(LARGE)) == LARGE[::-1]
                assert await near.recv() == b""
            await serving

    run_on_real(scenario)


@needs_openssl
@versions
def test_openssls_client(run_on_real: Ground, certificates: Certificates, version: str) -> None:
    async def scenario(bench: Bench) -> None:
        async with await listen(LOCAL, tls=certificates.server(alpn=["lines"])) as listener:
            to = f"127.0.0.1:{listener.address.port}"
            trust = ["-CAfile", str(certificates.authority.file), "-verify_return_error"]
            options = [version, "-quiet", "-no_ign_eof", "-alpn", "lines", "-servername", "node.example"]
            with openssl("s_client", "-connect", to, *trust, *options) as client:
                async with await listener.accept(timeout=WITHIN) as far:
                    assert far.tls is not None
                    assert far.tls.version == version.replace("-tls1_", "TLSv1.")
                    assert (far.tls.alpn, far.tls.server_name) == ("lines", "node.example")
                    write(client, b"hello, world\n")
                    assert await far.recv_until(b"\n") == b"hello, world\n"
                    await far.send_all(b"heard\n", LARGE, b"the end\n")
                    await asyncio.to_thread(read_until, client.stdout, b"the end\n")
                    assert client.stdin is not None
                    client.stdin.close()  # it says close_notify, and goes
                    assert await far.recv() == b""

    run_on_real(scenario)


@needs_openssl
@versions
def test_openssls_server(run_on_real: Ground, certificates: Certificates, version: str) -> None:
    """It sends each line back reversed; the second session is a resumed one."""
    tls = certificates.client()
    with s_server(certificates, version, "-rev") as (_, port):

        async def scenario(bench: Bench) -> None:
            for resumed in (False, True):
                async with await connect(f"tls://127.0.0.1:{port}", tls=tls, timeout=WITHIN) as near:
                    assert near.tls is not None
                    assert near.tls.resumed is resumed
                    await near.send_all(b"hello, world\n", b"a" * 5_000 + b"b\n")
                    assert await near.recv_until(b"\n") == b"dlrow ,olleh\n"
                    assert await near.recv_until(b"\n") == b"b" + b"a" * 5_000 + b"\n"

        run_on_real(scenario)
