"""A proxy in front of a server: passes bytes on, and begins each connection with what it is told to say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from helianthus.drivers.address import Address
from helianthus.drivers.base import Driver
from helianthus.drivers.pump import Link
from helianthus.protocols.machine import Action, Buffer, Closing, Outcome
from helianthus.protocols.proxy_header import ProxyHeader, encode_proxy_header


class Relay:
    """Listens, and connects to a server for each of its clients.

    Args:
        driver: Under test, too.
        server: Where the server listens.
        greet: Gives what to send to the server first, from the client's address.
        url: Where to listen.
    """

    def __init__(
        self, driver: Driver, server: Address, greet: Callable[[str], bytes], url: str = "tcp://127.0.0.1:0"
    ) -> None:
        self._driver = driver
        self._server = server
        self._greet = greet
        self._listener = driver.listen(Address.parse(url), self._accept)
        self.url = str(self._listener.address)
        self.clients: list[str] = []

    def _accept(self, client: str) -> tuple[_End, _End]:
        self.clients.append(client)
        near, far = _End(), _End(self._greet(client))
        near.other, far.other = far, near
        self._driver.connect(self._server, far, far)
        return near, near

    def close(self) -> None:
        self._listener.close()


class _End:
    """The proxy's end of one connection, its machine and its handler; what comes goes out of the other."""

    other: _End

    def __init__(self, *first: Buffer) -> None:
        self.wants_read = True
        self.closing = Closing.OPEN
        self._output: list[Buffer] = [data for data in first if data]
        self._link: Link[Any] | None = None

    def pass_on(self, data: bytes) -> None:
        self._output.append(data)
        self.wake()

    def end(self, closing: Closing) -> None:
        self.closing = closing
        self.wake()

    def wake(self) -> None:
        if self._link is not None:
            self._link.wake()

    # -- StreamMachine

    def receive_data(self, data: Buffer, now: float) -> None:
        self.other.pass_on(bytes(data))

    def receive_eof(self, now: float) -> None:
        self.other.end(Closing.HALF)

    def connection_lost(self, error: Exception | None, now: float) -> None:
        self.other.end(Closing.FULL)

    def handle_timeout(self, now: float) -> None:
        pass

    def deadline(self) -> float | None:
        return None

    def complete(self, action_id: int, outcome: Outcome, now: float) -> None:
        raise AssertionError("nobody asked for an action")

    def take_actions(self) -> list[Action]:
        return []

    def take_data(self) -> list[Buffer]:
        output, self._output = self._output, []
        return output

    def take_events(self) -> list[Any]:
        return []

    # -- LinkHandler

    def on_ready(self, link: Link[Any]) -> None:
        self._link = link

    def on_events(self, events: list[Any]) -> None:
        raise AssertionError("there are no events")

    def on_actions(self, actions: list[Action]) -> None:
        raise AssertionError("there are no actions")

    def on_writable(self) -> None:
        pass

    def on_closed(self, error: Exception | None) -> None:
        pass


def saying(header: ProxyHeader, *, checksum: bool = False) -> Callable[[str], bytes]:
    """Says the same for each connection."""
    return lambda _: encode_proxy_header(header, checksum=checksum)
