"""How commands that call a node encrypt: options that all of them have."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ..services.rpc import ChannelOptions
from ..services.rpc.addresses import rpc_addresses
from ..services.tls import ClientTls, TlsFilesUnusable
from ..services.tls.files import load_trusted
from .output import Misconfigured

F = TypeVar("F", bound=Callable[..., Any])

_FILE = click.Path(path_type=Path)


def tls_options(command: F) -> F:
    """Give a command the options of TLS, and its function a parameter `tls` in their place."""

    @functools.wraps(command)
    def with_tls(
        *args: Any,
        url: str,
        ca: Path | None,
        cert: Path | None,
        key: Path | None,
        server_name: str | None,
        **options: Any,
    ) -> Any:
        tls = _client_tls(url, ca, cert, key, server_name)
        return command(*args, url=url, tls=tls, **options)

    for option in (
        click.option("--server-name", metavar="HOST", help="Whose certificate the node must have; see --ca."),
        click.option("--key", metavar="FILE", type=_FILE, help="Its key, where that is in another file."),
        click.option("--cert", metavar="FILE", type=_FILE, help="Our certificate, for a tls:// node."),
        click.option(
            "--ca",
            metavar="FILE",
            type=_FILE,
            help="Who may sign the certificate of a tls:// node. Without: whom the system trusts.",
        ),
    ):
        option(with_tls)
    return with_tls  # type: ignore[return-value]  # the same but for those options


def _client_tls(
    url: str, ca: Path | None, cert: Path | None, key: Path | None, server_name: str | None
) -> ClientTls | None:
    if not url.startswith("tls://") and not (ca or cert or key or server_name):
        return None
    try:
        tls = ClientTls(ca, cert, key, server_name=server_name)
        return ChannelOptions(tls=tls).for_addresses(rpc_addresses(url)).tls
    except TlsFilesUnusable as error:
        raise Misconfigured(f"{_option_of(ca, key)}: {error}") from None
    except ValueError as error:
        raise Misconfigured(str(error)) from None


def _option_of(ca: Path | None, key: Path | None) -> str:
    """The option whose file cannot be used; they are read in this order."""
    if ca is not None:
        try:
            load_trusted(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ca)
        except TlsFilesUnusable:
            return "--ca"
    return "--cert" if key is None else "--cert and --key"
