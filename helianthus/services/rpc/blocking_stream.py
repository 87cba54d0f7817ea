"""A call with stream items, for code that blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .stream import StreamCall


class BlockingStream:
    """A call with stream items; iterate over those of the callee."""

    def __init__(
        self,
        stream: StreamCall,
        wait: Callable[[Callable[[], bool]], object],
        flush: Callable[[], None],
        begin: Callable[[StreamCall], None],
    ) -> None:
        self._stream = stream
        self._begin = begin
        self._wait = wait
        self._flush = flush

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        stream = self._stream
        self._wait(lambda: stream.has_item)
        while stream.between_attempts:
            self._begin(stream)
            self._wait(lambda: stream.has_item)
        try:
            return stream.take()
        except StopAsyncIteration:
            raise StopIteration from None

    def send(self, item: Any) -> None:
        """Send an item, as soon as the callee takes it; raises `RpcError` where the call has ended."""
        stream = self._stream
        if stream.between_attempts:
            self._begin(stream)
        stream.commit()
        self._wait(lambda: stream.may_send)
        stream.send_now(item)
        self._flush()

    def end(self) -> None:
        """Send no more items; the call goes on until the callee ends it."""
        self._stream.end_now()
        self._flush()

    def result(self) -> Any:
        """Wait for the end of the call and return its result; as `StreamCall.result`."""
        self._stream.end_now()
        self._stream.let_items_go()
        self._wait(lambda: self._stream.over or self._stream.between_attempts)
        while self._stream.between_attempts:
            self._begin(self._stream)
            self._wait(lambda: self._stream.over or self._stream.between_attempts)
        return self._stream.outcome()

    def __enter__(self) -> BlockingStream:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stream.give_up("the block that used the stream ended")
        self._flush()
