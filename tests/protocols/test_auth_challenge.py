from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helianthus.protocols.auth import ChallengeLimits, Challenger, Prover

SECRET, UNKNOWN = b"s" * 16, b"u" * 16
CLIENT_NONCE, SERVER_NONCE = b"c" * 32, b"n" * 32


def challenger(**limits: float) -> Challenger:
    return Challenger({"alice": SECRET, "bob": b"b" * 16}, UNKNOWN, ChallengeLimits(**limits))  # type: ignore[arg-type]  # numbers


def test_both_ends_prove_that_they_know_the_secret() -> None:
    server, client = challenger(), Prover("alice", SECRET, CLIENT_NONCE)
    server.challenge("alice", CLIENT_NONCE, SERVER_NONCE, 0.0)
    proven = server.prove(SERVER_NONCE, client.proof(SERVER_NONCE), 1.0)
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
    server.challenge(name, CLIENT_NONCE, SERVER_NONCE, 0.0)
    assert server.prove(SERVER_NONCE, Prover(name, secret, CLIENT_NONCE).proof(SERVER_NONCE), 0.0) is None


def test_a_challenge_is_good_once_and_for_a_while() -> None:
    server = challenger(time_to_live=10.0)
    proof = Prover("alice", SECRET, CLIENT_NONCE).proof(SERVER_NONCE)
    assert server.prove(SERVER_NONCE, proof, 0.0) is None, "nobody asked"
    server.challenge("alice", CLIENT_NONCE, SERVER_NONCE, 0.0)
    assert server.prove(SERVER_NONCE, b"wrong", 0.0) is None
    assert server.prove(SERVER_NONCE, proof, 0.0) is None, "a second guess"
    server.challenge("alice", CLIENT_NONCE, SERVER_NONCE, 0.0)
    assert server.prove(SERVER_NONCE, proof, 10.0) is None, "too late"
    server.challenge("alice", CLIENT_NONCE, SERVER_NONCE, 0.0)
    assert server.prove(SERVER_NONCE, proof, 9.9) is not None
    assert server.prove(SERVER_NONCE, proof, 9.9) is None, "replayed"


def test_outstanding_challenges_are_bounded() -> None:
    server = challenger(max_outstanding=3)
    for n in range(10):
        server.challenge("alice", CLIENT_NONCE, bytes([n]), 0.0)
    assert server.outstanding == 3
    assert server.prove(bytes([0]), Prover("alice", SECRET, CLIENT_NONCE).proof(bytes([0])), 0.0) is None
    assert server.prove(bytes([9]), Prover("alice", SECRET, CLIENT_NONCE).proof(bytes([9])), 0.0)


def test_secrets_that_could_be_guessed() -> None:
    with pytest.raises(ValueError, match="the secret of eve has 4 bytes; use a random one of 16 or more"):
        Challenger({"eve": b"1234"}, UNKNOWN)
    assert "s" * 16 not in repr(Prover("alice", SECRET, CLIENT_NONCE))


@given(st.binary(max_size=64), st.binary(max_size=64), st.text(max_size=10))
def test_no_other_bytes_are_a_proof(proof: bytes, nonce: bytes, name: str) -> None:
    server = challenger()
    server.challenge(name, nonce, SERVER_NONCE, 0.0)
    assert server.prove(SERVER_NONCE, proof, 0.0) is None
    assert server.prove(nonce, proof, 0.0) is None
