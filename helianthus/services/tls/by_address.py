"""Which addresses are encrypted, and that `tls=` goes with them."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable

from ...drivers.address import Address
from .contexts import server_context
from .layers import ServerSecurity
from .options import ClientTls, ServerTls


def server_security(
    address: Address, tls: ServerTls | None, make: Callable[[ServerTls], ssl.SSLContext] = server_context
) -> ServerSecurity | None:
    """What a listener at this address puts around its machines; None where it is not encrypted.

    Args:
        address: Where it listens.
        tls: How connections are encrypted.
        make: As for `ServerSecurity`.

    Raises:
        ValueError: The address does not go with `tls`.
        TlsFilesUnusable: A file is not what it should be.
    """
    if address.secure and tls is None:
        raise ValueError(f"{address} needs a certificate: give tls=ServerTls(certificate, key)")
    if tls is not None and not address.secure:
        raise _not_encrypted(address)
    return None if tls is None else ServerSecurity(tls, make)


def tls_for(addresses: Iterable[Address], tls: ClientTls | None) -> ClientTls | None:
    """How a client encrypts its connections to these addresses; None where none of them is encrypted.

    Raises:
        ValueError: None is, though `tls` is given.
    """
    addresses = list(addresses)
    if any(address.secure for address in addresses):
        return tls or ClientTls()
    if tls is not None:
        raise _not_encrypted(addresses[0])
    return None


def _not_encrypted(address: Address) -> ValueError:
    secure = "tls://host:port" if address.local else str(address).replace("tcp://", "tls://")
    return ValueError(f"tls is given, but {address} is not encrypted; write it as {secure}")
