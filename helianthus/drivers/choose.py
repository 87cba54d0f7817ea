"""Which driver to use: by name, by environment, or the fastest that exists here."""

from __future__ import annotations

import asyncio
import os
import select
import sys
from asyncio import AbstractEventLoop
from collections.abc import Callable, Coroutine
from selectors import BaseSelector
from typing import Any, TypeVar

import attrs

from .asyncio import AsyncioDriver, new_event_loop, uvloop_installed
from .base import Driver
from .errors import DriverUnavailable
from .native import NativeDriver

T = TypeVar("T")

ENVIRONMENT_VARIABLE = "HELIANTHUS_DRIVER"
"""Names the driver to use where the program names none."""


@attrs.frozen
class DriverInfo:
    """What is known about a driver on this machine.

    Attributes:
        name: As given to `driver`.
        available: Whether it can be used here.
        reason: Why it cannot; empty where it can.
        chosen: Whether it is what `driver()` would make now.
    """

    name: str
    available: bool
    reason: str
    chosen: bool


def driver(name: str | None = None, **options: Any) -> Driver:
    """Make a driver.

    Args:
        name: "auto" (the native one, else asyncio), "epoll", "kqueue", "iocp", "asyncio" (on uvloop
            where that is installed), "uvloop" or "sim". Where it is None the environment variable
            HELIANTHUS_DRIVER decides, and where that is not set, "auto".
        options: For the driver's constructor, such as `rng`.

    Raises:
        ValueError: No driver has that name.
        DriverUnavailable: The driver does not exist on this platform or installation.
    """
    return _MAKERS[_usable(name)](**options)


def available() -> list[DriverInfo]:
    """Every driver there is a name for, the fastest first.

    Raises:
        ValueError: HELIANTHUS_DRIVER names no driver.
    """
    chosen = _resolve(None)
    return [
        DriverInfo(name, not (reason := obstacle()), reason, name == chosen)
        for name, obstacle in _OBSTACLES.items()
    ]


def running_driver() -> Driver:
    """The driver of the running asyncio loop.

    It is the native driver or simulator that the loop runs on, where it runs on one; else an adapter
    for the loop, always the same one.

    Raises:
        RuntimeError: No loop is running.
    """
    loop = asyncio.get_running_loop()
    # The one private name of asyncio that is used: no public one leads from a loop to its selector.
    selector = getattr(loop, "_selector", None)
    native = getattr(selector, "driver", selector)  # Windows' proactor has the driver behind it
    if isinstance(native, Driver):
        return native
    adapter = _adapters.get(loop)
    if adapter is None or adapter.closed:
        _forget_closed_loops()
        adapter = _adapters[loop] = AsyncioDriver(loop)
    return adapter


def run(main: Coroutine[Any, Any, T], *, driver: str | None = None, debug: bool | None = None) -> T:
    """Run a coroutine as `asyncio.run` does, on a driver.

    When it has ended, the tasks that it left are cancelled, the links and listeners that they left
    are closed, and so is the driver.

    Args:
        main: The coroutine.
        driver: As for `driver`; "sim" runs it on a virtual clock.
        debug: As for `asyncio.run`.

    Returns:
        What the coroutine returned.

    Raises:
        ValueError: No driver has that name.
        DriverUnavailable: The driver does not exist on this platform or installation.
        RuntimeError: A loop is running already.
    """
    try:
        _check_no_loop_runs()
        loop_factory = _loop_factory(_usable(driver))
    except BaseException:
        main.close()  # nobody will await it, and asyncio warns of that
        raise
    with asyncio.Runner(debug=debug, loop_factory=loop_factory) as runner:
        try:
            return runner.run(main)
        finally:
            runner.run(_wind_up())


def _check_no_loop_runs() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError("helianthus.run() cannot be called while an event loop is running; await instead")


async def _wind_up() -> None:
    """End what the program left behind, while there is still a loop to do it in."""
    loop = asyncio.get_running_loop()
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in left:
        task.cancel()
    for outcome in await asyncio.gather(*left, return_exceptions=True):
        if isinstance(outcome, Exception):
            loop.call_exception_handler(
                {"message": "a task failed while it was being cancelled", "exception": outcome}
            )
    current = running_driver()
    if isinstance(current, AsyncioDriver):
        current.close()
        await current.wait_closed()
        _adapters.pop(loop, None)
    elif isinstance(current, NativeDriver):
        current.abort_all()  # the loop, which runs on it, closes it


# -- what there is --------------------------------------------------------------------------------------


def _nothing() -> str:
    return ""


def _no_epoll() -> str:
    return "" if sys.platform == "linux" else "epoll exists on Linux only"


def _no_kqueue() -> str:
    return "" if hasattr(select, "kqueue") else "kqueue exists on macOS and the BSDs only"


def _no_iocp() -> str:
    return "" if sys.platform == "win32" else "IOCP exists on Windows only"


def _no_uvloop() -> str:
    if sys.platform == "win32":
        return "uvloop does not exist for Windows"
    return "" if uvloop_installed() else "uvloop is not installed: pip install helianthus[uvloop]"


_OBSTACLES: dict[str, Callable[[], str]] = {
    "epoll": _no_epoll,
    "kqueue": _no_kqueue,
    "iocp": _no_iocp,
    "uvloop": _no_uvloop,
    "asyncio": _nothing,
    "sim": _nothing,
}


_NATIVE = ("epoll", "kqueue", "iocp")  # "auto" is the one of these that exists here


def _make_epoll(**options: Any) -> Driver:
    from .epoll import EpollReactor

    return EpollReactor(**options)


def _make_kqueue(**options: Any) -> Driver:
    from .kqueue import KqueueReactor

    return KqueueReactor(**options)


def _make_iocp(**options: Any) -> Driver:
    from .iocp import IocpDriver

    return IocpDriver(**options)


def _make_uvloop(**options: Any) -> Driver:
    adapter = AsyncioDriver(**options)
    if not type(adapter.loop).__module__.startswith("uvloop"):
        raise DriverUnavailable("the uvloop driver was asked for in a running loop that is not uvloop's")
    return adapter


def _make_sim(**options: Any) -> Driver:
    from .sim import new_driver

    return new_driver(**options)


_MAKERS: dict[str, Callable[..., Driver]] = {
    "epoll": _make_epoll,
    "kqueue": _make_kqueue,
    "iocp": _make_iocp,
    "uvloop": _make_uvloop,
    "asyncio": AsyncioDriver,
    "sim": _make_sim,
}


def _resolve(name: str | None) -> str:
    """The driver that a name means, whether it exists here or not."""
    source = "driver"
    if name is None:
        name = os.environ.get(ENVIRONMENT_VARIABLE) or "auto"
        source = ENVIRONMENT_VARIABLE
    if name == "auto":
        return next((native for native in _NATIVE if not _OBSTACLES[native]()), "asyncio")
    if name not in _OBSTACLES:
        known = ", ".join(["auto", *_OBSTACLES])
        raise ValueError(f"{source} is {name!r}, which is no driver; known are {known}")
    return name


def _usable(name: str | None) -> str:
    resolved = _resolve(name)
    obstacle = _OBSTACLES[resolved]()
    if obstacle:
        raise DriverUnavailable(f"the {resolved} driver cannot be used: {obstacle}")
    return resolved


def _loop_factory(name: str) -> Callable[[], AbstractEventLoop]:
    if name in ("asyncio", "uvloop"):  # uvloop is known to be there if it was asked for
        return new_event_loop
    if name == "sim":
        from .sim import new_loop

        return new_loop
    if name == "iocp":
        from .iocp import new_loop as new_proactor_loop

        return new_proactor_loop

    def over_the_reactor() -> AbstractEventLoop:
        reactor = driver(name)
        assert isinstance(reactor, BaseSelector)
        return asyncio.SelectorEventLoop(reactor)

    return over_the_reactor


# A plain dict: in a weak one the values, which hold their loops, would keep the keys alive for ever.
_adapters: dict[AbstractEventLoop, AsyncioDriver] = {}


def _forget_closed_loops() -> None:
    for loop in list(_adapters):
        if loop.is_closed():
            _adapters.pop(loop, None)
