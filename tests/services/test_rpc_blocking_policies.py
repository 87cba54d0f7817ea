"""Policies of the blocking client, but for hedging: the same as those of the async one."""

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
    RetryPolicy,
    RetryThrottle,
    RpcError,
    StatusCode,
    connect_sync,
)
from helianthus.services.rpc import ChannelState

POLICY = CallPolicy(retry=RetryPolicy(max_attempts=3, initial=0.01, maximum=0.02), idempotent=True)
PATIENT = CallPolicy(retry=RetryPolicy(initial=1000, maximum=1000))


@pytest.fixture
def flaky() -> Flaky:
    return Flaky()


@pytest.fixture
def server(run_on_real: Ground, flaky: Flaky) -> Any:
    with ThreadedServer(run_on_real, flaky) as server:
        yield server


def client_of(server: ThreadedServer, policy: CallPolicy = POLICY, **options: Any) -> BlockingClient:
    options.setdefault("retry_throttle", RetryThrottle(1000))
    return connect_sync(server.url, policies={"*": policy}, **options)


def failure(call: Any) -> RpcError:
    with pytest.raises(RpcError) as caught:
        call()
    return caught.value


def test_a_call_is_made_again_until_it_succeeds(server: ThreadedServer, flaky: Flaky) -> None:
    with client_of(server) as client:
        flaky.plan = [error(ran=False), error(ran=False)]
        assert client.call("flaky.work", 5) == 5
        assert flaky.previous == [0, 0, 1]
        assert len({meta["idempotency_key"] for meta in flaky.metas}) == 1
        entry = client.statistics().by_method["flaky.work"]
        assert (entry.calls, entry.failed, entry.retries) == (3, 2, 2)


def test_attempts_come_to_an_end(server: ThreadedServer, flaky: Flaky) -> None:
    with client_of(server, CallPolicy(retry=POLICY.retry)) as client:
        flaky.plan = [error()] * 9
        assert failure(lambda: client.call("flaky.work")).code is UNAVAILABLE
        assert flaky.attempts == 3
        flaky.plan = [error(StatusCode.INTERNAL)]
        assert failure(lambda: client.call("flaky.work")).code is StatusCode.INTERNAL
        assert flaky.attempts == 4


def test_one_deadline_for_all_attempts(server: ThreadedServer, flaky: Flaky) -> None:
    with client_of(server, CallPolicy(timeout=0.2, retry=POLICY.retry)) as client:
        flaky.plan = [error(), "wait"]
        assert failure(lambda: client.call("flaky.work")).code is StatusCode.DEADLINE_EXCEEDED
        assert flaky.attempts == 2
    with client_of(server, PATIENT) as client:
        flaky.plan = [error()]
        assert failure(lambda: client.call("flaky.work", timeout=100.0)).code is UNAVAILABLE


def test_streams(server: ThreadedServer, flaky: Flaky) -> None:
    with client_of(server) as client:
        flaky.plan = [error(), error()]
        assert list(client.stream("flaky.count", 3)) == [0, 1, 2]
        flaky.plan = [error(), error()]
        assert client.stream("flaky.total").result() == 0
        flaky.plan = [2]
        stream = client.stream("flaky.count", 3)
        assert [next(stream), next(stream)] == [0, 1]
        assert failure(lambda: next(stream)).code is UNAVAILABLE
        flaky.plan = [error()]
        with client.stream("flaky.total") as stream:
            stream.send(1)
            assert failure(stream.result).code is UNAVAILABLE
        flaky.plan = [error(StatusCode.INTERNAL)]
        assert failure(lambda: next(client.stream("flaky.count", 3))).code is StatusCode.INTERNAL
        assert flaky.attempts == 3 + 3 + 1 + 1 + 1


def test_a_view_and_a_batch(server: ThreadedServer, flaky: Flaky) -> None:
    with connect_sync(server.url, policies={"flaky.work": POLICY}) as client:
        flaky.plan = [error(ran=False)]
        assert client.batch([("flaky.work", 1), ("flaky.work", 2)]) == [1, 2]
        view = client.with_policy(CallPolicy(retry=POLICY.retry))
        flaky.plan = [error()]
        assert view.service("flaky").work(3) == 3
        flaky.plan = [error()]
        assert list(view.stream("flaky.count", 2)) == [0, 1]
        flaky.plan = [error()]
        assert failure(lambda: next(client.stream("flaky.count", 2))).code is UNAVAILABLE
        view.notify("flaky.note")
        assert client.call("flaky.work") == "done"  # of a later request on the same connection
        assert flaky.plan == []
        assert flaky.attempts == 3 + 2 + 2 + 1 + 2


def test_it_waits_until_there_is_a_server(server: ThreadedServer, flaky: Flaky) -> None:
    url = server.url
    with client_of(server, CallPolicy(wait_for_ready=True)) as client:
        assert client.call("flaky.work") == "done"
        server.run(lambda: stop(server))
        with pytest.raises(RpcError):
            while True:  # until the connection is found to be lost, and the next one to fail
                client.with_policy(CallPolicy()).call("flaky.work")
        while client._channel.state is not ChannelState.BACKING_OFF:
            client._driver.poll(0.01)
        raised = failure(lambda: client.call("flaky.work", timeout=0.05))
        assert raised.code is StatusCode.DEADLINE_EXCEEDED
        token = CancelToken()
        timer = threading.Timer(0.05, token.cancel)
        timer.start()
        assert failure(lambda: client.call("flaky.work", cancel=token)).code is StatusCode.CANCELLED
        timer.join()
        server.run(lambda: server.server.listen(url))
        assert client.call("flaky.work", timeout=30.0) == "done"


async def stop(server: ThreadedServer) -> None:
    """Listen no more, and lose all connections."""
    for listener in server.server._listeners:
        listener.close()
    for peer in list(server.server.peers):
        peer.abort()


@pytest.mark.parametrize("kind", ["call", "stream"])
def test_a_token_ends_a_pause(server: ThreadedServer, flaky: Flaky, kind: str) -> None:
    token = CancelToken()
    with client_of(server, PATIENT) as client:
        flaky.plan = [error()]

        def cancel() -> None:
            server.run(lambda: until(lambda: flaky.attempts))
            token.cancel("enough")

        other = threading.Thread(target=cancel)
        other.start()
        make = client.call if kind == "call" else lambda *args, **kw: next(client.stream(*args, **kw))
        raised = failure(lambda: make("flaky.work" if kind == "call" else "flaky.count", 1, cancel=token))
        other.join()
        assert (raised.code, raised.message) == (StatusCode.CANCELLED, "enough")
        assert raised.maybe_executed
        assert flaky.attempts == 1
        assert client.call("flaky.work") == "done"
