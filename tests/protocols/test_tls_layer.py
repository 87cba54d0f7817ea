"""Two layers and their children: what is said arrives, and how it begins and ends."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
from certificates import Authority, Pair
from hypothesis import given, settings
from hypothesis import strategies as st
from tls_pair import Child, TlsPair, byte_by_byte, client_context, server_context, whole

from helianthus.protocols.errors import LocalProtocolError
from helianthus.protocols.machine import Action, Closing, ConnectionFailed, Outcome
from helianthus.protocols.tls import (
    TlsEstablished,
    TlsHandshakeAbandoned,
    TlsHandshakeFailed,
    TlsLayer,
    TlsSessionReceived,
    TlsState,
    TlsTruncated,
    answer_by_name,
)

VERSIONS = ("TLSv1.2", "TLSv1.3")
versions = pytest.mark.parametrize("version", VERSIONS)


@pytest.fixture(scope="module")
def node(authority: Authority) -> Pair:
    return authority.issue("node", "node.example", "127.0.0.1")


@pytest.fixture
def server(node: Pair) -> ssl.SSLContext:
    return server_context(node)


@pytest.fixture
def client(authority: Authority) -> ssl.SSLContext:
    return client_context(authority.file)


def only(context: ssl.SSLContext, version: str) -> ssl.SSLContext:
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version.replace(".", "_")]
    return context


@versions
@pytest.mark.parametrize("cut", [whole, byte_by_byte])
def test_what_one_says_the_other_hears(
    client: ssl.SSLContext, server: ssl.SSLContext, version: str, cut: Any
) -> None:
    pair = TlsPair(only(client, version), server, cut=cut)
    pair.client.child.say(b"hello, ", b"server")
    pair.server.child.say(b"hello, client")
    pair.run()

    assert pair.server.child.heard == b"hello, server"
    assert pair.server.child.pieces == 1, "joined before it is encrypted"
    assert pair.client.child.heard == b"hello, client"
    assert pair.client.established.version == pair.server.established.version == version
    assert isinstance(pair.server.events[0], TlsEstablished), "before all that was received"


def test_nothing_is_sent_in_plain_text(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    pair = TlsPair(client, server)
    pair.client.child.say(b"a secret that can be recognised")
    seen = bytearray()
    for _ in range(5):
        pair.client.settle()
        seen += pair.client.wire
        pair.carry(pair.client, pair.server)
        pair.carry(pair.server, pair.client)

    assert pair.server.child.heard == b"a secret that can be recognised"
    assert b"secret" not in seen
    assert b"recog" not in seen


@versions
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_anything_arrives_wherever_it_is_cut(
    authority: Authority, node: Pair, version: str, data: st.DataObject
) -> None:
    def cut(piece: bytes) -> list[bytes]:
        places = sorted(data.draw(st.lists(st.integers(0, len(piece)), max_size=5)))
        return [piece[a:b] for a, b in zip([0, *places], [*places, len(piece)], strict=True)]

    pair = TlsPair(only(client_context(authority.file), version), server_context(node), cut=cut)
    said = data.draw(st.lists(st.binary(max_size=300), max_size=6))
    back = data.draw(st.lists(st.binary(max_size=300), max_size=6))
    pair.client.child.say(*said)
    pair.server.child.say(*back)
    pair.run()

    assert bytes(pair.server.child.heard) == b"".join(said)
    assert bytes(pair.client.child.heard) == b"".join(back)


@versions
def test_large_output_is_joined_and_input_comes_in_large_pieces(
    client: ssl.SSLContext, server: ssl.SSLContext, version: str
) -> None:
    pair = TlsPair(only(client, version), server).run()
    data = bytes(range(256)) * 4096  # 1 MiB
    pair.client.child.say(*(data[i : i + 5000] for i in range(0, len(data), 5000)))
    pair.run()

    assert pair.server.child.heard == data
    assert pair.server.child.pieces <= len(data) // (48 * 1024)


# -- half-close and close --------------------------------------------------------------------------------


@versions
def test_one_half_ends_and_the_other_goes_on(
    client: ssl.SSLContext, server: ssl.SSLContext, version: str
) -> None:
    pair = TlsPair(only(client, version), server, server_child=Child()).run()
    pair.client.child.say(b"the last words")
    pair.client.child.closing = Closing.HALF
    pair.run()
    assert pair.server.child.heard == b"the last words"
    assert pair.server.child.ended
    assert pair.server.layer.state is TlsState.PEER_CLOSED
    assert pair.client.half_closed

    for _ in range(3):
        pair.server.child.say(b"still here; " * 3000)
        pair.run()
    assert pair.client.child.heard == b"still here; " * 9000
    assert pair.client.closed is pair.server.closed is None
    pair.server.child.closing = Closing.HALF
    pair.run()

    assert pair.client.child.ended
    assert pair.client.closed is pair.server.closed is Closing.FULL
    assert not pair.client.child.lost
    assert not pair.server.child.lost


@versions
@pytest.mark.parametrize("cut", [whole, byte_by_byte])
def test_a_full_close_brings_what_was_said_before_it(
    client: ssl.SSLContext, server: ssl.SSLContext, version: str, cut: Any
) -> None:
    pair = TlsPair(only(client, version), server, cut=cut)
    pair.client.child.say(b"x" * 3000)
    pair.client.child.closing = Closing.FULL
    pair.run()

    assert pair.server.child.heard == b"x" * 3000
    assert pair.server.child.ended
    assert pair.client.closed is Closing.FULL
    assert not pair.server.of(ConnectionFailed)


def test_both_may_close_at_once(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    pair = TlsPair(client, server).run()
    for end in pair.ends:
        end.child.say(b"bye")
        end.child.closing = Closing.HALF
        end.settle()
    pair.run()

    for end in pair.ends:
        assert end.child.heard == b"bye"
        assert end.child.ended
        assert not end.child.lost
        assert end.closed is Closing.FULL


@pytest.mark.parametrize("handshaken", [False, True])
def test_an_abort_is_followed_at_once(
    client: ssl.SSLContext, server: ssl.SSLContext, handshaken: bool
) -> None:
    pair = TlsPair(client, server)
    if handshaken:
        pair.run()
    pair.client.child.closing = Closing.ABORT
    assert pair.client.layer.closing is Closing.ABORT


def test_an_end_without_close_notify_is_a_loss(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    pair = TlsPair(client, server).run()
    pair.client.child.say(b"and then")
    pair.carry(pair.client, pair.server)
    pair.server.layer.receive_eof(pair.now)
    pair.server.settle()

    failure = pair.server.failure
    assert isinstance(failure, TlsTruncated)
    assert "the client ended the connection without TLS's close_notify" in str(failure)
    assert pair.server.child.lost == [failure]
    assert not pair.server.child.ended
    assert pair.server.child.heard == b"and then"
    assert pair.server.closed is Closing.ABORT


def test_or_an_end_of_the_stream_where_that_is_wanted(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    pair = TlsPair(client, server, require_close_notify=False).run()
    pair.server.layer.receive_eof(pair.now)
    pair.server.settle()

    assert pair.server.child.ended
    assert not pair.server.child.lost


def test_what_follows_a_close_notify_is_ignored(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    pair = TlsPair(client, server).run()
    pair.client.child.closing = Closing.HALF
    pair.run()
    pair.give(pair.server, b"\x17\x03\x03\x00\x05hello" * 10)
    pair.server.settle()

    assert pair.server.child.heard == b""
    assert not pair.server.of(ConnectionFailed)


# -- faults ----------------------------------------------------------------------------------------------


@versions
def test_altered_data_ends_the_connection(
    client: ssl.SSLContext, server: ssl.SSLContext, version: str
) -> None:
    pair = TlsPair(only(client, version), server).run()
    pair.client.child.say(b"first")
    pair.run()
    pair.client.child.say(b"second")
    pair.client.settle()
    pair.client.wire[-1] ^= 1
    pair.run()

    assert pair.server.child.heard == b"first"
    assert "bad record mac" in str(pair.server.failure)
    assert pair.server.child.lost == [pair.server.failure]
    assert "bad record mac" in str(pair.client.failure), "the alert tells the other end"


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_damage_is_found_and_never_raises(authority: Authority, node: Pair, data: st.DataObject) -> None:
    pair = TlsPair(client_context(authority.file), server_context(node))
    source, target = data.draw(st.sampled_from([pair.ends, pair.ends[::-1]]))
    pair.client.child.say(b"c" * 500)
    pair.server.child.say(b"s" * 500)
    for _ in range(data.draw(st.integers(0, 3))):
        pair.carry(pair.client, pair.server)
        pair.carry(pair.server, pair.client)
    source.settle()
    if source.wire:
        for _ in range(data.draw(st.integers(1, 3))):
            source.wire[data.draw(st.integers(0, len(source.wire) - 1))] ^= data.draw(st.integers(1, 255))
    pair.run()

    for end, said in ((pair.server, b"c" * 500), (pair.client, b"s" * 500)):
        assert end.child.heard in (b"", said)
        if end.of(ConnectionFailed):
            assert end.child.lost == [end.failure]
            assert end.closed is not None
    assert not target.child.ended


@given(garbage=st.binary(min_size=1, max_size=400), server_side=st.booleans())
@settings(max_examples=60, deadline=None)
def test_garbage_never_raises(authority: Authority, node: Pair, garbage: bytes, server_side: bool) -> None:
    pair = TlsPair(client_context(authority.file), server_context(node))
    end = pair.server if server_side else pair.client
    end.settle()
    pair.give(end, garbage)
    end.layer.receive_eof(pair.now)
    end.settle()

    assert isinstance(end.failure, TlsHandshakeFailed)
    assert end.child.lost == [end.failure]


@pytest.mark.parametrize("text", [b"GET / HTTP/1.1\r\n\r\n", b"\x93\x02\xb0helianthus.hello\x91"])
def test_a_client_in_plain_text_is_told_so(
    client: ssl.SSLContext, server: ssl.SSLContext, text: bytes
) -> None:
    pair = TlsPair(client, server)
    pair.give(pair.server, text[:1])
    pair.give(pair.server, text[1:])
    pair.server.settle()

    assert "the client speaks no TLS, but plain text (it began with b'" in str(pair.server.failure)
    assert "connect by tls://" in str(pair.server.failure)
    assert pair.server.wire.startswith(b"\x15\x03"), "an alert"
    assert pair.server.closed is Closing.FULL


def test_a_server_in_plain_text_is_recognised(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    pair = TlsPair(client, server)
    pair.client.settle()
    pair.give(pair.client, b"220 mail.example ESMTP\r\n")
    pair.client.settle()

    assert "the server speaks no TLS, but plain text" in str(pair.client.failure)
    assert "tcp://" in str(pair.client.failure)


@pytest.mark.parametrize("server_side", [True, False])
def test_an_end_during_the_handshake(
    client: ssl.SSLContext, server: ssl.SSLContext, server_side: bool
) -> None:
    pair = TlsPair(client, server)
    end = pair.server if server_side else pair.client
    end.settle()
    end.layer.receive_eof(pair.now)
    end.settle()

    assert isinstance(end.failure, TlsHandshakeAbandoned)
    assert "closed the connection during the TLS handshake" in str(end.failure)


def test_a_loss_is_handed_to_the_child(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    pair = TlsPair(client, server).run()
    error = OSError("cable pulled")
    pair.client.layer.connection_lost(error, pair.now)
    pair.client.layer.connection_lost(None, pair.now)
    pair.client.settle()

    assert pair.client.child.lost == [error]
    assert not pair.client.of(ConnectionFailed)


# -- time ------------------------------------------------------------------------------------------------


def test_a_server_waits_for_the_handshake_no_longer_than_it_says(
    client: ssl.SSLContext, server: ssl.SSLContext
) -> None:
    pair = TlsPair(client, server, handshake_timeout=5.0)
    pair.server.settle()
    assert pair.server.layer.deadline() == pair.now + 5.0
    pair.wait(4.9)
    assert not pair.server.events
    pair.wait(0.1)
    pair.server.settle()

    assert "no TLS handshake within handshake_timeout (5 s) with the client" in str(pair.server.failure)
    assert pair.server.closed is Closing.FULL


def test_a_clients_time_begins_when_it_is_connected(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    pair = TlsPair(client, server, handshake_timeout=5.0)
    assert pair.client.layer.deadline() is None
    pair.now += 100.0  # it took a while to connect
    pair.client.layer.handle_timeout(pair.now)  # too early
    pair.client.settle()
    assert pair.client.wire, "the first message"
    pair.tell_time()
    assert pair.client.layer.deadline() == pair.now + 5.0
    pair.wait(5.0)
    pair.client.settle()

    assert "handshake_timeout (5 s) with the server" in str(pair.client.failure)


def test_the_childs_deadline_is_the_layers(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    pair = TlsPair(client, server).run()
    assert pair.client.layer.deadline() is None
    pair.client.child.when = pair.now + 3.0
    assert pair.client.layer.deadline() == pair.now + 3.0
    pair.wait(3.0)
    assert pair.client.child.told[-1] == pair.now


# -- back pressure -----------------------------------------------------------------------------------------


@versions
def test_a_child_that_wants_nothing_gets_nothing_until_it_does(
    client: ssl.SSLContext, server: ssl.SSLContext, version: str
) -> None:
    pair = TlsPair(only(client, version), server).run()
    pair.server.child.wants_read = False
    assert not pair.server.layer.wants_read
    data = b"0123456789" * 50_000
    pair.client.child.say(data)
    pair.client.child.closing = Closing.HALF
    pair.run()
    heard = len(pair.server.child.heard)
    assert heard <= 64 * 1024
    assert pair.server.layer.deadline() is None

    pair.now += 60.0
    pair.server.child.wants_read = True
    assert not pair.server.layer.wants_read, "not while something waits"
    assert pair.server.layer.deadline() is not None
    pair.run()

    assert pair.server.child.heard == data
    assert pair.server.child.told[-1] == pair.now, "it is told the present time, not that of the arrival"
    assert pair.server.child.ended
    assert not pair.server.child.lost


def test_a_child_that_stops_in_the_middle_keeps_the_rest_waiting(
    client: ssl.SSLContext, server: ssl.SSLContext
) -> None:
    class Choosy(Child):
        def receive_data(self, data: Any, now: float) -> None:
            super().receive_data(data, now)
            self.wants_read = False

    pair = TlsPair(client, server, server_child=Choosy()).run()
    data = bytes(500_000)
    pair.client.child.say(data)
    pair.run()
    steps = 0
    while len(pair.server.child.heard) < len(data):
        assert len(pair.server.child.heard) <= (steps + 1) * 80 * 1024
        pair.server.child.wants_read = True
        pair.run()
        steps += 1
        assert steps < 20
    assert steps > 3


# -- what both know of each other ----------------------------------------------------------------------------


def test_the_clients_certificate_is_told(authority: Authority, node: Pair) -> None:
    alice = authority.issue("alice", uris=["spiffe://cluster/alice"])
    pair = TlsPair(client_context(authority.file, alice), server_context(node, authority.file)).run()

    seen = pair.server.established
    assert seen.certificate is not None
    assert seen.verified
    assert seen.certificate.common_name == "alice"
    assert seen.certificate.uris == ("spiffe://cluster/alice",)
    assert pair.client.established.certificate.common_name == "node"  # type: ignore[union-attr]


def test_an_unverified_certificate_is_marked(server: ssl.SSLContext) -> None:
    trusting = client_context(None)
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    pair = TlsPair(trusting, server).run()

    assert pair.client.established.certificate is not None
    assert not pair.client.established.verified
    assert pair.server.established.certificate is None
    assert not pair.server.established.verified


def test_protocols_are_agreed_upon(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    client.set_alpn_protocols(["other/9", "helianthus/1"])
    server.set_alpn_protocols(["helianthus/1"])
    pair = TlsPair(client, server).run()

    assert pair.client.established.alpn == pair.server.established.alpn == "helianthus/1"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("node.example", "node"),
        ("other.example", "other"),
        ("a.wild.example", "wild"),
        ("127.0.0.1", "node"),
    ],
)
def test_a_server_shows_the_certificate_for_the_name(
    authority: Authority, node: Pair, name: str, shown: str
) -> None:
    context = server_context(node)
    others = {
        name: server_context(authority.issue(common_name, name))
        for common_name, name in (("other", "other.example"), ("wild", "*.wild.example"))
    }
    answer_by_name(context, others)
    pair = TlsPair(client_context(authority.file), context, server_name=name).run()

    assert pair.client.established.certificate.common_name == shown  # type: ignore[union-attr]
    assert pair.server.established.server_name == (None if name == "127.0.0.1" else name)


@versions
def test_sessions_are_resumed(client: ssl.SSLContext, server: ssl.SSLContext, version: str) -> None:
    only(client, version)
    first = TlsPair(client, server).run()
    first.server.child.say(b"a few words")
    first.run()
    assert not first.client.established.resumed
    again = TlsPair(client, server, session=first.client.session).run()

    assert again.client.established.resumed
    assert again.server.established.resumed
    assert again.client.established.verified
    assert again.client.established.certificate == first.client.established.certificate


def test_a_server_without_tickets_gives_no_session(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    server.num_tickets = 0
    pair = TlsPair(client, server).run()
    for _ in range(20):
        pair.server.child.say(b"x")
        pair.run()

    assert not pair.client.of(TlsSessionReceived)


def test_a_session_of_another_context_cannot_be_used(authority: Authority, server: ssl.SSLContext) -> None:
    first = TlsPair(client_context(authority.file), server).run()
    with pytest.raises(LocalProtocolError, match="cannot be used so"):
        TlsPair(client_context(authority.file), server, session=first.client.session)


def test_actions_are_the_childs(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    pair = TlsPair(client, server).run()
    pair.client.child.actions.append(Action(7))
    assert [action.id for action in pair.client.layer.take_actions()] == [7]
    pair.client.layer.complete(7, Outcome("done"), pair.now)
    assert pair.client.child.outcomes == [(7, "done")]


def test_bytes_of_a_file_are_encrypted_too(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    pair = TlsPair(client, server)
    with pytest.raises(LocalProtocolError, match="handshaking"):
        pair.client.layer.write_through(b"")
    pair.run()
    pair.client.child.say(b"before; ")
    pair.client.settle()
    for piece in (b"", b"from a file, ", bytes(100_000)):
        pair.client.wire += b"".join(pair.client.layer.write_through(piece))
    pair.client.child.say(b"; after")
    pair.run()
    assert pair.server.child.heard == b"before; from a file, " + bytes(100_000) + b"; after"
    pair.client.child.closing = Closing.HALF
    pair.run()
    with pytest.raises(LocalProtocolError, match="can send nothing now"):
        pair.client.layer.write_through(b"x")


def test_a_layer_can_be_put_on_a_layer(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    inner_client, inner_server = Child(), Child()
    near = TlsLayer(inner_client, client, 1000.0, server_side=False, server_name="node.example")
    far = TlsLayer(inner_server, server, 1000.0, server_side=True)
    pair = TlsPair(client, server, client_child=near, server_child=far)  # type: ignore[arg-type]
    inner_client.say(b"wrapped twice")
    for end in pair.ends:
        end.child = Child()  # what `End` looks at
    pair.run()
    assert inner_server.heard == b"wrapped twice"
