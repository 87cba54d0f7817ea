"""Chat in a terminal; see chat_server.py.

    python examples/chat.py --name Ann --room garden

Lines that begin with a slash are commands: /who, /rooms, /join ROOM, /quit. All others are said.
Standard input may be a pipe as well; the client ends with it.

`chat_client.py` was written by `helianthus describe tcp://127.0.0.1:7070 chat --python`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import threading
from typing import Any

from chat_client import Chat
from chat_server import KEEP_ALIVE

import helianthus
from helianthus import RpcError, StatusCode

AGAIN = 1.0  # seconds until the next attempt to enter a room after the connection was lost
HELP = "commands: /who, /rooms, /join ROOM, /quit"


class Terminal:
    """Prints lines above the one that is being typed."""

    def __init__(self) -> None:
        self._prompt = "> " if sys.stdin.isatty() and sys.stdout.isatty() else ""

    def show(self, line: str) -> None:
        safe = "".join(c if c.isprintable() else "?" for c in line)  # nobody is to control our terminal
        print(f"\r\x1b[K{safe}" if self._prompt else safe, flush=True)
        self.prompt()

    def prompt(self) -> None:
        """Invite to type."""
        print(self._prompt, end="", flush=True)


class Conversation:
    """One member in one room at a time."""

    def __init__(self, chat: Chat, name: str, terminal: Terminal) -> None:
        self._chat = chat
        self._name = name
        self._terminal = terminal
        self._room = ""
        self._listening: asyncio.Task[None] | None = None

    async def enter(self, room: str) -> bool:
        """Go from the room where we are to another; False where we are not let in."""
        await self.leave()
        self._room = room
        entered = asyncio.Event()
        self._listening = asyncio.create_task(self._listen(room, entered))
        waiting = asyncio.create_task(entered.wait())
        await asyncio.wait({waiting, self._listening}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        return entered.is_set()

    async def leave(self) -> None:
        """Hear the room out: what was said before is still shown."""
        if self._listening is None:
            return
        try:
            await self._chat.leave(self._room)
        except RpcError:
            self._listening.cancel()  # there is no connection, or we had not entered
        with contextlib.suppress(asyncio.CancelledError):
            await self._listening
        self._listening = None

    async def type(self, line: str) -> None:
        """What the user has typed."""
        command, _, argument = line.strip().partition(" ")
        try:
            if command == "/who":
                self._terminal.show(f"* here: {', '.join(await self._chat.who(self._room))}")
            elif command == "/rooms":
                rooms = await self._chat.rooms()
                self._terminal.show("* " + ", ".join(f"{name} ({count})" for name, count in rooms.items()))
            elif command == "/join" and argument:
                await self.enter(argument)
            elif command.startswith("/"):
                self._terminal.show(f"* {HELP}")
            elif line.strip():
                await self._chat.say(self._room, line.strip())
        except RpcError as error:
            self._terminal.show(f"* {error}")

    async def _listen(self, room: str, entered: asyncio.Event) -> None:
        """Show what happens in a room; enter it again when the connection was lost."""
        while True:
            try:
                async for event in self._chat.join(room, self._name):
                    self._terminal.show(_line(event))
                    if event["kind"] == "joined" and event["name"] == self._name:
                        entered.set()
                return
            except RpcError as error:
                self._terminal.show(f"* {error}")
                # After a loss, the server may take a while to see that our old self has gone.
                passes = error.code in (StatusCode.UNAVAILABLE, StatusCode.ALREADY_EXISTS)
                if not entered.is_set() or not passes:
                    return
            await asyncio.sleep(AGAIN)


def _line(event: dict[str, Any]) -> str:
    if event["kind"] == "said":
        return f"{event['name']}: {event['text']}"
    if event["kind"] == "skipped":
        return f"* {event['count']} lines were skipped: they came faster than they could be shown"
    return f"* {event['name']} has {event['kind']}"


def typed_lines() -> asyncio.Queue[str | None]:
    """The lines of standard input, then None. A read cannot be cancelled, so a thread does it.

    It reads the descriptor: a thread that is left inside of `sys.stdin` aborts Python at its end.
    """
    lines: asyncio.Queue[str | None] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def read() -> None:
        rest = b""
        with contextlib.suppress(RuntimeError):  # the loop was closed: we are done
            while data := os.read(sys.stdin.fileno(), 65536):
                *whole, rest = (rest + data).split(b"\n")
                for line in whole:
                    loop.call_soon_threadsafe(lines.put_nowait, line.decode(errors="replace"))
            if rest:
                loop.call_soon_threadsafe(lines.put_nowait, rest.decode(errors="replace"))
            loop.call_soon_threadsafe(lines.put_nowait, None)

    threading.Thread(target=read, daemon=True).start()
    return lines


async def main(url: str, name: str, room: str) -> int:
    terminal = Terminal()
    lines = typed_lines()
    async with helianthus.connect(url, keep_alive=KEEP_ALIVE) as client:
        conversation = Conversation(client.service(Chat), name, terminal)
        if not await conversation.enter(room):
            return 1
        while (line := await lines.get()) is not None and line.strip() != "/quit":
            await conversation.type(line)
            terminal.prompt()
        await conversation.leave()
        return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Chat in a terminal.", epilog=HELP)
    parser.add_argument("url", nargs="?", default="tcp://127.0.0.1:7070", help="default: %(default)s")
    parser.add_argument("--name", required=True, help="what the others call you")
    parser.add_argument("--room", default="lobby", help="default: %(default)s")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(helianthus.run(main(options.url, options.name, options.room)))
