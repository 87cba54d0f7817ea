"""Clients prove who they are, and servers heed their rules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from rpc_bench import Bench, Ground, until, url_of

import helianthus
from helianthus import (
    Authentication,
    BearerToken,
    CallContext,
    CallPolicy,
    Client,
    Evidence,
    Identity,
    PoolOptions,
    RpcError,
    Rules,
    Server,
    Service,
    SharedSecret,
    StatusCode,
    TokenAuthenticator,
    current_call,
    method,
)
from helianthus.protocols.auth import NONCE_SIZE, Prover

SECRET = b"0123456789abcdef"
RULES = Rules(allow=["@staff vault.*", "bob vault.look", "anonymous vault.look"], deny=["* vault.burn"])


class Vault(Service):
    def __init__(self) -> None:
        self.opened = 0

    @method
    def open(self) -> str:
        self.opened += 1
        call = current_call()
        return call.identity.name if call is not None and call.identity is not None else "nobody"

    @method
    async def look(self, context: CallContext) -> str:
        return context.identity.name if context.identity is not None else "nobody"

    @method
    async def inventory(self) -> AsyncIterator[str]:
        yield "gold"

    @method
    def burn(self) -> None:
        raise AssertionError("never allowed")


def guard() -> Authentication:
    tokens = TokenAuthenticator({"t-alice": Identity("alice", ["staff"])})
    return Authentication(
        [tokens], secrets={"bob": SECRET, "carol": b"c" * 16}, groups={"carol": ["staff"]}, rules=RULES
    )


async def guarded(bench: Bench, vault: Vault | None = None) -> Server:
    return await bench.serve(vault or Vault(), authentication=guard())


async def failure(awaitable: Any) -> RpcError:
    with pytest.raises(RpcError) as caught:
        await awaitable
    return caught.value


def test_a_token_opens_what_its_owner_may_call(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.client(await guarded(bench), credentials=BearerToken("t-alice"))
        assert await client.call("vault.open") == "alice"
        assert await client.call("vault.look") == "alice"
        error = await failure(client.call("vault.burn"))
        assert error.code is StatusCode.PERMISSION_DENIED
        assert error.message == 'alice must not call vault.burn (denied by the rule "* vault.burn")'
        assert not error.maybe_executed

    run_on(scenario)


def test_a_secret_is_proved_by_both_ends(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = await guarded(bench)
        bob = await bench.client(server, credentials=SharedSecret("bob", SECRET))
        carol = await bench.client(server, credentials=SharedSecret("carol", b"c" * 16))
        assert await bob.call("vault.look") == "bob"
        assert (await failure(bob.call("vault.open"))).code is StatusCode.PERMISSION_DENIED
        assert await carol.call("vault.open") == "carol"

    run_on(scenario)


def test_who_is_not_known_may_call_little(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        vault = Vault()
        client = await bench.client(await guarded(bench, vault))
        assert await client.call("vault.look") == "nobody"
        for name in ("vault.open", "vault.burn", "node.services"):
            error = await failure(client.call(name))
            assert error.code is StatusCode.UNAUTHENTICATED
            assert "connect with credentials" in error.message
        assert vault.opened == 0

    run_on(scenario)


@pytest.mark.parametrize(
    "credentials", [BearerToken("t-mallory"), SharedSecret("bob", b"x" * 16), SharedSecret("mallory", SECRET)]
)
def test_wrong_credentials_fail_the_calls_that_wait(run_on: Ground, credentials: Any) -> None:
    async def scenario(bench: Bench) -> None:
        server = await guarded(bench)
        client = await bench.client(server, credentials=credentials)
        error = await failure(client.call("vault.look"))
        assert error.code is StatusCode.UNAUTHENTICATED
        assert "authentication failed" in error.message
        assert not error.maybe_executed
        await until(lambda: not server.peers)

    run_on(scenario)


def test_a_server_that_knows_nothing_of_it_is_not_trusted_with_calls(run_on: Ground) -> None:
    class Impostor(Service):
        name = "auth"

        @method
        def challenge(self, name: str, nonce: bytes) -> bytes:
            return b"n" * 32

        @method
        def prove(self, nonce: bytes, proof: bytes) -> dict[str, Any]:
            return {"name": "bob", "groups": [], "proof": proof}  # of the client itself

    async def scenario(bench: Bench) -> None:
        plain = await bench.client(await bench.serve(Vault()), credentials=BearerToken("t"))
        error = await failure(plain.call("vault.open"))
        assert error.code is StatusCode.UNIMPLEMENTED
        false = await bench.client(
            await bench.serve(Vault(), Impostor()), credentials=SharedSecret("bob", SECRET)
        )
        error = await failure(false.call("vault.open"))
        assert error.code is StatusCode.UNAUTHENTICATED
        assert "impostor" in error.message

    run_on(scenario)


@pytest.mark.parametrize("size", [1, 3])
def test_nobody_waits_for_a_server_that_refuses_the_credentials(run_on: Ground, size: int) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.client(
            await guarded(bench),
            credentials=BearerToken("t-mallory"),
            policies={"*": CallPolicy(wait_for_ready=True)},
            pool=PoolOptions(size=size),
        )
        for _ in range(2):
            error = await failure(client.call("vault.look"))
            assert error.code is StatusCode.UNAUTHENTICATED
            assert "the bearer token is not known here" in error.message
        error = await failure(anext(client.stream("vault.inventory")))
        assert error.code is StatusCode.UNAUTHENTICATED

    run_on(scenario)


def test_nobody_waits_for_a_server_that_asks_for_no_credentials(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.client(
            await bench.serve(Vault()),
            credentials=BearerToken("t-alice"),
            policies={"*": CallPolicy(wait_for_ready=True)},
        )
        error = await failure(client.call("vault.look"))
        assert error.code is StatusCode.UNIMPLEMENTED
        assert "authentication failed: this node has no method 'auth.bearer'" in error.message

    run_on(scenario)


def test_a_server_that_comes_later_is_waited_for_and_told_who_calls(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = await guarded(bench)
        url = url_of(server)
        await server.close()
        client = await bench.client(
            url, credentials=BearerToken("t-alice"), policies={"*": CallPolicy(wait_for_ready=True)}
        )
        call = asyncio.ensure_future(client.call("vault.look"))
        await until(lambda: client.state is helianthus.services.rpc.ChannelState.BACKING_OFF)
        await bench.serve(Vault(), url=url, authentication=guard())
        assert await call == "alice"

    run_on(scenario)


def test_a_closed_client_is_unavailable_whatever_failed_before(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.client(await guarded(bench), credentials=BearerToken("t-mallory"))
        assert (await failure(client.call("vault.look"))).code is StatusCode.UNAUTHENTICATED
        await client.close()
        assert (await failure(client.call("vault.look"))).code is StatusCode.UNAVAILABLE

    run_on(scenario)


def test_strangers_neither_take_over_nor_displace_a_challenge(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = await guarded(bench)
        bob, stranger = await bench.client(server), await bench.client(server)
        prover = Prover("bob", SECRET, b"c" * NONCE_SIZE)
        nonce = await bob.call("auth.challenge", "bob", prover.nonce)
        for _ in range(20):
            await stranger.call("auth.challenge", "bob", prover.nonce)
        error = await failure(stranger.call("auth.prove", nonce, prover.proof(nonce)))
        assert error.code is StatusCode.UNAUTHENTICATED
        assert (await bob.call("auth.prove", nonce, prover.proof(nonce)))["name"] == "bob"
        assert [await client.call("vault.look") for client in (bob, stranger)] == ["bob", "nobody"]

    run_on(scenario)


def test_streams_and_notifications_are_denied_as_well(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        vault = Vault()
        server = await guarded(bench, vault)
        client = await bench.client(server)
        error = await failure(anext(client.stream("vault.inventory")))
        assert error.code is StatusCode.UNAUTHENTICATED
        assert not error.maybe_executed
        await client.notify("vault.open")
        assert await client.call("vault.look") == "nobody"  # and has overtaken nothing
        alice = await bench.client(server, credentials=BearerToken("t-alice"))
        assert [item async for item in alice.stream("vault.inventory")] == ["gold"]
        assert vault.opened == 0

    run_on(scenario)


def test_a_token_can_come_with_a_call(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.client(await guarded(bench), credentials=SharedSecret("bob", SECRET))
        assert await client.call("vault.open", meta={"auth": "Bearer t-alice"}) == "alice"
        assert (await failure(client.call("vault.open"))).code is StatusCode.PERMISSION_DENIED
        for auth in ("Bearer nonsense", "t-alice", 7):
            error = await failure(client.call("vault.look", meta={"auth": auth}))
            assert error.code is StatusCode.UNAUTHENTICATED

    run_on(scenario)


def test_any_function_can_be_asked_who_it_is(run_on: Ground) -> None:
    async def ask_elsewhere(evidence: Evidence) -> Identity | None:
        await asyncio.sleep(0.001)
        return Identity("dave") if evidence.value == "d" else None

    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Vault(), authentication=Authentication([ask_elsewhere]))
        client = await bench.client(server, credentials=BearerToken("d"))
        assert await client.call("vault.look") == "dave"
        error = await failure(client.call("vault.look", meta={"auth": "Bearer d"}))
        assert error.code is StatusCode.UNAUTHENTICATED  # it would have to wait

    run_on(scenario)


def test_every_new_connection_is_authenticated(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = await guarded(bench)
        client = await bench.client(server, credentials=BearerToken("t-alice"))
        for _ in range(3):
            assert await client.call("vault.open") == "alice"
            (peer,) = server.peers
            peer.abort()
            await until(lambda gone=peer: gone.closed and gone not in server.peers)
            await until(lambda: client.state is helianthus.services.rpc.ChannelState.READY)

    run_on(scenario)


def test_keys_of_repeated_calls_belong_to_an_identity(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        vault = Vault()
        server = await guarded(bench, vault)
        alice = await bench.client(server, credentials=BearerToken("t-alice"))
        carol = await bench.client(server, credentials=SharedSecret("carol", b"c" * 16))
        meta = {"idempotency_key": "k"}
        assert [await alice.call("vault.open", meta=meta) for _ in range(2)] == ["alice", "alice"]
        assert await carol.call("vault.open", meta=meta) == "carol"
        assert vault.opened == 2

    run_on(scenario)


def test_a_blocking_client_authenticates(run_on_real: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = await guarded(bench)

        def call() -> None:
            for credentials, name in (
                (BearerToken("t-alice"), "alice"),
                (SharedSecret("carol", b"c" * 16), "carol"),
            ):
                with helianthus.connect_sync(url_of(server), credentials=credentials) as client:
                    assert client.call("vault.open") == name
            with (
                helianthus.connect_sync(url_of(server), credentials=BearerToken("wrong")) as client,
                pytest.raises(RpcError, match="authentication failed"),
            ):
                client.call("vault.look")
            waits = {"*": CallPolicy(wait_for_ready=True)}
            with (
                helianthus.connect_sync(
                    url_of(server), credentials=BearerToken("wrong"), policies=waits
                ) as client,
                pytest.raises(RpcError, match="authentication failed"),
            ):
                client.call("vault.look")

        await asyncio.to_thread(call)

    run_on_real(scenario)


def test_secrets_show_nowhere() -> None:
    assert "hush" not in repr(BearerToken("hush"))
    assert "0123" not in repr(SharedSecret("bob", SECRET))
    assert "hush" not in repr(Evidence("bearer", "hush", None))  # type: ignore[arg-type]  # only its text counts
    client = Client("tcp://127.0.0.1:1", credentials=BearerToken("hush"))
    assert "hush" not in repr(client._options)
    with pytest.raises(ValueError, match="the secret of bob has 3 bytes"):
        SharedSecret("bob", b"bob")
    with pytest.raises(ValueError, match="an empty token"):
        TokenAuthenticator({"": Identity("a")})
