"""Sockets over TLS: what is agreed upon, ends, files, resumption and new certificates."""

from __future__ import annotations

import asyncio
import functools
import io
from pathlib import Path

import pytest
from rpc_bench import LOCAL as PLAIN
from rpc_bench import Bench, Ground, until
from sockets_bounds import WAYS, given_up
from sockets_tls import tls_pair
from test_sockets_bounds import NewWay, bulk, stuck
from tls_node import LOCAL, Certificates, server_tls

from helianthus import ClientTls
from helianthus.sockets import (
    ByteStreamLimits,
    IncompleteRead,
    SocketClosed,
    TlsTruncated,
    connect,
    listen,
)

TINY = ByteStreamLimits(high_water=64, low_water=16, max_queued_output=64)

every_way = pytest.mark.parametrize("new_way", WAYS, ids=lambda way: way.name)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def test_both_ends_know_what_was_agreed_upon(run_on: Ground, certificates: Certificates) -> None:
    server = certificates.server(client_ca=certificates.authority.file, alpn=["lines/1"])
    client = certificates.client(certificates.alice, server_name="localhost", alpn=["other", "lines/1"])

    async def scenario(bench: Bench) -> None:
        async with tls_pair(certificates, server=server, client=client) as (near, far):
            assert near.tls is not None
            assert far.tls is not None
            for tls in (near.tls, far.tls):
                assert (tls.version, tls.alpn, tls.server_name) == ("TLSv1.3", "lines/1", "localhost")
                assert tls.cipher
                assert tls.verified
                assert tls.certificate is not None
            assert "CN=node" in str(near.tls.certificate)
            assert "CN=alice" in str(far.tls.certificate)
            await near.send_all(b"hello, ", bytearray(b"world\n"))
            assert await far.recv_until(b"\n") == b"hello, world\n"
            await far.send_all(b"and you")
            assert await near.recv_exactly(7) == b"and you"
            assert (near.bytes_accepted, near.bytes_received) == (13, 7), "those of the program's"

    run_on(scenario)


def test_a_plain_socket_has_no_tls(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        async with (
            await listen(PLAIN) as listener,
            await connect(str(listener.address)) as near,
            await listener.accept() as far,
        ):
            assert near.tls is far.tls is None
            assert near.proxy_header is far.proxy_header is None

    run_on(scenario)


def test_the_address_says_that_it_is_encrypted(run_on: Ground, certificates: Certificates) -> None:
    async def scenario(bench: Bench) -> None:
        async with await listen(LOCAL, tls=certificates.server()) as listener:
            assert str(listener.address).startswith("tls://127.0.0.1:")
        with pytest.raises(ValueError, match=r"tls://127\.0\.0\.1:0 needs a certificate: give tls=ServerTls"):
            await listen(LOCAL)
        with pytest.raises(ValueError, match=r"is not encrypted; write it as tls://127\.0\.0\.1:0"):
            await listen(PLAIN, tls=certificates.server())
        with pytest.raises(ValueError, match="is not encrypted; write it as tls://127"):
            await connect("tcp://127.0.0.1:9", tls=certificates.client())
        with pytest.raises(ValueError, match="is not encrypted; write it as tls://host:port"):
            await connect("unix:///nowhere", tls=certificates.client())
        with pytest.raises(ValueError, match="max_handshakes is 0"):
            await listen(LOCAL, tls=certificates.server(), max_handshakes=0)

    run_on(scenario)


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_each_half_ends_by_itself(run_on: Ground, certificates: Certificates, version: str) -> None:
    server = certificates.server(minimum_version=version)

    async def scenario(bench: Bench) -> None:
        async with tls_pair(certificates, server=server) as (near, far):
            await near.send_all(b"question")
            await near.send_eof()
            await near.send_eof()
            with pytest.raises(SocketClosed, match="send_eof"):
                await near.send_all(b"more")
            assert await far.recv_exactly(8) == b"question"
            assert await far.recv() == b""
            with pytest.raises(IncompleteRead):
                await far.recv_exactly(1)
            answer = bytes(range(256)) * 2000
            sending = asyncio.ensure_future(far.send_all(answer))
            assert await near.recv_exactly(len(answer)) == answer
            await sending
            await far.send_eof()
            assert await near.recv() == b""
            await until(lambda: near._connection.ended and far._connection.ended)

    run_on(scenario)


def test_closing_is_an_end_and_not_a_loss(run_on: Ground, certificates: Certificates) -> None:
    async def scenario(bench: Bench) -> None:
        async with tls_pair(certificates) as (near, far):
            await near.send_all(b"goodbye")
            await near.close()
            assert await far.recv_exactly(7) == b"goodbye"
            assert await far.recv() == b""

    run_on(scenario)


def test_a_stream_that_is_cut_off_is_an_error(run_on: Ground, certificates: Certificates) -> None:
    async def scenario(bench: Bench) -> None:
        for required in (True, False):
            server = certificates.server(require_close_notify=required)
            async with tls_pair(certificates, server=server) as (near, far):
                await far.send_all(b"go on")
                assert await near.recv_exactly(5) == b"go on"  # nothing is unread that would make it a reset
                await near.send_all(b"the first half")
                await near.flush()
                near._connection.link.abort()  # without a reset
                assert await far.recv_exactly(14) == b"the first half"
                if not required:
                    assert await far.recv() == b""
                    continue
                for operation in (far.recv(), far.recv_exactly(1), far.recv_until(b"\n")):
                    with pytest.raises(TlsTruncated, match="may have been cut off"):
                        await operation
                with pytest.raises(TlsTruncated):
                    await far.send_all(b"x")

    run_on(scenario)


def test_little_room(run_on: Ground, certificates: Certificates) -> None:
    async def scenario(bench: Bench) -> None:
        async with tls_pair(certificates, limits=TINY) as (near, far):
            data = bytes(range(250)) * 40
            for one, other in ((near, far), (far, near)):
                sending = asyncio.ensure_future(one.send_all(data))
                received = bytearray()
                while len(received) < len(data):
                    received += await other.recv(33)
                    assert other._connection.stream.available <= len(data) - len(received)
                assert received == data
                await sending

    run_on(scenario)


# -- files -----------------------------------------------------------------------------------------------


def test_files_are_encrypted_and_in_order(run_on: Ground, certificates: Certificates, tmp_path: Path) -> None:
    data = bytes(range(253)) * 4000
    path = tmp_path / "file"
    path.write_bytes(data)

    async def scenario(bench: Bench) -> None:
        async with tls_pair(certificates) as (near, far):
            for file in (path, io.BytesIO(data)):
                receiving = asyncio.ensure_future(far.recv_exactly(5 + len(data) + 6))
                await near.send_all(b"head:")
                before = near.bytes_accepted
                assert await near.sendfile(file) == len(data)
                assert near.bytes_accepted - before == len(data), "of the file, and not on the wire"
                await near.send_all(b":tail.")
                assert await receiving == b"head:" + data + b":tail."
            receiving = asyncio.ensure_future(far.recv_exactly(1000))
            assert await near.sendfile(path, 500, 1000) == 1000
            assert await receiving == data[500:1500]
            near.abort()
            with pytest.raises(SocketClosed):
                await near.sendfile(path)

    run_on(scenario)


# -- operations that are given up ------------------------------------------------------------------------


@every_way
def test_operations_that_are_given_up(
    run_on: Ground, certificates: Certificates, tmp_path: Path, new_way: NewWay
) -> None:
    async def scenario(bench: Bench) -> None:
        data = bulk(bench)
        path = tmp_path / "file"
        path.write_bytes(data)
        async with tls_pair(certificates) as (near, far):
            await given_up(new_way(), far.recv)
            await near.send_all(b"abcdef")
            await given_up(new_way(), functools.partial(far.recv_exactly, 7))
            await near.send_all(b"g\n")
            assert await far.recv_until(b"\n") == b"abcdefg\n"
            for send in (
                lambda at: functools.partial(near.send_all, memoryview(data)[at:]),
                lambda at: functools.partial(near.sendfile, path, at),
            ):
                before = near.bytes_accepted
                error = await given_up(new_way(), send(0), stuck(near))
                queued = near.bytes_accepted - before
                assert 0 < queued < len(data)
                assert getattr(error, "queued", queued) == queued
                sending = asyncio.ensure_future(send(queued)())
                assert await far.recv_exactly(len(data)) == data
                await sending

    run_on(scenario)


# -- sessions and certificates ----------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_sessions_are_resumed(run_on: Ground, certificates: Certificates, version: str) -> None:
    async def scenario(bench: Bench) -> None:
        server = certificates.server(minimum_version=version)
        client = certificates.client()

        async def resumed(url: str, tls: ClientTls) -> bool:
            async with await connect(url, tls=tls) as near, await listener.accept() as far:
                await far.send_all(b"welcome")
                assert await near.recv_exactly(7) == b"welcome"
                assert near.tls is not None
                assert far.tls is not None
                assert near.tls.resumed is far.tls.resumed
                return near.tls.resumed

        async with await listen(LOCAL, tls=server) as listener:
            url = str(listener.address)
            assert not await resumed(url, client)
            assert await resumed(url, client)
            assert not await resumed(url, certificates.client()), "somebody else's"
            assert not await resumed(url, certificates.client(resume=False))
            server.reload()
            assert not await resumed(url, client), "everybody's certificate is looked at anew"
            assert await resumed(url, client)

    run_on(scenario)


def test_new_certificates_are_for_new_connections(
    run_on: Ground, certificates: Certificates, tmp_path: Path
) -> None:
    async def scenario(bench: Bench) -> None:
        files = [tmp_path / "now.pem", tmp_path / "now.key"]

        def put(name: str) -> None:
            pair = certificates.authority.issue(name, "127.0.0.1")
            files[0].write_bytes(pair.certificate.read_bytes())
            files[1].write_bytes(pair.key.read_bytes())

        put("before")
        tls = server_tls(type(certificates.node)(*files, b""))
        async with await listen(LOCAL, tls=tls) as listener:
            url = str(listener.address)
            shown = []
            for name in ("before", "after"):
                put(name)
                tls.reload()
                near = await bench.closing(await connect(url, tls=certificates.client()))
                far = await bench.closing(await listener.accept())
                shown.append((near, far))
                files[0].write_text("nothing of use")
                with pytest.raises(ValueError, match="holds no certificate"):
                    tls.reload()
            for (near, far), name in zip(shown, ("before", "after"), strict=True):
                await near.send_all(b"still here")
                assert await far.recv_exactly(10) == b"still here"
                assert near.tls is not None
                assert f"CN={name}" in str(near.tls.certificate)

    run_on(scenario)
