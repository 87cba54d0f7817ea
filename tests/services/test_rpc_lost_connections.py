"""Calls whose connection is lost: they fail, and say whether they may have run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from rpc_bench import Bench, Ground, Simulated, until
from rpc_raw import GOAWAY, HELLO, REQUEST, RESPONSE, RawEnd, RawServer

from helianthus import CallPolicy, Client, RpcError, Server, Service, StatusCode, method
from helianthus.services.rpc import ChannelState
from helianthus.services.rpc.channel import Channel
from helianthus.sim import World


async def failure(awaitable: Any) -> RpcError:
    with pytest.raises(RpcError) as caught:
        await awaitable
    assert caught.value.code is StatusCode.UNAVAILABLE
    return caught.value


async def begin(client: Client, *names: str) -> list[asyncio.Task[Any]]:
    """Begin calls, each at the end of a turn that makes it ready to be sent."""
    calls = [asyncio.create_task(client.call(f"far.{name}")) for name in names]
    await asyncio.sleep(0)
    return calls


async def hello(server: RawServer, number: int = 1) -> RawEnd:
    """A connection that has the extensions."""
    end = await server.accepted(number)
    assert await end.hear() == HELLO
    end.say(HELLO)
    return end


def test_a_call_that_was_sent_may_have_run(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = RawServer()
        client = await bench.client(server.url)
        bench.at_the_end(server.close)
        end = await hello(server)
        calls = [asyncio.ensure_future(client.call("far.work", number)) for number in range(3)]
        heard = [await end.hear() for _ in calls]
        end.say([RESPONSE, heard[1][1], None, "done"])
        assert await calls[1] == "done"
        end.abort()
        for number in (0, 2):
            error = await failure(calls[number])
            assert error.maybe_executed

    run_on(scenario)


@pytest.mark.parametrize("how", ["finish", "abort", "end"])
def test_every_way_to_end_a_connection_ends_the_calls(run_on: Ground, how: str) -> None:
    async def scenario(bench: Bench) -> None:
        server = RawServer()
        client = await bench.client(server.url)
        bench.at_the_end(server.close)
        end = await hello(server)
        calling = asyncio.ensure_future(client.call("far.work"))
        await end.hear()
        getattr(end, how)()
        error = await failure(calling)
        assert error.maybe_executed

    run_on(scenario)


def test_a_call_that_was_queued_has_not_run(run_on: Ground) -> None:
    """What the transport has not taken when the connection ends was never sent."""

    async def scenario(bench: Bench) -> None:
        server = RawServer()
        client = await bench.client(server.url)
        bench.at_the_end(server.close)
        end = await hello(server)
        await until(lambda: client.state is ChannelState.READY)
        end.machine.wants_read = False
        assert end.link is not None
        end.link.wake()
        peer = client._peer
        assert peer is not None
        assert peer.link is not None
        (sent,) = await begin(client, "sent")
        for _ in range(10):
            peer.notify("far.large", bytes(4_000_000))  # more than any system's buffers take
        await until(lambda: peer.link.unsent)
        behind = await begin(client, "a", "b")
        end.abort()
        assert (await failure(sent)).maybe_executed
        for call in behind:
            assert not (await failure(call)).maybe_executed

    run_on(scenario)


def test_a_call_that_never_left_is_begun_again_on_each_next_connection() -> None:
    """However often that happens, and without a retry policy: nobody can have heard of it."""

    async def scenario(bench: Bench) -> None:
        server = RawServer()
        client = await bench.client(server.url)
        bench.at_the_end(server.close)
        view = client.with_policy(CallPolicy(wait_for_ready=True))
        calling = asyncio.ensure_future(view.call("far.work"))
        for number in range(1, 4):
            end = await server.accepted(number)
            assert await end.hear() == HELLO
            end.machine.wants_read = False
            channel = client._channel
            assert isinstance(channel, Channel)
            peer = channel._attempt
            assert peer is not None
            for _ in range(10):
                peer.notify("far.large", bytes(4_000_000))  # more than any system's buffers take
            await until(lambda peer=peer: peer.link.unsent)
            end.say(HELLO)
            await until(lambda peer=peer: peer.calls)
            end.abort()
        end = await hello(server, 4)
        assert await end.hear() == [REQUEST, 1, "far.work", []]
        end.say([RESPONSE, 1, None, "done"])
        assert await calling == "done"
        assert client.statistics().by_method["far.work"].retries == 3

    Simulated()(scenario)


def test_a_call_that_found_no_connection_has_not_run(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = RawServer()
        client = await bench.client(server.url)
        end = await hello(server)
        await until(lambda: client.state is ChannelState.READY)
        server.close()
        await end.hear_end()
        await until(lambda: client.state is ChannelState.BACKING_OFF)
        for _ in range(3):
            assert not (await failure(client.call("far.work"))).maybe_executed

    run_on(scenario)


def test_a_goaway_divides_what_was_begun_from_what_was_not(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = RawServer()
        client = await bench.client(server.url)
        bench.at_the_end(server.close)
        end = await hello(server)
        calls = [asyncio.ensure_future(client.call("far.work", number)) for number in range(6)]
        heard = [await end.hear() for _ in calls]
        assert [message[0] for message in heard] == [REQUEST] * 6
        end.say([GOAWAY, heard[2][1], "for maintenance"])
        for number in (3, 4, 5):
            error = await failure(calls[number])
            assert not error.maybe_executed
            assert "for maintenance" in error.message
        # those that had begun go on, on the old connection
        end.say(*([RESPONSE, heard[number][1], None, number] for number in (0, 1, 2)))
        assert await asyncio.gather(*calls[:3]) == [0, 1, 2]
        # and new ones begin on another
        successor = await hello(server, 2)
        calling = asyncio.ensure_future(client.call("far.work", "new"))
        _, msgid, _, params = await successor.hear()
        assert params == ["new"]
        successor.say([RESPONSE, msgid, None, "ok"])
        assert await calling == "ok"

    run_on(scenario)


def test_a_goaway_before_anything_was_begun(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = RawServer()
        client = await bench.client(server.url)
        bench.at_the_end(server.close)
        end = await hello(server)
        calling = asyncio.ensure_future(client.call("far.work"))
        await end.hear()
        end.say([GOAWAY, None, "closed for today"])
        assert not (await failure(calling)).maybe_executed

    run_on(scenario)


def test_calls_that_had_begun_before_a_goaway_may_still_be_lost(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = RawServer()
        client = await bench.client(server.url)
        bench.at_the_end(server.close)
        end = await hello(server)
        calling = asyncio.ensure_future(client.call("far.work"))
        _, msgid, _, _ = await end.hear()
        end.say([GOAWAY, msgid, "for maintenance"])
        await server.accepted(2)
        end.abort()
        assert (await failure(calling)).maybe_executed

    run_on(scenario)


def test_a_peer_that_breaks_the_rules_ends_the_calls(
    run_on: Ground, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(bench: Bench) -> None:
        server = RawServer()
        client = await bench.client(server.url)
        bench.at_the_end(server.close)
        end = await hello(server)
        calling = asyncio.ensure_future(client.call("far.work"))
        await end.hear()
        caplog.clear()
        end.send(b"\xc1")
        error = await failure(calling)
        assert error.maybe_executed
        assert "connection failed" in error.message
        assert any("the connection failed" in record.getMessage() for record in caplog.records)
        end.finish()
        await hello(server, 2)
        await until(lambda: client.state is ChannelState.READY)

    run_on(scenario)


class Counter(Service):
    """Counts how often each number came."""

    def __init__(self) -> None:
        self.seen: dict[int, int] = {}

    @method
    async def see(self, number: int) -> int:
        self.seen[number] = self.seen.get(number, 0) + 1
        await asyncio.sleep(0.01)
        return number


@pytest.mark.parametrize("seed", range(8))
def test_what_surely_was_not_executed_was_not(seed: int) -> None:
    """Connections break all the time; the server's own count tells whether the client's claims are true."""
    with World(seed=seed) as world:
        counter = Counter()
        outcomes: dict[int, str] = {}

        async def serve() -> None:
            server = Server([counter])
            await server.listen("tcp://0.0.0.0:7070")
            await server.serve_forever()

        async def call() -> None:
            async with Client("tcp://server:7070") as client:
                number = 0

                async def worker() -> None:
                    nonlocal number
                    while number < 600:
                        number += 1
                        mine = number
                        try:
                            assert await client.call("counter.see", mine) == mine
                            outcomes[mine] = "done"
                        except RpcError as error:
                            assert error.code is StatusCode.UNAVAILABLE
                            outcomes[mine] = "maybe" if error.maybe_executed else "never"
                            await asyncio.sleep(0.1)

                await asyncio.gather(*(worker() for _ in range(10)))

        async def trouble() -> None:
            while True:
                await asyncio.sleep(world.node("trouble").driver.rng.random() * 0.5)
                world.reset("client", "server")

        world.node("server").spawn(serve)
        world.node("trouble").spawn(trouble)
        world.run_until(world.node("client").spawn(call))
        for number, outcome in outcomes.items():
            times = counter.seen.get(number, 0)
            if outcome == "done":
                assert times == 1
            elif outcome == "never":
                assert times == 0, number
            else:
                assert times <= 1
        assert {"done", "maybe", "never"} == set(outcomes.values())
