"""Cancelling calls: by the task, by a token, by dropping what stands for them."""

from __future__ import annotations

import asyncio
import gc

import pytest
from rpc_bench import Bench, Ground, until
from rpc_waiting import Waiting

from helianthus import CancelToken, Client, RpcError, RpcLimits, StatusCode
from helianthus.sim import World


async def cancelled(awaitable: object, reason: str = "") -> RpcError:
    with pytest.raises(RpcError) as caught:
        await awaitable  # type: ignore[misc]
    assert caught.value.code is StatusCode.CANCELLED
    if reason:
        assert caught.value.message == reason
    return caught.value


# -- by the task ------------------------------------------------------------------------------------------


def test_cancelling_the_task_cancels_the_method(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        calling = asyncio.ensure_future(client.call("waiting.wait", "a"))
        await service.happened("a", "began")
        calling.cancel("enough")
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await calling
        assert calling.cancelled()
        await service.happened("a", "finally")
        assert service.entries("a") == ["began", "cancelled", "finally"]
        await until(lambda: bench.connected[0].in_flight == 0)
        assert await client.call("waiting.now", 1) == 1

    run_on(scenario)


def test_only_the_cancelled_call_ends(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        calls = {name: asyncio.ensure_future(client.call("waiting.wait", name)) for name in "abcde"}
        for name in calls:
            await service.happened(name, "began")
        for name in "bd":
            calls[name].cancel()
        for name in "bd":
            await service.happened(name, "cancelled")
        service.gate.set()
        for name in "ace":
            assert await calls[name] == name
        assert all(service.entries(name) == ["began", "finally", "ended"] for name in "ace")

    run_on(scenario)


def test_cancelling_right_after_calling(run_on: Ground) -> None:
    """Request and cancellation may arrive together, before the method has begun; none is left over."""

    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        await client.call("waiting.now")
        for _ in range(20):
            calling = asyncio.ensure_future(client.call("waiting.wait", "a"))
            streaming = asyncio.ensure_future(anext(client.stream("waiting.consume", "b")))
            await asyncio.sleep(0)
            calling.cancel()
            streaming.cancel()
            with pytest.raises(asyncio.CancelledError):
                await calling
            with pytest.raises(asyncio.CancelledError):
                await streaming
        gc.collect()  # tracebacks refer to the streams in cycles
        assert await client.call("waiting.now", 1) == 1
        await until(lambda: bench.connected[0].in_flight == 0)
        assert service.journal.count("a: began") == service.journal.count("a: finally")

    run_on(scenario)


def test_request_and_cancellation_in_one_segment(run_on: Ground) -> None:
    """As before, with the two surely in one read of the server."""

    async def scenario(bench: Bench) -> None:
        service = Waiting()
        server = await bench.serve(service, limits=RpcLimits(max_calls=50))
        client = await bench.client(server)
        await client.call("waiting.now")
        peer = client._peer
        assert peer is not None
        for _ in range(120):  # more than max_calls: a request that is never answered would show
            for name in ("wait", "slow_clean_up", "consume"):
                call = peer.start_call(f"waiting.{name}", ("a",), None, None)
                peer.session.output.unsent.clear()  # or the request would be withdrawn
                call.give_up("at once")
                await cancelled(call, "at once")
            await client.call("waiting.now")
        await until(lambda: bench.connected[0].in_flight == 0)

    run_on(scenario)


def test_cancelling_before_the_task_runs(run_on: Ground) -> None:
    """The call has begun, but nobody awaits it yet; it may or may not have reached the server."""

    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        await client.call("waiting.now")
        calling = asyncio.ensure_future(client.call("waiting.wait", "a"))
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        assert await client.call("waiting.now", 1) == 1
        await until(lambda: bench.connected[0].in_flight == 0)
        assert service.entries("a") in ([], ["began", "cancelled", "finally"])

    run_on(scenario)


def test_cancelling_while_connecting(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        calls = [asyncio.ensure_future(client.call("waiting.now", number)) for number in range(4)]
        await asyncio.sleep(0)
        for number in (0, 2):
            calls[number].cancel()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(answer) for answer in answers] == [
            asyncio.CancelledError,
            int,
            asyncio.CancelledError,
            int,
        ]

    run_on(scenario)


def test_cancelling_when_the_answer_is_here_already(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Waiting())
        await client.call("waiting.now")
        calling = asyncio.ensure_future(client.call("waiting.now", 1))
        await asyncio.sleep(0)  # now it is sent
        assert await client.call("waiting.now", 2) == 2  # so the first was answered as well
        assert not calling.cancel()
        assert await calling == 1

    run_on(scenario)


def test_a_method_that_ignores_being_cancelled_answers_nobody(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        calling = asyncio.ensure_future(client.call("waiting.stubborn", "a"))
        await service.happened("a", "began")
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        await service.happened("a", "ignored it")
        assert await client.call("waiting.now", 1) == 1

    run_on(scenario)


def test_cancelling_the_iteration_leaves_the_stream(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        stream = client.stream("waiting.produce", "a", 1)
        assert await anext(stream) == 0
        waiting = asyncio.ensure_future(anext(stream))
        await service.happened("a", "all sent")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        service.gate.set()
        assert [item async for item in stream] == []
        assert service.entries("a") == ["began", "all sent", "finally"]

    run_on(scenario)


# -- by a token -------------------------------------------------------------------------------------------


def test_a_token_that_was_cancelled_before(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        token = CancelToken()
        token.cancel("not today")
        assert token.cancelled
        for ready in (False, True):
            if ready:
                await client.call("waiting.now")
            for given in (
                client.call("waiting.wait", "a", cancel=token),
                client.notify("waiting.wait", "a", cancel=token),
                anext(client.stream("waiting.produce", "a", 1, cancel=token)),
                client.stream("waiting.consume", "a", cancel=token).send(1),
            ):
                error = await cancelled(given, "not today")
                assert not error.maybe_executed
        await client.call("waiting.now")
        assert service.journal == []

    run_on(scenario)


def test_a_token_while_connecting(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        token = CancelToken()
        given = [
            asyncio.ensure_future(client.call("waiting.wait", "a", cancel=token)),
            asyncio.ensure_future(client.notify("waiting.wait", "a", cancel=token)),
            asyncio.ensure_future(anext(client.stream("waiting.produce", "a", 1, cancel=token))),
        ]
        await asyncio.sleep(0)
        token.cancel("changed my mind")
        for one in given:
            error = await cancelled(one, "changed my mind")
            assert not error.maybe_executed
        await client.call("waiting.now")
        assert service.journal == []

    run_on(scenario)


def test_a_token_while_the_method_runs(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        token = CancelToken()
        calls = [asyncio.ensure_future(client.call("waiting.wait", name, cancel=token)) for name in "abc"]
        other = asyncio.ensure_future(client.call("waiting.wait", "other", cancel=CancelToken()))
        for name in ("a", "b", "c", "other"):
            await service.happened(name, "began")
        token.cancel("all three")
        for calling in calls:
            error = await cancelled(calling, "all three")
            assert error.maybe_executed
        for name in "abc":
            await service.happened(name, "finally")
        assert not other.done()
        service.gate.set()
        assert await other == "other"

    run_on(scenario)


def test_a_token_ends_streams_of_all_kinds(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        token = CancelToken()
        producing = client.stream("waiting.produce", "p", 1, cancel=token)
        consuming = client.stream("waiting.consume", "c", cancel=token)
        assert await anext(producing) == 0
        await consuming.send(1)
        for name in "pc":
            await service.happened(name, "began")
        next_item = asyncio.ensure_future(anext(producing))
        outcome = asyncio.ensure_future(consuming.result())
        await asyncio.sleep(0)
        token.cancel("both of you")
        await cancelled(next_item, "both of you")
        await cancelled(outcome, "both of you")
        await cancelled(anext(producing), "both of you")
        await cancelled(consuming.send(2), "both of you")
        for name in "pc":
            await service.happened(name, "finally")

    run_on(scenario)


def test_a_token_afterwards(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        token = CancelToken()
        service.gate.set()
        assert await client.call("waiting.wait", "a", cancel=token) == "a"
        stream = client.stream("waiting.produce", "b", 2, cancel=token)
        assert [item async for item in stream] == [0, 1]
        assert token._callbacks == {}  # nothing is kept of calls that have ended
        token.cancel("too late")
        token.cancel("far too late")
        assert token.reason == "too late"
        assert await stream is None
        assert await client.call("waiting.now", 1) == 1
        await cancelled(client.call("waiting.now", 1, cancel=token), "too late")

    run_on(scenario)


def test_a_token_has_a_reason_by_itself(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        token = CancelToken()
        calling = asyncio.ensure_future(client.call("waiting.wait", "a", cancel=token))
        await service.happened("a", "began")
        token.cancel()
        error = await cancelled(calling)
        assert error.message

    run_on(scenario)


def test_a_token_while_waiting_for_room(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        server = await bench.serve(service)
        client = await bench.client(server, limits=RpcLimits(max_calls=2))
        first = [asyncio.ensure_future(client.call("waiting.wait", name)) for name in "ab"]
        for name in "ab":
            await service.happened(name, "began")
        token = CancelToken()
        third = asyncio.ensure_future(client.call("waiting.wait", "c", cancel=token))
        fourth = asyncio.ensure_future(client.call("waiting.now", 4))
        await asyncio.sleep(0)
        token.cancel("no patience")
        error = await cancelled(third, "no patience")
        assert not error.maybe_executed
        first[0].cancel()
        assert await fourth == 4
        service.gate.set()
        assert await first[1] == "b"
        assert service.entries("c") == []

    run_on(scenario)


def test_task_and_token_together(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        token = CancelToken()
        calling = asyncio.ensure_future(client.call("waiting.wait", "a", cancel=token))
        await service.happened("a", "began")
        calling.cancel()
        token.cancel("at the same time")
        with pytest.raises(asyncio.CancelledError):
            await calling
        await service.happened("a", "finally")
        assert await client.call("waiting.now", 1) == 1

    run_on(scenario)


# -- by letting go ----------------------------------------------------------------------------------------


def test_a_stream_that_is_dropped_is_cancelled(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        producing = client.stream("waiting.produce", "p", 1)
        consuming = client.stream("waiting.consume", "c")
        assert await anext(producing) == 0
        await consuming.send(1)
        for name in "pc":
            await service.happened(name, "began")
        del producing, consuming
        gc.collect()
        for name in "pc":
            await service.happened(name, "finally")

    run_on(scenario)


def test_leaving_the_block_cancels_the_stream(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        async with client.stream("waiting.produce", "a", 3) as stream:
            async for item in stream:
                if item == 1:
                    break
        await service.happened("a", "finally")
        await cancelled(anext(stream))
        await cancelled(stream)

        with pytest.raises(KeyError):
            async with client.stream("waiting.consume", "b") as stream:
                await stream.send(1)
                await service.happened("b", "began")
                raise KeyError("out of the block")
        await service.happened("b", "cancelled")

    run_on(scenario)


def test_leaving_the_block_after_the_end_is_nothing(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        service.gate.set()
        client = await bench.pair(service)
        async with client.stream("waiting.produce", "a", 2) as stream:
            assert [item async for item in stream] == [0, 1]
        assert await stream is None
        async with client.stream("waiting.consume", "b") as stream:
            await stream.send(5)
            assert await stream == 5
        assert service.entries("b") == ["began", "finally"]

    run_on(scenario)


def test_items_of_dropped_streams_take_no_room(run_on: Ground) -> None:
    """Otherwise reading would pause for ever once there are too many of them."""

    async def scenario(bench: Bench) -> None:
        service = Waiting()
        server = await bench.serve(service)
        client = await bench.client(server, limits=RpcLimits(max_buffered_items=200))
        service.gate.set()
        for how in range(40):
            stream = client.stream("waiting.produce", "a", 50)
            assert await anext(stream) == 0
            if how % 2:
                await until(lambda s=stream: s.over)
            elif how % 4:
                stream.give_up()
            del stream
        async with asyncio.timeout(10):
            assert await client.call("waiting.now", 1) == 1

    run_on(scenario)


def test_a_second_task_that_iterates_is_woken_by_the_result(run_on: Ground) -> None:
    """Asking for the result lets the items go, also for somebody who waits for one."""

    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        stream = client.stream("waiting.produce", "a", 1)
        assert await anext(stream) == 0
        waiting = asyncio.ensure_future(anext(stream, "none"))
        await service.happened("a", "all sent")
        result = asyncio.ensure_future(stream.result())
        assert await waiting == "none"
        service.gate.set()
        assert await result is None

    run_on(scenario)


# -- when the client ends -----------------------------------------------------------------------------------


def test_closing_the_client_cancels_its_calls(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        server = await bench.serve(service)
        async with Client(str(server.addresses[0])) as client:
            calling = asyncio.ensure_future(client.call("waiting.wait", "a"))
            stream = client.stream("waiting.produce", "b", 1)
            await anext(stream)
            for name in "ab":
                await service.happened(name, "began")
        await cancelled(calling)
        await cancelled(stream)
        for name in "ab":
            await service.happened(name, "cancelled")
        with pytest.raises(RpcError, match="the client was closed") as caught:
            await client.call("waiting.now")
        assert caught.value.code is StatusCode.UNAVAILABLE

    run_on(scenario)


def test_closing_the_client_while_it_connects(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Waiting())
        client = Client(str(server.addresses[0]))
        calling = asyncio.ensure_future(client.call("waiting.now"))
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(RpcError, match="the client was closed") as caught:
            await calling
        assert not caught.value.maybe_executed
        await client.close()  # may be repeated

    run_on(scenario)


def test_closing_a_client_that_was_never_used(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = Client("tcp://127.0.0.1:9")
        await client.close()

    run_on(scenario)


def test_a_cancelled_call_is_cancelled_at_the_server_over_a_slow_network() -> None:
    with World(seed=4, latency=(0.5, 0.5)) as world:
        service = Waiting()

        async def serve() -> None:
            from helianthus import Server

            server = Server([service])
            await server.listen("tcp://0.0.0.0:7070")
            await server.serve_forever()

        async def call() -> None:
            async with Client("tcp://server:7070") as client:
                calling = asyncio.ensure_future(client.call("waiting.wait", "a"))
                await service.happened("a", "began")
                began = asyncio.get_running_loop().time()
                calling.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await calling
                assert asyncio.get_running_loop().time() == began  # the caller does not wait for it
                assert service.entries("a") == ["began"]
                await service.happened("a", "finally")
                assert asyncio.get_running_loop().time() - began == pytest.approx(0.5, abs=0.01)

        world.node("server").spawn(serve)
        world.run_until(world.node("client").spawn(call))
