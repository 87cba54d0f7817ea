"""Types of calls with stream items, for classes that declare a service's methods.

A method that is declared to return one of them is called as a stream. At run time it returns a
`StreamCall` or `BlockingStream`; to a type-checker these say what it sends and receives.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any, Protocol, Self, TypeVar

Sent = TypeVar("Sent", contravariant=True)
Received = TypeVar("Received", covariant=True)
Result = TypeVar("Result", covariant=True)


class ServerStream(Protocol[Received]):
    """A method that streams to its caller: an `AsyncIterator` of what it yields.

    Leaving its block before its end cancels the call.
    """

    def __aiter__(self) -> Self: ...
    async def __anext__(self) -> Received: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc_info: object) -> None: ...
    async def aclose(self) -> None:
        """Cancel the call, if it has not ended."""


class ClientStream(Protocol[Sent, Result]):
    """A method that takes a stream: send the items, then ask for the result."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc_info: object) -> None: ...
    def __await__(self) -> Generator[Any, None, Result]: ...
    async def send(self, item: Sent) -> None:
        """Send an item, as soon as the callee takes it."""

    async def end(self) -> None:
        """Send no more items; the call goes on."""

    async def result(self) -> Result:
        """End the items, and wait for the result."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Cancel the call, if it has not ended."""


class BidirectionalStream(ServerStream[Received], Protocol[Sent, Received]):
    """A method that streams both ways: send items and iterate over those that come back."""

    async def send(self, item: Sent) -> None:
        """Send an item, as soon as the callee takes it."""

    async def end(self) -> None:
        """Send no more items; the call goes on."""


class BlockingServerStream(Iterator[Received], Protocol[Received]):
    """`ServerStream`, of the blocking client."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc_info: object) -> None: ...


class BlockingClientStream(Protocol[Sent, Result]):
    """`ClientStream`, of the blocking client."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc_info: object) -> None: ...
    def send(self, item: Sent) -> None:
        """Send an item, as soon as the callee takes it."""

    def end(self) -> None:
        """Send no more items; the call goes on."""

    def result(self) -> Result:
        """End the items, and wait for the result."""
        raise NotImplementedError


class BlockingBidirectionalStream(BlockingServerStream[Received], Protocol[Sent, Received]):
    """`BidirectionalStream`, of the blocking client."""

    def send(self, item: Sent) -> None:
        """Send an item, as soon as the callee takes it."""

    def end(self) -> None:
        """Send no more items; the call goes on."""


STREAM_TYPES = (
    ServerStream,
    ClientStream,
    BidirectionalStream,
    BlockingServerStream,
    BlockingClientStream,
    BlockingBidirectionalStream,
)
