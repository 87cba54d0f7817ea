"""`helianthus call`: one call, from a shell."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from typing import IO, Any

import attrs
import click

from ..protocols.rpc import Flow, StatusCode
from ..services.rpc import Client, RpcError, StreamCall, connect
from ..services.tls import ClientTls
from .credentials import credentials
from .described import Method, NotDescribed, describe
from .items import read_items
from .options import some_seconds, url
from .output import Failed, Misconfigured
from .running import run_client
from .tls_options import tls_options
from .values import AnyTypes, NotJson, from_json, to_json

_RESERVED = ("cancel", "meta", "timeout")  # keywords that `Client.call` takes for itself


@attrs.frozen
class _Request:
    """What to call, and how."""

    url: str
    method: str
    params: list[Any]
    keywords: dict[str, Any]
    items: IO[bytes] | None
    deadline: float | None
    plain: bool
    tls: ClientTls | None

    def remaining(self) -> float | None:
        """Seconds until the deadline."""
        return None if self.deadline is None else self.deadline - time.monotonic()


@click.command(
    "call", short_help="Call a method of a node.", context_settings={"ignore_unknown_options": True}
)  # so that -1 is a number
@click.argument("url", type=url)
@click.argument("method")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--param",
    "keywords",
    metavar="NAME=JSON",
    multiple=True,
    help="A parameter by name, in place of ARGUMENTS; may be repeated.",
)
@click.option("--timeout", metavar="SECONDS", type=some_seconds, help="For all of it. Without: no end.")
@click.option(
    "--items",
    metavar="FILE",
    type=click.File("rb"),
    help="Send each line of FILE, a JSON value, as a stream item, as it comes; - is standard input.",
)
@click.option("--plain", is_flag=True, help="The server knows plain MessagePack-RPC only: do not ask it.")
@tls_options
def command(
    url: str,
    method: str,
    arguments: tuple[str, ...],
    keywords: tuple[str, ...],
    timeout: float | None,
    items: IO[bytes] | None,
    plain: bool,
    tls: ClientTls | None,
) -> None:
    r"""Call METHOD of the node at URL, and print its result as JSON.

    ARGUMENTS are JSON: numbers, true, null, '"text"' (quoted for the shell, too), '[1, 2]'. What a
    method streams is printed as it comes, one value a line; Ctrl-C cancels the call.

    \b
        helianthus call tcp://127.0.0.1:7070 calculator.add 2 3
        helianthus call tcp://127.0.0.1:7070 strings.reverse '"hello"'
        helianthus call tcp://127.0.0.1:7070 calculator.divide --param a=1 --param b=3

    What JSON lacks is an object with one key, here and in results: {"$bytes": "aGk="} (Base64),
    {"$float": "NaN"}, {"$map": [[1, "one"]]} (keys that are no text), {"$timestamp": [seconds,
    nanoseconds]}, {"$ext": [5, "aGk="]}.

    Exit codes: 0 after a result, 1 after an error, whose code and message go to standard error, 2 where
    the command line is wrong, 130 after Ctrl-C.
    """
    if arguments and keywords:
        raise click.UsageError("give parameters as ARGUMENTS or with --param, not both")
    if plain and (keywords or items):
        raise click.UsageError("a plain server takes neither --param nor --items")
    request = _Request(
        url=url,
        method=method,
        params=read_arguments(arguments),
        keywords=_keywords(keywords),
        items=items,
        deadline=None if timeout is None else time.monotonic() + timeout,
        plain=plain,
        tls=tls,
    )
    run_client(lambda: _call(request))


# -- reading the command line ---------------------------------------------------------------------------


def read_arguments(arguments: Sequence[str]) -> list[Any]:
    """Positional parameters, each of them JSON.

    Raises:
        click.UsageError: One is not.
    """
    return [_argument(number, text) for number, text in enumerate(arguments, 1)]


def _argument(number: int, text: str) -> Any:
    try:
        return from_json(text)
    except ValueError as error:
        if text.startswith("--"):
            raise click.NoSuchOption(text) from None
        raise click.UsageError(f"argument {number}, {text}, {error}{_hint(text, error)}") from None


def _keywords(given: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.UsageError(f"--param {text} has no value; write it as --param name=JSON")
        if name in found:
            raise click.UsageError(f"--param {name} is given twice; give it once")
        try:
            found[name] = from_json(value)
        except ValueError as error:
            raise click.UsageError(f"--param {name}: {value} {error}{_hint(value, error)}") from None
    return found


def _hint(text: str, error: ValueError) -> str:
    """How to write what looks as if it were meant to be a text."""
    if not isinstance(error, NotJson) or text.startswith(("{", "[", '"')):
        return ""
    quoted = to_json(text).replace("'", "'\\''")
    return f"; a text stands in quotes, and these in quotes for the shell: '{quoted}'"


# -- calling ------------------------------------------------------------------------------------------------


async def _call(request: _Request) -> None:
    async with connect(
        request.url,
        extensions=not request.plain,
        types=AnyTypes(),
        credentials=credentials(),
        tls=request.tls,
    ) as client:
        described = None if request.plain else await _describe(client, request)
        if request.items is not None and described is not None and not described.flow & Flow.FROM_CALLER:
            raise click.UsageError(f"{request.method} takes no stream items; leave --items out")
        if (
            (described is not None and described.flow)
            or request.items is not None
            or any(name in _RESERVED for name in request.keywords)
        ):
            await _stream(client, request, described)
        else:
            result = await client.call(
                request.method, *request.params, timeout=request.remaining(), **request.keywords
            )
            _print(result)


async def _describe(client: Client, request: _Request) -> Method | None:
    """What the node tells of the method; None where it does not."""
    service, dot, _ = request.method.rpartition(".")
    if not dot:
        return None
    try:
        return (await describe(client, service, request.remaining())).methods.get(request.method)
    except NotDescribed:
        return None
    except RpcError as error:
        if error.code is StatusCode.NOT_FOUND:
            return None  # the call itself will say so
        raise


async def _stream(client: Client, request: _Request, described: Method | None) -> None:
    params = request.keywords or request.params
    call = StreamCall(request.method, params, request.remaining(), None, None, client)
    printed = False
    async with call:
        sending = asyncio.create_task(_send(call, request.items))
        try:
            async for item in call:
                _print(item)
                printed = True
            result = await call.result()
        except RpcError as error:
            raise (sending.result() if sending.done() else None) or error from None
        finally:
            sending.cancel()
    streams = printed or (described is not None and described.flow & Flow.FROM_CALLEE)
    if result is not None or not streams:
        _print(result)


async def _send(call: StreamCall, items: IO[bytes] | None) -> Misconfigured | None:
    """Send the items and end them; returns what is wrong with them, for which the call is given up."""
    try:
        if items is not None:
            async for item in read_items(items):
                await call.send(item)
        await call.end()
    except RpcError:
        pass  # the call has ended, and its result says why
    except Misconfigured as error:
        call.give_up()
        return error
    return None


def _print(value: Any) -> None:
    try:
        text = to_json(value, only_ascii=sys.stdout.encoding.lower() != "utf-8")
    except ValueError as error:
        raise Failed(f"the answer is {error}") from None
    click.echo(text)
