"""`helianthus serve`: a node."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path

import attrs
import click

from ..drivers.base import Driver
from ..drivers.choose import ENVIRONMENT_VARIABLE, run, running_driver
from ..drivers.errors import AddressInUse, TransportError
from ..services.rpc import Authentication, Peer, Server, Service
from ..services.rpc.addresses import rpc_address
from ..services.rpc.server import DEFAULT_GRACE
from ..services.rpc.service import methods_of
from ..services.tls import ServerTls, TlsFilesUnusable
from .config import Config, Setting, read_config, service_setting
from .listen_config import ListenSetting, behind_proxies
from .loading import load_service
from .malloc import ALLOCATORS, active, run_under
from .options import seconds, url
from .output import Failed, Misconfigured, say
from .reloading import reloading
from .running import check_driver
from .stopping import StopSignals, end_within

DEFAULT_LISTEN = "tcp://127.0.0.1:7070"

_FILE = click.Path(path_type=Path)

CLEAN_UP = 5.0
"""Seconds after the grace period that cancelled methods have to end; then the process ends regardless."""

_log = logging.getLogger("helianthus.serve")


@attrs.frozen
class _Plan:
    """What to do, from the command line, the environment and the file, in this order."""

    services: list[Setting]
    listen: list[ListenSetting]
    driver: str | None
    grace: float
    tls: ServerTls | None
    watch: bool


@click.command("serve", short_help="Serve services.")
@click.argument("config", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--service",
    "services",
    metavar="MODULE:CLASS",
    multiple=True,
    help="Serve this besides what CONFIG names; may be repeated.",
)
@click.option(
    "--listen",
    metavar="URL",
    multiple=True,
    type=url,
    help=f"Serve here, not where CONFIG says; may be repeated. Without either: {DEFAULT_LISTEN}.",
)
@click.option(
    "--proxy-protocol",
    is_flag=True,
    help="Every connection, wherever, begins with a PROXY header, which says whom it is from.",
)
@click.option(
    "--proxy-from",
    metavar="NETWORK",
    multiple=True,
    help="Believe proxies of this network only, such as 10.0.0.0/8; may be repeated.",
)
@click.option(
    "--driver", metavar="NAME", help="Instead of HELIANTHUS_DRIVER, and that instead of what CONFIG says."
)
@click.option(
    "--grace",
    metavar="SECONDS",
    type=seconds,
    help=f"For calls in flight to finish when the node stops. Without it or CONFIG: {DEFAULT_GRACE:g}.",
)
@click.option("--cert", metavar="FILE", type=_FILE, help="The node's certificate, for tls:// addresses.")
@click.option("--key", metavar="FILE", type=_FILE, help="Its key, where that is in another file.")
@click.option(
    "--client-ca", metavar="FILE", type=_FILE, help="Who may sign clients' certificates; they need one then."
)
@click.option(
    "--malloc",
    type=click.Choice(list(ALLOCATORS)),
    help="Run under this memory allocator, whose library must be installed; on Linux.",
)
def command(
    config: Path | None,
    services: tuple[str, ...],
    listen: tuple[str, ...],
    proxy_protocol: bool,
    proxy_from: tuple[str, ...],
    driver: str | None,
    grace: float | None,
    cert: Path | None,
    key: Path | None,
    client_ca: Path | None,
    malloc: str | None,
) -> None:
    """Serve the services that CONFIG, a TOML or JSON file, names.

    Modules are looked for beside CONFIG, then in the working directory and where Python looks for all
    others. Example of a file:

    \b
        listen = ["tcp://127.0.0.1:7070"]
        services = ["calculator:Calculator", "strings:Strings"]
        driver = "auto"
        grace = 30.0

    SIGTERM or Ctrl-C stops in good order: no new connection is accepted, calls in flight finish within
    the grace period, those that do not are cancelled; the exit code is 0. Ctrl-C once that has begun
    stops at once; the exit code is 130. SIGHUP has certificates read again, for connections to come.
    """
    if malloc is not None:
        run_under(malloc)
    file = read_config(config) if config is not None else Config()
    tls = file.tls.beside(config.parent if config is not None else Path())
    tls = tls.with_files(certificate=cert, key=key, client_ca=client_ca)
    named = [service_setting("--service", name) for name in services]
    plan = _Plan(
        services=[*file.services, *named],
        listen=_where_to_listen(listen, file, proxy_protocol, proxy_from),
        driver=_choose_driver(driver, file),
        grace=next(g for g in (grace, file.grace, DEFAULT_GRACE) if g is not None),
        tls=tls.server_tls(str(config) if config else "--cert"),
        watch=tls.watch,
    )
    _check_addresses(plan)
    if not plan.services:
        where = f"{config}: services is missing or empty" if config else "there is no configuration file"
        raise Misconfigured(f"{where}: nothing to serve; list services there, or give --service")
    sys.path[:0] = [str(place) for place in ([config.parent.resolve()] if config else []) + [Path.cwd()]]
    loaded = [load_service(setting) for setting in plan.services]
    authentication = file.auth.authentication() if file.auth is not None else None
    server = _make_server(loaded, authentication, str(config) if config else "--service")
    logging.basicConfig(format="%(levelname)s: %(message)s")
    try:
        run(_serve(server, loaded, plan), driver=plan.driver)
    except asyncio.CancelledError:  # by Ctrl-C while the node was stopping
        raise KeyboardInterrupt from None


def _where_to_listen(
    urls: tuple[str, ...], file: Config, proxy: bool, proxy_from: tuple[str, ...]
) -> list[ListenSetting]:
    settings = [ListenSetting(url) for url in urls] or file.listen or [ListenSetting(DEFAULT_LISTEN)]
    if proxy:
        return [behind_proxies(setting, proxy_from, "--proxy-from") for setting in settings]
    if proxy_from:
        raise Misconfigured("--proxy-from names whose PROXY headers to believe; give --proxy-protocol, too")
    return settings


def _choose_driver(option: str | None, file: Config) -> str | None:
    """The name to use, which is sure to be usable; None for what the environment says."""
    if option is not None:
        check_driver(option, "--driver")
        return option
    if os.environ.get(ENVIRONMENT_VARIABLE) or file.driver is None:
        check_driver(None)
        return None
    check_driver(file.driver.value, file.driver.where)
    return file.driver.value


def _make_server(services: list[Service], authentication: Authentication | None, where: str) -> Server:
    try:
        return Server(services, authentication=authentication)
    except TypeError as error:  # two of the same name, or a method that cannot be served
        raise Misconfigured(f"{where}: services cannot be served together: {error}") from None


async def _serve(server: Server, services: list[Service], plan: _Plan) -> None:
    driver = running_driver()
    server.on_error(_report)
    async with server, reloading(plan.tls, driver.post, watch=plan.watch):
        with StopSignals(driver.post) as stop:
            for setting in plan.listen:
                await _listen(server, setting, plan.tls)
            _announce(server, services, driver)
            await stop.wanted.wait()
            await _drain(server, plan.grace)
    end_within(CLEAN_UP, 0)  # threads that a method has started are not waited for without end


def _check_addresses(plan: _Plan) -> None:
    """Raise `Misconfigured` where some address needs a certificate, or none does."""
    encrypted = [setting.url for setting in plan.listen if rpc_address(setting.url).secure]
    if encrypted and plan.tls is None:
        raise Misconfigured(f"{encrypted[0]} needs a certificate; give --cert and --key, or a table [tls]")
    if plan.tls is not None and not encrypted:
        raise Misconfigured("there is a certificate, but no tls:// address to use it at; see --listen")


async def _listen(server: Server, setting: ListenSetting, tls: ServerTls | None) -> None:
    url = setting.url
    tls = tls if rpc_address(url).secure else None
    try:
        await server.listen(url, tls=tls, proxy=setting.proxy, proxy_from=setting.proxy_from)
    except TlsFilesUnusable as error:
        raise Misconfigured(str(error)) from None
    except AddressInUse as error:
        if rpc_address(url).local:  # there it may be a file that is in the way
            raise Failed(f"{url} cannot be used: {error.message}") from None
        raise Failed(f"{url} is in use already: stop what listens there, or choose another port") from None
    except TransportError as error:
        raise Failed(f"cannot listen at {url}: {error.message}") from None


def _announce(server: Server, services: list[Service], driver: Driver) -> None:
    """Say what is there, one thing a line. What comes last is where: then all is ready."""
    loop = asyncio.get_running_loop()
    on_uvloop = driver.name == "asyncio" and type(loop).__module__.startswith("uvloop")
    say(f"driver {driver.name}{' (uvloop)' if on_uvloop else ''}")
    allocator = active()
    if allocator:
        say(f"malloc: {allocator}")
    for service in services:
        methods = [served.name.removeprefix(f"{service.name}.") for served in methods_of(service)]
        say(f"serving {service.name}: {', '.join(methods)}")
    for address in server.addresses:
        say(f"listening on {address}")


async def _drain(server: Server, grace: float) -> None:
    calls = sum(peer.in_flight for peer in server.peers)
    say(f"draining: {calls} call{'' if calls == 1 else 's'} in flight, {grace:g} s to finish")
    end_within(grace + CLEAN_UP, 0)
    if not await server.drain(grace):
        _log.warning("calls that had not finished after %g s were cancelled", grace)
    say("stopped")


def _report(peer: Peer, method: str, error: Exception) -> None:
    """Log what went wrong; only a method's own fault is worth a traceback."""
    if method:
        _log.error("%s, called by %s, failed", method, peer.address, exc_info=error)
    else:
        _log.warning("%s: %s", peer.address, error)
