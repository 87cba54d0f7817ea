"""`helianthus describe`: a service's methods in full, or as a typed client stub."""

from __future__ import annotations

import textwrap
import time

import click

from ..services.rpc import connect
from .credentials import credentials
from .described import Described, Method, NotDescribed, describe, list_services
from .options import some_seconds, url
from .output import Failed, printable
from .running import run_client
from .stub import StubImpossible, write_stub

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
def command(url: str, service: str | None, python: bool, timeout: float) -> None:
    r"""Describe the services of the node at URL, or one SERVICE: its methods as they are called.

    With --python, print a module with two classes: Calculator, say, for an async client, and
    BlockingCalculator for a blocking one. A type-checker then knows what there is to call.

    \b
        helianthus describe tcp://127.0.0.1:7070 calculator --python > calculator_client.py
        client.service(calculator_client.Calculator)
    """
    if python and service is None:
        raise click.UsageError("--python writes the stub of one service; name it after the URL")
    found = run_client(lambda: _ask(url, service, time.monotonic() + timeout))
    if python:
        click.echo(_stub(url, found[0]), nl=False)
    else:
        click.echo("\n\n".join(map(_service_text, found)))


async def _ask(url: str, service: str | None, deadline: float) -> list[Described]:
    def remaining() -> float:
        return deadline - time.monotonic()

    async with connect(url, credentials=credentials()) as client:
        try:
            names = [service] if service is not None else await list_services(client, remaining())
            return [await describe(client, name, remaining()) for name in names]
        except NotDescribed as error:
            raise Failed(f"{url} does not tell what it serves: {error}") from None


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
