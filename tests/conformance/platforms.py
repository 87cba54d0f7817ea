"""The drivers that the conformance suite runs on, each with a way to turn it.

To add a driver, write a `Platform` for it and put that into `PLATFORMS`.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import os
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helianthus.drivers.address import Address
from helianthus.drivers.asyncio import AsyncioDriver, uvloop_installed
from helianthus.drivers.base import Driver

Predicate = Callable[[], object]

PATIENCE = 30.0
"""Seconds of the driver's clock after which a test that waits has failed; on an idle machine nothing
takes longer than two."""

_LOOK_AGAIN = 0.002  # seconds between looks at a predicate while asyncio turns the driver


FORGOTTEN_RESET = "Wine forgets a reset while no read is under way, and says that the stream has ended"


def under_wine() -> bool:
    """Whether what claims to be Windows is Wine, which has faults of its own."""
    if sys.platform != "win32":
        return False
    import ctypes

    return hasattr(ctypes.windll.ntdll, "wine_get_version")


class Platform:
    """One driver and the world it lives in.

    Attributes:
        name: For the test's id.
        column: Where its outcomes stand in the table of drivers and cases.
        driver: The driver under test.
        errors: What reached `driver.on_error`; the test that expects some takes them out.
        sockets: Whether its links are the operating system's sockets, so that a raw one can be the
            peer.
        bulk: Bytes that make a large transfer.
        turns_without_descriptors: Whether it can be turned when the process has none left.
        thorough: Whether what takes long is run on it, too; not where another platform of the same
            column does.
        connects_in_python: Whether its connections are made by calls of Python's sockets, which a test
            can replace.
        interruptible: Whether a KeyboardInterrupt from a machine or handler comes through.
        largest_datagram: Bytes of the largest datagram that the system sends.
        has_reuse_port: Whether the system spreads datagrams over the sockets that share a port.
        broadcast_host: Reaches every socket of this machine, or None.
        names_whom_errors_are_about: Whether a socket without a peer is told where nobody is bound.
        hears_of_nobody: Whether a socket with a peer is told, each time, that nobody is bound there.
        reads_given_sockets: The module that opens datagram sockets, where the driver reads and writes
            them itself, so that a test can give it others; or None.
        completes: Whether the kernel is given operations, and not asked what is ready.
        hears_resets: Whether the kernel tells a reset from an end of stream.
    """

    name: str
    column: str
    driver: Driver
    sockets = True
    bulk = 64 * 1024 * 1024
    turns_without_descriptors = True
    thorough = True
    connects_in_python = True
    interruptible = True
    largest_datagram = 9216 if sys.platform == "darwin" else 65_507  # net.inet.udp.maxdgram
    has_reuse_port = sys.platform == "linux"
    broadcast_host: str | None = "127.255.255.255" if sys.platform == "linux" else None
    names_whom_errors_are_about = sys.platform == "linux"
    hears_of_nobody = not under_wine()
    reads_given_sockets: str | None = None
    completes = False
    hears_resets = True

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.driver = self.make_driver()
        self.driver.on_error = self.errors.append

    @classmethod
    def missing(cls) -> str:
        """Why the platform cannot be tested here, or nothing."""
        return ""

    @classmethod
    def remark(cls) -> str:
        """What is to be known of the column's outcomes, or nothing."""
        return ""

    def make_driver(self) -> Driver:
        raise NotImplementedError

    def address(self) -> Address:
        """Where to listen: any free port."""
        return Address("127.0.0.1", 0)

    def turn(self, timeout: float) -> None:
        """Let the driver work until it has done something, at most for `timeout` seconds."""
        raise NotImplementedError

    def turn_until(self, predicate: Predicate, timeout: float = PATIENCE) -> None:
        """Let the driver work until the predicate is true."""
        end = self.driver.now() + timeout
        while not predicate():
            left = end - self.driver.now()
            assert left > 0, f"nothing came of it in {timeout:g} s; reported: {self.errors}"
            self.turn(left)

    def take_errors(self) -> list[Exception]:
        """What reached `driver.on_error` since the last call."""
        taken = self.errors[:]
        self.errors.clear()
        return taken

    def close(self) -> None:
        self.driver.close()


class Epoll(Platform):
    """The native reactor, turned by `poll()`."""

    name = "epoll"
    column = "epoll"
    reads_given_sockets = "helianthus.drivers.reactor"

    @classmethod
    def missing(cls) -> str:
        return "" if sys.platform == "linux" else "epoll exists on Linux only"

    def make_driver(self) -> Driver:
        from helianthus.drivers.epoll import EpollReactor

        return EpollReactor()

    def turn(self, timeout: float) -> None:
        self.driver.poll(timeout)


class AsyncioPolled(Platform):
    """The adapter on a loop of its own, turned by `poll()`."""

    name = "asyncio-polled"
    column = "uvloop" if uvloop_installed() else "asyncio"
    thorough = False
    reads_given_sockets = "helianthus.drivers.asyncio"
    turns_without_descriptors = not uvloop_installed()  # it opens sockets whenever it begins to run
    interruptible = not uvloop_installed()
    completes = sys.platform == "win32"
    connects_in_python = interruptible and not completes

    def make_driver(self) -> Driver:
        return AsyncioDriver()

    def turn(self, timeout: float) -> None:
        self.driver.poll(timeout)


class InsideLoop(Platform):
    """A driver that an asyncio loop turns; the loop runs while the test waits for something."""

    loop: asyncio.AbstractEventLoop

    def turn(self, timeout: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(min(timeout, _LOOK_AGAIN)))

    def turn_until(self, predicate: Predicate, timeout: float = PATIENCE) -> None:
        async def wait() -> None:
            async with asyncio.timeout(timeout):
                while not predicate():
                    await asyncio.sleep(_LOOK_AGAIN)

        try:
            self.loop.run_until_complete(wait())
        except TimeoutError:
            raise AssertionError(f"nothing came of it in {timeout:g} s; reported: {self.errors}") from None


class EpollInAsyncio(InsideLoop):
    """The native reactor, as the selector of a standard asyncio loop."""

    name = "epoll-in-asyncio"
    column = "epoll"
    thorough = False
    reads_given_sockets = "helianthus.drivers.reactor"
    missing = Epoll.missing

    def make_driver(self) -> Driver:
        from helianthus.drivers.epoll import EpollReactor

        reactor = EpollReactor()
        self.loop = asyncio.SelectorEventLoop(reactor)
        return reactor

    def close(self) -> None:
        self.driver.close()
        self.loop.close()


class Kqueue(Platform):
    """The native reactor on kqueue, turned by `poll()`."""

    name = "kqueue"
    reads_given_sockets = "helianthus.drivers.reactor"
    column = "kqueue"

    @classmethod
    def missing(cls) -> str:
        if kqueue_system() is not None:
            return ""
        return "kqueue exists on macOS and the BSDs only, and its double in the source tree's tests on Linux"

    @classmethod
    def remark(cls) -> str:
        if kqueue_system() is select:
            return ""
        return "on a double of select.kqueue, made of epoll for the tests; this system has no kqueue"

    def make_driver(self) -> Driver:
        from helianthus.drivers.kqueue import KqueueReactor

        return KqueueReactor(system=kqueue_system())

    def turn(self, timeout: float) -> None:
        self.driver.poll(timeout)


class KqueueInAsyncio(InsideLoop):
    """The native reactor on kqueue, as the selector of a standard asyncio loop."""

    name = "kqueue-in-asyncio"
    reads_given_sockets = "helianthus.drivers.reactor"
    column = "kqueue"
    thorough = False
    missing = Kqueue.missing
    remark = Kqueue.remark

    def make_driver(self) -> Driver:
        from helianthus.drivers.kqueue import KqueueReactor

        reactor = KqueueReactor(system=kqueue_system())
        self.loop = asyncio.SelectorEventLoop(reactor)
        return reactor

    def close(self) -> None:
        self.driver.close()
        self.loop.close()


class Iocp(Platform):
    """The native driver of Windows, turned by `poll()`, with what it does on Windows Server."""

    name = "iocp"
    connects_in_python = False
    column = "iocp"
    completes = True

    @classmethod
    def missing(cls) -> str:
        return "" if sys.platform == "win32" else "IOCP exists on Windows only"

    def make_driver(self) -> Driver:
        from helianthus.drivers.iocp import IocpDriver

        driver = IocpDriver()
        driver.transmits_files = True
        return driver

    def turn(self, timeout: float) -> None:
        self.driver.poll(timeout)


class IocpInAsyncio(InsideLoop):
    """The native driver of Windows, behind the proactor of a standard asyncio loop."""

    name = "iocp-in-asyncio"
    connects_in_python = False
    column = "iocp"
    thorough = False
    completes = True
    missing = Iocp.missing

    def make_driver(self) -> Driver:
        from helianthus.drivers.iocp import IocpDriver

        driver = IocpDriver()
        self.loop = asyncio.ProactorEventLoop(driver.proactor)
        return driver

    def close(self) -> None:
        self.driver.close()
        self.loop.close()


class AsyncioStandard(InsideLoop):
    """The adapter inside the standard loop."""

    name = "asyncio-standard"
    column = "asyncio"
    reads_given_sockets = "helianthus.drivers.asyncio"
    hears_resets = not under_wine()

    def make_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.SelectorEventLoop()

    def make_driver(self) -> Driver:
        self.loop = self.make_loop()
        return AsyncioDriver(self.loop)

    def close(self) -> None:
        self.driver.close()
        if not self.loop.is_closed():
            self.loop.run_until_complete(self.driver.wait_closed())
            self.loop.close()


class AsyncioProactor(AsyncioStandard):
    """The adapter inside the loop that asyncio makes on Windows."""

    name = "asyncio-proactor"
    connects_in_python = False
    column = "asyncio-proactor"
    completes = True
    hears_resets = True
    missing = Iocp.missing

    def make_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.ProactorEventLoop()


class AsyncioUvloop(AsyncioStandard):
    """The adapter inside uvloop."""

    name = "asyncio-uvloop"
    column = "uvloop"
    connects_in_python = False
    interruptible = False

    @classmethod
    def missing(cls) -> str:
        return "" if uvloop_installed() else "uvloop is not installed"

    def make_loop(self) -> asyncio.AbstractEventLoop:
        import uvloop

        return uvloop.new_event_loop()


class Sim(Platform):
    """A simulated world of one node, turned by `poll()`; its time is virtual."""

    name = "sim"
    column = "sim"
    sockets = False
    bulk = 4 * 1024 * 1024
    largest_datagram = 65_507
    has_reuse_port = True
    broadcast_host = "255.255.255.255"
    names_whom_errors_are_about = True
    hears_of_nobody = True

    def make_driver(self) -> Driver:
        from helianthus.drivers.sim import new_driver

        return new_driver(seed="conformance")

    def address(self) -> Address:
        return Address("localhost", 0)

    def turn(self, timeout: float) -> None:
        self.driver.poll(timeout)


PLATFORMS: list[type[Platform]] = [
    Epoll,
    EpollInAsyncio,
    Kqueue,
    KqueueInAsyncio,
    Iocp,
    IocpInAsyncio,
    AsyncioStandard,
    AsyncioProactor,
    AsyncioUvloop,
    AsyncioPolled,
    Sim,
]


@functools.cache
def kqueue_system() -> Any:
    """The module to take a kqueue from: `select`, or on Linux the double; None where there is neither."""
    if hasattr(select, "kqueue"):
        return select
    double = Path(__file__).parent.parent / "drivers" / "kqueue_double.py"
    if sys.platform != "linux" or not double.exists():
        return None
    spec = importlib.util.spec_from_file_location("kqueue_double", double)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def descriptor_numbers() -> list[int]:
    """The numbers of the process's file descriptors; none where the system does not tell, as Windows."""
    if sys.platform == "win32":  # Wine shows the descriptors of Linux below it
        return []
    for place in ("/proc/self/fd", "/dev/fd"):
        if os.path.isdir(place):
            return [int(number) for number in os.listdir(place)]
    return []


def open_descriptors() -> set[str]:
    """The process's file descriptors, on Linux with what each leads to, which is unique for a socket."""
    found = set()
    for number in descriptor_numbers():
        try:
            os.fstat(number)
        except OSError:  # the descriptor that listed the others
            continue
        try:
            found.add(f"{number} -> {os.readlink(f'/proc/self/fd/{number}')}")
        except OSError:
            found.add(str(number))
    return found


def open_handles() -> set[str]:
    """The process' handles, on Windows. It tells how many there are; so these are no names, but as many."""
    if sys.platform != "win32":
        return set()
    import ctypes

    count = ctypes.c_ulong()
    ctypes.windll.kernel32.GetProcessHandleCount(ctypes.c_void_p(-1), ctypes.byref(count))
    return {f"handle {number}" for number in range(count.value)}


def new_descriptors(before: set[str]) -> set[str]:
    """Descriptors that were not there before; waits for threads that still look up a name."""
    end = time.monotonic() + 5.0
    while (new := open_descriptors() - before) and time.monotonic() < end:
        time.sleep(0.001)
    return new
