"""`helianthus describe`: a service's methods in full, or as a typed client stub."""

from __future__ import annotations

import textwrap

import click

from ..services.tls import ClientTls
from .described import Described, Method, describe_node
from .options import some_seconds, url
from .output import Failed, printable
from .running import run_client
from .stub import StubImpossible, write_stub
from .tls_options import tls_options

_INDENT = "    "


@click.command("describe", short_help="Describe services, or write a typed client stub.")
@click.argument("url", type=url)
@click.argument("service", required=False)
@click.option("--python", is_flag=True, help="Print a Python module that declares SERVICE for type-checkers.")
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=some_seconds,
    default=10.0,
    show_default=True,
    help="For all of it.",
)
@tls_options
def command(url: str, service: str | None, python: bool, timeout: float, tls: ClientTls | None) -> None:
    r"""Describe the services of the node at URL, or one SERVICE: its methods as they are called.

    With --python, print a module with two classes: Calculator, say, for an async client, and
    BlockingCalculator for a blocking one. A type-checker then knows what there is to call.

    \b
        helianthus describe tcp://127.0.0.1:7070 calculator --python > calculator_client.py
        client.service(calculator_client.Calculator)
    """
    if python and service is None:
        raise click.UsageError("--python writes the stub of one service; name it after the URL")
    found = run_client(lambda: describe_node(url, service, timeout, tls))
    if python:
        click.echo(_stub(url, found[0]), nl=False)
    else:
        click.echo("\n\n".join(map(_service_text, found)))


def _stub(url: str, service: Described) -> str:
    try:
        return write_stub(service)
    except StubImpossible as error:
        raise Failed(f"no stub can be written for {url}: {error}") from None


def _service_text(service: Described) -> str:
    parts = [service.name]
    if service.doc:
        parts.append(textwrap.indent(service.doc, _INDENT))
    parts += [textwrap.indent(_method_text(method), _INDENT) for method in service.methods.values()]
    return printable("\n\n".join(parts))


def _method_text(method: Method) -> str:
    line = f"{method.name}({method.parameters}) -> {method.returns}"
    return f"{line}\n{textwrap.indent(method.doc, _INDENT)}" if method.doc else line
