"""Tokens: linked ones, those with a deadline, and what they leave behind."""

from __future__ import annotations

import asyncio
import time

import pytest
from rpc_bench import Bench, Ground, until
from rpc_waiting import Waiting

from helianthus import CancelToken, RpcError, StatusCode, connect_sync
from helianthus.sim import run_in_simulation


def heard_by(token: CancelToken) -> list[str]:
    """What a callback at the token notes."""
    heard: list[str] = []
    token.add_callback(lambda: heard.append(token.reason))
    return heard


def test_callbacks_come_once_and_in_order() -> None:
    token, order = CancelToken(), []
    for number in range(3):
        token.add_callback(lambda number=number: order.append(number))
    token.cancel("first")
    token.cancel("second")
    assert (order, token.reason, token.cancelled) == ([0, 1, 2], "first", True)
    token.add_callback(lambda: order.append("late"))
    assert order[-1] == "late"
    assert token._callbacks == {}


def test_a_callback_may_remove_another() -> None:
    token, heard = CancelToken(), []

    def second() -> None:
        heard.append("second")

    def first() -> None:
        heard.append("first")
        token.remove_callback(second)

    token.add_callback(first)
    token.add_callback(second)
    token.cancel()
    assert heard == ["first"]


# -- linked ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [0, 1])
def test_a_linked_token_is_cancelled_with_any_of_its_sources(which: int) -> None:
    sources = [CancelToken(), CancelToken()]
    linked = CancelToken.linked(*sources)
    heard = heard_by(linked)
    assert not linked.cancelled
    sources[which].cancel("that one")
    assert linked.cancelled
    assert heard == ["that one"]
    assert linked.reason == "that one"
    assert not sources[1 - which].cancelled


def test_a_linked_token_can_be_cancelled_by_itself() -> None:
    source = CancelToken()
    linked = CancelToken.linked(source)
    heard = heard_by(linked)
    linked.cancel("alone")
    assert heard == ["alone"]
    assert not source.cancelled
    assert source._callbacks == {}


def test_a_linked_token_without_callbacks_follows_too() -> None:
    source = CancelToken()
    linked = CancelToken.linked(source, CancelToken())
    assert source._callbacks == {}
    source.cancel("quietly")
    assert (linked.cancelled, linked.reason) == (True, "quietly")
    assert heard_by(linked) == ["quietly"]


def test_links_leave_nothing_behind() -> None:
    sources = [CancelToken(), CancelToken()]
    nested = CancelToken.linked(CancelToken.linked(*sources), CancelToken())

    def callback() -> None: ...

    nested.add_callback(callback)
    assert all(source._callbacks for source in sources)
    nested.remove_callback(callback)
    nested.remove_callback(callback)
    assert [source._callbacks for source in sources] == [{}, {}]
    nested.add_callback(callback)
    sources[0].cancel()
    assert sources[1]._callbacks == {}


# -- with a deadline -----------------------------------------------------------------------------------------


def test_a_deadline_cancels() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        token, later = CancelToken.after(2.5), CancelToken.at(began + 4)
        heard = heard_by(CancelToken.linked(token, later))
        assert (token.deadline, later.deadline) == (began + 2.5, began + 4)
        assert CancelToken.linked(token, later).deadline == began + 2.5
        assert CancelToken().deadline is None
        await asyncio.sleep(2)
        assert not token.cancelled
        await asyncio.sleep(1)
        assert heard == ["2.5 s have passed"]
        assert token.cancelled
        assert not later.cancelled
        await asyncio.sleep(2)
        assert later.cancelled
        assert "has come" in later.reason

    run_in_simulation(main())


def test_a_deadline_has_a_timer_only_while_somebody_waits() -> None:
    async def main() -> None:
        token = CancelToken.after(5)

        def callback() -> None: ...

        assert token._timer is None
        token.add_callback(callback)
        assert token._timer is not None
        token.remove_callback(callback)
        assert token._timer is None
        token.cancel("before its time")
        await asyncio.sleep(6)
        assert token.reason == "before its time"
        assert CancelToken.after(0).cancelled

    run_in_simulation(main())


def test_a_deadline_without_a_loop() -> None:
    token = CancelToken.after(3600)
    assert not token.cancelled
    assert CancelToken.at(time.monotonic() - 1).cancelled


def test_calls_end_at_the_deadline_of_their_token(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        with pytest.raises(RpcError, match=r"0\.05 s have passed") as caught:
            await client.call("waiting.wait", "a", cancel=CancelToken.after(0.05))
        assert caught.value.code is StatusCode.CANCELLED
        await service.happened("a", "cancelled")
        long = CancelToken.after(3600)
        one = CancelToken()
        calling = asyncio.ensure_future(
            client.call("waiting.wait", "b", cancel=CancelToken.linked(one, long))
        )
        await service.happened("b", "began")
        one.cancel("enough")
        with pytest.raises(RpcError, match="enough"):
            await calling
        assert (one._callbacks, long._callbacks, long._timer) == ({}, {}, None)

    run_on(scenario)


def test_a_blocking_call_ends_at_the_deadline_of_its_token(run_on_real: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        server = await bench.serve(service)

        def call() -> None:
            with connect_sync(str(server.addresses[0])) as client:
                assert client.call("waiting.now", 1, cancel=CancelToken.after(3600)) == 1
                with pytest.raises(RpcError, match=r"0\.05 s have passed"):
                    client.call("waiting.wait", "a", cancel=CancelToken.after(0.05))

        await asyncio.to_thread(call)
        await service.happened("a", "cancelled")
        await until(lambda: not server.peers)

    run_on_real(scenario)
