from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from helianthus.protocols.auth import ChallengeLimits, Challenger, Prover

SECRET, UNKNOWN = b"s" * 16, b"u" * 16
CLIENT_NONCE, SERVER_NONCE = b"c" * 32, b"n" * 32


def challenger(**limits: float) -> Challenger:
    return Challenger({"alice": SECRET, "bob": b"b" * 16}, UNKNOWN, ChallengeLimits(**limits))  # type: ignore[arg-type]  # numbers


def test_both_ends_prove_that_they_know_the_secret() -> None:
    server, client = challenger(), Prover("alice", SECRET, CLIENT_NONCE)
    server.challenge("here", "alice", CLIENT_NONCE, SERVER_NONCE, 0.0)
    proven = server.prove("here", SERVER_NONCE, client.proof(SERVER_NONCE), 1.0)
    assert proven is not None
    name, proof = proven
    assert name == "alice"
    assert client.is_right(SERVER_NONCE, proof)
    assert not client.is_right(SERVER_NONCE, client.proof(SERVER_NONCE)), "its own proof sent back"
    assert server.outstanding == 0


@pytest.mark.parametrize(
    ("name", "secret"), [("alice", b"x" * 16), ("bob", SECRET), ("nobody", SECRET), ("nobody", UNKNOWN)]
)
def test_wrong_secrets_and_unknown_names(name: str, secret: bytes) -> None:
    server = challenger()
    server.challenge("here", name, CLIENT_NONCE, SERVER_NONCE, 0.0)
    assert (
        server.prove("here", SERVER_NONCE, Prover(name, secret, CLIENT_NONCE).proof(SERVER_NONCE), 0.0)
        is None
    )


def test_a_challenge_is_good_once_and_for_a_while() -> None:
    server = challenger(time_to_live=10.0)
    proof = Prover("alice", SECRET, CLIENT_NONCE).proof(SERVER_NONCE)
    assert server.prove("here", SERVER_NONCE, proof, 0.0) is None, "nobody asked"
    server.challenge("here", "alice", CLIENT_NONCE, SERVER_NONCE, 0.0)
    assert server.prove("here", SERVER_NONCE, b"wrong", 0.0) is None
    assert server.prove("here", SERVER_NONCE, proof, 0.0) is None, "a second guess"
    server.challenge("here", "alice", CLIENT_NONCE, SERVER_NONCE, 0.0)
    assert server.prove("here", SERVER_NONCE, proof, 10.0) is None, "too late"
    server.challenge("here", "alice", CLIENT_NONCE, SERVER_NONCE, 0.0)
    assert server.prove("here", SERVER_NONCE, proof, 9.9) is not None
    assert server.prove("here", SERVER_NONCE, proof, 9.9) is None, "replayed"


def test_outstanding_challenges_are_bounded() -> None:
    server = challenger(max_outstanding=3)
    prover = Prover("alice", SECRET, CLIENT_NONCE)
    for n in range(10):
        server.challenge(n, "alice", CLIENT_NONCE, bytes([n]), 0.0)
    assert server.outstanding == 3
    assert server.prove(0, bytes([0]), prover.proof(bytes([0])), 0.0) is None
    assert server.prove(9, bytes([9]), prover.proof(bytes([9])), 0.0)
    server.challenge(10, "alice", CLIENT_NONCE, SERVER_NONCE, 40.0)
    assert server.outstanding == 1, "those that are too old are dropped by whoever comes"


def test_nobody_can_push_the_challenges_of_others_out() -> None:
    server = challenger(max_outstanding=3)
    server.challenge("here", "alice", CLIENT_NONCE, SERVER_NONCE, 0.0)
    for n in range(10):
        server.challenge("elsewhere", "alice", CLIENT_NONCE, bytes([n]), 0.0)
    assert server.outstanding == 2
    assert server.prove("here", SERVER_NONCE, Prover("alice", SECRET, CLIENT_NONCE).proof(SERVER_NONCE), 0.0)


def test_a_challenge_is_good_for_the_connection_that_asked_for_it() -> None:
    server = challenger()
    server.challenge("here", "alice", CLIENT_NONCE, SERVER_NONCE, 0.0)
    server.challenge("elsewhere", "bob", CLIENT_NONCE, b"m" * 32, 0.0)
    proof = Prover("alice", SECRET, CLIENT_NONCE).proof(SERVER_NONCE)
    assert server.prove("elsewhere", SERVER_NONCE, proof, 0.0) is None
    assert server.prove("here", SERVER_NONCE, proof, 0.0) is not None


def test_secrets_that_could_be_guessed() -> None:
    with pytest.raises(ValueError, match="the secret of eve has 4 bytes; use a random one of 16 or more"):
        Challenger({"eve": b"1234"}, UNKNOWN)
    assert "s" * 16 not in repr(Prover("alice", SECRET, CLIENT_NONCE))


@given(st.binary(max_size=64), st.binary(max_size=64), st.text(max_size=10))
def test_no_other_bytes_are_a_proof(proof: bytes, nonce: bytes, name: str) -> None:
    server = challenger()
    server.challenge("here", name, nonce, SERVER_NONCE, 0.0)
    assert server.prove("here", SERVER_NONCE, proof, 0.0) is None
    assert server.prove("here", nonce, proof, 0.0) is None


class ChallengeRules(RuleBasedStateMachine):
    """Whoever asks and answers in whichever order, only a fresh proof of one's own challenge is taken."""

    CONNECTIONS = st.integers(1, 5)
    NAMES = st.sampled_from(["alice", "bob", "nobody"])

    def __init__(self) -> None:
        super().__init__()
        self.server = challenger(max_outstanding=3, time_to_live=8.0)
        self.secrets = {"alice": SECRET, "bob": b"b" * 16, "nobody": UNKNOWN}
        self.now, self.count = 0.0, 0
        self.asked: dict[int, tuple[str, bytes, float]] = {}  # by connection, oldest first

    @rule(connection=CONNECTIONS, name=NAMES)
    def ask(self, connection: int, name: str) -> None:
        self.count += 1
        nonce = self.count.to_bytes(32, "big")
        self.server.challenge(connection, name, CLIENT_NONCE, nonce, self.now)
        self.asked.pop(connection, None)
        self.asked = {key: one for key, one in self.asked.items() if one[2] > self.now}
        self.asked[connection] = (name, nonce, self.now + 8.0)
        if len(self.asked) > 3:
            del self.asked[next(iter(self.asked))]

    @rule(connection=CONNECTIONS, back=st.integers(0, 4), name=NAMES)
    def prove(self, connection: int, back: int, name: str) -> None:
        nonce = (self.count - back).to_bytes(32, "big") if self.count >= back else SERVER_NONCE
        proof = Prover(name, self.secrets[name], CLIENT_NONCE).proof(nonce)
        proven = self.server.prove(connection, nonce, proof, self.now)
        expected = self.asked.pop(connection, None)
        right = expected is not None and expected[:2] == (name, nonce) and expected[2] > self.now
        assert (proven is not None) is (right and name != "nobody")
        assert proven is None or proven[0] == name

    @rule(seconds=st.sampled_from([1.0, 4.0, 8.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def bounded(self) -> None:
        assert self.server.outstanding == len(self.asked) <= 3


TestChallengeRules = ChallengeRules.TestCase
