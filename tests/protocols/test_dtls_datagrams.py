"""An association that stands: sizes, forgeries, replays, goodbyes, and the machine above."""

from __future__ import annotations

import random

import pytest
from dtls_net import CLIENT, SERVER, Child, Files, Talk

from helianthus.protocols.dtls import AssociationState, DtlsClient, DtlsClosed, DtlsOptions, DtlsRefused
from helianthus.protocols.dtls import records as rec
from helianthus.protocols.errors import LocalProtocolError
from helianthus.protocols.machine import Action, Outcome


def standing(files: Files, **options: object) -> tuple[Talk, DtlsClient]:
    talk = Talk(files)
    client = talk.connect(**options)  # type: ignore[arg-type]
    talk.run()
    assert talk.established()
    return talk, client


def refusals(talk: Talk) -> list[str]:
    return [str(event.error) for event in talk.seen(CLIENT, DtlsRefused)]


# -- sizes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mtu", "largest"), [(256, 219), (1200, 1163), (9000, 8963)])
def test_the_largest_datagram(dtls_files: Files, mtu: int, largest: int) -> None:
    """13 bytes of a record's header, and 24 of AES-GCM."""
    talk, client = standing(dtls_files, options=DtlsOptions(mtu=mtu))
    client.child.say(bytes(largest))
    client.child.say(bytes(largest + 1))
    client.child.say(b"more")
    talk.sent.clear()
    talk.run()
    assert talk.children[CLIENT].heard == [bytes(largest), b"more"]
    assert [len(data) for source, _, data in talk.sent if source == CLIENT] == [mtu, 41]
    assert refusals(talk) == [
        f"a datagram of {largest + 1} bytes cannot be sent over DTLS: mtu={mtu} leaves room for {largest} "
        "under this cipher"
    ]


def test_an_empty_datagram_is_refused(dtls_files: Files) -> None:
    talk, client = standing(dtls_files)
    client.child.say(b"", b"more")
    talk.run()
    assert talk.children[CLIENT].heard == [b"more"]
    assert refusals(talk) == ["OpenSSL sends no empty datagrams over DTLS; send a byte at least"]


def test_a_datagram_for_somebody_else_is_refused(dtls_files: Files) -> None:
    talk, client = standing(dtls_files)
    client.child.output.append((b"psst", ("192.0.2.66", 1)))
    talk.run()
    assert refusals(talk) == [f"this association is with {SERVER}, not with {('192.0.2.66', 1)}"]


@pytest.mark.parametrize(
    "options",
    [
        {"mtu": 255},
        {"mtu": 65_508},
        {"idle_timeout": 0},
        {"max_associations": 0},
        {"max_handshakes": 0},
        {"cookie_lifetime": 0},
    ],
)
def test_options_have_bounds(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        DtlsOptions(**options)  # type: ignore[arg-type]


# -- what is no good ---------------------------------------------------------------------------------


def test_a_replay_is_dropped(dtls_files: Files) -> None:
    talk, client = standing(dtls_files)
    client.child.say(b"pay 5")
    talk.sent.clear()
    talk.settle()
    ((_, _, datagram),) = talk.sent
    talk.run()
    for _ in range(3):
        talk.server.receive_datagrams([(datagram, CLIENT)], talk.now)
    talk.run()
    assert talk.children[CLIENT].heard == [b"pay 5"]


def test_datagrams_out_of_order_are_taken(dtls_files: Files) -> None:
    talk, client = standing(dtls_files)
    talk.fate = lambda number, data: (random.Random(number).random() * 0.1,)
    said = [b"%d" % number for number in range(40)]
    client.child.say(*said)
    talk.run()
    assert sorted(talk.children[CLIENT].heard) == sorted(said)
    assert talk.children[CLIENT].heard != said


def test_a_changed_byte_anywhere_is_noticed_and_nothing_ends(dtls_files: Files) -> None:
    talk, client = standing(dtls_files)
    client.child.say(b"hello")
    talk.sent.clear()
    talk.settle()
    ((_, _, datagram),) = talk.sent
    talk.fate = lambda number, data: ()
    for place in range(len(datagram)):
        for bit in (1, 128):
            forged = bytearray(datagram)
            forged[place] ^= bit
            talk.server.receive_datagrams([(forged, CLIENT)], talk.now)
            talk.settle()
    assert talk.children[CLIENT].heard == []
    talk.server.receive_datagrams([(datagram, CLIENT)], talk.now)
    assert talk.children[CLIENT].heard == [b"hello"]
    assert not talk.seen(SERVER, DtlsClosed)


def test_records_in_the_clear_mean_nothing_to_an_association_that_stands(dtls_files: Files) -> None:
    talk, client = standing(dtls_files)
    fatal = bytes([rec.ALERT, 0xFE, 0xFD, *bytes(8), 0, 2, 2, 40])
    closing = bytes([rec.ALERT, 0xFE, 0xFD, *bytes(8), 0, 2, 1, 0])
    data = bytes([rec.APPLICATION_DATA, 0xFE, 0xFD, *bytes(8), 0, 2, 1, 0])
    finished = bytes([rec.HANDSHAKE, 0xFE, 0xFD, *bytes(8), 0, 12, 20, *bytes(11)])
    ccs = bytes([rec.CHANGE_CIPHER_SPEC, 0xFE, 0xFD, *bytes(8), 0, 1, 1])
    for record in (fatal, closing, data, finished, ccs):
        talk.server.receive_datagrams([(record, CLIENT)], talk.now)
        client.receive_datagrams([(record, SERVER)], talk.now)
    client.child.say(b"still here")
    talk.run()
    assert client.child.heard == [b"still here"]


def test_garbage_is_dropped(dtls_files: Files) -> None:
    talk, client = standing(dtls_files)
    rng = random.Random(3)
    for size in range(200):
        garbage = rng.randbytes(size)
        looks_good = bytes([rng.choice([20, 21, 22, 23]), 0xFE, 0xFD, 0, rng.randrange(3)]) + garbage
        for datagram in (garbage, looks_good):
            talk.server.receive_datagrams([(datagram, CLIENT), (datagram, ("192.0.2.9", 9))], talk.now)
            client.receive_datagrams([(datagram, SERVER)], talk.now)
    client.child.say(b"still here")
    talk.run()
    assert client.child.heard == [b"still here"]


def test_only_the_server_is_listened_to(dtls_files: Files) -> None:
    talk, client = standing(dtls_files)
    talk.children[CLIENT].say(b"hello")
    talk.server.touch(CLIENT)
    (((datagram, _),)) = talk.server.take_datagrams()
    client.receive_datagrams([(datagram, ("192.0.2.66", 4433))], talk.now)
    assert client.child.heard == []
    client.receive_datagrams([(datagram, SERVER)], talk.now)
    assert client.child.heard == [b"hello"]


# -- the end -----------------------------------------------------------------------------------------


def test_a_client_says_goodbye(dtls_files: Files) -> None:
    talk, client = standing(dtls_files)
    client.child.say(b"last words")
    client.close(talk.now)
    client.close(talk.now)
    talk.run()
    assert talk.children[CLIENT].heard == [b"last words"]
    assert talk.closed().error is None
    assert talk.closed(SERVER).error is None
    assert talk.closed(SERVER).address == CLIENT
    assert talk.server.peers == 0
    assert client.deadline() is talk.server.deadline() is None


def test_a_server_says_goodbye_to_one_or_to_all(dtls_files: Files) -> None:
    talk = Talk(dtls_files)
    others = [(CLIENT[0], port) for port in (1, 2, 3)]
    for address in others:
        talk.connect(address)
    talk.run()
    talk.children[others[0]].say(b"last words")
    talk.server.close_peer(others[0], talk.now)
    talk.server.close_peer(others[0], talk.now)
    talk.run()
    assert talk.machines[others[0]].child.heard == [b"last words"]
    assert talk.closed(others[0]).error is None
    assert talk.server.peers == 2
    talk.server.close(talk.now)
    talk.run()
    assert all(talk.closed(address).error is None for address in others)
    assert [event.address for event in talk.seen(SERVER, DtlsClosed)] == others
    assert talk.server.peers == 0


def test_both_say_goodbye_at_once(dtls_files: Files) -> None:
    talk, client = standing(dtls_files)
    client.close(talk.now)
    talk.server.close(talk.now)
    talk.run()
    assert talk.closed().error is talk.closed(SERVER).error is None


def test_nothing_is_heard_or_sent_after_the_end(dtls_files: Files) -> None:
    talk, client = standing(dtls_files)
    talk.children[CLIENT].say(b"too late")
    talk.server.touch(CLIENT)
    late = talk.server.take_datagrams()[0][0]
    client.close(talk.now)
    client.receive_datagrams([(late, SERVER)], talk.now)
    talk.run()
    talk.sent.clear()
    client.child.say(b"too late")
    talk.run()
    assert client.child.heard == []
    assert talk.sent == []
    assert client.state is AssociationState.ENDED


def test_a_lost_goodbye_is_made_up_for_by_the_idle_timeout(dtls_files: Files) -> None:
    talk = Talk(dtls_files, options=DtlsOptions(idle_timeout=60.0))
    client = talk.connect()
    talk.run()
    talk.fate = lambda number, data: ()
    client.close(talk.now)
    talk.run(121)
    assert talk.closed(SERVER).error is None
    assert talk.server.peers == 0


def test_what_is_used_is_not_idle(dtls_files: Files) -> None:
    talk = Talk(dtls_files, options=DtlsOptions(idle_timeout=60.0))
    client = talk.connect(options=DtlsOptions(idle_timeout=None))
    talk.run()
    for _ in range(20):
        client.child.say(b"ping")
        talk.run(50)
    assert talk.server.peers == 1
    talk.run(70)
    assert talk.server.peers == 0
    assert talk.closed().error is None


# -- the machine above -------------------------------------------------------------------------------


def test_the_child_has_its_deadlines_actions_and_losses(dtls_files: Files) -> None:
    talk, client = standing(dtls_files)
    child = talk.children[CLIENT]
    for one, machine in ((child, talk.server), (client.child, client)):
        one.when = due = talk.now + 5.0
        talk.server.touch(CLIENT)
        talk.run(10)
        assert one.told == [due]

        one.actions.append(Action(7))
        talk.server.touch(CLIENT)
        (action,) = machine.take_actions()
        machine.complete(action.id, Outcome("done"), talk.now)
        assert one.outcomes == [(7, "done")]

    loss = OSError("no route")
    talk.server.receive_error(loss, CLIENT, talk.now)
    talk.server.receive_error(loss, ("192.0.2.9", 9), talk.now)
    talk.server.receive_error(loss, None, talk.now)
    client.receive_error(loss, None, talk.now)
    assert child.losses == [(loss, CLIENT)]
    assert client.child.losses == [(loss, SERVER)]
    assert talk.server.peers == 1


def test_actions_of_several_children_have_ids_of_their_own(dtls_files: Files) -> None:
    talk = Talk(dtls_files)
    others = [(CLIENT[0], port) for port in (1, 2)]
    for address in others:
        talk.connect(address)
    talk.run()
    for address in others:
        talk.children[address].actions.append(Action(1))
        talk.server.touch(address)
    first, second = talk.server.take_actions()
    assert first.id != second.id
    talk.server.close_peer(others[0], talk.now)
    talk.server.complete(first.id, Outcome(1), talk.now)
    talk.server.complete(second.id, Outcome(2), talk.now)
    assert [talk.children[address].outcomes for address in others] == [[], [(1, 2)]]
    with pytest.raises(LocalProtocolError, match="was given"):
        talk.server.complete(second.id, Outcome(2), talk.now)


def test_events_come_in_the_order_in_which_things_happened(dtls_files: Files) -> None:
    talk, _ = standing(dtls_files)
    talk.settle()
    talk.events[CLIENT].clear()
    talk.children[CLIENT].say(b"one", b"two")
    talk.server.close_peer(CLIENT, talk.now)
    talk.run()
    assert talk.events[CLIENT] == [b"one", b"two", DtlsClosed(SERVER, None)]


def test_limits_of_a_take_are_kept(dtls_files: Files) -> None:
    talk, client = standing(dtls_files)
    client.child.say(*[b"x"] * 10)
    assert [len(client.take_datagrams(4)) for _ in range(4)] == [4, 4, 2, 0]
    talk.children[CLIENT].say(*[b"x"] * 40)
    talk.server.touch(CLIENT)
    assert [len(talk.server.take_datagrams(18)) for _ in range(4)] == [18, 18, 4, 0]


def test_peers_of_a_server_take_turns(dtls_files: Files) -> None:
    talk = Talk(dtls_files)
    greedy, modest = (CLIENT[0], 1), (CLIENT[0], 2)
    for address in (greedy, modest):
        talk.connect(address)
    talk.run()
    talk.children[greedy].say(*[b"x"] * 1000)
    talk.children[modest].say(b"y")
    for address in (greedy, modest):
        talk.server.touch(address)
    batch = talk.server.take_datagrams()
    assert len(batch) == 64
    assert modest in {address for _, address in batch}


def test_a_child_needs_no_peer_to_be_there(dtls_files: Files) -> None:
    """A client's child has its timers during the handshake, too."""
    child = Child(SERVER)
    child.when = 1002.0
    client = DtlsClient(child, dtls_files.client_context(), SERVER, 1000.0, server_name=None)
    assert client.deadline() == 1001.0
    client.handle_timeout(1002.5)
    assert child.told == [1002.5]
