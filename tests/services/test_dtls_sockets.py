"""DTLS sockets, on every driver."""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref

import pytest
from certificates import DAY, NOW
from dtls_pairs import LOCAL, authority, client_tls, pair, pair_of, server_tls
from rpc_bench import Bench, Ground, until

from helianthus import CancelToken, ClientTls, ServerTls, TlsFilesUnusable
from helianthus.drivers.choose import running_driver
from helianthus.dtls import DtlsOptions, DtlsSocket, connect, listen
from helianthus.errors import AddressInUse, ConnectionRefused, MessageTooLarge
from helianthus.protocols.tls import TlsHandshakeFailed
from helianthus.sockets import OperationCancelled, OperationTimedOut, SocketBusy, SocketClosed


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_datagrams_both_ways(run_on: Ground) -> None:
    async def scenario(_: Bench) -> None:
        async with pair() as (near, far, listener):
            for number in range(20):
                await near.send(b"%d" % number)
                assert await far.recv(timeout=10) == b"%d" % number
                await far.send(memoryview(b"x" * number + b"!"))
                assert await near.recv(timeout=10) == b"x" * number + b"!"
            assert listener.peers == 1
            assert str(listener.address).startswith("dtls://127.0.0.1:")
            assert near.peer_address.endswith(f":{listener.address.port}")
            assert far.peer_address.endswith(f":{near.local_address.port}")
            assert near.established.version == "DTLSv1.2"
            assert near.established.verified
            assert "DtlsSocket to" in repr(near)

    run_on(scenario)


def test_what_waits_for_a_reader_is_kept_in_order(run_on: Ground) -> None:
    async def scenario(_: Bench) -> None:
        async with pair() as (near, far, _):
            for number in range(100):
                await near.send(b"%d" % number)
            assert [int(await far.recv(timeout=10)) for _ in range(100)] == list(range(100))

    run_on(scenario)


def test_one_listener_has_many_peers(run_on: Ground) -> None:
    async def scenario(_: Bench) -> None:
        async def answer(sock: DtlsSocket) -> None:
            async with sock:
                async for datagram in sock:
                    await sock.send(datagram.upper())

        async with await listen(LOCAL, tls=server_tls()) as listener:
            clients = await asyncio.gather(
                *(connect(str(listener.address), tls=client_tls()) for _ in range(5))
            )
            tasks = [asyncio.create_task(answer(await listener.accept(timeout=10))) for _ in clients]
            for number, client in enumerate(clients):
                await client.send(b"from %d" % number)
            for number, client in enumerate(clients):
                assert await client.recv(timeout=10) == b"FROM %d" % number
            for client in clients:
                await client.close()
            await asyncio.wait_for(asyncio.gather(*tasks), 10)
            assert listener.peers == 0

    run_on(scenario)


def test_clients_are_known_by_their_certificates(run_on: Ground) -> None:
    async def scenario(_: Bench) -> None:
        alice = pair_of("alice")
        server = server_tls(client_ca=authority().file)
        client = client_tls(certificate=alice.certificate, key=alice.key)
        async with pair(server=server, client=client) as (_, far, _):
            certificate = far.established.certificate
            assert certificate is not None
            assert certificate.common_name == "alice"

        async with await listen(LOCAL, tls=server) as listener:
            with pytest.raises(TlsHandshakeFailed, match="requires a client certificate"):
                await connect(str(listener.address), tls=client_tls())

    run_on(scenario)


def test_a_wrong_certificate_is_told(run_on: Ground) -> None:
    async def scenario(_: Bench) -> None:
        other = pair_of("other", "elsewhere.example")
        old = authority().issue("old", "127.0.0.1", starts=NOW - 9 * DAY, ends=NOW + DAY, ecdsa=True)
        async with await listen(LOCAL, tls=ServerTls(other.certificate, other.key)) as listener:
            url = str(listener.address)
            with pytest.raises(TlsHandshakeFailed, match=r"not valid for '127.0.0.1', but for elsewhere"):
                await connect(url, tls=client_tls())
            with pytest.raises(TlsHandshakeFailed, match="whom this side does not trust; set ca"):
                await connect(url, tls=ClientTls(old.certificate))
            async with await connect(url, tls=client_tls(server_name="elsewhere.example")) as near:
                assert near.established.verified
            async with await connect(url, tls=ClientTls(verify=False)) as near:
                assert not near.established.verified

    run_on(scenario)


def test_names_choose_certificates(run_on: Ground) -> None:
    async def scenario(_: Bench) -> None:
        first, second = pair_of("first", "a.example"), pair_of("second", "x.b.example")
        sni = {"a.example": (first.certificate, first.key), "*.b.example": (second.certificate, second.key)}
        async with await listen(LOCAL, tls=server_tls(sni=sni)) as listener:
            for name, shown in (("a.example", "first"), ("x.b.example", "second"), ("localhost", "server")):
                async with await connect(str(listener.address), tls=client_tls(server_name=name)) as near:
                    assert near.established.certificate is not None
                    assert near.established.certificate.common_name == shown

    run_on(scenario)


def test_certificates_are_reloaded(run_on: Ground) -> None:
    async def scenario(_: Bench) -> None:
        issued = authority().issue("before", "127.0.0.1", ecdsa=True, file="reloaded")
        tls = ServerTls(issued.certificate, issued.key)
        async with pair(server=tls) as (near, far, listener):
            authority().issue("after", "127.0.0.1", ecdsa=True, file="reloaded")
            tls.reload()
            issued.certificate.write_text("nonsense")
            with pytest.raises(TlsFilesUnusable):
                tls.reload()
            async with await connect(str(listener.address), tls=client_tls()) as later:
                names = [one.established.certificate.common_name for one in (near, later)]  # type: ignore[union-attr]
                assert names == ["before", "after"]
            await near.send(b"still here")
            assert await far.recv(timeout=10) == b"still here"

    run_on(scenario)


def test_alpn(run_on: Ground) -> None:
    async def scenario(_: Bench) -> None:
        server, client = server_tls(alpn=("coap", "chat")), client_tls(alpn=("chat",))
        async with pair(server=server, client=client) as (near, far, _):
            assert near.established.alpn == far.established.alpn == "chat"

    run_on(scenario)


def test_sizes(run_on: Ground) -> None:
    async def scenario(_: Bench) -> None:
        async with pair(options=DtlsOptions(mtu=1500)) as (near, far, _):
            assert near.largest == 1463
            await near.send(bytes(1463))
            assert await far.recv(timeout=10) == bytes(1463)
            for data in (bytes(1464), b""):
                with pytest.raises(MessageTooLarge, match="1 to 1463 bytes can, see mtu"):
                    await near.send(data)

    run_on(scenario)


def test_the_peers_goodbye_ends_what_is_received(run_on: Ground) -> None:
    async def scenario(_: Bench) -> None:
        async with pair() as (near, far, _):
            await near.send(b"one")
            await near.send(b"two")
            await near.close()
            await near.close()
            assert [datagram async for datagram in far] == [b"one", b"two"]
            assert await far.recv() == b""
            with pytest.raises(SocketClosed):
                await far.send(b"too late")
            for operation in (near.recv(), near.send(b"x")):
                with pytest.raises(SocketClosed):
                    await operation

    run_on(scenario)


def test_a_listener_ends_its_sockets(run_on: Ground) -> None:
    async def scenario(_: Bench) -> None:
        async with pair() as (near, far, listener):
            accepting = asyncio.create_task(listener.accept())
            reading = asyncio.create_task(far.recv())
            await asyncio.sleep(0)
            await listener.close()
            for task in (accepting, reading):
                with pytest.raises(SocketClosed):
                    await task
            assert await near.recv(timeout=10) == b""
            with pytest.raises(SocketClosed):
                await listener.accept()
            assert [sock async for sock in listener] == []

    run_on(scenario)


def test_bounds_of_an_operation(run_on: Ground) -> None:
    async def scenario(_: Bench) -> None:
        async with pair() as (near, far, listener):
            token = CancelToken()
            reading = asyncio.create_task(near.recv(cancel=token))
            await asyncio.sleep(0)
            with pytest.raises(SocketBusy):
                await near.recv()
            token.cancel("enough")
            with pytest.raises(OperationCancelled, match="enough"):
                await reading
            with pytest.raises(OperationTimedOut):
                await near.recv(timeout=0)
            with pytest.raises(OperationTimedOut):
                await listener.accept(timeout=0.01)
            cancelled = asyncio.create_task(near.recv())
            await asyncio.sleep(0)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            await far.send(b"not lost")
            assert await near.recv(timeout=10) == b"not lost"

    run_on(scenario)


def test_a_backlog_is_bounded(run_on: Ground) -> None:
    async def scenario(_: Bench) -> None:
        async with await listen(LOCAL, tls=server_tls(), backlog=1) as listener:
            first = await connect(str(listener.address), tls=client_tls())
            second = await connect(str(listener.address), tls=client_tls())
            assert await second.recv(timeout=10) == b""
            async with first, second, await listener.accept() as far:
                await far.send(b"welcome")
                assert await first.recv(timeout=10) == b"welcome"
            with pytest.raises(ValueError, match="backlog"):
                await listen(LOCAL, tls=server_tls(), backlog=0)

    run_on(scenario)


def test_nobody_is_bound_there(run_on_real: Ground) -> None:
    async def scenario(_: Bench) -> None:
        async with await listen(LOCAL, tls=server_tls()) as listener:
            url = str(listener.address)
        await asyncio.sleep(0)
        driver = running_driver()
        while True:  # until the port is free
            try:
                await connect(url, tls=client_tls(handshake_timeout=5.0))
            except ConnectionRefused:
                break
            except TlsHandshakeFailed:
                continue
        assert driver is running_driver()

    run_on_real(scenario)


def test_the_next_address_of_a_name_is_tried(run_on_real: Ground) -> None:
    """Where `localhost` has an IPv6 address, nobody is bound at it."""

    async def scenario(_: Bench) -> None:
        async with await listen(LOCAL, tls=server_tls()) as listener:
            url = f"dtls://localhost:{listener.address.port}"
            async with await connect(url, tls=client_tls()) as near:
                assert near.peer_address == f"127.0.0.1:{listener.address.port}"
                assert near.established.server_name == "localhost"

    run_on_real(scenario)


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_ipv6(run_on_real: Ground) -> None:
    async def scenario(_: Bench) -> None:
        async with pair("dtls://[::1]:0") as (near, far, _listener):
            await near.send(b"hello")
            assert await far.recv(timeout=10) == b"hello"
            assert near.peer_address.startswith("[::1]:")

    run_on_real(scenario)


def test_a_server_that_does_not_answer(run_on: Ground) -> None:
    async def scenario(_: Bench) -> None:
        async with await listen(LOCAL, tls=server_tls()) as listener:
            listener._port.machine.receive_datagrams = lambda batch, now: None  # type: ignore[method-assign]
            url = str(listener.address)
            with pytest.raises(TlsHandshakeFailed, match="handshake_timeout"):
                await connect(url, tls=client_tls(handshake_timeout=0.05))
            with pytest.raises(OperationTimedOut, match="connecting to dtls://"):
                await connect(url, tls=client_tls(), timeout=0.05)
            token = CancelToken()
            connecting = asyncio.create_task(connect(url, tls=client_tls(), cancel=token))
            await asyncio.sleep(0)
            token.cancel("never mind")
            with pytest.raises(OperationCancelled, match="never mind"):
                await connecting

    run_on(scenario)


def test_options_that_dtls_does_not_have(run_on: Ground) -> None:
    async def scenario(_: Bench) -> None:
        with pytest.raises(ValueError, match=r"no DTLS 1\.3"):
            await listen(LOCAL, tls=server_tls(minimum_version="TLSv1.3"))
        with pytest.raises(ValueError, match=r"no DTLS 1\.3"):
            await connect("dtls://127.0.0.1:1", tls=client_tls(minimum_version="TLSv1.3"))
        with pytest.raises(ValueError, match="scheme"):
            await connect("tcp://127.0.0.1:1")
        modern = authority().issue("modern", "127.0.0.1")
        with pytest.raises(TlsFilesUnusable, match="Ed25519"):
            await listen(LOCAL, tls=ServerTls(modern.certificate, modern.key))

    run_on(scenario)


def test_nothing_is_left_of_peers_that_are_gone(run_on: Ground) -> None:
    async def scenario(_: Bench) -> None:
        async with await listen(LOCAL, tls=server_tls()) as listener:
            gone = []
            for _ in range(3):
                near = await connect(str(listener.address), tls=client_tls())
                far = await listener.accept()
                gone += [weakref.ref(near._conversation), weakref.ref(far._conversation)]
                await near.close()
                assert await far.recv(timeout=10) == b""
                await far.close()
                del near, far

            def kept() -> bool:
                gc.collect()
                return any(ref() is not None for ref in gone)

            await until(lambda: not kept())
            assert listener.peers == 0

    run_on(scenario)


def test_what_is_wrong_is_said_in_terms_of_dtls(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        async with pair() as (_, _, listener):
            url = str(listener.address)
            with pytest.raises(AddressInUse, match="dtls://127"):
                await listen(url, tls=server_tls())
            for wrong in (5, {"mtu": 1200}):
                with pytest.raises(TypeError, match="options must be DtlsOptions, not"):
                    await listen(LOCAL, tls=server_tls(), options=wrong)  # type: ignore[arg-type]
                with pytest.raises(TypeError, match="options must be DtlsOptions, not"):
                    await connect(url, tls=client_tls(), options=wrong)  # type: ignore[arg-type]

    run_on(scenario)
