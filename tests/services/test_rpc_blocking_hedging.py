"""Calls of a blocking client that are made several times side by side."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from rpc_bench import Ground, until
from rpc_flaky import UNAVAILABLE, Flaky, error
from rpc_thread import ThreadedServer

from helianthus import (
    BlockingClient,
    CallPolicy,
    CancelToken,
    HedgingPolicy,
    RetryThrottle,
    RpcError,
    StatusCode,
    connect_sync,
)
from helianthus.services.rpc import ChannelState

AT_ONCE = CallPolicy(hedging=HedgingPolicy(max_attempts=3, delay=0.0))
SOON = CallPolicy(hedging=HedgingPolicy(max_attempts=3, delay=0.01))
LATE = CallPolicy(hedging=HedgingPolicy(max_attempts=3, delay=1000.0))


@pytest.fixture
def flaky() -> Flaky:
    return Flaky()


@pytest.fixture
def server(run_on_real: Ground, flaky: Flaky) -> Any:
    with ThreadedServer(run_on_real, flaky) as server:
        yield server


def client_of(server: ThreadedServer, policy: CallPolicy, **options: Any) -> BlockingClient:
    options.setdefault("retry_throttle", RetryThrottle(1000))
    return connect_sync(server.url, policies={"*": policy}, **options)


def failure(call: Any) -> RpcError:
    with pytest.raises(RpcError) as caught:
        call()
    return caught.value


def check_nothing_is_left(client: BlockingClient, server: ThreadedServer, flaky: Flaky) -> None:
    """Neither calls nor methods."""
    peer = client._channel.peer
    assert peer is not None
    assert peer.calls == {}
    assert peer.session.pending_calls == 0
    plain = client.with_policy(CallPolicy())
    assert plain.call("flaky.work", "flushed") == "flushed"  # and so the cancellations have left, too
    server.until(lambda: flaky.inside == 0)


@pytest.mark.parametrize("policy", [AT_ONCE, SOON], ids=["at once", "soon"])
def test_the_first_result_counts_and_the_others_are_cancelled(
    server: ThreadedServer, flaky: Flaky, policy: CallPolicy
) -> None:
    with client_of(server, policy) as client:
        flaky.plan = ["wait", "wait"]
        assert client.call("flaky.work", 7) == 7
        entry = client.statistics().by_method["flaky.work"]
        assert (entry.retries, entry.hedges, entry.running) == (2, 2, 0)
        assert flaky.previous == [0, 1, 2]
        check_nothing_is_left(client, server, flaky)


def test_a_quick_answer_needs_no_hedge(server: ThreadedServer, flaky: Flaky) -> None:
    with client_of(server, LATE) as client:
        assert client.call("flaky.work") == "done"
        assert flaky.attempts == 1


def test_a_failure_brings_the_next_forward(server: ThreadedServer, flaky: Flaky) -> None:
    with client_of(server, LATE) as client:
        flaky.plan = [error(ran=False), error(), error(details={"retry_after": 0.02})]
        assert client.call("flaky.work") == "done"
        assert flaky.previous == [0, 0, 1, 2]
        assert flaky.delays()[2] >= 0.02
        entry = client.statistics().by_method["flaky.work"]
        assert (entry.retries, entry.hedges) == (3, 0)


def test_how_it_fails(server: ThreadedServer, flaky: Flaky) -> None:
    with client_of(server, LATE) as client:
        flaky.plan = [error(), error(), error(details="last")]
        raised = failure(lambda: client.call("flaky.work"))
        assert (raised.code, raised.details) == (UNAVAILABLE, "last")
        flaky.plan = [error(), error(StatusCode.INTERNAL)]
        assert failure(lambda: client.call("flaky.work")).code is StatusCode.INTERNAL
        flaky.plan = [error(details={"retry_after": -1})]
        assert failure(lambda: client.call("flaky.work")).code is UNAVAILABLE
        assert flaky.attempts == 3 + 2 + 1
        view = client.with_policy(AT_ONCE)
        flaky.plan = ["wait", "wait", error(StatusCode.INTERNAL, ran=False)]
        raised = failure(lambda: view.call("flaky.work"))
        assert raised.code is StatusCode.INTERNAL
        assert raised.maybe_executed  # one of the others may have run
        check_nothing_is_left(client, server, flaky)


def test_a_throttled_client_does_not_hedge(server: ThreadedServer, flaky: Flaky) -> None:
    with client_of(server, LATE, retry_throttle=RetryThrottle(max_tokens=4)) as client:
        flaky.plan = [error()] * 4
        failure(lambda: client.call("flaky.work"))
        assert flaky.attempts == 2
        failure(lambda: client.call("flaky.work"))
        assert flaky.attempts == 3


def test_all_carry_one_key_and_so_the_server_runs_one(server: ThreadedServer, flaky: Flaky) -> None:
    policy = CallPolicy(hedging=HedgingPolicy(3, 0.0), idempotent=True)
    with client_of(server, policy) as client:
        assert client.call("flaky.work") == "done"
        assert flaky.attempts == 1
        assert client.statistics().by_method["flaky.work"].hedges == 2


def test_the_deadline_ends_all(server: ThreadedServer, flaky: Flaky) -> None:
    with client_of(server, CallPolicy(timeout=0.2, hedging=HedgingPolicy(3, 0.01))) as client:
        assert client.with_policy(CallPolicy()).call("flaky.work") == "done"  # it is connected
        flaky.plan = ["wait"] * 3
        assert failure(lambda: client.call("flaky.work")).code is StatusCode.DEADLINE_EXCEEDED
        assert flaky.attempts <= 4
        flaky.plan = []  # a slow machine has not begun all of them
        check_nothing_is_left(client, server, flaky)


@pytest.mark.parametrize("paused", [False, True])
def test_a_token_ends_it(server: ThreadedServer, flaky: Flaky, paused: bool) -> None:
    token = CancelToken()
    with client_of(server, LATE if paused else AT_ONCE) as client:
        flaky.plan = [error(details={"retry_after": 500})] if paused else ["wait"] * 3

        def cancel() -> None:
            server.until(lambda: flaky.attempts == (1 if paused else 3))
            token.cancel("enough")

        other = threading.Thread(target=cancel)
        other.start()
        raised = failure(lambda: client.call("flaky.work", cancel=token))
        other.join()
        assert (raised.code, raised.message) == (StatusCode.CANCELLED, "enough")
        assert raised.maybe_executed
        check_nothing_is_left(client, server, flaky)
        assert failure(lambda: client.call("flaky.work", cancel=token)).code is StatusCode.CANCELLED


def test_an_interrupt_leaves_nothing_behind(server: ThreadedServer, flaky: Flaky) -> None:
    """An exception out of the driver's turn, as Ctrl-C raises it."""

    class Interrupt(BaseException):
        pass

    with client_of(server, AT_ONCE) as client:
        assert client.call("flaky.work") == "done"
        server.until(lambda: flaky.attempts == 3 and not flaky.inside)
        poll = client._driver.poll
        for turns in range(30):
            flaky.plan = ["wait"] * 3
            left = turns

            def interrupted(timeout: float | None) -> None:
                nonlocal left
                left -= 1
                if left < 0 or flaky.inside == 3:
                    raise Interrupt
                poll(0 if timeout == 0 else 0.001)  # it is interrupted in a turn that would wait, too

            client._driver.poll = interrupted  # type: ignore[method-assign]
            with pytest.raises(Interrupt):
                client.call("flaky.work")
            client._driver.poll = poll  # type: ignore[method-assign]
            inside = flaky.inside
            flaky.plan = []
            check_nothing_is_left(client, server, flaky)
            if inside == 3:
                break


def test_it_waits_until_there_is_a_server(server: ThreadedServer, flaky: Flaky) -> None:
    url = server.url
    policy = CallPolicy(wait_for_ready=True, hedging=AT_ONCE.hedging)
    with client_of(server, policy) as client:
        assert client.call("flaky.work") == "done"
        server.run(lambda: stop(server))
        with pytest.raises(RpcError):
            while True:  # until the connection is found to be lost, and the next one to fail
                client.with_policy(CallPolicy()).call("flaky.work")
        while client._channel.state is not ChannelState.BACKING_OFF:
            client._driver.poll(0.01)
        assert failure(lambda: client.with_policy(AT_ONCE).call("flaky.work")).code is UNAVAILABLE
        raised = failure(lambda: client.call("flaky.work", timeout=0.05))
        assert raised.code is StatusCode.DEADLINE_EXCEEDED
        assert not raised.maybe_executed
        server.run(lambda: server.server.listen(url))
        assert client.call("flaky.work", timeout=30.0) == "done"


async def stop(server: ThreadedServer) -> None:
    """Listen no more, and lose all connections."""
    for listener in server.server._listeners:
        listener.close()
    for peer in list(server.server.peers):
        peer.abort()


def test_a_lost_connection_fails_all_attempts(server: ThreadedServer, flaky: Flaky) -> None:
    with client_of(server, AT_ONCE) as client:
        flaky.plan = ["wait"] * 3

        def lose() -> None:
            server.run(lambda: until(lambda: flaky.inside == 3))
            server.run(lambda: drop(server))

        other = threading.Thread(target=lose)
        other.start()
        raised = failure(lambda: client.call("flaky.work"))
        other.join()
        assert raised.code is UNAVAILABLE
        assert raised.maybe_executed


async def drop(server: ThreadedServer) -> None:
    for peer in list(server.server.peers):
        peer.abort()
