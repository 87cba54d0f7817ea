"""Proof that both ends know a secret, without sending it.

The client names itself and sends a nonce, the server answers with one of its own. Each then proves
that it knows the secret by an HMAC-SHA-256 (RFC 2104) over both nonces and the name, with another
first word for each direction, so that neither proof can be sent back as the other. This is the
exchange of SCRAM (RFC 5802) without its salted passwords: the secret has to be a random key, since
whoever listens could try likely passwords at leisure.

What follows on the connection is neither encrypted nor signed, and somebody who can alter it could
take it over. Use TLS where that matters.

A challenge is good for one proof, for a while, and for the connection that asked for it. Each has
one at a time, so that nobody can push those of others out by asking over and over. An unknown name is
answered like a known one with a wrong secret.
"""

from __future__ import annotations

import hmac
from collections.abc import Hashable, Mapping

import attrs
from attrs.validators import ge, gt

NONCE_SIZE = 32
"""Bytes of a nonce: as many as the hash has."""


@attrs.frozen
class ChallengeLimits:
    """Bounds of what a server remembers.

    Attributes:
        max_outstanding: Connections with a challenge and no proof; the oldest is forgotten first.
        time_to_live: Seconds for which a challenge can be answered.
    """

    max_outstanding: int = attrs.field(default=10_000, validator=ge(1))
    time_to_live: float = attrs.field(default=30.0, validator=gt(0))


@attrs.frozen
class _Challenge:
    name: str
    client_nonce: bytes
    nonce: bytes
    expires: float


class Challenger:
    """The server's side.

    Args:
        secrets: By name; each a random key of 16 bytes or more.
        unknown: A random key to compare with where a name is not known.
        limits: Bounds.

    Raises:
        ValueError: A secret is too short.
    """

    def __init__(
        self, secrets: Mapping[str, bytes], unknown: bytes, limits: ChallengeLimits | None = None
    ) -> None:
        for name, secret in secrets.items():
            check_secret(name, secret)
        self._secrets = dict(secrets)
        self._unknown = unknown
        self._limits = limits or ChallengeLimits()
        self._outstanding: dict[Hashable, _Challenge] = {}  # by connection, oldest first

    @property
    def outstanding(self) -> int:
        """Challenges that have not been answered."""
        return len(self._outstanding)

    def challenge(
        self, connection: Hashable, name: str, client_nonce: bytes, nonce: bytes, now: float
    ) -> None:
        """Somebody wants to prove who they are; an earlier challenge of theirs is void.

        Args:
            connection: Where they are.
            name: Who they say they are.
            client_nonce: Theirs.
            nonce: Ours, fresh from a good source of chance; it is sent to them.
            now: Monotonic seconds.
        """
        outstanding = self._outstanding
        outstanding.pop(connection, None)
        while outstanding:
            oldest = next(iter(outstanding))
            if outstanding[oldest].expires > now and len(outstanding) < self._limits.max_outstanding:
                break
            del outstanding[oldest]
        expires = now + self._limits.time_to_live
        outstanding[connection] = _Challenge(name, client_nonce, nonce, expires)

    def prove(self, connection: Hashable, nonce: bytes, proof: bytes, now: float) -> tuple[str, bytes] | None:
        """Look at a proof.

        Args:
            connection: Where it came from.
            nonce: That of the challenge.
            proof: Theirs.
            now: Monotonic seconds.

        Returns:
            The name, and our proof for them; None where the proof is wrong, or the challenge is
            another connection's, has been answered or is too old.
        """
        challenge = self._outstanding.pop(connection, None)
        if challenge is None or challenge.expires <= now or challenge.nonce != nonce:
            return None
        name, client_nonce = challenge.name, challenge.client_nonce
        secret = self._secrets.get(name, self._unknown)
        right = hmac.compare_digest(proof, _proof(secret, b"client", name, client_nonce, nonce))
        if not right or name not in self._secrets:
            return None
        return name, _proof(secret, b"server", name, client_nonce, nonce)


@attrs.frozen
class Prover:
    """The client's side.

    Attributes:
        name: Who we are.
        secret: The key.
        nonce: Ours; fresh for each exchange.
    """

    name: str
    secret: bytes = attrs.field(repr=False)
    nonce: bytes

    def proof(self, server_nonce: bytes) -> bytes:
        """What the server is to be sent."""
        return _proof(self.secret, b"client", self.name, self.nonce, server_nonce)

    def is_right(self, server_nonce: bytes, proof: bytes) -> bool:
        """Whether the server knows the secret, too."""
        expected = _proof(self.secret, b"server", self.name, self.nonce, server_nonce)
        return hmac.compare_digest(proof, expected)


def check_secret(name: str, secret: bytes) -> None:
    """Raise `ValueError` for a secret that could be guessed."""
    if len(secret) < 16:
        raise ValueError(
            f"the secret of {name} has {len(secret)} bytes; use a random one of 16 or more, "
            "such as secrets.token_bytes(32)"
        )


def _proof(secret: bytes, side: bytes, name: str, client_nonce: bytes, server_nonce: bytes) -> bytes:
    """The lengths keep the parts apart."""
    parts = (side, name.encode("utf-8", "backslashreplace"), client_nonce, server_nonce)
    message = b"helianthus" + b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return hmac.digest(secret, message, "sha256")
