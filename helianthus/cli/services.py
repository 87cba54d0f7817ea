"""`helianthus services`: what a node serves."""

from __future__ import annotations

import click

from ..services.tls import ClientTls
from .described import Described, describe_node
from .options import some_seconds, url
from .output import printable, table_console
from .running import run_client
from .tls_options import tls_options
from .values import to_json


@click.command("services", short_help="List what a node serves.")
@click.argument("url", type=url)
@click.argument("service", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print an array of services, for machines.")
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=some_seconds,
    default=10.0,
    show_default=True,
    help="For all of it.",
)
@tls_options
def command(url: str, service: str | None, as_json: bool, timeout: float, tls: ClientTls | None) -> None:
    """List the services of the node at URL, with their methods; or one SERVICE in full."""
    found = run_client(lambda: describe_node(url, service, timeout, tls))
    if as_json:
        click.echo(to_json([one.raw for one in found], only_ascii=True))
        return
    for number, one in enumerate(found):
        if number:
            click.echo()
        _show(one, full=service is not None)


def _show(service: Described, *, full: bool) -> None:
    """Print a service as a table; its documentation in full, or the first paragraph of each."""
    from rich.table import Table
    from rich.text import Text

    def text(content: str, style: str = "") -> Text:
        return Text(printable(content), style=style)

    console = table_console()
    console.print(text(service.name, "bold"))
    if service.doc:
        console.print(text(service.doc if full else _first_paragraph(service.doc)))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("method", "parameters", "returns", "documentation"):
        table.add_column(heading, overflow="fold")
    for method in service.methods.values():
        table.add_row(
            text(method.name, "bold"),
            text(method.parameters or "-"),
            text(method.returns),
            text(method.doc if full else _first_paragraph(method.doc)),
        )
    console.print(table)


def _first_paragraph(doc: str) -> str:
    return " ".join(doc.strip().split("\n\n")[0].split())
