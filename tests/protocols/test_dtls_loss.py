"""Handshakes over networks that lose, double and reorder datagrams."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from dtls_net import CLIENT, SERVER, Fate, Files, Talk, bad_network, delivered
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helianthus.protocols.dtls import DtlsClient, DtlsEstablished, DtlsOptions
from helianthus.protocols.dtls import association as association_module
from helianthus.protocols.dtls import records as rec

PATIENCE = 400.0
"""Seconds; the intervals double to 60, so that an end of the faults may be noticed that late."""


MOST_LOSSES = 10
"""Of one handshake: if all strike one flight, it gets through after 1 + 2 + … + 32 + 4 times 60 s."""

CERTIFICATE = 11
"""A message of a handshake."""


def both_established(talk: Talk) -> bool:
    return bool(talk.seen(CLIENT, DtlsEstablished) and talk.seen(SERVER, DtlsEstablished))


def shake_hands(
    files: Files, fate: Fate, mtu: int = 1200, *, mutual: bool = False
) -> tuple[Talk, DtlsClient]:
    options = DtlsOptions(mtu=mtu, cookie_lifetime=PATIENCE)
    server = files.server_context(require_certificate=mutual)
    client = files.client_context(files.client if mutual else None)
    talk = Talk(files, fate, server=server, handshake_timeout=PATIENCE, options=options)
    machine = talk.connect(context=client, handshake_timeout=PATIENCE, options=options)
    talk.run_until(lambda: both_established(talk), PATIENCE)
    return talk, machine


def check_talk(talk: Talk, client: DtlsClient) -> None:
    talk.fate = delivered
    client.child.say(b"hello")
    talk.run(1)
    assert client.child.heard == [b"hello"]


@pytest.mark.parametrize("lost", range(12))
def test_any_one_datagram_may_be_lost(dtls_files: Files, lost: int) -> None:
    begun = 1000.0
    talk, client = shake_hands(
        dtls_files, lambda number, data: () if number == lost else (0.01,), mtu=400, mutual=True
    )
    assert talk.now - begun < 1.5
    check_talk(talk, client)


@pytest.mark.parametrize("sender", [CLIENT, SERVER])
@pytest.mark.parametrize("flight", range(3))
def test_a_flight_may_be_lost_several_times(dtls_files: Files, sender: tuple[str, int], flight: int) -> None:
    """1, 2 and 4 seconds pass before it gets through; the same bytes never travel in the clear twice."""
    flights: list[float] = []
    talk: Talk

    def fate(number: int, data: bytes) -> tuple[float, ...]:
        source = talk.sent[-1][0]
        if source != sender:
            return (0.01,)
        if not flights or flights[-1] != talk.now:
            flights.append(talk.now)
        return () if flight <= len(flights) - 1 < flight + 3 else (0.01,)

    options = DtlsOptions(mtu=300)
    talk = Talk(dtls_files, fate, handshake_timeout=PATIENCE, options=options)
    client = talk.connect(handshake_timeout=PATIENCE, options=options)
    talk.run_until(lambda: both_established(talk), 10.0)
    assert 7.0 <= talk.now - 1000.0 < 8.0
    for end in (CLIENT, SERVER):
        sent = [one for source, _, data in talk.sent if source == end for one in rec.split(data)]
        clear = [rec.number(one) for one in sent if not rec.epoch(one)]
        assert len(set(clear)) >= len(clear) - 4  # answers to hellos have the hello's number
    check_talk(talk, client)


def test_everything_may_come_twice(dtls_files: Files) -> None:
    talk, client = shake_hands(dtls_files, lambda number, data: (0.01, 0.02), mutual=True)
    check_talk(talk, client)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    fates=st.lists(st.lists(st.floats(0.001, 3.0), max_size=3), max_size=60).filter(
        lambda fates: sum(not fate for fate in fates) <= MOST_LOSSES
    ),
    mtu=st.sampled_from([256, 300, 600, 1200]),
    mutual=st.booleans(),
)
def test_any_fate_of_any_datagram(
    dtls_files: Files, fates: list[list[float]], mtu: int, mutual: bool
) -> None:
    """Each of the first datagrams is lost or comes up to three times, late, in any order."""
    talk, client = shake_hands(
        dtls_files, lambda number, data: fates[number] if number < len(fates) else (0.01,), mtu, mutual=mutual
    )
    check_talk(talk, client)


@pytest.mark.parametrize("chunk", range(4))
def test_random_networks(dtls_files: Files, chunk: int) -> None:
    for seed in range(chunk * 25, chunk * 25 + 25):
        shake_hands_until_faults_end(dtls_files, random.Random(seed))


def shake_hands_until_faults_end(files: Files, rng: random.Random) -> None:
    faults_end = 1000.0 + rng.choice([5.0, 20.0, 40.0])
    loss = rng.choice([0.2, 0.4, 0.6])
    bad = bad_network(rng, loss=loss, duplicate=rng.random() / 2, reorder=rng.random())
    talk: Talk

    def fate(number: int, data: bytes) -> Sequence[float]:
        return bad(number, data) if talk.now < faults_end else (0.01,)

    options = DtlsOptions(mtu=rng.choice([256, 300, 600, 1200]))
    talk = Talk(files, fate, handshake_timeout=PATIENCE, options=options)
    client = talk.connect(handshake_timeout=PATIENCE, options=options)
    talk.run_until(lambda: both_established(talk), PATIENCE)
    assert talk.now - faults_end < 61
    check_talk(talk, client)


def test_a_last_flight_is_not_repeated_for_ever(dtls_files: Files) -> None:
    """Somebody who has seen the client's last flight gets the server's a few times, and no more."""
    talk = Talk(dtls_files)
    client = talk.connect()
    talk.run()
    last = [data for source, _, data in talk.sent if source == CLIENT][-1]
    talk.sent.clear()
    for _ in range(50):
        talk.server.receive_datagrams([(last, CLIENT)], talk.now)
    talk.run()
    assert len(talk.sent) == association_module.REPEATS
    client.child.say(b"hello")
    talk.run()
    talk.sent.clear()
    talk.server.receive_datagrams([(last, CLIENT)], talk.now)
    talk.run()
    assert talk.sent == []


def test_a_message_overtaken_by_the_change_of_keys(dtls_files: Files) -> None:
    """OpenSSL drops the ChangeCipherSpec, and would never let the same record in again."""

    def fate(number: int, data: bytes) -> tuple[float, ...]:
        kinds = [one[0] for one in rec.split(data)]
        late = kinds[0] == rec.HANDSHAKE and data[13] == CERTIFICATE and number > 5
        return (0.1,) if late and rec.CHANGE_CIPHER_SPEC not in kinds else (0.01,)

    talk, client = shake_hands(dtls_files, fate, mtu=256, mutual=True)
    assert 1001 < talk.now < 1002
    check_talk(talk, client)


def test_new_numbers_in_the_clear_are_needed(dtls_files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rec.ClearNumbers, "put_on", lambda self, record: record)
    with pytest.raises(AssertionError, match="not within"):
        test_a_message_overtaken_by_the_change_of_keys(dtls_files)


def test_a_last_flight_that_is_lost(dtls_files: Files) -> None:
    talk, client = shake_hands(dtls_files, lambda number, data: () if number == 5 else (0.01,))
    assert 1001 < talk.now < 1002
    check_talk(talk, client)


def test_repeating_the_last_flight_is_needed(dtls_files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(association_module, "REPEATS", 0)
    with pytest.raises(AssertionError, match="not within"):
        test_a_last_flight_that_is_lost(dtls_files)
