"""Waits for a PROXY header, and then gets out of the way.

The layer is a stream machine that owns another one, its *child*. Until the header is there the child
is given nothing and nothing is taken from it: whoever has to speak first must not do so to somebody
who has no business here. From then on the layer's methods are replaced by the child's, so that what the
layer costs is paid once for a connection; only `wants_read` and `closing`, which are no methods, go
through it. (Whoever has kept a method from before, as another layer may, is passed on to the child.) The
bytes behind the header are not copied.

A header that is missing, wrong or late is never guessed: the connection ends with `ConnectionFailed`.
One that ends before it has sent anything ends without: those who look whether somebody listens do so.
"""

from __future__ import annotations

import enum
from typing import Any, Generic, TypeVar

import attrs

from ..errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from ..machine import Action, Buffer, Closing, ConnectionFailed, Outcome, StreamMachine
from .errors import BadProxyHeader
from .header import ProxyHeader
from .parsing import DEFAULT_MAX_HEADER, explained, parse_proxy_header
from .version1 import MAX_LINE

E = TypeVar("E")

HEADER_TIMEOUT = 5.0
"""Seconds. "A few", says the specification, and at least 3, for a lost segment to be sent again."""


class ProxyHeaderState(enum.Enum):
    """How far a connection has got."""

    WAITING = "waiting for the header"
    PASSED = "passed"
    ENDED = "ended"


class ProxyHeaderInput(enum.Enum):
    """What moves it on."""

    HEADER = "header"
    FAULT = "wrong or late header"
    EOF = "end of stream"
    LOSS = "connection lost"


PROXY_HEADER_TRANSITIONS: dict[tuple[ProxyHeaderState, ProxyHeaderInput], ProxyHeaderState] = {
    (ProxyHeaderState.WAITING, ProxyHeaderInput.HEADER): ProxyHeaderState.PASSED,
    (ProxyHeaderState.WAITING, ProxyHeaderInput.FAULT): ProxyHeaderState.ENDED,
    (ProxyHeaderState.WAITING, ProxyHeaderInput.EOF): ProxyHeaderState.ENDED,
    (ProxyHeaderState.WAITING, ProxyHeaderInput.LOSS): ProxyHeaderState.ENDED,
}
"""Every move there is. Once the header has passed, all that comes is the child's."""


@attrs.define
class ProxyHeaderReceived:
    """Comes before all events of the child: a proxy has told of the connection.

    Attributes:
        header: What it said.
    """

    header: ProxyHeader


class ProxyHeaderLayer(Generic[E]):
    """A server's end of a connection that a proxy passes on; see above.

    Args:
        child: What is said on the connection. It belongs to the layer from now on: give it commands,
            but no input.
        now: Monotonic seconds; the time for the header begins.
        header_timeout: Seconds.
        max_header: Bytes of a header of version 2; one of version 1 has `MAX_LINE` at most.

    Attributes:
        state: See `ProxyHeaderState`.
        header: What the proxy said, once it has.

    Raises:
        ValueError: A limit is out of its range.
    """

    def __init__(
        self,
        child: StreamMachine[E],
        now: float,
        *,
        header_timeout: float = HEADER_TIMEOUT,
        max_header: int = DEFAULT_MAX_HEADER,
    ) -> None:
        if not header_timeout > 0:
            raise ValueError(f"header_timeout is {header_timeout} s; it must be more than 0")
        if max_header < MAX_LINE:
            raise ValueError(f"max_header is {max_header} bytes; it must be {MAX_LINE} or more")
        self.state = ProxyHeaderState.WAITING
        self.header: ProxyHeader | None = None
        self._child = child
        self._timeout = header_timeout
        self._deadline = now + header_timeout
        self._max_header = max_header
        self._begun = b""  # what has come of the header
        self._closing = Closing.OPEN
        self._before: list[Any] = []  # events that come before the child's
        self._after: list[Any] = []

    # -- inputs ----------------------------------------------------------------------------------------

    def receive_data(self, data: Buffer, now: float) -> None:
        """Take bytes, which begin with the header."""
        if self.state is not ProxyHeaderState.WAITING:
            if self.state is ProxyHeaderState.PASSED:
                self._child.receive_data(data, now)
            return
        begun = len(self._begun)
        whole: Buffer = self._begun + bytes(data[: self._max_header]) if begun else data
        try:
            found = parse_proxy_header(whole, self._max_header)
        except LimitExceeded as error:
            self._fail(LimitExceeded(explained(error), limit=error.limit, maximum=error.maximum), now)
            return
        except RemoteProtocolError as error:
            self._fail(BadProxyHeader(explained(error)), now)
            return
        if found is None:
            self._begun = bytes(whole)
            return
        header, size = found
        self._pass(header)
        if size - begun < len(data):
            self._child.receive_data(memoryview(data)[size - begun :], now)

    def receive_eof(self, now: float) -> None:
        """The stream has ended before the header was there."""
        if self.state is not ProxyHeaderState.WAITING:
            if self.state is ProxyHeaderState.PASSED:
                self._child.receive_eof(now)
        elif self._begun:
            reason = f"the connection ended after {self._begun!r}, in the middle of it"
            self._fail(BadProxyHeader(explained(BadProxyHeader(reason))), now)
        else:
            self._move(ProxyHeaderInput.EOF)
            self._closing = Closing.FULL
            self._child.connection_lost(None, now)

    def connection_lost(self, error: Exception | None, now: float) -> None:
        """The transport is gone."""
        if self.state is ProxyHeaderState.ENDED:
            return
        if self.state is ProxyHeaderState.WAITING:
            self._move(ProxyHeaderInput.LOSS)
            self._closing = Closing.ABORT
        self._child.connection_lost(error, now)

    def handle_timeout(self, now: float) -> None:
        """End a connection whose header does not come."""
        if self.state is ProxyHeaderState.PASSED:
            self._child.handle_timeout(now)
        elif self.state is ProxyHeaderState.WAITING and now >= self._deadline:
            came = f"only {self._begun!r} came" if self._begun else "nothing came"
            reason = f"{came} within header_timeout ({self._timeout:g} s)"
            self._fail(BadProxyHeader(explained(BadProxyHeader(reason))), now)

    def refuse(self, reason: str, now: float) -> None:
        """End the connection without waiting for a header: whoever has connected is not to send one.

        Raises:
            LocalProtocolError: A header has passed, or the connection has ended.
        """
        if self.state is not ProxyHeaderState.WAITING:
            raise LocalProtocolError(f"there is nobody to refuse: the connection has {self.state.value}")
        self._fail(BadProxyHeader(reason), now, Closing.ABORT)

    def complete(self, action_id: int, outcome: Outcome, now: float) -> None:
        """Hand the outcome of an action to the child; there are none before the header."""
        if self.state is not ProxyHeaderState.PASSED:
            raise LocalProtocolError(f"there is no action {action_id}")
        self._child.complete(action_id, outcome, now)

    # -- outputs ---------------------------------------------------------------------------------------

    @property
    def wants_read(self) -> bool:
        """Always before the header, then the child's."""
        return self._child.wants_read if self.state is ProxyHeaderState.PASSED else True

    @property
    def closing(self) -> Closing:
        """OPEN before the header, then the child's."""
        return self._child.closing if self.state is ProxyHeaderState.PASSED else self._closing

    def deadline(self) -> float | None:
        """Until when the header has to be there; then the child's."""
        if self.state is ProxyHeaderState.PASSED:
            return self._child.deadline()
        return self._deadline if self.state is ProxyHeaderState.WAITING else None

    def take_actions(self) -> list[Action]:
        """None before the header, then the child's."""
        return self._child.take_actions() if self.state is ProxyHeaderState.PASSED else []

    def take_data(self) -> list[Buffer]:
        """Nothing before the header, then the child's."""
        return self._child.take_data() if self.state is ProxyHeaderState.PASSED else []

    def write_through(self, data: Buffer) -> list[Buffer]:
        """Pass on what a file has, through the child if that is a layer too; see `LayerMachine`.

        Raises:
            LocalProtocolError: The header is not there, or the connection has ended.
        """
        if self.state is not ProxyHeaderState.PASSED:
            raise LocalProtocolError(
                f"a file cannot be sent: the PROXY header has not passed ({self.state.value})"
            )
        through = getattr(self._child, "write_through", None)
        return [data] if through is None else through(data)

    @property
    def dropped_messages(self) -> int:
        """Those that the child has dropped for a slow peer."""
        return getattr(self._child, "dropped_messages", 0)

    def take_events(self) -> list[E | ProxyHeaderReceived | ConnectionFailed]:
        """Hand over the layer's events around the child's."""
        child = [] if self.state is ProxyHeaderState.WAITING else self._child.take_events()
        events: list[Any] = [*self._before, *child, *self._after]
        self._before, self._after = [], []
        if self.state is ProxyHeaderState.PASSED:
            self.take_events = self._child.take_events  # type: ignore[assignment,method-assign]  # see above
        return events

    # -- inside ----------------------------------------------------------------------------------------

    def _pass(self, header: ProxyHeader) -> None:
        """Have the child's methods called from now on, without a frame of ours in between."""
        self._move(ProxyHeaderInput.HEADER)
        self.header = header
        self._before.append(ProxyHeaderReceived(header))
        self._begun = b""
        child = self._child
        self.receive_data = child.receive_data  # type: ignore[method-assign]
        self.receive_eof = child.receive_eof  # type: ignore[method-assign]
        self.connection_lost = child.connection_lost  # type: ignore[method-assign]
        self.handle_timeout = child.handle_timeout  # type: ignore[method-assign]
        self.complete = child.complete  # type: ignore[method-assign]
        self.deadline = child.deadline  # type: ignore[method-assign]
        self.take_actions = child.take_actions  # type: ignore[method-assign]
        self.take_data = child.take_data  # type: ignore[method-assign]

    def _fail(self, error: RemoteProtocolError, now: float, closing: Closing = Closing.FULL) -> None:
        self._move(ProxyHeaderInput.FAULT)
        self._closing = closing
        self._begun = b""
        self._child.connection_lost(error, now)
        self._after.append(ConnectionFailed(error))

    def _move(self, cause: ProxyHeaderInput) -> None:
        self.state = PROXY_HEADER_TRANSITIONS[self.state, cause]
