"""`helianthus can`: who may call what, and why."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ..protocols.auth import ANONYMOUS, CERTIFICATE
from .auth_config import AuthConfig
from .config import read_config
from .output import printable

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_DEFAULT = "helianthus.toml"


@click.command("can", short_help="Say whether somebody may call a method, and why.")
@click.argument("who")
@click.argument("method")
@click.argument("config", required=False, type=_FILE)
@click.option("--config", "named", metavar="FILE", type=_FILE, help="The same as CONFIG.")
def command(who: str, method: str, config: Path | None, named: Path | None) -> None:
    """Say whether WHO, an identity or "anonymous", may call METHOD of the node that CONFIG describes.

    CONFIG is the file that the node was given; without it, helianthus.toml. Deny rules come first, then
    allow rules; what no rule allows is denied, once there is a rule. The exit code is 0 where the call
    is allowed, 1 where it is denied, and 2 where the command line or the file is wrong.
    """
    if config is not None and named is not None:
        raise click.UsageError("give the file as CONFIG or with --config, not both")
    auth = read_config(config or named or _default()).auth or AuthConfig()
    try:
        identity = None if who == ANONYMOUS else auth.identity(who)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="WHO") from None
    verdict = auth.authentication().explain(identity, method)
    groups = f" (in {', '.join(sorted(identity.groups))})" if identity and identity.groups else ""
    may = "may" if verdict.allowed else "may not"
    click.echo(printable(f"{who}{groups} {may} call {method}: {verdict.reason}"))
    known = who in auth.tokens or who in auth.secrets or who.startswith(CERTIFICATE)
    if identity is not None and not known:
        click.echo(printable(f"(the file has no token and no secret for {who})"))
    sys.exit(0 if verdict.allowed else 1)


def _default() -> Path:
    path = Path(_DEFAULT)
    if not path.is_file():
        raise click.UsageError(f"there is no {_DEFAULT} here; name the node's configuration file as CONFIG")
    return path
