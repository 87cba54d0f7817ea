"""A server that calls its clients.

Both ends of a connection can serve. The client brings a service of its own, `inbox`; the server
finds the client in the `CallContext` of a call, remembers it, and calls it when there is news.

    python examples/push.py
"""

from __future__ import annotations

import asyncio

import helianthus


class News(helianthus.Service):
    """Tells its subscribers what is new."""

    def __init__(self) -> None:
        self.subscribers: dict[helianthus.Peer, None] = {}  # a dict keeps their order

    @helianthus.method
    def subscribe(self, context: helianthus.CallContext) -> int:
        """Hear of what is published from now on; returns how many do."""
        self.subscribers[context.peer] = None
        return len(self.subscribers)

    @helianthus.method
    async def publish(self, headline: str) -> int:
        """Tell all subscribers; returns how many have read it."""
        tellings = [peer.call("inbox.tell", headline, timeout=5) for peer in self.subscribers]
        answers = await asyncio.gather(*tellings, return_exceptions=True)
        return sum(answer is True for answer in answers)  # one that has gone is an exception

    def forget(self, peer: helianthus.Peer, error: Exception | None) -> None:
        self.subscribers.pop(peer, None)


class Inbox(helianthus.Service):
    """What a reader serves to the newsroom."""

    def __init__(self, reader: str) -> None:
        self._reader = reader

    @helianthus.method
    def tell(self, headline: str) -> bool:
        """Read a headline."""
        print(f"{self._reader} reads: {headline}")
        return True


async def main() -> None:
    news = News()
    server = helianthus.Server([news])
    server.on_disconnect(news.forget)
    async with server:
        url = str(await server.listen("tcp://127.0.0.1:0"))
        async with (
            helianthus.connect(url, [Inbox("Ann")]) as ann,
            helianthus.connect(url, [Inbox("Ben")]) as ben,
        ):
            await ann.call("news.subscribe")
            await ben.call("news.subscribe")
            readers = await ann.call("news.publish", "Sunflowers turn to the sun")
            print(f"{readers} readers have read it")


if __name__ == "__main__":
    helianthus.run(main())
