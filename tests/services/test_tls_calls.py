"""Calls over TLS: everything that works over TCP, and what both ends know of each other."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from rpc_bench import Bench, Ground, Standard, url_of
from rpc_thread import ThreadedServer
from tls_node import LOCAL, Certificates, Probe, server_tls

import helianthus
from helianthus import (
    Authentication,
    ClientTls,
    Evidence,
    Identity,
    Peer,
    PoolOptions,
    RpcError,
    Rules,
    ServerTls,
    SharedSecret,
    StatusCode,
    TokenAuthenticator,
)

KEY = b"0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def test_calls_streams_and_large_values(run_on: Ground, certificates: Certificates) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Probe(), url=LOCAL, tls=certificates.server())
        assert str(server.addresses[0]).startswith("tls://127.0.0.1:")
        client = await bench.client(server, tls=certificates.client())
        assert await client.call("probe.add", 2, 3) == 5
        assert await asyncio.gather(*(client.call("probe.later", str(i)) for i in range(50))) == [
            str(i) for i in range(50)
        ]
        assert [i async for i in client.stream("probe.count", 300)] == list(range(300))
        large = bytes(range(256)) * 4096
        assert await client.call("probe.echo", large) == large

        tls = bench.connected[0].tls
        assert tls is not None
        assert (tls.version, tls.alpn, tls.resumed) == ("TLSv1.3", "helianthus/1", False)
        assert tls.certificate is None

    run_on(scenario)


def test_a_server_calls_its_client_over_tls(run_on: Ground, certificates: Certificates) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Probe(), url=LOCAL, tls=certificates.server())
        client = await bench.client(server, Probe(), tls=certificates.client())
        await client.call("probe.add", 1, 1)
        assert await bench.connected[0].call("probe.add", 20, 3) == 23

    run_on(scenario)


def test_the_versions_that_are_asked_for(run_on: Ground, certificates: Certificates) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Probe(), url=LOCAL, tls=certificates.server(minimum_version="TLSv1.3"))
        client = await bench.client(server, tls=certificates.client())
        assert await client.call("probe.add", 2, 3) == 5
        assert bench.connected[0].tls.version == "TLSv1.3"  # type: ignore[union-attr]

    run_on(scenario)


def test_pools_and_several_addresses(run_on: Ground, certificates: Certificates) -> None:
    async def scenario(bench: Bench) -> None:
        first = await bench.serve(Probe(), url=LOCAL, tls=certificates.server())
        urls = ["tls://127.0.0.1:1", url_of(first)]  # nobody listens at the former
        client = helianthus.connect(
            urls,
            tls=certificates.client(),
            pool=PoolOptions(size=3, min_size=2),
        )
        async with client:
            calls = (client.call("probe.later", str(i)) for i in range(30))
            assert await asyncio.gather(*calls) == [str(i) for i in range(30)]
            while len(bench.connected) < 2:
                await client.call("probe.add", 1, 1)

    run_on(scenario)


def test_the_blocking_client(certificates: Certificates) -> None:
    with ThreadedServer(Standard(), Probe(), url=LOCAL, tls=certificates.server()) as server:
        url = server.url
        with helianthus.connect_sync(url, tls=certificates.client()) as client:
            assert client.call("probe.add", 2, 3) == 5
            assert list(client.stream("probe.count", 5)) == [0, 1, 2, 3, 4]
        elsewhere = certificates.client(server_name="elsewhere")
        with (
            helianthus.connect_sync(url, tls=elsewhere) as client,
            pytest.raises(RpcError, match="not valid for 'elsewhere'"),
        ):
            client.call("probe.add", 2, 3)


# -- who is who ------------------------------------------------------------------------------------------


def test_a_certificate_proves_who_calls(run_on: Ground, certificates: Certificates) -> None:
    async def scenario(bench: Bench) -> None:
        rules = Rules(
            allow=["cert:alice probe.add", "@uri:spiffe://cluster/* probe.echo", "@staff probe.who"],
            deny=["cert:bob *"],
        )
        server = await bench.serve(
            Probe(),
            url=LOCAL,
            tls=certificates.server(client_ca=certificates.authority.file),
            authentication=Authentication(groups={"cert:alice": ["staff"]}, rules=rules),
        )
        alice = await bench.client(server, tls=certificates.client(certificates.alice))
        assert await alice.call("probe.add", 2, 3) == 5
        assert await alice.call("probe.echo", "x") == "x"
        assert await alice.call("probe.who") == "cert:alice"
        with pytest.raises(RpcError, match=r"cert:alice must not call probe\.later"):
            await alice.call("probe.later", "x")

        bob = await bench.client(
            server,
            tls=certificates.client(certificates.authority.issue("bob", uris=["spiffe://cluster/bob"])),
        )
        with pytest.raises(RpcError, match='denied by the rule "cert:bob') as refused:
            await bob.call("probe.echo", "x")
        assert refused.value.code is StatusCode.PERMISSION_DENIED

        identity = bench.connected[0].identity
        assert identity is not None
        assert "uri:spiffe://cluster/alice" in identity.groups
        assert identity.attributes["certificate"].common_name == "alice"

    run_on(scenario)


def test_without_rules_a_method_still_knows_its_caller(run_on: Ground, certificates: Certificates) -> None:
    async def scenario(bench: Bench) -> None:
        ca = certificates.authority.file
        tls = certificates.server(client_ca=ca, require_client_certificate=False)
        server = await bench.serve(Probe(), url=LOCAL, tls=tls)
        odd = certificates.authority.issue("Alice 100%\u2028", file="odd")
        for pair, name in (
            (certificates.alice, "cert:alice"),
            (odd, "cert:Alice%20100%25%E2%80%A8"),
            (None, "nobody"),
        ):
            client = await bench.client(server, tls=certificates.client(pair))
            assert await client.call("probe.who") == name

    run_on(scenario)


def test_authenticators_are_asked_about_certificates(run_on: Ground, certificates: Certificates) -> None:
    asked: list[Evidence] = []

    def by_uri(evidence: Evidence) -> Identity | None:
        asked.append(evidence)
        if evidence.kind == "certificate" and "spiffe://cluster/alice" in evidence.value.uris:
            return Identity("Alice")
        return None

    async def waits(evidence: Evidence) -> Identity | None:
        raise AssertionError("it is not asked about certificates")

    async def scenario(bench: Bench) -> None:
        asked.clear()
        server = await bench.serve(
            Probe(),
            url=LOCAL,
            tls=certificates.server(client_ca=certificates.authority.file),
            authentication=Authentication([TokenAuthenticator({}), waits, by_uri], secrets={"bob": KEY}),
        )
        client = await bench.client(server, tls=certificates.client(certificates.alice))
        assert await client.call("probe.who") == "Alice"
        assert [evidence.kind for evidence in asked] == ["certificate"]
        other = await bench.client(
            server, tls=certificates.client(certificates.alice), credentials=SharedSecret("bob", KEY)
        )
        assert await other.call("probe.who") == "bob", "whoever proves to be somebody else is that"

    run_on(scenario)


def test_names_choose_certificates(run_on: Ground, certificates: Certificates) -> None:
    special = certificates.authority.issue("special", "special.example")

    async def scenario(bench: Bench) -> None:
        tls = certificates.server(sni={"Special.Example": (special.certificate, special.key)})
        server = await bench.serve(Probe(), url=LOCAL, tls=tls)
        seen: list[Peer] = []
        for name in ("special.example", "node.example", None):
            client = await bench.client(server, tls=certificates.client(server_name=name))
            client.on_connect(seen.append)
            await client.call("probe.add", 1, 1)
        shown = [peer.tls.certificate.common_name for peer in seen]  # type: ignore[union-attr]
        assert shown == ["special", "node", "node"]
        asked_for = [peer.tls.server_name for peer in bench.connected]  # type: ignore[union-attr]
        assert asked_for == ["special.example", "node.example", None]

    run_on(scenario)


# -- sessions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_a_client_resumes_its_session(run_on: Ground, certificates: Certificates, version: str) -> None:
    async def scenario(bench: Bench) -> None:
        tls = certificates.server(client_ca=certificates.authority.file)
        server = await bench.serve(Probe(), url=LOCAL, tls=tls)
        own = certificates.client(certificates.alice)
        _only(own, version)
        for _ in range(3):
            async with helianthus.connect(url_of(server), tls=own) as client:
                assert await client.call("probe.who") == "cert:alice"
        seen = [peer.tls for peer in bench.connected]
        assert [tls.resumed for tls in seen if tls is not None] == [False, True, True]
        assert [tls.version for tls in seen if tls is not None] == [version] * 3

        other = certificates.client(certificates.alice, resume=False)
        for _ in range(2):
            async with helianthus.connect(url_of(server), tls=other) as client:
                await client.call("probe.who")
        assert not bench.connected[-1].tls.resumed  # type: ignore[union-attr]

    run_on(scenario)


def _only(tls: ClientTls, version: str) -> None:
    """Have a client offer this version only: tests want the old one, too."""
    import ssl

    from helianthus.services.rpc.security import _client_context

    tls.made(_client_context).maximum_version = ssl.TLSVersion[version.replace(".", "_")]


# -- what does not go together -----------------------------------------------------------------------------


def test_addresses_and_options_have_to_agree(certificates: Certificates) -> None:
    server = helianthus.Server([Probe()], driver=helianthus.driver("asyncio"))
    with pytest.raises(ValueError, match="needs a certificate: give tls=ServerTls"):
        server.open("tls://127.0.0.1:0")
    with pytest.raises(ValueError, match=r"not encrypted; write it as tls://127\.0\.0\.1:0"):
        server.open("tcp://127.0.0.1:0", tls=certificates.server())
    server.close_now()
    with pytest.raises(ValueError, match=r"not encrypted; write it as tls://node:1"):
        helianthus.connect("tcp://node:1", tls=certificates.client())
    with pytest.raises(ValueError, match="there is no such file"):
        helianthus.connect("tls://node:1", tls=ClientTls(ca="/nowhere/ca.pem"))
    with pytest.raises(ValueError, match="there is no such file"):
        helianthus.connect_sync("tls://node:1", tls=ClientTls(ca=Path("/nowhere/ca.pem")))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"minimum_version": "TLSv1"}, "minimum_version must be 'TLSv1.2' or 'TLSv1.3', got 'TLSv1'"),
        ({"require_client_certificate": True}, "needs client_ca"),
        ({"alpn": "helianthus/1"}, "alpn must be several names"),
        ({"alpn": ["x" * 256]}, "cannot be sent"),
        ({"sni": {"a": "b.pem"}}, "must be a pair of files"),
        ({"handshake_timeout": 0}, "handshake_timeout"),
        ({"session_tickets": 9}, "session_tickets"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        ServerTls("a.pem", **options)


def test_client_options_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="no certificate that it belongs to"):
        ClientTls(key="a.key")
    with pytest.raises(ValueError, match="verify=False would not look at it"):
        ClientTls("ca.pem", verify=False)


def test_passwords_are_not_shown() -> None:
    assert "secret" not in repr(ServerTls("a.pem", key_password="secret"))
    assert server_tls  # the helper of other files
