"""Who calls a server, and whether they may.

A client proves who it is once for a connection, by calling the service `auth` that every server
with an `Authentication` has, or sends a bearer token along with a call, in `meta["auth"]`. One that
has shown a TLS certificate is known by that until it proves to be somebody else. The middleware then
looks the call up in the rules.
"""

from __future__ import annotations

import hashlib
import inspect
import itertools
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakKeyDictionary

import attrs

from ...protocols.auth import (
    NONCE_SIZE,
    ChallengeLimits,
    Challenger,
    Identity,
    Rules,
    Verdict,
    certificate_identity,
)
from ...protocols.rpc import StatusCode
from ...protocols.tls import Certificate
from .context import CallContext
from .errors import NotRun
from .middleware import Middleware, Request, Response
from .service import Service, method

if TYPE_CHECKING:
    from ...drivers.base import Driver
    from .peer import Peer

BEARER = "Bearer "
"""What a token in `meta["auth"]` begins with, as in HTTP (RFC 6750)."""

_ALWAYS = "auth."  # methods that nobody has to be known for
_MAX_NAME = 256  # characters that are kept of a name until it is proved


@attrs.frozen
class Evidence:
    """What somebody shows to prove who they are.

    Attributes:
        kind: "bearer" for a token, "certificate" for what TLS has verified.
        value: The token, or the `Certificate`.
        peer: Whoever shows it.
    """

    kind: str
    value: Any = attrs.field(repr=False)
    peer: Peer


Authenticator: TypeAlias = Callable[[Evidence], Identity | Awaitable[Identity | None] | None]
"""Gives the identity that some evidence proves, or None. One that has to wait is asked when a
connection is authenticated, and cannot be asked for a token that comes with a call, or for a
certificate."""


class TokenAuthenticator:
    """Knows bearer tokens. It keeps their hashes only.

    Args:
        tokens: Identity by token.

    Raises:
        ValueError: A token is empty.
    """

    def __init__(self, tokens: Mapping[str, Identity]) -> None:
        if "" in tokens:
            raise ValueError("an empty token would prove nothing; leave it out")
        # To look a hash up takes a time that tells nothing of the token.
        self._identities = {_digest(token): identity for token, identity in tokens.items()}

    def __call__(self, evidence: Evidence) -> Identity | None:
        """The identity that a token belongs to."""
        if evidence.kind != "bearer" or not isinstance(evidence.value, str):
            return None
        return self._identities.get(_digest(evidence.value))


class Authentication(Middleware):
    """Give it to a server as `authentication=`.

    Args:
        authenticators: Asked in this order about bearer tokens and certificates.
        secrets: Random keys by the name of an identity, for those who prove themselves by challenge.
        groups: Groups of the identities that `secrets` names, and of those that certificates prove,
            which are called "cert:" and the common name.
        rules: Who may call what; without any, everybody may.
        challenge_limits: Bounds of challenges that were not answered.

    Raises:
        ValueError: A secret is too short, or a name cannot be one.
    """

    order = 10

    def __init__(
        self,
        authenticators: Sequence[Authenticator] = (),
        *,
        secrets: Mapping[str, bytes] | None = None,
        groups: Mapping[str, Iterable[str]] | None = None,
        rules: Rules | None = None,
        challenge_limits: ChallengeLimits | None = None,
    ) -> None:
        groups = groups or {}
        self.rules = rules or Rules()
        self._authenticators = list(authenticators)
        self._secrets = dict(secrets or {})
        self._groups = {name: frozenset(of) for name, of in groups.items()}
        self._by_name = {name: Identity(name, groups.get(name, ())) for name in self._secrets}
        self._challenge_limits = challenge_limits
        Challenger(self._secrets, b"", challenge_limits)  # complains of what cannot be used

    def service(self, driver: Callable[[], Driver]) -> Service:
        """The service `auth`, for one server."""
        return _AuthService(self, driver)

    def challenger(self, unknown: bytes) -> Challenger:
        """A machine that knows the secrets; see `Challenger`."""
        return Challenger(self._secrets, unknown, self._challenge_limits)

    def identity_named(self, name: str) -> Identity:
        """One of those who have a secret."""
        return self._by_name[name]

    async def identify(self, evidence: Evidence) -> Identity | None:
        """Ask one authenticator after the other."""
        for authenticator in self._authenticators:
            answer = authenticator(evidence)
            identity = await answer if inspect.isawaitable(answer) else answer
            if identity is not None:
                return identity
        return None

    def identify_certificate(self, certificate: Certificate, peer: Peer) -> Identity:
        """Whom a certificate proves a peer to be: as an authenticator says, or `certificate_identity`."""
        identity = self._ask_now(Evidence("certificate", certificate, peer))
        return identity or certificate_identity(certificate, self._groups)

    def _ask_now(self, evidence: Evidence) -> Identity | None:
        """Ask those who do not have to wait."""
        for authenticator in self._authenticators:
            identity = authenticator(evidence)
            if isinstance(identity, Identity):
                return identity
            if inspect.iscoroutine(identity):
                identity.close()  # it would have to wait
        return None

    def explain(self, identity: Identity | None, method: str) -> Verdict:
        """Say whether somebody may call a method, and why."""
        if not self.applies(method):
            return Verdict(True, "allowed: it is how callers prove who they are")
        return self.rules.explain(identity, method)

    # -- Middleware ---------------------------------------------------------------------------------------

    def applies(self, method: str) -> bool:
        """All but `auth` itself."""
        return not method.startswith(_ALWAYS)

    def before(self, request: Request) -> Response | None:
        """Find out who calls, and look the call up in the rules."""
        identity = request.peer.identity if request.peer is not None else None
        if "auth" in request.meta:
            identity = self._identify_now(request)
        request.identity = identity
        verdict = self.rules.explain(identity, request.method)
        if verdict.allowed:
            return None
        if identity is None:
            raise NotRun(
                StatusCode.UNAUTHENTICATED,
                f"{request.method} is not for everybody ({verdict.reason}); connect with credentials",
            )
        raise NotRun(
            StatusCode.PERMISSION_DENIED,
            f"{identity.name} must not call {request.method} ({verdict.reason})",
        )

    def _identify_now(self, request: Request) -> Identity:
        """Who a token in `meta` belongs to; it counts for this call only."""
        shown = request.meta["auth"]
        if not isinstance(shown, str) or not shown.startswith(BEARER) or request.peer is None:
            raise NotRun(StatusCode.UNAUTHENTICATED, f'meta["auth"] must be text that begins with "{BEARER}"')
        identity = self._ask_now(Evidence("bearer", shown.removeprefix(BEARER), request.peer))
        if identity is None:
            raise NotRun(StatusCode.UNAUTHENTICATED, "the bearer token is not known here")
        return identity


class _AuthService(Service):
    """How a client proves who it is."""

    name = "auth"

    def __init__(self, authentication: Authentication, driver: Callable[[], Driver]) -> None:
        self._authentication = authentication
        self._driver = driver
        self._challenger: Challenger | None = None
        self._serials = itertools.count()
        self._connections: WeakKeyDictionary[Peer, int] = WeakKeyDictionary()  # challenges keep no peer alive

    @method
    async def bearer(self, token: str, context: CallContext) -> dict[str, Any]:
        """Prove it for this connection by a token."""
        identity = await self._authentication.identify(Evidence("bearer", token, context.peer))
        if identity is None:
            raise NotRun(StatusCode.UNAUTHENTICATED, "the bearer token is not known here")
        return _accept(context.peer, identity)

    @method
    def challenge(self, name: str, nonce: bytes, context: CallContext) -> bytes:
        """Begin to prove it by a secret; gives a nonce."""
        driver = self._driver()
        if len(nonce) != NONCE_SIZE or len(name) > _MAX_NAME:
            raise NotRun(
                StatusCode.INVALID_ARGUMENT,
                f"nonce must have {NONCE_SIZE} bytes, and name at most {_MAX_NAME} characters",
            )
        if self._challenger is None:
            self._challenger = self._authentication.challenger(driver.random_bytes(NONCE_SIZE))
        ours = driver.random_bytes(NONCE_SIZE)
        connection = self._connections.setdefault(context.peer, next(self._serials))
        self._challenger.challenge(connection, name, nonce, ours, driver.now())
        return ours

    @method
    def prove(self, nonce: bytes, proof: bytes, context: CallContext) -> dict[str, Any]:
        """Prove it for this connection; gives the server's own proof."""
        proven = None
        if self._challenger is not None:
            connection = self._connections.get(context.peer)
            proven = self._challenger.prove(connection, nonce, proof, self._driver().now())
        if proven is None:
            raise NotRun(StatusCode.UNAUTHENTICATED, "the proof is wrong, or came too late")
        name, ours = proven
        return {**_accept(context.peer, self._authentication.identity_named(name)), "proof": ours}


def identify_certificate(peer: Peer, authentication: Authentication | None) -> Identity | None:
    """Who a peer is by its certificate; None where it has shown none that was verified."""
    tls = peer.tls
    if tls is None or tls.certificate is None or not tls.verified:
        return None
    if authentication is None:
        return certificate_identity(tls.certificate)
    return authentication.identify_certificate(tls.certificate, peer)


def _accept(peer: Peer, identity: Identity) -> dict[str, Any]:
    peer.identity = identity
    return {"name": identity.name, "groups": sorted(identity.groups)}


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "backslashreplace")).digest()
