"""What the tests of IOCP put at the ends of links and pipes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

from helianthus.protocols.machine import Closing

if TYPE_CHECKING:
    from helianthus.drivers.iocp import IocpDriver

PATIENCE = 30.0


@attrs.define
class End:
    """Machine and handler in one; an echo where it has nothing to say itself."""

    output: list[bytes] = attrs.Factory(list)
    echoes: bool = False
    received: bytearray = attrs.Factory(bytearray)
    errors: list[Any] = attrs.Factory(list)
    link: Any = None
    ended: bool = False
    closed: bool = False
    error: Exception | None = None
    closing: Closing = Closing.OPEN
    wants_read: bool = True

    def deadline(self) -> None:
        return None

    def take_data(self) -> list[bytes]:
        output, self.output = self.output, []
        return output

    def take_actions(self) -> list[Any]:
        return []

    take_events = take_actions

    def receive_data(self, data: Any, now: float) -> None:
        self.received += data
        if self.echoes:
            self.output.append(bytes(data))

    def receive_eof(self, now: float) -> None:
        self.ended = True
        self.closing = Closing.FULL

    def connection_lost(self, error: Exception | None, now: float) -> None:
        pass

    def receive_datagrams(self, batch: Any, now: float) -> None:
        self.received += b"".join(bytes(data) for data, _ in batch)

    def receive_error(self, error: OSError, address: Any, now: float) -> None:
        self.errors.append(error)

    def take_datagrams(self, limit: int = 64) -> list[Any]:
        return []

    def on_ready(self, link: Any) -> None:
        self.link = link

    def on_writable(self) -> None:
        pass

    def on_closed(self, error: Exception | None) -> None:
        self.closed, self.error = True, error


def turn_until(driver: IocpDriver, done: Callable[[], object]) -> None:
    end = driver.now() + PATIENCE
    while not done():
        assert driver.now() < end, "nothing came of it"
        driver.poll(1.0)
