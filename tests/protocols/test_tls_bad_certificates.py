"""A wrong certificate is an error that a person can act on: what each of them says, at both ends."""

from __future__ import annotations

import ssl
from datetime import timedelta

import pytest
from certificates import DAY, NOW, Authority, Pair
from tls_pair import TlsPair, client_context, server_context

from helianthus.protocols.tls import TlsHandshakeFailed


@pytest.fixture(scope="module")
def node(authority: Authority) -> Pair:
    return authority.issue("node", "node.example", "*.nodes.example", "192.0.2.1")


def failures(pair: TlsPair) -> tuple[str, str]:
    """What both ends say of a handshake that comes to nothing."""
    pair.run()
    for end in pair.ends:
        assert end.closed is not None
        assert end.child.heard == b""
        assert end.child.lost == [end.failure]
    return str(pair.client.failure), str(pair.server.failure)


def test_a_name_that_the_certificate_is_not_for(authority: Authority, node: Pair) -> None:
    pair = TlsPair(client_context(authority.file), server_context(node), server_name="10.0.0.9")
    near, far = failures(pair)

    assert near == (
        "the server's certificate is not valid for '10.0.0.9', but for node.example, *.nodes.example, "
        "192.0.2.1; connect to one of these, or name one as server_name"
    )
    assert far == "the client refuses this side's certificate: it may be for another name, or damaged"
    assert isinstance(pair.client.failure, TlsHandshakeFailed)
    assert pair.client.failure.reason == "CERTIFICATE_VERIFY_FAILED"


def test_an_expired_certificate_says_which_and_when(authority: Authority) -> None:
    old = authority.issue("old", "node.example", starts=NOW - 9 * DAY, ends=NOW - 2 * DAY)
    near, far = failures(TlsPair(client_context(authority.file), server_context(old)))

    when = f"{NOW - 2 * DAY:%Y-%m-%d %H:%M:%S} UTC"
    assert near == (
        f"the server's certificate, O=Example, CN=old, expired at {when}; it has to be renewed there"
    )
    assert far == "the client refuses this side's certificate: it has expired; renew it"


def test_one_that_is_not_valid_yet(authority: Authority) -> None:
    early = authority.issue("early", "node.example", starts=NOW + timedelta(hours=5))
    near, _ = failures(TlsPair(client_context(authority.file), server_context(early)))

    assert "is valid only from" in near
    assert "is this machine's clock right?" in near


def test_an_unknown_issuer(stranger: Authority, node: Pair) -> None:
    near, far = failures(TlsPair(client_context(stranger.file), server_context(node)))

    assert near == (
        "the server's certificate, O=Example, CN=node, is signed by CN=test authority, whom this side does "
        "not trust; set ca to a file with the certificate of its issuer"
    )
    assert "it does not trust who has signed it; set its ca" in far


def test_a_client_without_a_certificate(authority: Authority, node: Pair) -> None:
    pair = TlsPair(client_context(authority.file), server_context(node, authority.file)).run()

    assert "the client shows no certificate" in str(pair.server.failure)
    assert str(pair.client.failure) == (
        "the server requires a client certificate; give certificate and key"
    ), "in TLS 1.3 only after its own handshake"
    assert pair.client.child.lost == [pair.client.failure]


def test_the_same_in_tls_1_2(authority: Authority, node: Pair) -> None:
    context = client_context(authority.file)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    near, far = failures(TlsPair(context, server_context(node, authority.file)))

    assert "or requires a client certificate" in near
    assert "the client shows no certificate" in far


@pytest.mark.parametrize(
    ("starts", "ends", "why", "alert"),
    [
        (NOW - 3 * DAY, NOW - DAY, "certificate has expired", "it has expired; renew it"),
        (NOW + DAY, NOW + 2 * DAY, "certificate is not yet valid", "refuses this side's certificate"),
    ],
)
def test_a_clients_bad_certificate(
    authority: Authority, node: Pair, starts: object, ends: object, why: str, alert: str
) -> None:
    bad = authority.issue("bob", starts=starts, ends=ends)  # type: ignore[arg-type]
    context = client_context(authority.file, bad)
    pair = TlsPair(context, server_context(node, authority.file)).run()

    assert str(pair.server.failure) == f"the client's certificate was refused: {why}"
    assert alert in str(pair.client.failure)


def test_a_clients_certificate_of_an_unknown_issuer(
    authority: Authority, stranger: Authority, node: Pair
) -> None:
    context = client_context(authority.file, stranger.issue("eve"))
    pair = TlsPair(context, server_context(node, authority.file)).run()

    assert "client_ca must hold the certificate of its issuer" in str(pair.server.failure)
    assert "set its client_ca to the issuer's certificate" in str(pair.client.failure)


def test_no_version_in_common(authority: Authority, node: Pair) -> None:
    old, new = client_context(authority.file), server_context(node)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    new.minimum_version = ssl.TLSVersion.TLSv1_3
    near, far = failures(TlsPair(old, new))

    assert "have no TLS version in common" in near
    assert far == (
        "the client and this side (at least TLSv1.3) have no TLS version in common; see minimum_version on "
        "both sides"
    )


def test_no_cipher_in_common(authority: Authority, node: Pair) -> None:
    near_context, far_context = client_context(authority.file), server_context(node)
    near_context.maximum_version = ssl.TLSVersion.TLSv1_2
    near_context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    far_context.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
    near, far = failures(TlsPair(near_context, far_context))

    assert "no cipher or version in common" in near
    assert "offers no cipher that this side takes" in far
