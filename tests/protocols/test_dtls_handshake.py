"""Handshakes on a network that does what it should: what is agreed upon, and who is let in."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from certificates import DAY, NOW, Authority
from dtls_net import CLIENT, SERVER, Files, Talk

from helianthus.protocols.dtls import AssociationState, DtlsClosed, DtlsEstablished, DtlsFailed
from helianthus.protocols.dtls.verification import is_for
from helianthus.protocols.tls import TlsHandshakeFailed
from helianthus.protocols.tls.certificate import Certificate


def test_both_ends_say_what_was_agreed_upon(dtls_files: Files) -> None:
    talk = Talk(dtls_files)
    client = talk.connect()
    assert client.state is AssociationState.HANDSHAKE
    talk.run()
    ours, theirs = talk.established(), talk.established(SERVER)
    assert ours.address == SERVER
    assert theirs.address == CLIENT
    assert ours.version == theirs.version == "DTLSv1.2"
    assert ours.cipher == theirs.cipher
    assert "GCM" in ours.cipher
    assert ours.alpn is theirs.alpn is None
    assert ours.server_name == theirs.server_name == "server.example"
    assert ours.certificate is not None
    assert ours.certificate.common_name == "server"
    assert ours.verified
    assert theirs.certificate is None
    assert not theirs.verified
    assert client.state is AssociationState.ESTABLISHED
    assert (talk.server.peers, talk.server.handshakes) == (1, 0)


def test_a_handshake_takes_three_round_trips_and_nothing_is_repeated(dtls_files: Files) -> None:
    talk = Talk(dtls_files)
    talk.connect()
    talk.run(120)
    assert [source for source, *_ in talk.sent] == [CLIENT, SERVER] * 3
    assert talk.server.statistics.challenged == talk.server.statistics.established == 1


def test_datagrams_keep_their_bounds_and_wait_for_the_handshake(dtls_files: Files) -> None:
    talk = Talk(dtls_files)
    client = talk.connect()
    client.child.say(b"one", b"two")
    talk.run()
    client.child.say(bytes(1000))
    talk.run()
    assert talk.children[CLIENT].heard == client.child.heard == [b"one", b"two", bytes(1000)]
    assert not any(b"one" in data or b"two" in data for *_, data in talk.sent)
    kinds = [type(event) for event in talk.events[CLIENT]]
    assert kinds == [DtlsEstablished, bytes, bytes, bytes]


def test_data_that_overtakes_the_end_of_the_handshake_is_not_lost(dtls_files: Files) -> None:
    """The server's child speaks first, and its datagram arrives before the last flight."""
    talk = Talk(dtls_files, lambda number, data: (0.05,) if number == 5 else (0.01,))
    new_child = talk.new_child

    def speak(event: DtlsEstablished):  # type: ignore[no-untyped-def]
        child = new_child(event)
        child.say(b"welcome")
        return child

    talk.server._new_child = speak
    client = talk.connect()
    talk.run()
    assert client.child.heard == [b"welcome"]


def test_a_client_is_known_by_its_certificate(dtls_files: Files) -> None:
    talk = Talk(dtls_files, server=dtls_files.server_context(require_certificate=True))
    talk.connect(context=dtls_files.client_context(dtls_files.client))
    talk.run()
    event = talk.established(SERVER)
    assert event.certificate is not None
    assert event.certificate.subject == "O=Example, CN=alice"
    assert event.verified


@pytest.mark.parametrize("pair", [True, False])
def test_a_certificate_may_be_asked_for_and_not_required(dtls_files: Files, pair: bool) -> None:
    talk = Talk(dtls_files, server=dtls_files.server_context(ask_for_certificate=True))
    talk.connect(context=dtls_files.client_context(dtls_files.client if pair else None))
    talk.run()
    assert talk.established(SERVER).verified is pair


def test_a_required_certificate_that_is_missing(dtls_files: Files) -> None:
    talk = Talk(dtls_files, server=dtls_files.server_context(require_certificate=True))
    talk.connect()
    talk.run()
    assert "the client shows no certificate" in talk.failure(SERVER)
    assert "requires a client certificate" in talk.failure()


def test_a_client_certificate_of_a_stranger(dtls_files: Files, stranger: Authority) -> None:
    talk = Talk(dtls_files, server=dtls_files.server_context(require_certificate=True))
    pair = stranger.issue("mallory", ecdsa=True)
    talk.connect(context=dtls_files.client_context(pair))
    talk.run()
    assert "the client's certificate, O=Example, CN=mallory, is signed by" in talk.failure(SERVER)
    assert "client_ca must hold" in talk.failure(SERVER)
    assert "the server refuses this side's certificate: it does not trust" in talk.failure()


def test_a_server_of_a_stranger(dtls_files: Files, stranger: Authority) -> None:
    talk = Talk(dtls_files)
    client = talk.connect(context=dtls_files.client_context(trust=stranger))
    talk.run()
    assert "is signed by CN=test authority, whom this side does not trust; set ca" in talk.failure()
    assert "the client refuses this side's certificate: it does not trust" in talk.failure(SERVER)
    (event,) = talk.seen(CLIENT, DtlsFailed)
    assert isinstance(event.error, TlsHandshakeFailed)
    assert client.state is AssociationState.ENDED
    assert client.deadline() is None
    assert talk.server.handshakes == 0
    assert talk.server.statistics.failed == 1


@pytest.mark.parametrize(
    ("starts", "ends", "told"),
    [
        (NOW - 9 * DAY, NOW - DAY, f"expired at {NOW - DAY:%Y-%m-%d %H:%M:%S} UTC"),
        (NOW + DAY, NOW + 9 * DAY, f"is valid only from {NOW + DAY:%Y-%m-%d %H:%M:%S} UTC on"),
    ],
    ids=["expired", "not_yet_valid"],
)
def test_a_certificate_out_of_date(dtls_files: Files, starts: datetime, ends: datetime, told: str) -> None:
    pair = dtls_files.authority.issue(
        "old", "server.example", starts=starts, ends=ends, ecdsa=True, file=f"from {starts:%d}"
    )
    talk = Talk(dtls_files, server=dtls_files.server_context(pair))
    talk.connect()
    talk.run()
    assert told in talk.failure()
    assert "refuses this side's certificate" in talk.failure(SERVER)


@pytest.mark.parametrize("name", ["other.example", "192.0.2.9", "a.server.example"])
def test_a_certificate_for_another_name(dtls_files: Files, name: str) -> None:
    talk = Talk(dtls_files)
    talk.connect(server_name=name)
    talk.run()
    assert talk.failure() == (
        f"the server's certificate is not valid for {name!r}, but for server.example, 192.0.2.1; "
        "connect to one of these, or name one as server_name"
    )
    assert talk.seen(SERVER, DtlsFailed)


def test_an_ip_address_may_be_a_servers_name(dtls_files: Files) -> None:
    talk = Talk(dtls_files)
    talk.connect(server_name="192.0.2.1")
    talk.run()
    assert talk.established(SERVER).server_name is None  # RFC 6066, 3: not an IP address


def test_nobody_is_verified_where_that_was_declined(dtls_files: Files, stranger: Authority) -> None:
    talk = Talk(dtls_files)
    context = dtls_files.client_context(trust=stranger, verify_server=False)
    talk.connect(context=context, server_name="other.example")
    talk.run()
    event = talk.established()
    assert event.certificate is not None
    assert not event.verified


@pytest.mark.parametrize(
    ("offered", "known", "agreed"),
    [
        (["coap", "chat"], ["chat", "coap"], "chat"),
        (["coap"], ["chat"], None),
        ([], ["chat"], None),
        (["coap"], [], None),
    ],
)
def test_alpn(dtls_files: Files, offered: list[str], known: list[str], agreed: str | None) -> None:
    talk = Talk(dtls_files, server=dtls_files.server_context(alpn=known))
    talk.connect(context=dtls_files.client_context(alpn=offered))
    talk.run()
    assert talk.established().alpn == talk.established(SERVER).alpn == agreed


def test_both_have_no_cipher_in_common(dtls_files: Files) -> None:
    context = dtls_files.client_context()
    context.set_cipher_list(b"ECDHE-RSA-AES128-GCM-SHA256")  # the server's key is not RSA
    talk = Talk(dtls_files)
    talk.connect(context=context)
    talk.run()
    assert "no cipher" in talk.failure(SERVER)
    assert "no cipher or version in common" in talk.failure()


def test_a_client_that_speaks_an_older_version_only(dtls_files: Files) -> None:
    context = dtls_files.client_context()
    context.set_min_proto_version(0xFEFF)  # DTLS 1.0
    context.set_max_proto_version(0xFEFF)
    context.set_cipher_list(b"ALL:@SECLEVEL=0")
    talk = Talk(dtls_files)
    talk.connect(context=context)
    talk.run()
    assert "no TLS version in common" in talk.failure()


def test_a_certificate_chain_larger_than_a_datagram(dtls_files: Files) -> None:
    hosts = [f"host-{number}.of.a.long.name.example" for number in range(100)]
    pair = dtls_files.authority.issue("many", "server.example", *hosts, ecdsa=True)
    talk = Talk(dtls_files, server=dtls_files.server_context(pair))
    talk.connect()
    talk.run()
    assert talk.established().certificate is not None
    assert max(len(data) for *_, data in talk.sent) <= 1200
    assert sum(source == SERVER for source, *_ in talk.sent) > 4


def named(*names: str, addresses: tuple[str, ...] = ()) -> Certificate:
    return Certificate("", None, "", names, addresses, (), (), datetime.now(UTC), datetime.now(UTC), "")


@pytest.mark.parametrize(
    ("certificate", "name", "fits"),
    [
        (named("a.example"), "A.Example.", True),
        (named("b.example", "a.example"), "a.example", True),
        (named("*.example.org"), "a.example.org", True),
        (named("*.example.org"), "a.b.example.org", False),
        (named("*.example.org"), "example.org", False),
        (named("*.example.org"), ".example.org", False),
        (named("*.org"), "example.org", False),  # a whole top-level domain is nobody's
        (named("a*.example.org"), "ab.example.org", False),
        (named("*"), "a", False),
        (named(), "a", False),
        (named("192.0.2.1"), "192.0.2.1", False),  # an address is no host name
        (named(addresses=("192.0.2.1",)), "192.0.2.1", True),
        (named(addresses=("2001:db8::1",)), "2001:0db8:0::1", True),
        (named(addresses=("192.0.2.1",)), "192.0.2.2", False),
    ],
)
def test_whom_a_certificate_is_for(certificate: Certificate, name: str, fits: bool) -> None:
    assert is_for(certificate, name) is fits


def test_a_handshake_that_nobody_answers_fails_in_time(dtls_files: Files) -> None:
    talk = Talk(dtls_files, lambda number, data: ())
    client = talk.connect(handshake_timeout=20.0)
    begun = talk.now
    sent = []
    while talk.step(begun + 100):
        sent += [talk.now - begun] * (len(talk.sent) - len(sent))
    assert talk.now - begun == 20.0
    assert talk.failure() == "no DTLS handshake within handshake_timeout (20 s)"
    assert sent[1:] == [1.0, 3.0, 7.0, 15.0]  # the first went out before the first step
    assert client.deadline() is None


def test_a_failed_handshake_tells_what_the_network_said(dtls_files: Files) -> None:
    talk = Talk(dtls_files, lambda number, data: ())
    client = talk.connect()
    error = OSError("nobody is bound there")
    client.receive_error(error, SERVER, talk.now)
    client.receive_error(OSError("not ours"), ("192.0.2.77", 1), talk.now)
    talk.run(30)
    assert "; the last that was heard: nobody is bound there" in talk.failure()
    assert client.child.losses == [(error, SERVER)]


def test_a_client_that_gives_up_early(dtls_files: Files) -> None:
    talk = Talk(dtls_files)
    client = talk.connect()
    client.close(talk.now)
    client.close(talk.now)
    talk.run()
    assert talk.failure() == "closed before the handshake was over"
    assert not talk.seen(CLIENT, DtlsClosed)


def test_without_pyopenssl_the_error_names_the_extra(tmp_path: Path) -> None:
    import subprocess
    import sys

    script = (
        "import sys; sys.modules['OpenSSL'] = None\n"
        "try:\n    import helianthus.protocols.dtls\nexcept ModuleNotFoundError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "DTLS needs the package pyOpenSSL: pip install 'helianthus[dtls]'\n", done.stderr
