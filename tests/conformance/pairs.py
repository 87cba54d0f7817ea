"""Two machines joined through the driver under test, both ends of one connection."""

from __future__ import annotations

from typing import Any

import attrs
from platforms import Platform
from recording import Accepting, RecordingHandler

from helianthus.drivers.base import Listener
from helianthus.drivers.pump import Link


@attrs.define
class End:
    """One end of a connection."""

    machine: Any
    handler: RecordingHandler

    @property
    def link(self) -> Link[Any]:
        assert self.handler.link is not None, "it is not connected"
        return self.handler.link

    def say(self, data: bytes) -> None:
        """Have the machine send something at the end of this tick."""
        self.machine.say(data)
        self.link.wake()


def connect(
    platform: Platform, listener: Listener, machine: Any, handler: RecordingHandler | None = None
) -> End:
    """Begin to connect to a listener of the same driver."""
    end = End(machine, handler or RecordingHandler())
    platform.driver.connect(listener.address, end.machine, end.handler)
    return end


def pair(
    platform: Platform,
    client: Any,
    server: Any,
    *,
    client_handler: RecordingHandler | None = None,
    server_handler: RecordingHandler | None = None,
) -> tuple[End, End]:
    """Connect two machines, and wait until both ends are ready; gives client and server."""
    accepting = Accepting(lambda: server, lambda: server_handler or RecordingHandler())
    listener = platform.driver.listen(platform.address(), accepting)
    near = connect(platform, listener, client, client_handler)
    platform.turn_until(lambda: near.handler.ready and len(accepting) == 1 and accepting.handlers[0].ready)
    listener.close()
    return near, End(server, accepting.handlers[0])


def socket_of(link: Any) -> Any:
    """The socket below a link, or what asyncio lets one see of it."""
    transport = getattr(link, "_transport", None)
    return link.sock if transport is None else transport.get_extra_info("socket")
