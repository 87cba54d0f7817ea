"""Echo as a user would write it for Helianthus: a datagram machine, run by any driver."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from typing import Any

import helianthus
from benchmarks.contestants.serving import LOOPBACK, announce, bound_lifetime
from helianthus.drivers.address import Address
from helianthus.drivers.asyncio import AsyncioDriver
from helianthus.drivers.base import Driver
from helianthus.protocols.machine import Action, Buffer, DatagramAddress, Outcome

MAX_UNTAKEN = 1024
"""Datagrams that may wait to be taken; what comes beyond that is lost."""


class Echo:
    """Gives back what it receives."""

    def __init__(self) -> None:
        self._untaken: list[tuple[bytes, DatagramAddress]] = []

    def receive_datagrams(self, batch: Sequence[tuple[Buffer, DatagramAddress]], now: float) -> None:
        if len(self._untaken) < MAX_UNTAKEN:
            self._untaken += [(bytes(data), source) for data, source in batch]

    def receive_error(self, error: OSError, address: DatagramAddress | None, now: float) -> None:
        pass

    def take_datagrams(self, limit: int = 64) -> list[tuple[bytes, DatagramAddress]]:
        taken, self._untaken = self._untaken[:limit], self._untaken[limit:]
        return taken

    def deadline(self) -> float | None:
        return None

    def handle_timeout(self, now: float) -> None:
        pass

    def take_events(self) -> list[Any]:
        return []

    def take_actions(self) -> list[Action]:
        return []

    def complete(self, action_id: int, outcome: Outcome, now: float) -> None:
        raise AssertionError("there are no actions")


class Unconcerned:
    """The handler of a machine that has nothing to say."""

    def on_events(self, events: list[Any]) -> None:
        pass

    def on_actions(self, actions: list[Action]) -> None:
        pass

    def on_closed(self, error: Exception | None) -> None:
        pass


def bind(driver: Driver) -> None:
    link = driver.bind(Address(LOOPBACK, 0, "udp"), Echo(), Unconcerned())
    announce(link.local_address.host, link.local_address.port)


def turn() -> None:
    """A native driver, turned by its user."""
    driver = helianthus.driver("epoll")
    bind(driver)
    while True:
        driver.poll(None)


async def lodge() -> None:
    """The adapter, in a loop that somebody else turns."""
    bind(AsyncioDriver())
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--driver", choices=["epoll", "asyncio", "uvloop"], required=True)
    parser.add_argument("--lifetime", type=int, required=True)
    arguments = parser.parse_args()
    bound_lifetime(arguments.lifetime)
    if arguments.driver == "epoll":
        turn()
    elif arguments.driver == "uvloop":
        import uvloop

        uvloop.run(lodge())
    else:
        asyncio.run(lodge())


if __name__ == "__main__":
    main()
