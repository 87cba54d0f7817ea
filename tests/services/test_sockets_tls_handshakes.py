"""Handshakes of sockets: bounded, given up, failing with a reason, and never in anybody else's way."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl

import pytest
from certificates import DAY, NOW, Authority
from rpc_bench import LOCAL as PLAIN
from rpc_bench import Bench, Ground, until
from rpc_relay import Relay
from sockets_bounds import WAYS, given_up
from test_sockets_bounds import NewWay, no_callbacks_at
from tls_node import LOCAL, Certificates

from helianthus.errors import ConnectionReset
from helianthus.sockets import (
    ClientTls,
    OperationTimedOut,
    ServerTls,
    TcpSocket,
    TlsError,
    TlsFilesUnusable,
    TlsHandshakeFailed,
    connect,
    listen,
)

every_way = pytest.mark.parametrize("new_way", WAYS, ids=lambda way: way.name)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def as_plain(url: object) -> str:
    return str(url).replace("tls:", "tcp:")


def as_tls(url: object) -> str:
    return str(url).replace("tcp:", "tls:")


async def refusal(url: object, tls: ClientTls | None) -> str:
    with pytest.raises(TlsHandshakeFailed) as caught:
        await connect(str(url), tls=tls, timeout=20)
    return str(caught.value)


# -- bounds ----------------------------------------------------------------------------------------------


@every_way
def test_a_server_that_says_nothing(run_on: Ground, certificates: Certificates, new_way: NewWay) -> None:
    async def scenario(bench: Bench) -> None:
        async with await listen(PLAIN) as listener:

            async def operation(**given: object) -> TcpSocket:
                return await connect(as_tls(listener.address), tls=certificates.client(), **given)  # type: ignore[arg-type]

            async def said_hello() -> None:
                far = await bench.closing(await listener.accept())
                assert (await far.recv(1)) == b"\x16"
                silent.append(far)

            silent: list[TcpSocket] = []
            way = new_way()
            error = await given_up(way, operation, said_hello())
            assert no_callbacks_at(way)
            if silent and not isinstance(error, asyncio.CancelledError) and "did not" in str(error):
                assert "the TLS handshake did not end within" in str(error)
            far = silent[0] if silent else await bench.closing(await listener.accept())
            with contextlib.suppress(ConnectionReset):
                while await far.recv():
                    pass

    run_on(scenario)


def test_a_handshake_has_a_time_of_its_own(run_on: Ground, certificates: Certificates) -> None:
    async def scenario(bench: Bench) -> None:
        async with await listen(PLAIN) as listener:
            message = await refusal(as_tls(listener.address), certificates.client(handshake_timeout=0.05))
            assert message == "no TLS handshake within handshake_timeout (0.05 s) with the server"

    run_on(scenario)


def test_those_who_do_not_finish_are_in_nobodys_way(
    run_on: Ground, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "helianthus.sockets")

    async def scenario(bench: Bench) -> None:
        async with (
            await listen(LOCAL, tls=certificates.server(handshake_timeout=0.2)) as listener,
            await connect(as_plain(listener.address)) as silent,
        ):
            await until(lambda: len(listener._port._opening) == 1)
            near = await connect(str(listener.address), tls=certificates.client())
            async with near, await listener.accept() as far:
                await near.send_all(b"hello")
                assert await far.recv() == b"hello"
            with pytest.raises(OperationTimedOut):
                await listener.accept(timeout=0)
            with contextlib.suppress(ConnectionReset):
                assert await silent.recv() == b""
            await silent.close()
            await until(lambda: not listener._port._opening)
        assert "no TLS handshake within handshake_timeout (0.2 s) with the client" in caplog.text

    run_on(scenario)


def test_there_are_only_so_many_of_them(
    run_on: Ground, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "helianthus.sockets")

    async def scenario(bench: Bench) -> None:
        tls = certificates.server(handshake_timeout=60)
        async with (
            await listen(LOCAL, tls=tls, max_handshakes=3) as listener,
            contextlib.AsyncExitStack() as stack,
        ):
            listener._port._opening.arrivals.patience = 0.02
            silent = [await connect(as_plain(listener.address)) for _ in range(8)]
            for sock in silent:
                await stack.enter_async_context(sock)
            near = await connect(str(listener.address), tls=certificates.client(), timeout=20)
            async with near, await listener.accept() as far:
                assert len(listener._port._opening) <= 3
                await near.send_all(b"at last")
                assert await far.recv() == b"at last"
        assert "3 handshakes are under way (max_handshakes), and others wait" in caplog.text

    run_on(scenario)


def test_a_crowd_loses_nobody(run_on: Ground, certificates: Certificates) -> None:
    async def scenario(bench: Bench) -> None:
        tls = certificates.client()
        async with await listen(LOCAL, tls=certificates.server(), backlog=2, max_handshakes=2) as listener:
            listener._port._opening.arrivals.patience = 20.0

            async def greet(number: int) -> None:
                async with await connect(str(listener.address), tls=tls) as near:
                    await near.send_all(b"%02d" % number)
                    assert await near.recv() == b""

            greeting = [asyncio.ensure_future(greet(number)) for number in range(20)]
            heard = []
            for _ in greeting:
                async with await listener.accept() as far:
                    heard.append(await far.recv_exactly(2))
                assert len(listener._port._waiting) <= 4
            await asyncio.gather(*greeting)
            assert sorted(heard) == [b"%02d" % number for number in range(20)]

    run_on(scenario)


def test_closing_a_listener_ends_handshakes(run_on: Ground, certificates: Certificates) -> None:
    async def scenario(bench: Bench) -> None:
        listener = await listen(LOCAL, tls=certificates.server())
        async with await connect(as_plain(listener.address)) as silent:
            await until(lambda: len(listener._port._opening) == 1)
            await listener.close()
            with contextlib.suppress(ConnectionReset):
                assert await silent.recv() == b""

    run_on(scenario)


# -- what goes wrong ---------------------------------------------------------------------------------------


def test_wrong_hosts_and_unknown_issuers(
    run_on: Ground,
    certificates: Certificates,
    stranger: Authority,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "helianthus.sockets")

    async def scenario(bench: Bench) -> None:
        async with await listen(LOCAL, tls=certificates.server()) as listener:
            url = listener.address
            assert await refusal(url, certificates.client(server_name="elsewhere.example")) == (
                "the server's certificate is not valid for 'elsewhere.example', but for localhost, "
                "node.example, 127.0.0.1, ::1; connect to one of these, or name one as server_name"
            )
            for tls in (ClientTls(ca=stranger.file), None):
                assert "signed by CN=test authority, whom this side does not trust; set ca" in await refusal(
                    url, tls
                )
            await until(lambda: "the client refuses this side's certificate" in caplog.text)
            async with (
                await connect(str(url), tls=ClientTls(verify=False)) as near,
                await listener.accept() as far,
            ):
                await near.send_all(b"whoever")
                assert await far.recv() == b"whoever"
                assert near.tls is not None
                assert not near.tls.verified

    run_on(scenario)


def test_an_expired_certificate(run_on_real: Ground, certificates: Certificates) -> None:
    old = certificates.authority.issue("old", "127.0.0.1", starts=NOW - 3 * DAY, ends=NOW - DAY)

    async def scenario(bench: Bench) -> None:
        with pytest.raises(TlsFilesUnusable, match=r"CN=old expired at .*; renew it"):
            await listen(LOCAL, tls=ServerTls(old.certificate, old.key))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(old.certificate, old.key)
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        before = asyncio.all_tasks()
        listening = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=context)
        port = listening.sockets[0].getsockname()[1]
        message = await refusal(f"tls://127.0.0.1:{port}", certificates.client())
        assert f"CN=old, expired at {NOW - DAY:%Y-%m-%d %H:%M:%S} UTC; it has to be renewed there" in message
        listening.close()
        await until(lambda: asyncio.all_tasks() <= before)

    run_on_real(scenario)


def test_peers_that_speak_in_plain_text(
    run_on: Ground, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "helianthus.sockets")

    async def scenario(bench: Bench) -> None:
        async with await listen(PLAIN) as plain, await listen(LOCAL, tls=certificates.server()) as listener:

            async def greet() -> None:
                async with await plain.accept() as far:
                    await far.send_all(b"220 hello there")
                    with contextlib.suppress(ConnectionReset):
                        while await far.recv():
                            pass

            greeting = asyncio.ensure_future(greet())
            assert await refusal(as_tls(plain.address), certificates.client()) == (
                "the server speaks no TLS, but plain text (it began with b'220 hello there'); "
                "connect by tcp://, or have it use TLS"
            )
            await greeting
            async with await connect(as_plain(listener.address)) as near:
                await near.send_all(b"GET / HTTP/1.1\r\n\r\n")
                assert await near.recv_exactly(7) == b"\x15\x03\x01\x00\x02\x02\x46", "an alert"
                assert await near.recv() == b""
        assert "the client speaks no TLS, but plain text (it began with b'GET / HTTP/1.1" in caplog.text

    run_on(scenario)


def test_a_client_without_a_certificate(run_on: Ground, certificates: Certificates) -> None:
    """In TLS 1.3 its handshake is done before the server says so."""

    async def scenario(bench: Bench) -> None:
        ca = certificates.authority.file
        async with await listen(LOCAL, tls=certificates.server(client_ca=ca)) as listener:
            with pytest.raises(TlsError, match="requires a client certificate; give certificate and key"):
                async with await connect(str(listener.address), tls=certificates.client()) as near:
                    await near.recv()
            with pytest.raises(OperationTimedOut):
                await listener.accept(timeout=0)

    run_on(scenario)


# -- PROXY headers ----------------------------------------------------------------------------------------

LINE = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n"


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_proxy_tells_who_it_is(run_on: Ground, certificates: Certificates, encrypted: bool) -> None:
    server = certificates.server() if encrypted else None
    client = certificates.client() if encrypted else None

    async def scenario(bench: Bench) -> None:
        url = LOCAL if encrypted else PLAIN
        async with await listen(url, tls=server, proxy=True, proxy_from=["127.0.0.0/8"]) as listener:
            relay = Relay(bench.driver, listener.address, lambda _: LINE)
            bench.at_the_end(relay.close)
            through = as_tls(relay.url) if encrypted else relay.url
            async with await connect(through, tls=client) as near, await listener.accept() as far:
                assert far.peer_address == "192.0.2.7:4711"
                assert far.proxy_header is not None
                assert str(far.proxy_header.destination) == "192.0.2.1:443"
                assert (far.tls is not None) is encrypted
                await near.send_all(b"hello")
                assert await far.recv() == b"hello"

    run_on(scenario)


def test_without_a_header_there_is_no_connection(run_on: Ground, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "helianthus.sockets")

    async def scenario(bench: Bench) -> None:
        async with await listen(PLAIN, proxy=True) as listener:
            async with await connect(str(listener.address)) as near:
                await near.send_all(b"hello")
                with contextlib.suppress(ConnectionReset):
                    assert await near.recv() == b""
            with pytest.raises(OperationTimedOut):
                await listener.accept(timeout=0)
        assert "PROXY" in caplog.text
        with pytest.raises(ValueError, match="give proxy=True"):
            await listen(PLAIN, proxy_from=["10.0.0.0/8"])

    run_on(scenario)
