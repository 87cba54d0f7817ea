"""A server behind proxies sees its clients as they are, and takes no connection without a header."""

from __future__ import annotations

import tempfile
from typing import Any

import pytest
from rpc_bench import LOCAL, Bench, Ground, Simulated, until
from rpc_relay import Relay, saying

import helianthus
from helianthus import CallContext, Rate, RateLimit, RpcError, Server, Service, StatusCode, method
from helianthus.drivers.unix_socket import AF_UNIX
from helianthus.protocols.errors import LimitExceeded
from helianthus.protocols.proxy_header import (
    HEADER_TIMEOUT,
    BadProxyHeader,
    ProxyEndpoint,
    ProxyHeader,
    ProxySsl,
    ProxyTransport,
    Tlv,
    TlvType,
)
from helianthus.services.proxy_trust import ProxyTrust
from helianthus.services.rpc.rate_limit import by_host

ALICE = "203.0.113.7:4242"
FOR_ALICE = ProxyHeader.between(("203.0.113.7", 4242), ("198.51.100.1", 443))
FOR_ALICE_AS_TEXT = ProxyHeader.between(("203.0.113.7", 4242), ("198.51.100.1", 443), version=1)
FOR_IPV6 = ProxyHeader.between(("2001:db8::7", 4242), ("2001:db8::1", 443))


class Who(Service):
    """Tells who calls."""

    name = "who"

    @method
    def am_i(self, context: CallContext) -> str:
        return context.peer.address

    @method
    def certified(self, context: CallContext) -> str | None:
        header = context.peer.proxy_header
        assert header is not None
        return header.ssl.common_name if header.ssl is not None and header.ssl.verified else None


async def behind(bench: Bench, server: Server, header: ProxyHeader, **options: Any) -> Relay:
    """A proxy in front of a server."""
    relay = Relay(bench.driver, server.addresses[0], saying(header, **options))
    bench.at_the_end(relay.close)
    return relay


async def serve(bench: Bench, **options: Any) -> Server:
    """A server that asks for PROXY headers."""
    listen = {name: options.pop(name) for name in ("proxy_from",) if name in options}
    return await bench.serve(Who(), listen={"proxy": True, **listen}, **options)


async def refused(bench: Bench, url: str) -> Exception:
    """Try to call; gives what the server reported."""
    async with helianthus.Client(url) as client:
        with pytest.raises(RpcError) as caught:
            await client.call("who.am_i", timeout=2.0)
    assert caught.value.code in (StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED)
    await until(lambda: bench.errors)
    errors = bench.take_errors()
    assert {name for name, _ in errors} == {""}
    return errors[0][1]


def expect_strays(bench: Bench) -> None:
    """Call it first: a client that is slow to be closed may have connected once more."""
    bench.at_the_end(bench.take_errors)


# -- who it is ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "seen"),
    [(FOR_ALICE, ALICE), (FOR_ALICE_AS_TEXT, ALICE), (FOR_IPV6, "[2001:db8::7]:4242")],
    ids=["version 2", "version 1", "IPv6"],
)
def test_the_client_is_seen(run_on: Ground, header: ProxyHeader, seen: str) -> None:
    async def scenario(bench: Bench) -> None:
        server = await serve(bench)
        connected: list[str] = []
        server.on_connect(lambda peer: connected.append(peer.address))
        relay = await behind(bench, server, header)
        client = await bench.client(relay.url)
        assert await client.call("who.am_i") == seen
        assert connected == [seen], "it was known before anybody heard of the connection"
        (peer,) = server.peers
        assert peer.proxy_header == header
        assert [peer.address for peer in server.statistics().peers] == [seen]

    run_on(scenario)


def test_what_the_proxy_tells_of_tls_is_known(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = await serve(bench)
        ssl = ProxySsl(ProxySsl.TLS | ProxySsl.CERTIFICATE, 0, (Tlv(TlvType.SSL_CN, b"alice"),))
        header = ProxyHeader(
            FOR_ALICE.source, FOR_ALICE.destination, FOR_ALICE.transport, tlvs=(ssl.encode(),)
        )
        relay = await behind(bench, server, header, checksum=True)
        assert await (await bench.client(relay.url)).call("who.certified") == "alice"

    run_on(scenario)


@pytest.mark.parametrize("header", [ProxyHeader(local=True), ProxyHeader(), ProxyHeader(version=1)])
def test_a_connection_of_the_proxys_own_is_the_proxys(run_on: Ground, header: ProxyHeader) -> None:
    async def scenario(bench: Bench) -> None:
        server = await serve(bench)
        relay = await behind(bench, server, header)
        who = await (await bench.client(relay.url)).call("who.am_i")
        assert who.startswith("127.0.0.1:")
        assert who not in relay.clients

    run_on(scenario)


def test_a_path_is_no_credentials(run_on: Ground) -> None:
    """What a proxy says of a Unix-domain socket does not look like what the kernel says of one."""

    async def scenario(bench: Bench) -> None:
        server = await serve(bench)
        source = ProxyEndpoint("", 0, b"pid=1,uid=0,gid=0")
        header = ProxyHeader(source, ProxyEndpoint("", 0, b"/b"), ProxyTransport.UNIX_STREAM)
        relay = await behind(bench, server, header)
        who = await (await bench.client(relay.url)).call("who.am_i")
        assert helianthus.PeerCredentials.parse(who) is None

    run_on(scenario)


def test_clients_are_limited_by_their_own_addresses(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        limit = RateLimit(Rate(0.001, 1), key=by_host)
        server = await serve(bench, middleware=[limit])
        relays = [await behind(bench, server, header) for header in (FOR_ALICE, FOR_ALICE_AS_TEXT, FOR_IPV6)]
        clients = [await bench.client(relay.url) for relay in relays]
        await clients[0].call("who.am_i")
        with pytest.raises(RpcError, match="more than"):
            await clients[1].call("who.am_i")
        await clients[2].call("who.am_i")

    run_on(scenario)


# -- who it is not --------------------------------------------------------------------------------


def test_a_connection_without_a_header_is_ended(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        expect_strays(bench)
        server = await serve(bench)
        error = await refused(bench, str(server.addresses[0]))
        assert isinstance(error, BadProxyHeader)
        assert "takes connections with a PROXY header only" in str(error)
        assert bench.connected == bench.disconnected == []

    run_on(scenario)


def test_a_header_that_is_not_asked_for_is_no_header(run_on: Ground) -> None:
    """It is never guessed: to the session it is rubbish."""

    async def scenario(bench: Bench) -> None:
        expect_strays(bench)
        server = await bench.serve(Who())
        relay = await behind(bench, server, FOR_ALICE)
        assert not isinstance(await refused(bench, relay.url), BadProxyHeader)

    run_on(scenario)


def test_a_header_that_never_comes_is_not_waited_for() -> None:
    """In virtual time: it is a machine's deadline, which every driver keeps."""

    async def scenario(bench: Bench) -> None:
        server = await serve(bench)
        before = bench.driver.now()
        relay = Relay(bench.driver, server.addresses[0], lambda _: b"PROXY TCP4 ")
        bench.at_the_end(relay.close)
        silent = Relay(bench.driver, server.addresses[0], lambda _: b"")
        bench.at_the_end(silent.close)
        clients = [await bench.client(one.url, extensions=False) for one in (relay, silent)]
        await until(lambda: relay.clients and silent.clients)
        for one in (relay, silent):
            one.close()  # so that nobody connects again
        await until(lambda: len(bench.errors) == 2)
        assert bench.driver.now() - before >= HEADER_TIMEOUT
        texts = sorted(str(error) for _, error in bench.take_errors())
        assert "nothing came within header_timeout" in texts[0]
        assert "only b'PROXY TCP4 ' came within header_timeout" in texts[1]
        assert server.peers == {}
        for client in clients:
            await client.close()

    Simulated()(scenario)


def test_a_header_that_is_too_long_is_refused(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        expect_strays(bench)
        server = await serve(bench)
        padding = (Tlv(TlvType.NOOP, bytes(5000)),)
        header = ProxyHeader(FOR_ALICE.source, FOR_ALICE.destination, FOR_ALICE.transport, tlvs=padding)
        relay = await behind(bench, server, header)
        error = await refused(bench, relay.url)
        assert isinstance(error, LimitExceeded)
        assert error.limit == "max_header"

    run_on(scenario)


def test_only_trusted_proxies_are_believed(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        expect_strays(bench)
        trusting = await serve(bench, proxy_from=["10.0.0.0/8", "127.0.0.1"])
        relay = await behind(bench, trusting, FOR_ALICE)
        assert await (await bench.client(relay.url)).call("who.am_i") == ALICE
        wary = await serve(bench, proxy_from=["10.0.0.0/8", "::1"])
        relay = await behind(bench, wary, FOR_ALICE)
        error = await refused(bench, relay.url)
        assert "is not among those who may send a PROXY header here (10.0.0.0/8, ::1)" in str(error)
        assert wary.peers == {}

    run_on(scenario)


def test_who_is_not_through_is_not_waited_for(run_on: Ground) -> None:
    """A server that closes or drains ends connections whose header is still to come."""

    async def scenario(bench: Bench) -> None:
        for stop in (Server.close, Server.drain):
            server = await serve(bench)
            silent = Relay(bench.driver, server.addresses[0], lambda _: b"")
            client = await bench.client(silent.url, extensions=False)
            await until(lambda silent=silent: silent.clients)
            await until(lambda server=server: server._arriving)
            begun = bench.driver.now()
            await stop(server)
            await until(lambda server=server: not server._arriving)
            assert bench.driver.now() - begun < HEADER_TIMEOUT
            silent.close()
            await client.close()

    run_on(scenario)


@pytest.mark.skipif(AF_UNIX is None, reason="Python has no Unix-domain sockets on this platform")
def test_a_proxy_may_connect_to_a_path(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        expect_strays(bench)
        with tempfile.TemporaryDirectory(prefix="h") as directory:
            for allowed, seen in ((["unix"], ALICE), (["10.0.0.0/8"], None), ([], ALICE)):
                server = Server([Who()])
                server.on_error(lambda peer, name, error: bench.errors.append((name, error)))
                await server.listen(f"unix://{directory}/a.sock", proxy=True, proxy_from=allowed)
                await bench.closing(server)
                relay = await behind(bench, server, FOR_ALICE)
                if seen is None:
                    assert "unix:" in str(await refused(bench, relay.url))
                else:
                    assert await (await bench.client(relay.url)).call("who.am_i") == seen
                await server.close()

    run_on(scenario)


def test_a_listener_that_is_closed_for_others_stays_open_for_its_own(run_on: Ground) -> None:
    """Each listener of a server has its own layers."""

    async def scenario(bench: Bench) -> None:
        server = await serve(bench)
        plain = await server.listen(LOCAL)
        assert (await (await bench.client(plain)).call("who.am_i")).startswith("127.0.0.1:")
        relay = await behind(bench, server, FOR_ALICE)
        assert await (await bench.client(relay.url)).call("who.am_i") == ALICE

    run_on(scenario)


# -- what is asked for ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "trusted"),
    [
        ("10.1.2.3:80", True),
        ("11.1.2.3:80", False),
        ("[2001:db8::1]:80", True),
        ("[2001:db9::1]:80", False),
        ("[fe80::1%eth0]:80", True),
        ("192.0.2.1:80", True),
        ("unix:pid=1,uid=0,gid=0", True),
        ("unix:", True),
        ("node:49152", False),
        ("", False),
        ("rubbish", False),
    ],
)
def test_who_is_trusted(peer: str, trusted: bool) -> None:
    given = ["10.0.0.0/8", "2001:db8::/32", "fe80::/10", "192.0.2.1", "unix"]
    assert ProxyTrust.parse(given).trusts(peer) is trusted
    assert ProxyTrust.parse([]).trusts(peer)
    assert not ProxyTrust.parse(["203.0.113.0/24"]).trusts(peer)


def test_a_wrong_trust_is_explained() -> None:
    server = Server([Who()], driver=helianthus.driver("sim"))
    for wrong in ("10.0.0.0/33", "10.0.0.1/8", "localhost", ""):
        with pytest.raises(
            ValueError, match=r"in proxy_from is no IP address, no network such as 10\.0\.0\.0/8"
        ):
            server.open("tcp://127.0.0.1:0", proxy=True, proxy_from=[wrong])
    with pytest.raises(ValueError, match=r"write a list, such as \['10\.0\.0\.0/8'\]"):
        server.open("tcp://127.0.0.1:0", proxy=True, proxy_from="10.0.0.0/8")
    with pytest.raises(ValueError, match="give proxy=True"):
        server.open("tcp://127.0.0.1:0", proxy_from=["10.0.0.0/8"])
    assert server.addresses == []
