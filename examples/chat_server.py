"""A chat server with rooms, which pushes what is said to all who are there.

    python examples/chat_server.py
    python examples/chat.py --name Ann

Each member has a stream of their own: `join` is a method that yields what happens in the room. The
server could as well call a service of its clients, as push.py does, but a stream has credit: it
sends what the member's side takes, and no more. Whoever reads slowly, or has vanished without a
word, fills a queue of their own, in which the oldest gives way; nobody waits for them. The same with
calls to the members would leave their bounds to us: an answer that does not come is a task that waits.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import helianthus
from helianthus import CallContext, KeepAlive, Peer, RpcError, StatusCode, method

HISTORY = 20  # events that a newcomer hears of
QUEUE = 100  # events that wait for a member; then the oldest are skipped
MAX_ROOMS = 1000
MAX_MEMBERS = 1000  # of a room
MAX_NAME = 32  # characters
MAX_TEXT = 2000

KEEP_ALIVE = KeepAlive(time=15.0, timeout=10.0, min_interval=5.0)
"""Both ends ping, so that a member who has vanished is gone after half a minute."""

Event = dict[str, Any]


class Member:
    """Someone in a room, and what they have not taken yet."""

    def __init__(self, name: str, history: list[Event]) -> None:
        self.name = name
        self.here = True
        self._events = deque(history)
        self._skipped = 0
        self._news = asyncio.Event()

    def tell(self, event: Event) -> None:
        """Never waits, whatever the member does."""
        if len(self._events) >= QUEUE:
            self._events.popleft()
            self._skipped += 1
        self._events.append(event)
        self._news.set()

    def leave(self) -> None:
        self.here = False
        self._news.set()

    async def events(self) -> AsyncIterator[Event]:
        """What happens until the member leaves."""
        while self.here or self._events:
            if self._skipped:
                skipped, self._skipped = self._skipped, 0
                yield {"kind": "skipped", "count": skipped}
            elif self._events:
                yield self._events.popleft()
            else:
                self._news.clear()
                await self._news.wait()


class Room:
    """Members by connection, in the order in which they came, and the last that happened."""

    def __init__(self) -> None:
        self.members: dict[Peer, Member] = {}
        self._history: deque[Event] = deque(maxlen=HISTORY)

    def names(self) -> list[str]:
        return [member.name for member in self.members.values()]

    def enter(self, peer: Peer, name: str) -> Member:
        member = Member(name, list(self._history))
        self.members[peer] = member
        self.tell({"kind": "joined", "name": name})
        return member

    def leave(self, peer: Peer, member: Member) -> None:
        if self.members.get(peer) is not member:
            return  # has left already, and perhaps entered again
        del self.members[peer]
        member.leave()
        self.tell({"kind": "left", "name": member.name})

    def tell(self, event: Event) -> int:
        self._history.append(event)
        for member in self.members.values():
            member.tell(event)
        return len(self.members)


class Chat(helianthus.Service):
    """Rooms, which come with their first member and go with their last."""

    def __init__(self) -> None:
        self._rooms: dict[str, Room] = {}

    @method
    async def join(self, context: CallContext, room: str, name: str) -> AsyncIterator[Event]:
        """Enter a room, and hear what has happened there, and what happens, until you leave.

        Events are {"kind": "said", "name": ..., "text": ...}, {"kind": "joined" or "left", "name":
        ...}, and {"kind": "skipped", "count": ...} for those that had to give way.
        """
        entered = self._enter(context.peer, room, name)
        member = entered.enter(context.peer, name)
        try:
            async for event in member.events():
                yield event
        finally:  # also when the connection is lost
            self._leave(room, entered, context.peer, member)

    @method
    def leave(self, context: CallContext, room: str) -> None:
        """Leave a room; its stream ends."""
        entered = self._room_of(context.peer, room)
        self._leave(room, entered, context.peer, entered.members[context.peer])

    @method
    def say(self, context: CallContext, room: str, text: str) -> int:
        """Say something in a room that you have entered; returns how many are there to hear it."""
        entered = self._room_of(context.peer, room)
        if not 0 < len(text) <= MAX_TEXT:
            raise RpcError(StatusCode.INVALID_ARGUMENT, f"say 1 to {MAX_TEXT} characters, not {len(text)}")
        return entered.tell({"kind": "said", "name": entered.members[context.peer].name, "text": text})

    @method
    def who(self, room: str) -> list[str]:
        """Who is in a room."""
        return self._rooms[room].names() if room in self._rooms else []

    @method
    def rooms(self) -> dict[str, int]:
        """How many are in each room."""
        return {name: len(room.members) for name, room in sorted(self._rooms.items())}

    def _enter(self, peer: Peer, name: str, member: str) -> Room:
        for text in (name, member):
            if not 0 < len(text) <= MAX_NAME or not text.isprintable():
                raise RpcError(
                    StatusCode.INVALID_ARGUMENT, f"names have 1 to {MAX_NAME} characters, not {text!r}"
                )
        room = self._rooms.get(name) or Room()
        if peer in room.members:
            raise RpcError(StatusCode.ALREADY_EXISTS, f"you are in the room {name!r} already")
        if member in room.names():
            raise RpcError(StatusCode.ALREADY_EXISTS, f"somebody in the room {name!r} is named {member!r}")
        if len(room.members) >= MAX_MEMBERS:
            raise RpcError(StatusCode.RESOURCE_EXHAUSTED, f"the room {name!r} is full: {MAX_MEMBERS} members")
        if name not in self._rooms and len(self._rooms) >= MAX_ROOMS:
            raise RpcError(StatusCode.RESOURCE_EXHAUSTED, f"there are {MAX_ROOMS} rooms, and no more")
        self._rooms[name] = room
        return room

    def _room_of(self, peer: Peer, name: str) -> Room:
        room = self._rooms.get(name)
        if room is None or peer not in room.members:
            raise RpcError(StatusCode.FAILED_PRECONDITION, f"you are not in the room {name!r}; join it first")
        return room

    def _leave(self, name: str, room: Room, peer: Peer, member: Member) -> None:
        room.leave(peer, member)
        if not room.members and self._rooms.get(name) is room:
            del self._rooms[name]


async def main(listen: str) -> None:
    async with helianthus.Server([Chat()], keep_alive=KEEP_ALIVE) as server:
        print(f"listening on {await server.listen(listen)}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serve a chat.")
    parser.add_argument("--listen", default="tcp://127.0.0.1:7070", help="default: %(default)s")
    with contextlib.suppress(KeyboardInterrupt):
        helianthus.run(main(parser.parse_args().listen))
