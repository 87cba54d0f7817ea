"""Types for classes that declare a service's methods to type-checkers.

`helianthus describe URL SERVICE --python` writes such classes; by hand it is

    class Calculator:
        async def add(self, a: float, b: float) -> float: ...
        def count(self, to: int) -> ServerStream[int]: ...
        def total(self) -> ClientStream[float, float]: ...

    calculator = client.service(Calculator)
"""

from __future__ import annotations

from .services.rpc.stream_types import (
    BidirectionalStream,
    BlockingBidirectionalStream,
    BlockingClientStream,
    BlockingServerStream,
    ClientStream,
    ServerStream,
)

__all__ = [
    "BidirectionalStream",
    "BlockingBidirectionalStream",
    "BlockingClientStream",
    "BlockingServerStream",
    "ClientStream",
    "ServerStream",
]
