"""DTLS between a machine and a bound socket."""

from __future__ import annotations

import os

from datagrams import Echo, End, Hearing, Talk, bind, closed_port
from platforms import Platform
from self_signed import NAME, SelfSigned


def dtls_pair(platform: Platform, certificate: SelfSigned) -> tuple[End, End, Talk]:
    """A client and a server that echoes, both bound, and the client's child; the handshake begins."""
    client_context, server_context = certificate.dtls()
    from helianthus.protocols.dtls import DtlsClient, DtlsServer

    server = bind(platform, DtlsServer(lambda _: Echo(), lambda: server_context, os.urandom))
    child, now = Talk(), platform.driver.now()
    client = bind(platform, DtlsClient(child, client_context, server.address, now, server_name=NAME))
    return client, server, child


def happened(handler: Hearing, name: str) -> bool:
    """Whether there was an event of a class, which cannot be imported where DTLS is not installed."""
    return any(type(event).__name__ == name for event in handler.events)


def test_dtls_echo(platform: Platform, certificate: SelfSigned) -> None:
    client, server, child = dtls_pair(platform, certificate)
    datagrams = [b"%d " % number * 100 for number in range(50)]
    child.say(*datagrams, to=server.address)  # waits for the end of the handshake
    client.link.wake()
    platform.turn_until(lambda: len(child.received) == len(datagrams))
    assert child.data == datagrams
    for end in (client, server):
        assert happened(end.handler, "DtlsEstablished")
    assert server.machine.peers == 1


def test_dtls_goodbye(platform: Platform, certificate: SelfSigned) -> None:
    """The other side hears of it, and the socket stays."""
    client, server, child = dtls_pair(platform, certificate)
    platform.turn_until(lambda: happened(client.handler, "DtlsEstablished"))
    child.say(b"last words", to=server.address)
    client.machine.close(platform.driver.now())
    client.link.wake()
    platform.turn_until(lambda: happened(server.handler, "DtlsClosed"))
    assert happened(client.handler, "DtlsClosed")
    assert server.machine.peers == 0
    assert server.machine.statistics.established == 1


def test_dtls_between_garbage(platform: Platform, certificate: SelfSigned) -> None:
    """What is no record, of whomever, is dropped, and the others do not notice."""
    client, server, child = dtls_pair(platform, certificate)
    stranger = bind(platform)
    for number in range(40):
        stranger.say(b"\x16\xfe\xfd" + b"%d" % number, bytes(number), to=server.address)
        stranger.say(b"\x16\xfe\xfd" + b"%d" % number, to=client.address)
    child.say(b"hello", to=server.address)
    client.link.wake()
    platform.turn_until(lambda: child.data == [b"hello"])
    assert not stranger.machine.received


def test_dtls_handshake_with_nobody(platform: Platform, certificate: SelfSigned) -> None:
    client_context, _ = certificate.dtls()
    from helianthus.protocols.dtls import DtlsClient

    nobody, now = closed_port(platform), platform.driver.now()
    client = bind(platform, DtlsClient(Talk(), client_context, nobody, now, handshake_timeout=0.05))
    platform.turn_until(lambda: happened(client.handler, "DtlsFailed"))
    assert "0.05 s" in str(client.handler.events[-1].error)
