"""Echo as a user would write it for Helianthus: a stream machine, run by any driver."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

import helianthus
from benchmarks.contestants.serving import LOOPBACK, announce, bound_lifetime
from helianthus.drivers.address import Address
from helianthus.drivers.base import Accept, Driver
from helianthus.protocols.machine import Action, Buffer, Closing, Outcome
from helianthus.services.tls.layers import ServerSecurity

MAX_UNTAKEN = 16
"""Received pieces that may wait to be taken; beyond that the peer is not read from."""


class Echo:
    """Gives back what it receives."""

    def __init__(self) -> None:
        self._untaken: list[Buffer] = []
        self.closing = Closing.OPEN

    @property
    def wants_read(self) -> bool:
        return len(self._untaken) < MAX_UNTAKEN

    def receive_data(self, data: Buffer, now: float) -> None:
        self._untaken.append(bytes(data))

    def receive_eof(self, now: float) -> None:
        self.closing = Closing.FULL

    def connection_lost(self, error: Exception | None, now: float) -> None:
        self._untaken.clear()

    def take_data(self) -> list[Buffer]:
        taken, self._untaken = self._untaken, []
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

    def on_ready(self, link: object) -> None:
        pass

    def on_events(self, events: list[Any]) -> None:
        pass

    def on_actions(self, actions: list[Action]) -> None:
        pass

    def on_writable(self) -> None:
        pass

    def on_closed(self, error: Exception | None) -> None:
        pass


def accept(peer_address: str) -> tuple[Echo, Unconcerned]:
    return Echo(), Unconcerned()


def accept_tls(driver: Driver) -> Accept:
    """The same, encrypted."""
    from benchmarks.contestants.tls.certificate import certificate

    with certificate() as file:
        security = ServerSecurity(helianthus.ServerTls(file))
    return lambda peer_address: (security.around(Echo(), driver.now()), Unconcerned())


def listen(driver: Driver, *, tls: bool) -> None:
    listener = driver.listen(Address(LOOPBACK, 0), accept_tls(driver) if tls else accept)
    announce(listener.address.host, listener.address.port)


def turn(*, tls: bool) -> None:
    """A native driver, turned by its user."""
    driver = helianthus.driver("epoll")
    listen(driver, tls=tls)
    while True:
        driver.poll(None)


async def lodge(*, tls: bool) -> None:
    """The adapter, in a loop that somebody else turns."""
    listen(helianthus.driver("asyncio"), tls=tls)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--driver", choices=["epoll", "asyncio"], required=True)
    parser.add_argument("--lifetime", type=int, required=True)
    parser.add_argument("--tls", action="store_true")
    arguments = parser.parse_args()
    bound_lifetime(arguments.lifetime)
    if arguments.driver == "epoll":
        turn(tls=arguments.tls)
    else:
        helianthus.run(lodge(tls=arguments.tls), driver="asyncio")


if __name__ == "__main__":
    main()
