"""The chat server of the examples under faults: members who are cut off, slow, or gone."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helianthus import RpcError, RpcLimits, Server, StatusCode, connect
from helianthus.sim import Node, World

EXAMPLE = Path(__file__).parents[2] / "examples" / "chat_server.py"
ROOM = "garden"


def _load() -> Any:
    spec = importlib.util.spec_from_file_location("chat_server_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


chat_server = _load()


@pytest.fixture
def world() -> Iterator[World]:
    with World(seed=11) as world:
        world.node("server").spawn(serve)
        yield world


async def serve() -> None:
    server = Server([chat_server.Chat()], keep_alive=chat_server.KEEP_ALIVE)
    await server.listen("tcp://0.0.0.0:7070")
    await server.serve_forever()


class Guest:
    """A member on a node of their own, and what they have heard, each with its time."""

    def __init__(self, world: World, name: str, pause: float = 0.0) -> None:
        self.name = name
        self.pause = pause
        self.heard: list[tuple[float, dict[str, Any]]] = []
        self.errors: list[RpcError] = []
        self.says: asyncio.Queue[str] = asyncio.Queue()
        self.node: Node = world.node(name)
        self.node.spawn(self._take_part())

    async def _take_part(self) -> None:
        async with connect("tcp://server:7070", keep_alive=chat_server.KEEP_ALIVE) as client:
            talking = asyncio.create_task(self._talk(client))
            try:
                async for event in client.stream("chat.join", ROOM, self.name):
                    self.heard.append((self.node.now, event))
                    await asyncio.sleep(self.pause)
            except RpcError as error:
                self.errors.append(error)
            talking.cancel()

    async def _talk(self, client: Any) -> None:
        while True:
            await client.call("chat.say", ROOM, await self.says.get())

    def say(self, *texts: str) -> None:
        """Have the member say something, from outside of their node."""
        for text in texts:
            self.node.driver.post(lambda text=text: self.says.put_nowait(text))  # type: ignore[misc]

    def texts(self) -> list[str]:
        return [event["text"] for _, event in self.heard if event["kind"] == "said"]

    def kinds(self, kind: str) -> list[dict[str, Any]]:
        return [event for _, event in self.heard if event["kind"] == kind]


def settle(world: World, *guests: Guest) -> None:
    """Let all of them enter."""
    names = {guest.name for guest in guests}
    world.run_until(
        lambda: all({event["name"] for event in guest.kinds("joined")} >= names for guest in guests)
    )


def test_a_member_who_is_cut_off_holds_up_nobody_and_misses_nothing(world: World) -> None:
    ann, ben, cleo = (Guest(world, name) for name in ("ann", "ben", "cleo"))
    settle(world, ann, ben, cleo)
    world.partition("server", "ben")
    began = world.now
    texts = [f"line {number}" for number in range(50)]
    ann.say(*texts)
    world.run_until(lambda: cleo.texts() == texts)
    assert world.now - began < 2.0
    assert ben.texts() == []
    world.heal()
    world.run_until(lambda: ben.texts() == texts)
    assert ben.kinds("skipped") == []
    assert world.now - began < 10.0


def test_a_member_who_does_not_come_back_has_left_after_the_keep_alive(world: World) -> None:
    ann, ben = Guest(world, "ann"), Guest(world, "ben")
    settle(world, ann, ben)
    world.partition("server", "ben")
    began = world.now
    world.run_until(lambda: ann.kinds("left"))
    assert ann.kinds("left") == [{"kind": "left", "name": "ben"}]
    keep_alive = chat_server.KEEP_ALIVE
    assert world.now - began <= keep_alive.time + keep_alive.timeout + 1.0
    world.run_until(lambda: ben.errors)
    assert [error.code for error in ben.errors] == [StatusCode.UNAVAILABLE]


def test_a_member_who_crashes_has_left_too(world: World) -> None:
    ann, ben = Guest(world, "ann"), Guest(world, "ben")
    settle(world, ann, ben)
    world.crash("ben")
    ann.say("are you there?")
    world.run_until(lambda: ann.kinds("left"))
    assert ann.texts() == ["are you there?"]


def test_a_slow_member_skips_the_oldest_and_holds_up_nobody(world: World) -> None:
    ann, ben = Guest(world, "ann"), Guest(world, "ben")
    slow = Guest(world, "slow", pause=5.0)
    settle(world, ann, ben)
    world.run_until(lambda: slow.heard)
    began = world.now
    texts = [f"line {number}" for number in range(1000)]
    ann.say(*texts)
    world.run_until(lambda: ben.texts() == texts)
    assert world.now - began < 60.0
    assert len(slow.heard) < 20
    slow.pause = 0.0
    world.run_until(lambda: texts[-1] in slow.texts())
    heard = slow.texts()
    assert heard == sorted(heard, key=texts.index)
    skipped = sum(event["count"] for event in slow.kinds("skipped"))
    assert len(heard) + skipped == len(texts)
    assert skipped > 100
    window = RpcLimits().stream_window
    assert len(heard) <= chat_server.QUEUE + window + 25


def test_a_newcomer_hears_the_last_that_happened_and_no_more(world: World) -> None:
    ann = Guest(world, "ann")
    settle(world, ann)
    texts = [f"line {number}" for number in range(3 * chat_server.HISTORY)]
    ann.say(*texts)
    world.run_until(lambda: ann.texts() == texts)
    ben = Guest(world, "ben")
    world.run_until(lambda: {"kind": "joined", "name": "ben"} in ben.kinds("joined"))
    assert ben.texts() == texts[-chat_server.HISTORY :]


def test_rules(world: World) -> None:
    async def scenario() -> None:
        async with connect("tcp://server:7070") as client, connect("tcp://server:7070") as other:
            chat, far = client.service("chat"), other.service("chat")

            async def refused(call: Any, code: StatusCode) -> None:
                with pytest.raises(RpcError) as caught:
                    await call
                assert caught.value.code is code

            await refused(chat.say(ROOM, "hello"), StatusCode.FAILED_PRECONDITION)
            await refused(chat.leave(ROOM), StatusCode.FAILED_PRECONDITION)
            await refused(anext(chat.join.stream("", "ann")), StatusCode.INVALID_ARGUMENT)
            await refused(anext(chat.join.stream(ROOM, "a\n")), StatusCode.INVALID_ARGUMENT)
            assert await chat.rooms() == {}
            entered = chat.join.stream(ROOM, "ann")
            assert await anext(entered) == {"kind": "joined", "name": "ann"}
            await refused(anext(chat.join.stream(ROOM, "ben")), StatusCode.ALREADY_EXISTS)
            await refused(anext(far.join.stream(ROOM, "ann")), StatusCode.ALREADY_EXISTS)
            await refused(chat.say(ROOM, ""), StatusCode.INVALID_ARGUMENT)
            await refused(chat.say(ROOM, "x" * 2001), StatusCode.INVALID_ARGUMENT)
            assert await chat.say(ROOM, "hello") == 1
            assert await far.who(ROOM) == ["ann"]
            await chat.leave(ROOM)
            again = chat.join.stream(ROOM, "ann")  # at once, while the first stream is ending
            assert (await anext(again))["name"] == "ann"
            assert [event["kind"] async for event in entered] == ["said"]
            assert await far.who(ROOM) == ["ann"]
            await again.aclose()
            while await far.rooms():
                await asyncio.sleep(0.01)

    world.run_until(world.node("guest").spawn(scenario()))
