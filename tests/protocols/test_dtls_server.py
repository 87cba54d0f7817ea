"""What a server remembers, of whom, and for how long."""

from __future__ import annotations

import gc

import pytest
from dtls_net import CLIENT, SERVER, Child, Files, Talk
from OpenSSL import SSL

from helianthus.protocols.dtls import AssociationState, DtlsClient, DtlsClosed, DtlsEstablished, DtlsOptions
from helianthus.protocols.dtls import records as rec
from helianthus.protocols.dtls.cookies import Cookies
from helianthus.protocols.dtls.server import MAX_ANSWERS


def hello(files: Files, now: float) -> bytes:
    """A ClientHello without a cookie."""
    client = DtlsClient(Child(SERVER), files.client_context(), SERVER, now)
    ((datagram, _),) = client.take_datagrams()
    return datagram


def forged(number: int) -> tuple[str, int]:
    return (f"198.51.{number >> 8}.{number & 255}", 1000 + number % 60000)


# -- before the cookie -------------------------------------------------------------------------------


def test_a_flood_from_forged_addresses_leaves_nothing_behind(dtls_files: Files) -> None:
    talk = Talk(dtls_files)
    datagram = hello(dtls_files, talk.now)
    talk.server.receive_datagrams([(datagram, forged(0))], talk.now)
    talk.server.take_datagrams()
    gc.collect()
    connections = sum(isinstance(one, SSL.Connection) for one in gc.get_objects())
    for number in range(20_000):
        talk.server.receive_datagrams([(datagram, forged(number))], talk.now)
        if not number % 100:
            talk.server.take_datagrams()
            talk.server.take_datagrams()
    gc.collect()
    assert talk.server.peers == talk.server.handshakes == 0
    assert talk.server.deadline() is None
    assert talk.server.take_events() == []
    assert sum(isinstance(one, SSL.Connection) for one in gc.get_objects()) == connections
    state = {name: value for name, value in vars(talk.server).items() if isinstance(value, dict | list)}
    assert state.pop("_answers").__len__() <= 100  # type: ignore[attr-defined]
    assert not any(state.values()), state


def test_answers_to_strangers_are_bounded_and_not_larger_than_what_was_asked(dtls_files: Files) -> None:
    talk = Talk(dtls_files)
    datagram = hello(dtls_files, talk.now)
    for number in range(2 * MAX_ANSWERS):
        talk.server.receive_datagrams([(datagram, forged(number))], talk.now)
    answers = []
    while batch := talk.server.take_datagrams():
        answers += batch
    assert len(answers) == MAX_ANSWERS
    assert max(len(data) for data, _ in answers) < len(datagram) / 2
    assert talk.server.statistics.challenged == MAX_ANSWERS


def test_a_cookie_is_good_for_its_own_address_only(dtls_files: Files) -> None:
    talk = Talk(dtls_files)
    talk.connect()
    talk.settle()
    while not any(len(data) > 200 and source == CLIENT for source, _, data in talk.sent):
        talk.step(talk.now + 1)
    stolen = talk.sent[-1][2]
    for thief in (("192.0.2.66", CLIENT[1]), (CLIENT[0], CLIENT[1] + 1)):
        talk.server.receive_datagrams([(stolen, thief)], talk.now)
        assert talk.server.handshakes == 0
        assert len(talk.server.take_datagrams()[0][0]) < 100  # another cookie
    talk.server.receive_datagrams([(stolen, CLIENT)], talk.now)
    assert talk.server.handshakes == 1


def cut(datagram: bytes, place: int) -> bytes:
    return datagram[:place]


@pytest.mark.parametrize("place", [0, 1, 12, 13, 25, 59, 60, 100, -1])
def test_a_hello_that_is_cut_short_is_dropped(dtls_files: Files, place: int) -> None:
    talk = Talk(dtls_files)
    datagram = cut(hello(dtls_files, talk.now), place)
    record = datagram[:11] + max(0, len(datagram) - rec.HEADER).to_bytes(2) + datagram[13:]
    for data in (datagram, record):
        talk.server.receive_datagrams([(data, CLIENT)], talk.now)
    assert talk.server.take_datagrams() == []
    talk.connect()
    talk.run()
    assert talk.established()


# -- cookies -----------------------------------------------------------------------------------------


def test_cookies_live_for_one_to_two_lifetimes() -> None:
    secrets = iter(range(100))
    cookies = Cookies(lambda count: bytes([next(secrets)]) * count, 60.0)
    old = cookies.make(CLIENT, 1000.0)
    assert len(old) == 32
    assert cookies.make(CLIENT, 1059.0) == old
    new = cookies.make(CLIENT, 1061.0)
    assert new != old
    assert cookies.check(CLIENT, old, 1061.0)
    assert cookies.check(CLIENT, new, 1120.0)
    assert not cookies.check(CLIENT, old, 1122.0)
    assert cookies.check(CLIENT, new, 1122.0)
    assert not cookies.check(CLIENT, new, 9999.0)
    assert not cookies.check(CLIENT, b"", 9999.0)


def test_a_cookie_of_the_secret_before_is_still_good_in_a_handshake(dtls_files: Files) -> None:
    """The second hello takes 50 s to arrive, and the secret changes meanwhile."""
    talk = Talk(
        dtls_files,
        lambda number, data: (50.0,) if number == 2 else (0.01,) if number < 2 or number > 7 else (),
        options=DtlsOptions(cookie_lifetime=40.0),
    )
    talk.connect(handshake_timeout=200.0)
    talk.run(60)
    assert talk.established(SERVER)


def test_a_cookie_that_is_too_old_costs_a_new_handshake(dtls_files: Files) -> None:
    """OpenSSL's clients take one HelloVerifyRequest only; the second has the same number as the first."""
    talk = Talk(
        dtls_files,
        lambda number, data: (100.0,) if number == 2 else (0.01,) if number < 2 else (),
        options=DtlsOptions(cookie_lifetime=40.0),
    )
    talk.connect(handshake_timeout=110.0)
    talk.run(99)
    talk.fate = lambda number, data: (0.01,)
    talk.run(20)
    assert "handshake_timeout" in talk.failure()
    assert talk.server.handshakes == 0
    talk.connect()
    talk.run()
    assert talk.established()


# -- bounds ------------------------------------------------------------------------------------------


def test_associations_are_bounded(dtls_files: Files) -> None:
    talk = Talk(dtls_files, options=DtlsOptions(max_associations=3))
    addresses = [(CLIENT[0], port) for port in range(1, 6)]
    for address in addresses:
        talk.connect(address, handshake_timeout=60.0)
        talk.run(0.1)
    assert talk.server.peers == 3
    assert talk.server.statistics.turned_away == 2
    assert [bool(talk.seen(address, DtlsEstablished)) for address in addresses] == [True] * 3 + [False] * 2
    talk.machines[addresses[0]].close(talk.now)
    talk.run(2)  # one of those that wait asks again
    assert talk.server.peers == 3
    assert len(talk.seen(SERVER, DtlsEstablished)) == 4


def test_handshakes_are_bounded_and_given_up(dtls_files: Files) -> None:
    talk = Talk(dtls_files, options=DtlsOptions(max_handshakes=2), handshake_timeout=10.0)
    silent = [(CLIENT[0], port) for port in (1, 2, 3)]
    for address in silent:
        talk.connect(address)
        talk.run(0.03)
        del talk.machines[address]  # it has shown its cookie, and is not heard of again
    assert talk.server.handshakes == 2
    assert talk.server.statistics.turned_away == 1
    talk.connect(handshake_timeout=60.0)
    talk.run(1)
    assert talk.server.peers == 0
    talk.run(20)
    assert talk.server.statistics.failed == 2
    assert talk.server.peers == 1
    assert talk.established()


def test_an_idle_association_makes_room(dtls_files: Files) -> None:
    talk = Talk(dtls_files, options=DtlsOptions(max_associations=1, idle_timeout=30.0))
    talk.connect()
    talk.run()
    del talk.machines[CLIENT]
    talk.run(61)
    assert talk.server.peers == 0
    talk.connect((CLIENT[0], 2))
    talk.run()
    assert talk.server.peers == 1


# -- beginning anew ----------------------------------------------------------------------------------


def test_a_client_that_was_restarted_gets_a_new_association(dtls_files: Files) -> None:
    talk = Talk(dtls_files)
    talk.connect()
    talk.run()
    first = talk.children[CLIENT]
    client = talk.connect()  # on the same address; nobody has said goodbye
    client.child.say(b"hello again")
    talk.run()
    assert talk.server.peers == 1
    assert talk.children[CLIENT] is not first
    assert client.child.heard == talk.children[CLIENT].heard == [b"hello again"]
    kinds = [type(event) for event in talk.events[SERVER][:3]]
    assert kinds == [DtlsEstablished, DtlsClosed, DtlsEstablished]
    assert "begun anew" in str(talk.closed(SERVER).error)


def test_an_association_goes_on_until_the_new_one_stands(dtls_files: Files) -> None:
    """Whoever can make a server take a hello, because it reads what is sent there, ends nothing by it."""
    talk = Talk(dtls_files)
    client = talk.connect()
    talk.run()
    del talk.machines[CLIENT]
    talk.connect()
    talk.run(0.03)
    assert (talk.server.peers, talk.server.handshakes) == (1, 1)
    talk.add(CLIENT, client)
    client.child.say(b"still here")
    talk.run(8)
    assert client.child.heard == [b"still here"]
    talk.run(10)
    assert (talk.server.peers, talk.server.handshakes) == (1, 0)
    client.child.say(b"and now")
    talk.run()
    assert client.child.heard == [b"still here", b"and now"]


def test_a_client_that_was_restarted_during_its_handshake(dtls_files: Files) -> None:
    talk = Talk(dtls_files, lambda number, data: () if number == 3 else (0.01,))
    talk.connect()
    talk.run(0.03)
    assert talk.server.handshakes == 1
    talk.connect()
    talk.run()
    assert (talk.server.peers, talk.server.handshakes) == (1, 0)
    assert len(talk.seen(CLIENT, DtlsEstablished)) == 1


def test_closing_an_association_leaves_the_next_handshake_alone(dtls_files: Files) -> None:
    talk = Talk(dtls_files)
    talk.connect()
    talk.run()
    client = talk.connect()
    talk.run(0.03)
    assert (talk.server.peers, talk.server.handshakes) == (1, 1)
    talk.server.close_peer(CLIENT, talk.now)
    assert (talk.server.peers, talk.server.handshakes) == (0, 1)
    client.child.say(b"hello again")
    talk.run()
    assert client.child.heard == [b"hello again"]


def test_closing_a_server_gives_up_handshakes(dtls_files: Files) -> None:
    talk = Talk(dtls_files)
    talk.connect()
    talk.run(0.03)
    assert talk.server.handshakes == 1
    talk.server.close(talk.now)
    assert talk.server.handshakes == 0
    assert talk.server.deadline() is None
    talk.settle()
    assert "closed before" in talk.failure(SERVER)


def test_a_late_copy_of_the_hello_changes_nothing(dtls_files: Files) -> None:
    talk = Talk(dtls_files)
    client = talk.connect()
    talk.run()
    hellos = [data for source, _, data in talk.sent if source == CLIENT and rec.client_random(data)]
    assert len(hellos) == 2
    talk.sent.clear()
    for datagram in hellos * 2:
        talk.server.receive_datagrams([(datagram, CLIENT)], talk.now)
    talk.run()
    assert talk.sent == []
    assert (talk.server.peers, talk.server.handshakes) == (1, 0)
    client.child.say(b"still here")
    talk.run()
    assert client.child.heard == [b"still here"]


def test_a_new_certificate_is_for_those_that_come_from_now_on(dtls_files: Files) -> None:
    talk = Talk(dtls_files)
    first = talk.connect((CLIENT[0], 1))
    talk.run()
    talk.connect((CLIENT[0], 2))
    talk.run(0.005)  # its hello is under way
    renewed = dtls_files.authority.issue("renewed", "server.example", ecdsa=True)
    talk.context = dtls_files.server_context(renewed)
    talk.run()
    certificate = talk.established((CLIENT[0], 2)).certificate
    assert certificate is not None
    assert certificate.common_name == "renewed"
    first.child.say(b"still here")
    talk.run()
    assert first.child.heard == [b"still here"]
    assert first.state is AssociationState.ESTABLISHED


def test_many_peers_have_deadlines_of_their_own(dtls_files: Files) -> None:
    talk = Talk(dtls_files)
    addresses = [(CLIENT[0], port) for port in range(1, 21)]
    for address in addresses:
        talk.connect(address)
    talk.run()
    for offset, address in enumerate(addresses):
        talk.children[address].when = talk.now + 20.0 - offset
        talk.server.touch(address)
    begun = talk.now
    talk.run(30)
    assert [talk.children[address].told for address in addresses] == [
        [begun + 20.0 - offset] for offset in range(20)
    ]


def test_touching_a_stranger_does_nothing(dtls_files: Files) -> None:
    talk = Talk(dtls_files)
    talk.server.touch(CLIENT)
    talk.server.close_peer(CLIENT, talk.now)
    assert talk.server.take_datagrams() == []
