"""Two sessions, a wire that delivers as it pleases, and owners who do as they please.

`rpc_two_ends.py` has the rules and the model. Here they are run: in short lives that can be reduced
to what matters when something goes wrong, and in long ones that get everywhere.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from rpc_two_ends import FLOWS, TwoEnds

from helianthus.protocols.rpc import SessionState

WEIGHTS = {
    "call": 12,
    "cancel": 1,
    "notify": 1,
    "ping": 1,
    "respond": 8,
    "send_item": 25,
    "end_stream": 1,
    "consume": 10,
    "flush": 8,
    "deliver": 16,
    "settle": 4,
    "carry_end": 1,
    "advance": 2,
    "drain": 10,
    "goaway": 0.02,
    "close": 0.02,
    "end_early": 0.02,
    "lose": 0.02,
}
"""How often a soak does what. Ends are rare, so that there is something to end."""

STEPS = [0.0, 0.001, 0.01, 0.1, 0.5, 0.5, 0.5, 3.0, 3.0, 50.0]
"""Seconds that pass at once."""

TIMEOUTS = [None, None, None, 0.0, 0.5, 5.0, 30.0]


def soak(machine: TwoEnds, rng: random.Random, steps: int) -> None:
    """Run the machine's rules for longer than a generated example would."""
    machine.connect(greeted=rng.random() < 0.9)
    names, weights = list(WEIGHTS), list(WEIGHTS.values())
    for name in rng.choices(names, weights, k=steps):
        which, choice = rng.randrange(2), rng.randrange(10)
        arguments: dict[str, Any] = {"which": which}
        if name == "call":
            arguments |= {"timeout": rng.choice(TIMEOUTS), "flow": rng.choice(FLOWS)}
            arguments |= {"padding": rng.choice([0, 0, 0, 150])}
        elif name in ("cancel", "send_item", "end_stream"):
            arguments |= {"choice": choice}
        elif name == "respond":
            arguments |= {"choice": choice, "kind": rng.choice(["result", "error", "large"])}
        elif name == "consume":
            arguments |= {"choice": choice, "count": rng.randint(1, 3)}
        elif name == "deliver":
            arguments |= {"count": rng.choice([1, 5, 30, 200])}
        elif name == "end_early":
            arguments |= {"cut": choice < 5}
        elif name == "settle":
            arguments = {}
        elif name == "advance":
            arguments = {"seconds": rng.choice(STEPS), "late": choice < 2}
        getattr(machine, name)(**arguments)
        machine.outputs_are_bounded_and_asking_changes_nothing()
        if all(end.session.state is SessionState.ENDED for end in machine.ends) and choice == 0:
            machine.teardown()
            machine.connect(greeted=choice < 5)
    machine.teardown()


class HalfPlain(TwoEnds):
    """Only one end knows the extensions."""

    extensions = (True, False)


class Plain(TwoEnds):
    """No end does."""

    extensions = (False, False)


def run(machine: type[TwoEnds], examples: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )


def test_two_extended_ends() -> None:
    run(TwoEnds, 150)


def test_an_extended_and_a_plain_end() -> None:
    run(HalfPlain, 30)


def test_two_plain_ends() -> None:
    run(Plain, 30)


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("machine", [TwoEnds, HalfPlain, Plain])
def test_long_lives(machine: type[TwoEnds], seed: int) -> None:
    soak(machine(), random.Random(seed), 1000)
