"""`helianthus can`: who may call what, and why."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ..protocols.auth import ANONYMOUS
from .auth_config import AuthConfig
from .config import read_config
from .output import printable


@click.command("can", short_help="Say whether somebody may call a method, and why.")
@click.argument("who")
@click.argument("method")
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default="helianthus.toml",
    show_default=True,
    help="The node's configuration file.",
)
def command(who: str, method: str, config: Path) -> None:
    """Say whether WHO, an identity or "anonymous", may call METHOD of the node that CONFIG describes.

    Deny rules come first, then allow rules; what no rule allows is denied, once there is a rule. The
    exit code is 0 where the call is allowed, and 1 where it is denied.
    """
    auth = read_config(config).auth or AuthConfig()
    try:
        identity = None if who == ANONYMOUS else auth.identity(who)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="WHO") from None
    verdict = auth.rules.explain(identity, method)
    groups = f" (in {', '.join(sorted(identity.groups))})" if identity and identity.groups else ""
    may = "may" if verdict.allowed else "may not"
    click.echo(printable(f"{who}{groups} {may} call {method}: {verdict.reason}"))
    if identity is not None and who not in auth.tokens and who not in auth.secrets:
        click.echo(printable(f"(the file has no token and no secret for {who})"))
    sys.exit(0 if verdict.allowed else 1)
