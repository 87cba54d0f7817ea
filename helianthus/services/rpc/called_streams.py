"""The streams that are called at a peer: how they begin, and what the session tells of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from ...protocols.errors import LocalProtocolError
from ...protocols.rpc import Flow, ItemUnreadable, ResponseReceived, StatusCode
from .before_call import expired
from .context import inherit
from .errors import RpcError
from .items import IncomingItems
from .stream import StreamCall

if TYPE_CHECKING:
    from .peer import Peer


class CalledStreams:
    """Calls with stream items that are in flight to one peer.

    Attributes:
        running: The streams, by message id. Weak, so that one which its user drops is cancelled rather
            than kept for ever.
        readers: What takes the items that come for them.
    """

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.running: WeakValueDictionary[int, StreamCall] = WeakValueDictionary()
        self.readers: dict[int, IncomingItems[Any]] = {}

    def begin(self, stream: StreamCall) -> None:
        """Send a prepared stream's request; raises as `Peer.start_stream`."""
        peer = self._peer
        now = peer.now()
        timeout, meta = inherit(now, stream.timeout, stream.meta)
        if timeout is not None and timeout <= 0:
            raise expired(stream.method)
        output = peer.session.output
        queued = output.size
        try:
            msgid = peer.session.call(
                stream.method, stream.params, now, timeout=timeout, meta=meta, flow=Flow.BOTH
            )
        except LocalProtocolError as error:
            raise peer.refusal(error) from error
        self.running[msgid] = stream
        statistics = peer.statistics.of(stream.method)
        statistics.bytes_out += output.size - queued
        stream.began(peer, msgid, statistics)
        self.readers[msgid] = stream.items

    def take(self, msgid: int) -> StreamCall | None:
        """Let go of a stream, if it is one."""
        self.readers.pop(msgid, None)
        return self.running.pop(msgid, None)

    def wake(self) -> None:
        """There is room for items again."""
        for stream in self.running.values():
            stream.wake(direct=False)

    def on_result(self, event: ResponseReceived, direct: bool) -> None:
        """The method has returned."""
        stream = self.take(event.msgid)
        if stream is not None:
            stream.statistics.bytes_in += event.size
            stream.ended(event.result, None, direct=direct)

    def on_item_unreadable(self, event: ItemUnreadable, reason: str, direct: bool) -> bool:
        """Give a stream up that has lost an item; gives whether it is one of these."""
        stream = self.running.get(event.msgid)
        if stream is None:
            return False
        stream.statistics.bytes_in += event.size
        self._peer.forget(event.msgid)
        stream.ended(None, RpcError(StatusCode.INTERNAL, reason), direct=direct)
        return True
