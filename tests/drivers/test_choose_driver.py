"""Choosing a driver by name, by environment and by what there is; and `run`."""

from __future__ import annotations

import asyncio
import gc
import logging
import select
import sys
from collections.abc import Callable
from typing import Any

import pytest

from helianthus.drivers import asyncio as adapter_module
from helianthus.drivers import choose
from helianthus.drivers.address import Address
from helianthus.drivers.asyncio import AsyncioDriver, uvloop_installed
from helianthus.drivers.choose import available, driver, run, running_driver
from helianthus.drivers.errors import DriverUnavailable
from helianthus.drivers.sim import SimDriver
from helianthus.protocols.machine import Closing

EpollReactor: Any = None  # elsewhere, what uses it is skipped
if sys.platform == "linux":
    from helianthus.drivers.epoll import EpollReactor

KqueueReactor: Any = None
if hasattr(select, "kqueue"):
    from helianthus.drivers.kqueue import KqueueReactor

needs_kqueue = pytest.mark.skipif(not hasattr(select, "kqueue"), reason="kqueue exists on macOS and the BSDs")
needs_epoll = pytest.mark.skipif(sys.platform != "linux", reason="epoll exists on Linux only")
not_windows = pytest.mark.skipif(sys.platform == "win32", reason="uvloop is not for Windows")
needs_uvloop = pytest.mark.skipif(not uvloop_installed(), reason="uvloop is not installed")

RUNNABLE = [
    pytest.param("epoll", marks=needs_epoll),
    pytest.param("kqueue", marks=needs_kqueue),
    "asyncio",
    pytest.param("uvloop", marks=needs_uvloop),
    "sim",
]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(choose.ENVIRONMENT_VARIABLE, raising=False)


@pytest.fixture
def without_uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter_module, "uvloop_installed", lambda: False)
    monkeypatch.setattr(choose, "uvloop_installed", lambda: False)


@pytest.fixture
def somewhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this were a system without a native driver."""
    monkeypatch.setattr(choose.sys, "platform", "sunos5")
    monkeypatch.setitem(choose._OBSTACLES, "kqueue", lambda: "no kqueue either")


class Silent:
    """A machine and a handler that do nothing but notice the end."""

    wants_read = True
    closing = Closing.OPEN

    def __init__(self) -> None:
        self.link: Any = None
        self.closed = False

    def deadline(self) -> None:
        return None

    def take_data(self) -> list[bytes]:
        return []

    take_events = take_actions = take_data

    def receive_data(self, data: Any, now: float) -> None:
        pass

    def receive_eof(self, now: float) -> None:
        self.closing = Closing.FULL

    def connection_lost(self, error: Exception | None, now: float) -> None:
        pass

    def on_ready(self, link: Any) -> None:
        self.link = link

    def on_writable(self) -> None:
        pass

    def on_closed(self, error: Exception | None) -> None:
        self.closed = True


# -- by name -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param("epoll", EpollReactor, marks=needs_epoll),
        pytest.param("kqueue", KqueueReactor, marks=needs_kqueue),
        ("asyncio", AsyncioDriver),
        pytest.param("uvloop", AsyncioDriver, marks=needs_uvloop),
        ("sim", SimDriver),
        pytest.param("auto", EpollReactor, marks=needs_epoll),
        pytest.param("auto", KqueueReactor, marks=needs_kqueue),
        pytest.param(None, EpollReactor, marks=needs_epoll),
        pytest.param(None, KqueueReactor, marks=needs_kqueue),
    ],
)
def test_by_name(name: str | None, kind: type) -> None:
    made = driver(name)
    assert type(made) is kind
    made.poll(0.0)
    made.close()


def test_options_reach_the_driver() -> None:
    import random

    rng = random.Random(1)
    for name in ("auto", "asyncio", "sim"):
        made = driver(name, rng=rng)
        assert made.rng is rng
        made.close()


@needs_uvloop
def test_asyncio_means_uvloop_where_it_is_installed() -> None:
    for name in ("asyncio", "uvloop"):
        made = driver(name)
        assert isinstance(made, AsyncioDriver)
        assert type(made.loop).__module__ == "uvloop"
        made.close()


@pytest.mark.usefixtures("without_uvloop")
def test_asyncio_means_the_standard_loop_otherwise() -> None:
    made = driver("asyncio")
    assert isinstance(made, AsyncioDriver)
    assert isinstance(made.loop, asyncio.BaseEventLoop)
    made.close()
    assert made.loop.is_closed()


@pytest.mark.usefixtures("somewhere_else")
def test_auto_means_asyncio_where_there_is_no_native_driver() -> None:
    made = driver("auto")
    assert isinstance(made, AsyncioDriver)
    made.close()


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(ValueError, match="'epol'") as caught:
        driver("epol")
    for name in ("auto", "epoll", "kqueue", "iocp", "uvloop", "asyncio", "sim"):
        assert name in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="there they are no others")
@pytest.mark.parametrize("name", ["kqueue", "iocp"])
def test_drivers_of_other_platforms_are_known_but_unavailable(name: str) -> None:
    with pytest.raises(DriverUnavailable, match=f"the {name} driver cannot be used"):
        driver(name)


@pytest.mark.usefixtures("somewhere_else")
def test_epoll_elsewhere() -> None:
    with pytest.raises(DriverUnavailable, match="Linux only"):
        driver("epoll")


@not_windows
@pytest.mark.usefixtures("without_uvloop")
def test_uvloop_that_is_not_installed_says_what_to_install() -> None:
    with pytest.raises(DriverUnavailable, match=r"pip install helianthus\[uvloop\]"):
        driver("uvloop")


@needs_uvloop
def test_uvloop_in_a_running_loop_that_is_not_uvloops() -> None:
    async def main() -> None:
        with pytest.raises(DriverUnavailable, match="running loop"):
            driver("uvloop")

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(main())


# -- by environment ------------------------------------------------------------------------------------


def test_the_environment_decides_where_nobody_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(choose.ENVIRONMENT_VARIABLE, "sim")
    made = driver()
    assert isinstance(made, SimDriver)
    made.close()
    named = driver("asyncio")
    assert isinstance(named, AsyncioDriver)
    named.close()


def test_an_empty_environment_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(choose.ENVIRONMENT_VARIABLE, "")
    driver().close()


def test_a_wrong_environment_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(choose.ENVIRONMENT_VARIABLE, "fast")
    for use in (driver, available):
        with pytest.raises(ValueError, match="HELIANTHUS_DRIVER is 'fast'"):
            use()


# -- what there is -------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="needs epoll, and kqueue's double")
def test_auto_means_kqueue_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS; here with the double."""
    import kqueue_double

    from helianthus.drivers.kqueue import KqueueReactor

    monkeypatch.setitem(choose._OBSTACLES, "epoll", lambda: "epoll exists on Linux only")
    monkeypatch.setitem(choose._OBSTACLES, "kqueue", lambda: "")
    monkeypatch.setitem(choose._MAKERS, "kqueue", lambda: KqueueReactor(system=kqueue_double))
    assert [info.name for info in available() if info.chosen] == ["kqueue"]

    async def main() -> Any:
        await asyncio.sleep(0.001)
        return running_driver()

    assert isinstance(run(main()), KqueueReactor)


@needs_epoll
def test_available() -> None:
    found = {info.name: info for info in available()}
    assert list(found) == ["epoll", "kqueue", "iocp", "uvloop", "asyncio", "sim"]
    assert found["epoll"].available
    assert found["epoll"].chosen
    assert found["epoll"].reason == ""
    assert not found["kqueue"].available
    assert found["kqueue"].reason == "kqueue exists on macOS and the BSDs only"
    assert found["asyncio"].available
    assert [info.name for info in available() if info.chosen] == ["epoll"]


def test_available_knows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(choose.ENVIRONMENT_VARIABLE, "sim")
    assert [info.name for info in available() if info.chosen] == ["sim"]


@not_windows
@pytest.mark.usefixtures("without_uvloop")
def test_available_says_what_to_install() -> None:
    (info,) = [info for info in available() if info.name == "uvloop"]
    assert not info.available
    assert "pip install" in info.reason


# -- the running one -----------------------------------------------------------------------------------


def test_no_driver_runs_outside_of_a_loop() -> None:
    with pytest.raises(RuntimeError):
        running_driver()


@needs_epoll
def test_the_reactor_that_the_loop_runs_on_is_the_running_driver() -> None:
    reactor = EpollReactor()

    async def main() -> None:
        assert running_driver() is reactor
        with pytest.raises(RuntimeError):
            reactor.poll(0.0)

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(reactor)) as runner:
        runner.run(main())


@pytest.mark.parametrize(
    "loop_factory",
    [asyncio.SelectorEventLoop, pytest.param(adapter_module.new_event_loop, marks=needs_uvloop)],
)
def test_any_other_loop_has_one_adapter(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def main() -> AsyncioDriver:
        adapter = running_driver()
        assert isinstance(adapter, AsyncioDriver)
        assert adapter is running_driver()
        assert adapter.loop is asyncio.get_running_loop()
        adapter.close()
        another = running_driver()
        assert another is not adapter, "one that was closed is of no use"
        assert isinstance(another, AsyncioDriver)
        return another

    with asyncio.Runner(loop_factory=loop_factory) as first:
        one = first.run(main())
        with asyncio.Runner(loop_factory=loop_factory) as second:
            assert second.run(main()) is not one


def test_adapters_of_closed_loops_are_forgotten() -> None:
    async def main() -> None:
        running_driver()

    for _ in range(20):
        asyncio.run(main())
    gc.collect()
    assert len(choose._adapters) <= 2


# -- run -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RUNNABLE)
def test_run_returns_what_main_returns(name: str) -> None:
    async def main() -> int:
        await asyncio.sleep(0.001)
        return 42

    assert run(main(), driver=name) == 42


@pytest.mark.parametrize("name", RUNNABLE)
def test_run_raises_what_main_raises(name: str) -> None:
    async def main() -> None:
        raise LookupError("lost")

    with pytest.raises(LookupError, match="lost"):
        run(main(), driver=name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("epoll", EpollReactor, marks=needs_epoll),
        pytest.param("kqueue", KqueueReactor, marks=needs_kqueue),
        ("asyncio", AsyncioDriver),
        pytest.param("uvloop", AsyncioDriver, marks=needs_uvloop),
        ("sim", SimDriver),
        pytest.param(None, EpollReactor, marks=needs_epoll),
        pytest.param(None, KqueueReactor, marks=needs_kqueue),
    ],
)
def test_run_runs_on_the_chosen_driver(name: str | None, expected: type) -> None:
    async def main() -> type:
        return type(running_driver())

    assert run(main(), driver=name) is expected


def test_run_in_the_simulator_takes_no_time() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        before = loop.time()
        await asyncio.sleep(86400.0)
        return loop.time() - before

    assert run(main(), driver="sim") == pytest.approx(86400.0)


@pytest.mark.parametrize("name", RUNNABLE)
def test_run_cancels_what_is_left_and_closes_links(name: str) -> None:
    """Tasks end first, while their links are still there; then the links; nothing is left open."""
    order: list[str] = []
    accepted: list[Silent] = []

    def accept(peer: str) -> tuple[Any, Any]:
        accepted.append(Silent())
        return accepted[-1], accepted[-1]

    async def lingering(client: Silent) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            order.append("link open" if not client.closed else "link closed")

    async def main() -> tuple[Silent, asyncio.Task[None]]:
        current = running_driver()
        listener = current.listen(Address("localhost" if name == "sim" else "127.0.0.1", 0), accept)
        client = Silent()
        current.connect(listener.address, client, client)
        while not (client.link and accepted and accepted[0].link):
            await asyncio.sleep(0.001)
        task = asyncio.create_task(lingering(client))
        await asyncio.sleep(0.001)
        return client, task

    client, task = run(main(), driver=name)
    assert task.cancelled()
    assert order == ["link open"]
    if name != "sim":  # a world that ends tells nobody
        assert client.closed
        assert accepted[0].closed


def test_run_reports_a_task_that_fails_while_it_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("not now")

    tasks = []

    async def main() -> None:
        tasks.append(asyncio.create_task(stubborn()))
        await asyncio.sleep(0)

    with caplog.at_level(logging.ERROR, logger="asyncio"):
        run(main(), driver="asyncio")
    assert "a task failed while it was being cancelled" in caplog.text
    assert "not now" in caplog.text


def test_run_inside_a_loop_is_refused() -> None:
    async def inner() -> None:
        raise AssertionError("it must not run")

    async def main() -> None:
        coroutine = inner()
        try:
            with pytest.raises(RuntimeError):
                run(coroutine)
        finally:
            coroutine.close()

    asyncio.run(main())


def test_run_on_a_driver_that_there_is_not() -> None:
    """No warning of a coroutine that nobody awaited hides the reason."""

    async def main() -> None:
        raise AssertionError("it must not run")

    with pytest.raises(DriverUnavailable):
        run(main(), driver="epoll" if sys.platform == "win32" else "iocp")
    with pytest.raises(ValueError, match="'nonsense'"):
        run(main(), driver="nonsense")
    gc.collect()


@pytest.mark.parametrize("name", ["asyncio", pytest.param("epoll", marks=needs_epoll)])
def test_run_passes_debug_on(name: str) -> None:
    async def main() -> bool:
        return asyncio.get_running_loop().get_debug()

    assert run(main(), driver=name, debug=True)
    assert not run(main(), driver=name, debug=False)
