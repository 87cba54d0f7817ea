"""What is read from a certificate, against the package that made it; and what else may come."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
from certificates import NOW, Authority
from hypothesis import given, settings
from hypothesis import strategies as st

from helianthus.protocols.tls import Certificate, read_certificate


@pytest.fixture(scope="module")
def der(authority: Authority) -> bytes:
    names = ("a.example.org", "*.b.example.org", "192.0.2.7", "2001:db8::1")
    uris, emails = ("spiffe://cluster/alice",), ("alice@example.org",)
    return authority.issue("alice", *names, uris=uris, emails=emails).der


def test_a_certificate_says_whose_it_is_and_for_what(der: bytes) -> None:
    read = read_certificate(der)

    assert read.subject == "O=Example, CN=alice" == str(read)
    assert read.common_name == "alice"
    assert read.issuer == "CN=test authority"
    assert read.dns_names == ("a.example.org", "*.b.example.org")
    assert read.ip_addresses == ("192.0.2.7", "2001:db8::1")
    assert read.uris == ("spiffe://cluster/alice",)
    assert read.email_addresses == ("alice@example.org",)
    assert read.not_before < NOW < read.not_after
    assert read.valid_for == "a.example.org, *.b.example.org, 192.0.2.7, 2001:db8::1"
    assert len(read.fingerprint) == 64


def test_one_without_names_is_known_by_its_fingerprint(authority: Authority) -> None:
    from cryptography import x509

    bare = read_certificate(authority.issue("nobody").der)
    assert bare.valid_for == "no host name at all"
    assert x509.load_der_x509_certificate(authority.issue("nobody").der).subject.rfc4514_string()
    nameless = Certificate("", None, "", (), (), (), (), NOW, NOW, "ab" * 32)
    assert str(nameless) == "with the fingerprint abababababababab…"


@pytest.mark.parametrize(
    "when",
    [
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC),
        datetime(2050, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
    ],
)
def test_both_forms_of_a_time_are_read(authority: Authority, when: datetime) -> None:
    start = min(when, NOW)
    read = read_certificate(authority.issue("then", starts=start, ends=max(when, NOW)).der)

    assert when in (read.not_before, read.not_after)


@given(
    names=st.lists(
        st.from_regex(r"[a-z][a-z0-9-]{0,20}(\.[a-z]{1,10}){1,3}", fullmatch=True), max_size=4, unique=True
    ),
    common_name=st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=30),
)
@settings(max_examples=30, deadline=None)
def test_any_names_are_read_as_they_were_written(
    authority: Authority, names: list[str], common_name: str
) -> None:
    read = read_certificate(authority.issue(common_name, *names, file="any").der)

    assert read.common_name == common_name
    assert read.dns_names == tuple(names)


def test_authorities_that_systems_trust_are_read() -> None:
    """Certificates that nobody made for this test, with whatever is in them."""
    context = ssl.create_default_context()
    for der in context.get_ca_certs(binary_form=True):
        read = read_certificate(der)
        assert read.issuer
        assert read.not_before < read.not_after


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_damaged_ones_are_refused_and_never_crash(der: bytes, data: st.DataObject) -> None:
    damaged = bytearray(der)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    for given_bytes in (bytes(damaged), bytes(damaged[:cut])):
        try:
            read = read_certificate(given_bytes)
        except ValueError as error:
            assert str(error)
        else:
            assert read.fingerprint


@given(st.binary(max_size=200))
def test_nonsense_is_refused(nonsense: bytes) -> None:
    with pytest.raises(ValueError, match="certificate"):
        read_certificate(nonsense)


def test_the_authority_can_be_trusted_by_openssl(authority: Authority) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority.file)
    assert Path(authority.file).exists()
    assert [one["subject"] for one in context.get_ca_certs()] == [((("commonName", "test authority"),),)]
