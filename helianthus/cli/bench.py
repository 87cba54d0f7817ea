"""`helianthus bench`: how fast a node answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

import attrs
import click

from ..drivers.choose import running_driver
from ..protocols.rpc import Flow, StatusCode
from ..protocols.rpc.load import Load
from ..services.rpc import Client, RpcError, connect
from ..services.tls import ClientTls
from .call import read_arguments
from .credentials import credentials
from .described import NotDescribed, describe
from .load import run_load
from .load_report import report_lines
from .options import rate, some_seconds, url
from .output import Failed
from .running import run_client
from .stopping import StopSignals
from .tls_options import tls_options

if TYPE_CHECKING:
    from rich.progress import Progress

_NOT_TOLD = ("params", "plain", "tls")  # of a test, in its results
_LOOK = 0.1  # seconds between two looks at the progress


@attrs.frozen
class _Test:
    """What to measure, and how."""

    url: str
    method: str
    params: list[Any]
    concurrency: int
    connections: int
    duration: float
    rate: float | None
    timeout: float
    plain: bool
    tls: ClientTls | None


@click.command(
    "bench", short_help="Measure how fast a node answers.", context_settings={"ignore_unknown_options": True}
)  # so that -1 is a number
@click.argument("url", type=url)
@click.argument("method")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--concurrency",
    metavar="N",
    type=click.IntRange(1, 100_000),
    default=10,
    show_default=True,
    help="Callers; each has one call under way.",
)
@click.option(
    "--connections",
    metavar="N",
    type=click.IntRange(1, 10_000),
    default=1,
    show_default=True,
    help="Connections that they share; no more than there are callers.",
)
@click.option(
    "--duration",
    metavar="SECONDS",
    type=some_seconds,
    default=10.0,
    show_default=True,
    help="How long calls begin; those under way are waited for.",
)
@click.option(
    "--rate", metavar="CALLS", type=rate, help="Calls to begin each second. Without: as many as go."
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=some_seconds,
    default=10.0,
    show_default=True,
    help="Of each call, and for connecting.",
)
@click.option("--driver", metavar="NAME", help="As `helianthus drivers` lists them.")
@click.option("--plain", is_flag=True, help="The server knows plain MessagePack-RPC only.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object, for machines; times in seconds."
)
@tls_options
def command(
    url: str,
    method: str,
    arguments: tuple[str, ...],
    concurrency: int,
    connections: int,
    duration: float,
    rate: float | None,
    timeout: float,
    driver: str | None,
    plain: bool,
    as_json: bool,
    tls: ClientTls | None,
) -> None:
    r"""Call METHOD of the node at URL again and again, and tell how long it takes.

    ARGUMENTS are JSON, as for `helianthus call`. Latencies are those of calls with a result; of a
    method that streams, until its last item.

    \b
        helianthus bench tcp://127.0.0.1:7070 calculator.add 2 3
        helianthus bench tcp://127.0.0.1:7070 calculator.add 2 3 --rate 1000 --concurrency 100

    Without --rate, a caller begins a call when its last one has ended: that tells how many calls go
    through. With it, calls are to begin at even intervals, whatever the server does, and latency
    counts from then, even where no caller was free: that tells what users would meet. Calls that
    could not begin at all are told as well.

    Ctrl-C ends it early, with what was measured so far. Exit codes: 0, 1 where no call had a result
    or the node cannot be reached, 2 where the command line is wrong.
    """
    if connections > concurrency:
        raise click.UsageError(
            f"{connections} connections for {concurrency} callers; give no more than callers"
        )
    test = _Test(
        url=url,
        method=method,
        params=read_arguments(arguments),
        concurrency=concurrency,
        connections=connections,
        duration=duration,
        rate=rate,
        timeout=timeout,
        plain=plain,
        tls=tls,
    )
    results = run_client(lambda: _measure(test), driver)
    if as_json:
        click.echo(json.dumps(results))
    else:
        click.echo("\n".join(report_lines(results)))
    if not results["succeeded"]:
        why = ", ".join(f"{code} {count}" for code, count in results["errors"].items())
        raise Failed(f"every call failed: {why}" if why else "no call ended")


async def _measure(test: _Test) -> dict[str, Any]:
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                connect(test.url, extensions=not test.plain, credentials=credentials(), tls=test.tls)
            )
            for _ in range(test.connections)
        ]
        flow = await _connected(clients, test)
        calls = [_call(clients[n % len(clients)], test, flow) for n in range(test.concurrency)]
        load = Load(time.monotonic(), test.duration, test.rate)
        with StopSignals(running_driver().post) as stop, _progress(load):
            await run_load(load, calls, stop.wanted)
    plan = attrs.asdict(test, recurse=False, filter=lambda field, _: field.name not in _NOT_TOLD)
    return {**plan, "driver": running_driver().name, **load.summary()}


async def _connected(clients: list[Client], test: _Test) -> Flow:
    """Have all connections made before anything is measured; tells what the method streams."""
    flows = await asyncio.gather(*(_flow(client, test) for client in clients))
    if flows[0] & Flow.FROM_CALLER:
        raise click.UsageError(f"{test.method} takes a stream of items, which this command does not send")
    return flows[0]


async def _flow(client: Client, test: _Test) -> Flow:
    service = test.method.rpartition(".")[0]
    try:
        if test.plain:
            await client.call("node.services", timeout=test.timeout)  # whatever it answers, it is there
            return Flow.UNARY
        method = (await describe(client, service, test.timeout)).methods.get(test.method)
    except NotDescribed:
        return Flow.UNARY
    except RpcError as error:
        if error.code in (StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED):
            raise
        return Flow.UNARY
    return method.flow if method is not None else Flow.UNARY


def _call(client: Client, test: _Test, flow: Flow) -> Callable[[], Awaitable[object]]:
    method, params, timeout = test.method, test.params, test.timeout

    def unary() -> Awaitable[object]:
        return client.call(method, *params, timeout=timeout)

    async def stream() -> None:
        async for _ in client.stream(method, *params, timeout=timeout):
            pass

    return stream if flow else unary


# -- the progress bar -------------------------------------------------------------------------------------


@contextlib.contextmanager
def _progress(load: Load) -> Iterator[None]:
    """Show how far it is, where somebody watches."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), TextColumn("{task.fields[calls]}"), TimeRemainingColumn())
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    with Progress(*columns, console=console, auto_refresh=False, transient=True) as shown:
        showing = asyncio.get_running_loop().create_task(_show(load, shown))
        try:
            yield
        finally:
            showing.cancel()


async def _show(load: Load, shown: Progress) -> None:
    duration = load.end - load.start
    bar = shown.add_task("", total=duration, calls="")
    while True:
        passed = max(0.0, time.monotonic() - load.start)
        calls = load.calls
        a_second = f"{calls / passed:,.0f}" if passed else "-"
        failed = f", {load.errors.total():,} failed" if load.errors else ""
        shown.update(
            bar, completed=min(passed, duration), calls=f"{calls:,} calls, {a_second} a second{failed}"
        )
        shown.refresh()
        await asyncio.sleep(_LOOK)
