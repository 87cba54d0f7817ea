"""How connections are encrypted: what a user says of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import attrs
from attrs.validators import gt, in_, instance_of, optional

from ...protocols.tls import HANDSHAKE_TIMEOUT
from .files import FilePath, TlsFilesUnusable
from .reloading import Reloadable
from .watching import digest, watch

SESSION_TICKETS = 2
"""Tickets that a server gives each client: OpenSSL's default, and what RFC 8446, C.4 has in mind."""

VERSIONS = ("TLSv1.2", "TLSv1.3")
"""Those that can be asked for. Older ones are broken (RFC 8996)."""

T = TypeVar("T")


def _check_version(instance: object, attribute: attrs.Attribute[str], version: str) -> None:
    if version not in VERSIONS:
        known = " or ".join(map(repr, VERSIONS))
        raise ValueError(f"{attribute.name} must be {known}, got {version!r}: older versions are not safe")


def _alpn(names: Iterable[str] | None) -> tuple[str, ...] | None:
    if isinstance(names, str):
        raise ValueError(f"alpn must be several names, such as [{names!r}], not the text {names!r}")
    if names is None:
        return None
    names = tuple(names)
    for name in names:
        if not name.isascii() or not 1 <= len(name) <= 255:
            raise ValueError(f"alpn {name!r} cannot be sent; a name has 1 to 255 ASCII characters (RFC 7301)")
    return names


def _pairs(
    sni: Mapping[str, tuple[FilePath, FilePath | None]],
) -> dict[str, tuple[FilePath, FilePath | None]]:
    found = {}
    for name, pair in sni.items():
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise ValueError(f"sni[{name!r}] must be a pair of files, (certificate, key), got {pair!r}")
        found[name.lower().rstrip(".")] = pair
    return found


_password = attrs.field(default=None, repr=False, validator=optional(instance_of(str)))


@attrs.frozen(kw_only=True, eq=False)
class _TlsOptions:
    """What both ends have."""

    key_password: str | None = _password
    alpn: tuple[str, ...] | None = attrs.field(default=None, converter=_alpn)
    minimum_version: str = attrs.field(default="TLSv1.2", validator=_check_version)
    handshake_timeout: float = attrs.field(default=HANDSHAKE_TIMEOUT, validator=gt(0))
    require_close_notify: bool = True
    _made: Reloadable = attrs.field(init=False, factory=Reloadable, repr=False)


@attrs.frozen(eq=False)
class ServerTls(_TlsOptions):
    """How a server encrypts connections, and which certificates it shows and asks for.

    Files are read when the first listener is opened, and again by `reload`.

    Attributes:
        certificate: A PEM file with the server's certificate, and behind it those that lead to its issuer.
        key: The PEM file with its private key; None where that is in the same file.
        client_ca: A PEM file with those who may sign clients' certificates. Clients are then asked for one.
        require_client_certificate: Whether a client without one is refused; by default where `client_ca`
            is given.
        sni: Other certificates by the host name that a client asks for, each a pair of certificate and
            key file. `*` may stand for the first label; whoever asks for another name gets
            `certificate`.
        key_password: Of encrypted keys.
        alpn: Names of protocols that are spoken (RFC 7301), best first; None for those that the
            service itself speaks, () for none.
        minimum_version: "TLSv1.2" or "TLSv1.3".
        handshake_timeout: Seconds.
        require_close_notify: Whether the end of a stream that the peer has not signed counts as a loss.
        session_tickets: How many each client gets, to resume with; 0 for none.

    Raises:
        ValueError: An option has a value that it cannot have.
    """

    certificate: FilePath
    key: FilePath | None = None
    client_ca: FilePath | None = None
    require_client_certificate: bool = attrs.field(kw_only=True)
    sni: Mapping[str, tuple[FilePath, FilePath | None]] = attrs.field(
        factory=dict, converter=_pairs, kw_only=True
    )
    session_tickets: int = attrs.field(default=SESSION_TICKETS, validator=in_(range(9)), kw_only=True)

    @require_client_certificate.default
    def _required_where_it_can_be_checked(self) -> bool:
        return self.client_ca is not None

    def __attrs_post_init__(self) -> None:
        if self.require_client_certificate and self.client_ca is None:
            raise ValueError("require_client_certificate needs client_ca: who may sign them?")

    @property
    def files(self) -> tuple[FilePath, ...]:
        """All that are read."""
        pairs = ((self.certificate, self.key), *self.sni.values())
        named = (*(one for pair in pairs for one in pair), self.client_ca)
        return tuple(dict.fromkeys(one for one in named if one is not None))

    def made(self, make: Callable[[ServerTls], T]) -> T:
        """What `make` makes of the options and their files, until `reload` makes it anew.

        Raises:
            TlsFilesUnusable: The first time: the files are not what they should be.
        """
        self._made.get(digest, self)  # before they are read, so that a watch misses no change after it
        return self._made.get(make, self)

    def reload(self) -> None:
        """Read the files again, for connections that come from now on. Others go on undisturbed.

        Raises:
            TlsFilesUnusable: The files are not what they should be. What was read before stays in use.
        """
        self._made.make_again(self)

    async def watch(
        self, reloaded: Callable[[], object], failed: Callable[[TlsFilesUnusable], object]
    ) -> None:
        """Reload whenever a file changes, until cancelled.

        Args:
            reloaded: Called when that was done.
            failed: Called with the error when it could not be done.

        Raises:
            ModuleNotFoundError: The package watchfiles cannot be used here.
        """
        await watch(self, reloaded, failed)


@attrs.frozen(eq=False)
class ClientTls(_TlsOptions):
    """How a client encrypts connections, whom it trusts, and which certificate it shows.

    Attributes:
        ca: A PEM file with those whose signature is trusted, or a directory of such files as OpenSSL
            has them; None for those that the system trusts.
        certificate: A PEM file with the client's own certificate, for servers that ask for one.
        key: The PEM file with its private key; None where that is in the same file.
        server_name: The name that the server must have a certificate for, and that it is told; by
            default the host of the URL.
        verify: False to accept whatever certificate a server shows: nobody knows then who it is.
        key_password: Of an encrypted key.
        alpn: As that of `ServerTls`.
        minimum_version: "TLSv1.2" or "TLSv1.3".
        handshake_timeout: Seconds.
        require_close_notify: As that of `ServerTls`.
        resume: Whether sessions are kept, and resumed by later connections to the same address.

    Raises:
        ValueError: An option has a value that it cannot have.
    """

    ca: FilePath | None = None
    certificate: FilePath | None = None
    key: FilePath | None = None
    server_name: str | None = attrs.field(default=None, kw_only=True)
    verify: bool = attrs.field(default=True, kw_only=True)
    resume: bool = attrs.field(default=True, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.key is not None and self.certificate is None:
            raise ValueError("key is given, but no certificate that it belongs to")
        if not self.verify and self.ca is not None:
            raise ValueError("ca is given, but verify=False would not look at it; leave one of them out")

    def made(self, make: Callable[[ClientTls], T]) -> T:
        """As `ServerTls.made`."""
        return self._made.get(make, self)

    def reload(self) -> None:
        """As `ServerTls.reload`."""
        self._made.make_again(self)
