"""Operations that are given up: no byte is lost, none comes twice, and the socket goes on working."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from pathlib import Path

import pytest
from rpc_bench import LOCAL, Bench, Ground, under_wine, until
from sockets_bounds import WAYS, Way, given_up
from sockets_pairs import TINY, pair

from helianthus import CallContext, RpcError, Service, StatusCode, method
from helianthus.drivers.choose import running_driver
from helianthus.services.sockets.waiting import bound_of
from helianthus.sockets import (
    ByteStreamLimits,
    CancelToken,
    OperationCancelled,
    OperationTimedOut,
    TcpSocket,
    cancel_scope,
    connect,
    listen,
)

every_way = pytest.mark.parametrize("new_way", WAYS, ids=lambda way: way.name)

NewWay = Callable[[], Way]

MIB = 1024 * 1024


def bulk(bench: Bench) -> bytes:
    """More than the systems at both ends hold together."""
    return bytes(range(251)) * ((2 if bench.driver.name == "sim" else 12) * MIB // 251)


def no_callbacks_at(way: Way) -> bool:
    """Whether nothing is left at the token, if there is one."""
    token = getattr(way, "token", None)
    return token is None or not token._callbacks


@every_way
def test_receiving(run_on: Ground, new_way: NewWay) -> None:
    async def scenario(bench: Bench) -> None:
        async with pair() as (near, far):
            way = new_way()
            await given_up(way, far.recv)
            assert no_callbacks_at(way)
            await near.send_all(b"abcdef")
            await given_up(new_way(), functools.partial(far.recv_exactly, 7))
            await given_up(new_way(), functools.partial(far.recv_until, b"\n"))
            assert far.bytes_received == 0
            await near.send_all(b"g\nhi")
            assert await far.recv_until(b"\n", timeout=5) == b"abcdefg\n"
            await given_up(new_way(), functools.partial(far.recv_exactly, 3))
            assert await far.recv() == b"hi"
            await near.send_all(b"and on")
            assert await far.recv_exactly(6) == b"and on"

    run_on(scenario)


@every_way
def test_sending_what_fits_is_all_or_nothing(run_on: Ground, new_way: NewWay) -> None:
    skip_under_wine(run_on)

    async def scenario(bench: Bench) -> None:
        async with clogged() as (near, far, before):
            way = new_way()
            error = await given_up(way, functools.partial(near.send_all, b"never", b"sent"))
            assert getattr(error, "queued", 0) == 0
            assert no_callbacks_at(way)
            error = await given_up(new_way(), functools.partial(near.send, b"never"))
            assert getattr(error, "queued", 0) == 0
            assert near.bytes_accepted == before
            assert len(await far.recv_exactly(before)) == before
            await near.send_all(b"the next")
            assert await far.recv_exactly(8) == b"the next"

    run_on(scenario)


@every_way
def test_sending_more_than_fits_says_how_much(run_on: Ground, new_way: NewWay) -> None:
    async def scenario(bench: Bench) -> None:
        data = bulk(bench)
        async with pair() as (near, far):
            way = new_way()
            error = await given_up(way, functools.partial(near.send_all, data), stuck(near))
            queued = near.bytes_accepted
            assert 0 < queued < len(data)
            assert getattr(error, "queued", queued) == queued
            sending = asyncio.ensure_future(near.send_all(memoryview(data)[queued:]))
            assert await far.recv_exactly(len(data)) == data
            await sending
            await near.send_all(b"the next")
            assert await far.recv() == b"the next"

    run_on(scenario)


@every_way
def test_flushing_and_closing_go_on_by_themselves(run_on: Ground, new_way: NewWay) -> None:
    skip_under_wine(run_on)

    async def scenario(bench: Bench) -> None:
        async with clogged() as (near, far, before):
            await given_up(new_way(), near.flush)
            await given_up(new_way(), near.close)
            assert near.closed
            received = 0
            while data := await far.recv():
                received += len(data)
            assert received == before

    run_on(scenario)


@every_way
def test_accepting(run_on: Ground, new_way: NewWay) -> None:
    async def scenario(bench: Bench) -> None:
        async with await listen(LOCAL) as listener:
            way = new_way()
            await given_up(way, listener.accept)
            assert no_callbacks_at(way)
            assert listener._port._acceptors == {}
            async with await connect(str(listener.address)) as near, await listener.accept() as far:
                await near.send_all(b"hello")
                assert await far.recv() == b"hello"

    run_on(scenario)


@every_way
def test_sending_files(run_on: Ground, new_way: NewWay, tmp_path: Path) -> None:
    skip_under_wine(run_on)

    async def scenario(bench: Bench) -> None:
        data = bulk(bench)
        path = tmp_path / "file"
        path.write_bytes(data)
        async with pair() as (near, far):
            error = await given_up(new_way(), functools.partial(near.sendfile, path), stuck(near))
            queued = near.bytes_accepted
            assert 0 < queued < len(data)
            assert getattr(error, "queued", queued) == queued
            sending = asyncio.ensure_future(near.sendfile(path, queued))
            assert await far.recv_exactly(len(data)) == data
            assert await sending == len(data) - queued

    run_on(scenario)


def skip_under_wine(run_on: Ground) -> None:
    if under_wine() and run_on.name != "sim":
        pytest.skip("under Wine the system goes on taking output long after it has seemed to be full")


class clogged:  # noqa: N801 - used like a function
    """A pair whose first socket has no room: what it has queued, nobody reads."""

    async def __aenter__(self) -> tuple[TcpSocket, TcpSocket, int]:
        self.pair = pair(ByteStreamLimits(max_queued_output=1000))
        near, far = await self.pair.__aenter__()
        filling = asyncio.ensure_future(near.send_all(bytes(64 * MIB)))
        await stuck(near)
        filling.cancel()
        await asyncio.gather(filling, return_exceptions=True)
        if room := near._connection.stream.room:
            assert await near.send(bytes(room)) == room
        return near, far, near.bytes_accepted

    async def __aexit__(self, *exc_info: object) -> None:
        await self.pair.__aexit__(None, None, None)


async def stuck(sock: TcpSocket) -> None:
    """Wait until the system takes nothing any more."""
    accepted, looks = -1, 0
    while looks < 20:
        looks = looks + 1 if sock.bytes_accepted == accepted > 0 else 0
        accepted = sock.bytes_accepted
        await asyncio.sleep(0.002)


# -- before it begins, and with no time at all -----------------------------------------------------------


def test_a_timeout_of_nothing_does_what_can_be_done_at_once(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        async with pair(TINY) as (near, far):
            for operation in (far.recv(timeout=0), far.recv_exactly(1, timeout=0)):
                with pytest.raises(OperationTimedOut, match="within 0 s"):
                    await operation
            await near.send_all(b"hello\nyou", timeout=0)
            await until(lambda: far._connection.stream.available == 9)
            assert await far.recv_until(b"\n", timeout=0) == b"hello\n"
            assert await far.recv(timeout=0) == b"you"
            with pytest.raises(OperationTimedOut) as caught:
                await near.send_all(bytes(100), timeout=0)
            assert caught.value.queued == 64
            assert await far.recv_exactly(64) == bytes(64)

    run_on(scenario)


def test_what_is_over_before_it_has_begun(run_on: Ground) -> None:
    """Even where it could be done at once: else a loop over what is there would never end."""

    async def scenario(bench: Bench) -> None:
        async with pair() as (near, far), await listen(LOCAL) as listener:
            await near.send_all(b"for later")
            await until(lambda: far._connection.stream.available == 9)
            token = CancelToken()
            token.cancel("before")

            def operations(**given: CancelToken) -> list:  # type: ignore[type-arg]
                return [
                    far.recv(**given),
                    far.recv_exactly(2, **given),
                    far.recv_until(b"f", **given),
                    near.send_all(b"x", **given),
                    near.send(b"x", **given),
                    near.sendfile("/nowhere", **given),
                    near.flush(**given),
                    listener.accept(**given),
                    connect(str(listener.address), **given),
                    listen(LOCAL, **given),
                ]

            for operation in operations(cancel=token):
                with pytest.raises(OperationCancelled, match="before"):
                    await operation
            with cancel_scope(cancel=token):
                for operation in operations():
                    with pytest.raises(OperationCancelled, match="before"):
                        await operation
            with cancel_scope(timeout=0):
                for operation in operations():
                    with pytest.raises(OperationTimedOut, match="scope around it"):
                        await operation
            assert near.bytes_accepted == 9
            assert await far.recv() == b"for later"
            assert token._callbacks == {}

    run_on(scenario)


def test_a_scope_bounds_all_operations_together(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        async with pair() as (near, far):

            async def talk() -> None:
                while True:
                    await near.send_all(b"x")
                    await asyncio.sleep(0.0001)

            talking = asyncio.ensure_future(talk())
            received = 0
            with cancel_scope(timeout=0.05) as scope, pytest.raises(TimeoutError):
                while True:
                    received += len(await far.recv(timeout=30))
            assert scope.expired
            assert received == far.bytes_received > 0
            talking.cancel()
            await asyncio.gather(talking, return_exceptions=True)

    run_on(scenario)


def test_leaving_a_block_in_a_scope_that_is_over(run_on: Ground) -> None:
    """The scope's end is no reason not to close in good order, or to raise another exception."""

    async def scenario(bench: Bench) -> None:
        async with await listen(LOCAL) as listener:
            with cancel_scope() as scope:
                async with await connect(str(listener.address)) as near:
                    await near.send_all(b"goodbye")
                    scope.cancel()
            assert near.closed
            async with await listener.accept() as far:
                assert await far.recv_exactly(7) == b"goodbye"
                assert await far.recv() == b""

    run_on(scenario)


def test_errors_say_what_was_given_up() -> None:
    timed_out = OperationTimedOut("recv did not end within 3 s", address="here:1")
    assert str(timed_out) == "here:1: recv did not end within 3 s"
    assert isinstance(timed_out, TimeoutError)
    cancelled = OperationCancelled("recv was cancelled: enough", reason="enough")
    assert (str(cancelled), cancelled.queued) == ("recv was cancelled: enough", 0)


# -- at the same time ------------------------------------------------------------------------------------


@pytest.mark.parametrize("turns", range(6))
def test_data_and_cancellation_at_the_same_time(run_on: Ground, turns: int) -> None:
    async def scenario(bench: Bench) -> None:
        async with pair() as (near, far):
            for _ in range(20):
                token = CancelToken()
                reading = asyncio.ensure_future(far.recv_exactly(4, cancel=token))
                await near.send_all(b"data")
                for _ in range(turns):
                    await asyncio.sleep(0)
                token.cancel()
                try:
                    data = await reading
                except OperationCancelled:
                    data = await far.recv_exactly(4)
                assert data == b"data"
                reading = asyncio.ensure_future(far.recv_exactly(4))
                await near.send_all(b"more")
                for _ in range(turns):
                    await asyncio.sleep(0)
                reading.cancel()
                try:
                    data = await reading
                except asyncio.CancelledError:
                    data = await far.recv_exactly(4)
                assert data == b"more"

    run_on(scenario)


@pytest.mark.parametrize("turns", range(6))
def test_a_connection_and_cancellation_at_the_same_time(run_on: Ground, turns: int) -> None:
    async def scenario(bench: Bench) -> None:
        async with await listen(LOCAL) as listener:
            for way in range(20):
                accepting = asyncio.ensure_future(listener.accept())
                other = asyncio.ensure_future(listener.accept()) if way % 2 else None
                async with await connect(str(listener.address)) as near:
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    accepting.cancel()
                    if other is not None:
                        (outcome,) = await asyncio.gather(accepting, return_exceptions=True)
                        if isinstance(outcome, TcpSocket):
                            other.cancel()
                            await asyncio.gather(other, return_exceptions=True)
                            far = outcome
                        else:
                            far = await other
                    else:
                        try:
                            far = await accepting
                        except asyncio.CancelledError:
                            far = await listener.accept()
                    async with far:
                        await near.send_all(b"hello")
                        assert await far.recv() == b"hello"

    run_on(scenario)


class Asking(Service):
    """Uses sockets while it serves a call."""

    @method
    async def deadlines(self, context: CallContext) -> list[float | None]:
        driver = running_driver()
        with cancel_scope(timeout=1000):
            return [context.deadline, bound_of(driver, None, None).deadline]

    @method
    async def from_nobody(self) -> str:
        async with await listen(LOCAL) as listener:
            try:
                await listener.accept()
            except OperationTimedOut:
                return "it may still answer"
        return ""


def test_the_deadline_of_a_call_bounds_the_sockets_of_its_method(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Asking())
        own, bound = await client.call("asking.deadlines", timeout=20)
        assert own == bound
        with pytest.raises(RpcError) as caught:
            await client.call("asking.from_nobody", timeout=0.05)
        assert caught.value.code is StatusCode.DEADLINE_EXCEEDED

    run_on(scenario)
