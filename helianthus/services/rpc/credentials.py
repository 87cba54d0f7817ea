"""How a client proves who it is, on every connection that it makes.

Each kind of credentials makes an `Exchange` for a connection, which says what to call next until it
has ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import attrs

from ...protocols.auth import NONCE_SIZE, Prover, check_secret
from ...protocols.rpc import StatusCode
from .errors import RpcError

Step: TypeAlias = tuple[str, Sequence[Any]]
"""A method of the server's, and its parameters."""


class Exchange(Protocol):
    """The calls that authenticate one connection."""

    def begin(self) -> Step:
        """The first call."""

    def answered(self, result: Any) -> Step | None:
        """The next one, or None when all is done; raises `RpcError` where the server is not to be trusted."""


class Credentials(Protocol):
    """What `connect(url, credentials=…)` takes."""

    def exchange(self, nonce: bytes) -> Exchange:
        """Begin for a new connection.

        Args:
            nonce: `NONCE_SIZE` random bytes.
        """


@attrs.frozen
class BearerToken:
    """A token that the server knows.

    Attributes:
        token: Whoever has it can use it: send it over TLS only, or not over a network.
    """

    token: str = attrs.field(repr=False)

    def exchange(self, nonce: bytes) -> Exchange:
        """Send the token."""
        return _BearerExchange(self.token)


@attrs.frozen
class SharedSecret:
    """A secret that both ends know, and that is never sent.

    Attributes:
        name: Whose it is.
        secret: A random key of 16 bytes or more.
    """

    name: str
    secret: bytes = attrs.field(repr=False)

    def __attrs_post_init__(self) -> None:
        check_secret(self.name, self.secret)

    def exchange(self, nonce: bytes) -> Exchange:
        """Ask for a challenge, and answer it."""
        return _SecretExchange(Prover(self.name, self.secret, nonce))


class _BearerExchange:
    def __init__(self, token: str) -> None:
        self._token = token

    def begin(self) -> Step:
        return "auth.bearer", [self._token]

    def answered(self, result: Any) -> Step | None:
        return None


class _SecretExchange:
    def __init__(self, prover: Prover) -> None:
        self._prover = prover
        self._server_nonce: bytes | None = None

    def begin(self) -> Step:
        return "auth.challenge", [self._prover.name, self._prover.nonce]

    def answered(self, result: Any) -> Step | None:
        if self._server_nonce is None:
            if not isinstance(result, bytes) or len(result) != NONCE_SIZE:
                raise RpcError(StatusCode.UNAUTHENTICATED, "the server's challenge is malformed")
            self._server_nonce = result
            return "auth.prove", [result, self._prover.proof(result)]
        proof = result.get("proof") if isinstance(result, dict) else None
        if not isinstance(proof, bytes) or not self._prover.is_right(self._server_nonce, proof):
            raise RpcError(
                StatusCode.UNAUTHENTICATED, "the server does not know the secret, and may be an impostor"
            )
        return None
