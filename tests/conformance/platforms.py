"""The drivers that the conformance suite runs on, each with a way to turn it.

To add a driver, write a `Platform` for it and put that into `PLATFORMS`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable

from helianthus.drivers.address import Address
from helianthus.drivers.asyncio import AsyncioDriver, uvloop_installed
from helianthus.drivers.base import Driver

Predicate = Callable[[], object]

PATIENCE = 30.0
"""Seconds of the driver's clock after which a test that waits has failed; on an idle machine nothing
takes longer than two."""

_LOOK_AGAIN = 0.002  # seconds between looks at a predicate while asyncio turns the driver


class Platform:
    """One driver and the world it lives in.

    Attributes:
        name: For the test's id.
        driver: The driver under test.
        errors: What reached `driver.on_error`; the test that expects some takes them out.
        sockets: Whether its links are the operating system's sockets, so that a raw one can be the
            peer.
        bulk: Bytes that make a large transfer.
        turns_without_descriptors: Whether it can be turned when the process has none left.
        interruptible: Whether a KeyboardInterrupt from a machine or handler comes through.
    """

    name: str
    driver: Driver
    sockets = True
    bulk = 64 * 1024 * 1024
    turns_without_descriptors = True
    interruptible = True

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.driver = self.make_driver()
        self.driver.on_error = self.errors.append

    @classmethod
    def missing(cls) -> str:
        """Why the platform cannot be tested here, or nothing."""
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
    turns_without_descriptors = not uvloop_installed()  # it opens sockets whenever it begins to run
    interruptible = not uvloop_installed()

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
    missing = Epoll.missing

    def make_driver(self) -> Driver:
        from helianthus.drivers.epoll import EpollReactor

        reactor = EpollReactor()
        self.loop = asyncio.SelectorEventLoop(reactor)
        return reactor

    def close(self) -> None:
        self.driver.close()
        self.loop.close()


class AsyncioStandard(InsideLoop):
    """The adapter inside the standard loop."""

    name = "asyncio-standard"

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


class AsyncioUvloop(AsyncioStandard):
    """The adapter inside uvloop."""

    name = "asyncio-uvloop"
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
    sockets = False
    bulk = 4 * 1024 * 1024

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
    AsyncioStandard,
    AsyncioUvloop,
    AsyncioPolled,
    Sim,
]


def descriptor_numbers() -> list[int]:
    """The numbers of the process's file descriptors; none where the system does not tell, as Windows."""
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


def new_descriptors(before: set[str]) -> set[str]:
    """Descriptors that were not there before; waits for threads that still look up a name."""
    end = time.monotonic() + 5.0
    while (new := open_descriptors() - before) and time.monotonic() < end:
        time.sleep(0.001)
    return new
