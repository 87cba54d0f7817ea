"""What goes wrong over TLS: a client's error tells what to do, and the server serves everybody else."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from datetime import timedelta
from typing import Any

import pytest
from certificates import DAY, NOW, Authority
from rpc_bench import Bench, Ground, until, url_of
from rpc_sockets import BadClient
from tls_node import LOCAL, Certificates, Probe, server_tls

import helianthus
from helianthus import ClientTls, RpcError, Server, ServerTls, StatusCode
from helianthus.protocols.machine import Closing
from helianthus.protocols.tls import TlsHandshakeFailed, TlsTruncated
from helianthus.sockets import TcpSocket


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


async def refusal(bench: Bench, url: Any, tls: ClientTls | None) -> str:
    """What a call says that finds no connection."""
    client = await bench.client(url, **({"tls": tls} if tls is not None else {}))
    with pytest.raises(RpcError) as refused:
        await client.call("probe.add", 2, 3)
    assert refused.value.code is StatusCode.UNAVAILABLE
    assert not refused.value.maybe_executed
    await client.close()
    return refused.value.message


async def reported_by(bench: Bench, server: Server) -> str:
    """The error that a server has reported, once or more: a client that fails tries again at once.

    The server is closed, so that none comes later.
    """
    await until(lambda: bench.errors)
    await server.close()
    ((method, message),) = {(method, str(error)) for method, error in bench.take_errors()}
    assert method == ""
    return message


def test_a_name_that_the_certificate_is_not_for(run_on: Ground, certificates: Certificates) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Probe(), url=LOCAL, tls=certificates.server())
        message = await refusal(bench, server, certificates.client(server_name="elsewhere.example"))
        assert message == (
            f"{server.addresses[0]}: the server's certificate is not valid for 'elsewhere.example', but for "
            "localhost, node.example, 127.0.0.1, ::1; connect to one of these, or name one as server_name"
        )
        assert "refuses this side's certificate" in await reported_by(bench, server)

    run_on(scenario)


def test_an_issuer_that_nobody_knows(run_on: Ground, certificates: Certificates, stranger: Authority) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Probe(), url=LOCAL, tls=certificates.server())
        message = await refusal(bench, server, ClientTls(ca=stranger.file))
        assert "is signed by CN=test authority, whom this side does not trust; set ca" in message
        message = await refusal(bench, server, None)
        assert "whom this side does not trust; set ca" in message, "nor does the system know it"
        assert "it does not trust who has signed it" in await reported_by(bench, server)

    run_on(scenario)


def test_an_expired_certificate(run_on_real: Ground, certificates: Certificates) -> None:
    """Helianthus would not serve with it, so somebody else does."""
    old = certificates.authority.issue("old", "127.0.0.1", starts=NOW - 3 * DAY, ends=NOW - DAY)

    async def scenario(bench: Bench) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(old.certificate, old.key)
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        listening = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=context)
        bench.at_the_end(listening.close)
        port = listening.sockets[0].getsockname()[1]
        message = await refusal(bench, f"tls://127.0.0.1:{port}", certificates.client())
        when = f"{NOW - DAY:%Y-%m-%d %H:%M:%S} UTC"
        assert f"O=Example, CN=old, expired at {when}; it has to be renewed there" in message

    run_on_real(scenario)


def test_a_client_without_a_certificate(run_on: Ground, certificates: Certificates) -> None:
    async def scenario(bench: Bench) -> None:
        ca = certificates.authority.file
        server = await bench.serve(Probe(), url=LOCAL, tls=certificates.server(client_ca=ca))
        message = await refusal(bench, server, certificates.client())
        assert "requires a client certificate; give certificate and key" in message
        assert "the client shows no certificate" in await reported_by(bench, server)

    run_on(scenario)


def test_a_client_with_a_certificate_of_somebody_else(
    run_on: Ground, certificates: Certificates, stranger: Authority
) -> None:
    async def scenario(bench: Bench) -> None:
        ca = certificates.authority.file
        server = await bench.serve(Probe(), url=LOCAL, tls=certificates.server(client_ca=ca))
        message = await refusal(bench, server, certificates.client(stranger.issue("eve")))
        assert "set its client_ca to the issuer's certificate" in message
        assert "client_ca must hold the certificate of its issuer" in await reported_by(bench, server)

    run_on(scenario)


def test_plain_text_to_a_tls_port(run_on: Ground, certificates: Certificates) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Probe(), url=LOCAL, tls=certificates.server())
        reported: list[Exception] = []
        client = await bench.client(url_of(server).replace("tls:", "tcp:"))
        client.on_error(lambda peer, method, error: reported.append(error))
        with pytest.raises(RpcError, match="so begins the answer of a TLS port: connect to tls://"):
            await client.call("probe.add", 2, 3)
        assert reported
        await client.close()
        decent = await bench.client(server, tls=certificates.client())
        assert await decent.call("probe.add", 2, 3) == 5
        assert "the client speaks no TLS, but plain text" in await reported_by(bench, server)

    run_on(scenario)


def test_tls_to_a_plain_port(run_on: Ground, certificates: Certificates) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Probe())
        message = await refusal(bench, url_of(server).replace("tcp:", "tls:"), certificates.client())
        assert "closed the connection during the TLS handshake; does it speak TLS there?" in message
        assert "so begins TLS: serve a tls:// address" in await reported_by(bench, server)

    run_on(scenario)


def test_versions_without_overlap(run_on: Ground, certificates: Certificates) -> None:
    async def scenario(bench: Bench) -> None:
        from helianthus.services.rpc.security import _client_context

        tls = certificates.client()
        tls.made(_client_context).maximum_version = ssl.TLSVersion.TLSv1_2
        server = await bench.serve(Probe(), url=LOCAL, tls=certificates.server(minimum_version="TLSv1.3"))
        assert "no TLS version in common" in await refusal(bench, server, tls)
        assert "(at least TLSv1.3) have no TLS version in common" in await reported_by(bench, server)

    run_on(scenario)


@pytest.mark.parametrize(
    "junk", [b"\x00" * 50, b"\x16\x03\x01\x01\x00" + b"\xff" * 300, b"GET / HTTP/1.0\r\n"]
)
def test_garbage(run_on_real: Ground, certificates: Certificates, junk: bytes) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Probe(), url=LOCAL, tls=certificates.server())
        client = await bench.client(server, tls=certificates.client())
        assert await client.call("probe.add", 2, 3) == 5
        async with BadClient(server) as bad:
            await bad.send(junk)
            await until(lambda: bench.errors)
        ((_, error),) = bench.take_errors()
        assert isinstance(error, TlsHandshakeFailed)
        assert await client.call("probe.add", 2, 3) == 5
        assert len(bench.connected) == 1, "whoever never shook hands was never connected"

    run_on_real(scenario)


def test_whoever_only_looks_is_no_error(run_on_real: Ground, certificates: Certificates) -> None:
    """As the probes of load balancers do: connect, and go."""

    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Probe(), url=LOCAL, tls=certificates.server())
        for reset in (False, True):
            async with BadClient(server) as looker:
                await until(lambda: server._arriving)
                if reset:
                    looker.reset()
            await until(lambda: not server._arriving)
        assert bench.errors == []
        assert bench.disconnected == []

    run_on_real(scenario)


def test_a_connection_that_is_cut_off(run_on_real: Ground, certificates: Certificates) -> None:
    """A process that is killed says no goodbye; nor does somebody who cuts a message short."""

    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Probe(), url=LOCAL, tls=certificates.server())
        loop = asyncio.get_running_loop()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cafile=certificates.authority.file)
        tls = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        async with BadClient(server) as bad:
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    await bad.send(outgoing.read())
                    incoming.write(await loop.sock_recv(bad.sock, 65536))
            await bad.send(outgoing.read())
            await until(lambda: bench.connected)
            bad.sock.shutdown(socket.SHUT_WR)
            await until(lambda: bench.disconnected)
        ((_, error),) = bench.disconnected
        assert isinstance(error, TlsTruncated)
        assert bench.errors == []

    run_on_real(scenario)


def test_a_handshake_that_never_ends(run_on: Ground, certificates: Certificates) -> None:
    async def scenario(bench: Bench) -> None:
        tls = certificates.server(handshake_timeout=0.05)
        server = await bench.serve(Probe(), url=LOCAL, tls=tls)
        driver = bench.driver
        silent = Silent()
        driver.connect(server.addresses[0], silent, silent)
        await until(lambda: bench.errors)
        assert "no TLS handshake within handshake_timeout (0.05 s) with the client" in await reported_by(
            bench, server
        )
        await until(lambda: silent.ended)

        listener = driver.listen(server.addresses[0].parse("tcp://127.0.0.1:0"), lambda _: (Silent(), silent))
        bench.at_the_end(listener.close)
        url = str(listener.address).replace("tcp:", "tls:")
        message = await refusal(bench, url, certificates.client(handshake_timeout=0.05))
        assert "no TLS handshake within handshake_timeout (0.05 s) with the server" in message

    run_on(scenario)


def test_a_server_that_stops_waits_for_no_handshake(run_on: Ground, certificates: Certificates) -> None:
    async def scenario(bench: Bench) -> None:
        for stop in (Server.close, Server.drain):
            server = Server([Probe()])
            await server.listen(LOCAL, tls=certificates.server())
            silent = Silent()
            bench.driver.connect(server.addresses[0], silent, silent)
            await until(lambda server=server: server._arriving)
            await stop(server)
            await until(lambda silent=silent: silent.ended)

    run_on(scenario)


class Silent:
    """A machine, and its handler, that says nothing."""

    closing = Closing.OPEN
    wants_read = True

    def __init__(self) -> None:
        self.ended = False

    def receive_data(self, data: Any, now: float) -> None:
        """Not for me."""

    def receive_eof(self, now: float) -> None:
        self.closing = Closing.FULL

    def connection_lost(self, error: Exception | None, now: float) -> None:
        """It is over."""

    def take_data(self) -> list[Any]:
        return []

    take_events = take_actions = take_data

    def deadline(self) -> None:
        return None

    def handle_timeout(self, now: float) -> None:
        """No hurry."""

    def complete(self, action_id: int, outcome: Any, now: float) -> None:
        """There are no actions."""

    def on_ready(self, link: Any) -> None:
        """Well."""

    def on_events(self, events: Any) -> None:
        """There are none."""

    on_actions = on_events

    def on_writable(self) -> None:
        """Nothing to write."""

    def on_closed(self, error: Exception | None) -> None:
        self.ended = True


# -- files -------------------------------------------------------------------------------------------------


def complaint(tls: ServerTls) -> str:
    """What a server says of files that cannot be used."""
    server = Server([Probe()], driver=helianthus.driver("asyncio"))
    with pytest.raises(helianthus.TlsFilesUnusable) as refused:
        server.open(LOCAL, tls=tls)
    server._own_driver().close()
    return str(refused.value)


def test_files_that_cannot_be_used(certificates: Certificates, tmp_path: Any) -> None:
    node, issue = certificates.node, certificates.authority.issue
    other = issue("other", "127.0.0.1")
    text = tmp_path / "text.pem"
    text.write_text("hello")
    damaged = tmp_path / "damaged.pem"
    damaged.write_text(node.certificate.read_text().replace("M", "N", 1))
    old = issue("old", ends=NOW - DAY, starts=NOW - 2 * DAY)
    early = issue("early", starts=NOW + timedelta(hours=5))
    locked = issue("locked", password="open sesame")

    assert complaint(ServerTls(tmp_path / "none.pem")) == f"{tmp_path / 'none.pem'}: there is no such file"
    assert complaint(ServerTls(node.certificate, tmp_path / "none")).endswith("none: there is no such file")
    assert "cannot be read: " in complaint(ServerTls(tmp_path))
    assert "holds no certificate; it must be PEM" in complaint(ServerTls(text))
    assert "certificate 1 is damaged" in complaint(ServerTls(damaged))
    assert "holds no private key; name the key's file as key" in complaint(ServerTls(node.certificate))
    assert "holds no private key" in complaint(ServerTls(node.certificate, text))
    assert complaint(ServerTls(node.certificate, other.key)) == (
        f"the key in {other.key} does not belong to the certificate in {node.certificate}"
    )
    assert f"CN=old expired at {NOW - DAY:%Y-%m-%d %H:%M:%S} UTC; renew it" in complaint(server_tls(old))
    assert "is valid only from" in complaint(server_tls(early))
    assert "is encrypted; give key_password" in complaint(server_tls(locked))
    assert "key_password is wrong" in complaint(server_tls(locked, key_password="what?"))
    assert "holds no certificate" in complaint(server_tls(node, client_ca=text))
    assert "does not belong" in complaint(
        server_tls(node, sni={"other.example": (other.certificate, node.key)})
    )


def test_an_encrypted_key_and_one_file_for_both(run_on: Ground, certificates: Certificates) -> None:
    locked = certificates.authority.issue("locked", "127.0.0.1", password="open sesame")
    both = locked.certificate.with_suffix(".both")
    both.write_bytes(locked.key.read_bytes() + locked.certificate.read_bytes())

    async def scenario(bench: Bench) -> None:
        tls = ServerTls(both, key_password="open sesame")
        client = await bench.client(await bench.serve(Probe(), url=LOCAL, tls=tls), tls=certificates.client())
        assert await client.call("probe.add", 2, 3) == 5

    run_on(scenario)


def test_handshakes_that_are_never_finished_keep_nobody_out_for_long(
    run_on: Ground, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "helianthus.rpc")

    async def scenario(bench: Bench) -> None:
        tls = certificates.server(handshake_timeout=60)
        server = await bench.serve(Probe(), url=LOCAL, tls=tls, max_handshakes=3)
        server._arriving._room.arrivals.patience = 0.02
        plain = str(server.addresses[0]).replace("tls://", "tcp://")
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(8):
                await stack.enter_async_context(await TcpSocket.connect(plain))
            client = await bench.client(server, tls=certificates.client())
            assert await client.call("probe.add", 2, 3, timeout=20) == 5
            assert len(server._arriving) <= 3
        assert "3 handshakes are under way (max_handshakes), and others wait" in caplog.text
        await server.close()
        assert not server._arriving

    run_on(scenario)
