"""Sockets over TLS whose operations are given up, the handshake above all: at each moment, and at random."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest

pytest.importorskip("cryptography", reason="cryptography is not installed: no certificates")

from sockets_swarm import Moment, exchange, run_world

from helianthus.protocols.machine import Buffer
from helianthus.protocols.tls import TlsLayer, TlsState

ACCEPT, CONNECT = 1, 2
"""The order in which they are suspended."""

SHARE = 2
"""One of so many seeds is run among faults."""


def never() -> Moment:
    return Moment(0, 0, "task")


@pytest.mark.parametrize("way", ["task", "token"])
@pytest.mark.parametrize("turns", [0, 2])
def test_giving_up_at_each_instant_of_a_handshake(
    turns: int, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever bytes of it arrive at either end, one world for each; before they are handled, and after."""
    instants: set[float] = set()
    receive = TlsLayer.receive_data

    def watch(layer: TlsLayer[Any], data: Buffer, now: float) -> None:
        if layer.state is TlsState.HANDSHAKING:
            instants.add(now)
        receive(layer, data, now)

    with monkeypatch.context() as patching:
        patching.setattr(TlsLayer, "receive_data", watch)
        exchange(0, reading=never(), writing=never(), meeting=never(), encrypted=True)
    given_up: Counter[str] = Counter()
    for at, instant in itertools.product((ACCEPT, CONNECT), sorted(instants)):
        moment = Moment(at, turns, way, instant)
        outcome = exchange(0, reading=never(), writing=never(), meeting=moment, encrypted=True)
        assert bool(outcome) is moment.struck
        assert sum(outcome.values()) <= 2, "it was; and who waits with the same token"
        given_up += outcome
    assert len(instants) > 10
    assert given_up["accept"] >= len(instants) - 1
    assert given_up["connect"] >= len(instants) - 4, "the server hears of its end later"


@pytest.mark.parametrize("part", ["reading", "writing"])
def test_giving_up_at_each_moment(part: str) -> None:
    tried = 0
    for seed in range(3):
        for at in itertools.count(1):
            moments = {"reading": never(), "writing": never(), "meeting": never()}
            moments[part] = moment = Moment(at, at % 3, "task" if at % 2 else "token")
            exchange(seed, **moments, encrypted=True)
            tried += 1
            if not moment.reached:
                break
    assert tried > 20


def test_giving_up_at_random_among_faults(sim_seeds: range) -> None:
    outcomes: Counter[str] = Counter()
    seeds = sim_seeds[::SHARE]
    for seed in seeds:
        try:
            outcomes += run_world(seed, encrypted=True)[1]
        except BaseException as error:
            command = f"import sockets_swarm; sockets_swarm.run_world({seed}, encrypted=True)"
            error.add_note(f"to run this world alone: python -c '{command}'")
            raise
    assert outcomes["whole"] > len(seeds)


def test_the_same_seed_does_the_same_whatever_the_keys_are() -> None:
    assert run_world(3, encrypted=True) == run_world(3, encrypted=True)
