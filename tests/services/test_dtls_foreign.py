"""DTLS with somebody else's program: `openssl s_client` and `openssl s_server`, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from collections.abc import AsyncIterator

import pytest
from dtls_pairs import LOCAL, authority, client_tls, pair_of, server_tls
from rpc_bench import Bench, Ground, Standard, until

from helianthus import ServerTls
from helianthus.dtls import connect, listen
from helianthus.protocols.dtls.records import split
from helianthus.protocols.tls import TlsHandshakeFailed

OPENSSL = shutil.which("openssl") or ""

pytestmark = pytest.mark.skipif(not OPENSSL, reason="the openssl command is not installed")

PATIENCE = 20.0


class Program:
    """A running openssl."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.output = b""

    async def read_until(self, pattern: bytes) -> re.Match[bytes]:
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while not (found := re.search(pattern, self.output)):
                more = await self.process.stdout.read(4096)
                assert more, f"openssl ended before it said {pattern!r}: {self.output.decode()}"
                self.output += more
        self.output = self.output[found.end() :]
        return found

    async def say(self, text: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        await self.process.stdin.drain()

    async def ended(self) -> int:
        async with asyncio.timeout(PATIENCE):
            return await self.process.wait()


@contextlib.asynccontextmanager
async def openssl(*arguments: object) -> AsyncIterator[Program]:
    process = await asyncio.create_subprocess_exec(
        OPENSSL,
        *map(str, arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield Program(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("mutual", [False, True])
def test_s_client(run_on_real: Ground, mutual: bool) -> None:
    async def scenario(_: Bench) -> None:
        alice = pair_of("alice")
        own = ("-cert", alice.certificate, "-key", alice.key) if mutual else ()
        tls = server_tls(client_ca=authority().file if mutual else None)
        async with (
            await listen(LOCAL, tls=tls) as listener,
            openssl(
                "s_client",
                "-dtls1_2",
                "-connect",
                f"127.0.0.1:{listener.address.port}",
                "-CAfile",
                authority().file,
                "-verify_return_error",
                "-verify_hostname",
                "localhost",
                *own,
            ) as client,
            await listener.accept(timeout=PATIENCE) as peer,
        ):
            certificate = peer.established.certificate
            assert (certificate.common_name if certificate else None) == ("alice" if mutual else None)
            await client.read_until(rb"Verify return code: 0 \(ok\)")
            await client.say(b"hello from openssl\n")
            assert await peer.recv(timeout=PATIENCE) == b"hello from openssl\n"
            await peer.send(b"hello from here\n")
            await client.read_until(b"hello from here\n")
            await client.say(b"Q\n")
            assert await peer.recv(timeout=PATIENCE) == b""
            assert await client.ended() == 0

    run_on_real(scenario)


def test_s_client_hears_our_goodbye(run_on_real: Ground) -> None:
    async def scenario(_: Bench) -> None:
        async with (
            await listen(LOCAL, tls=server_tls()) as listener,
            openssl("s_client", "-dtls1_2", "-connect", f"127.0.0.1:{listener.address.port}") as client,
        ):
            peer = await listener.accept(timeout=PATIENCE)
            await peer.send(b"goodbye\n")
            await peer.close()
            await client.read_until(b"goodbye\n")
            await client.read_until(b"closed")
            await client.ended()

    run_on_real(scenario)


@pytest.mark.parametrize("mutual", [False, True])
def test_s_server(run_on_real: Ground, mutual: bool) -> None:
    async def scenario(_: Bench) -> None:
        server, alice = pair_of("server", "127.0.0.1", "localhost", "::1", "server", "node"), pair_of("alice")
        asks = ("-Verify", 1, "-verify_return_error", "-CAfile", authority().file) if mutual else ()
        own = {"certificate": alice.certificate, "key": alice.key} if mutual else {}
        async with openssl(
            "s_server",
            "-dtls1_2",
            "-listen",
            "-accept",
            "127.0.0.1:0",
            "-cert",
            server.certificate,
            "-key",
            server.key,
            *asks,
        ) as program:
            port = int((await program.read_until(rb"ACCEPT 127\.0\.0\.1:(\d+)\n"))[1])
            async with await connect(f"dtls://127.0.0.1:{port}", tls=client_tls(**own)) as sock:
                assert sock.established.verified
                await program.read_until(b"CIPHER is ")
                await sock.send(b"hello from here\n")
                await program.read_until(b"hello from here\n")
                await program.say(b"hello from openssl\n")
                assert await sock.recv(timeout=PATIENCE) == b"hello from openssl\n"
            await program.read_until(b"DONE\n")  # it has heard our goodbye

    run_on_real(scenario)


def test_s_client_that_does_not_trust_us(run_on_real: Ground) -> None:
    async def scenario(_: Bench) -> None:
        async with (
            await listen(LOCAL, tls=server_tls()) as listener,
            openssl(
                "s_client",
                "-dtls1_2",
                "-connect",
                f"127.0.0.1:{listener.address.port}",
                "-verify_return_error",
                "-CAfile",
                pair_of("alice").certificate,
            ) as client,
        ):
            await client.read_until(b"(?i)verify error")
            assert await client.ended() != 0
            await until(lambda: listener.statistics.failed)
            assert listener.peers == 0

    run_on_real(scenario)


def test_s_server_that_is_somebody_else(run_on_real: Ground) -> None:
    async def scenario(_: Bench) -> None:
        other = pair_of("other", "elsewhere.example")
        async with openssl(
            "s_server",
            "-dtls1_2",
            "-listen",
            "-accept",
            "127.0.0.1:0",
            "-cert",
            other.certificate,
            "-key",
            other.key,
        ) as program:
            port = int((await program.read_until(rb"ACCEPT 127\.0\.0\.1:(\d+)\n"))[1])
            with pytest.raises(TlsHandshakeFailed, match=r"not for|but for elsewhere\.example"):
                await connect(f"dtls://127.0.0.1:{port}", tls=client_tls())
            await program.read_until(b"(?i)alert bad certificate|certificate unknown|alert")

    run_on_real(scenario)


def test_s_client_over_a_small_mtu(run_on_real: Ground) -> None:
    """Both ends cut their flights into pieces."""

    async def scenario(_: Bench) -> None:
        hosts = [f"host-{number}.of.a.long.name.example" for number in range(60)]
        many = pair_of("many", *hosts)
        async with (
            await listen(LOCAL, tls=ServerTls(many.certificate, many.key)) as listener,
            openssl(
                "s_client",
                "-dtls1_2",
                "-mtu",
                300,
                "-connect",
                f"127.0.0.1:{listener.address.port}",
                "-CAfile",
                authority().file,
            ) as client,
            await listener.accept(timeout=PATIENCE) as peer,
        ):
            await client.say(b"hello\n")
            assert await peer.recv(timeout=PATIENCE) == b"hello\n"

    run_on_real(scenario)


CHANGE_CIPHER_SPEC = 20


class Relay(asyncio.DatagramProtocol):
    """Passes datagrams between a client and a server, but the first ChangeCipherSpec of each."""

    def __init__(self, server_port: int) -> None:
        self.lost = {"client": 0, "server": 0}
        self._server = ("127.0.0.1", server_port)
        self._client: tuple[str, int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, source: tuple[str, int]) -> None:
        sender = "server" if source == self._server else "client"
        if sender == "client":
            self._client = source
        changes = any(record[0] == CHANGE_CIPHER_SPEC for record in split(data))
        if changes and not self.lost[sender]:
            self.lost[sender] += 1
            return
        target = self._client if sender == "server" else self._server
        self._transport.sendto(data, target)  # type: ignore[attr-defined]


@contextlib.asynccontextmanager
async def relay(server_port: int) -> AsyncIterator[tuple[Relay, int]]:
    transport, relay = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: Relay(server_port), local_addr=("127.0.0.1", 0)
    )
    try:
        yield relay, transport.get_extra_info("sockname")[1]
    finally:
        transport.close()


def test_what_is_lost_on_the_way_to_and_from_openssl_is_sent_again() -> None:
    """Takes the three seconds of two retransmissions: a server whose last flight is lost repeats it for
    a Finished in a new record only, which is OpenSSL's to make, by its own clock."""

    async def scenario(_: Bench) -> None:
        server = pair_of("server", "127.0.0.1", "localhost", "::1", "server", "node")
        own = ("-cert", server.certificate, "-key", server.key)
        async with openssl("s_server", "-dtls1_2", "-listen", "-accept", "127.0.0.1:0", *own) as program:
            port = int((await program.read_until(rb"ACCEPT 127\.0\.0\.1:(\d+)\n"))[1])
            async with (
                relay(port) as (way, relayed),
                await connect(f"dtls://127.0.0.1:{relayed}", tls=client_tls()) as sock,
            ):
                assert way.lost == {"client": 1, "server": 1}
                await sock.send(b"hello from here\n")
                await program.read_until(b"hello from here\n")

    Standard()(scenario)
