"""Certificates are replaced while calls go on, and a bad one changes nothing."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from rpc_bench import Bench, Ground, until, url_of
from tls_node import LOCAL, Certificates, Probe, server_tls

import helianthus
from helianthus import Client, Server, ServerTls, TlsFilesUnusable
from helianthus.services.tls.contexts import server_context

HOSTS = ("127.0.0.1", "localhost")


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


async def shown_to(bench: Bench, server: Server, certificates: Certificates) -> str | None:
    """The common name in the certificate that a new client gets."""
    names: list[str | None] = []
    async with helianthus.connect(url_of(server), tls=certificates.client()) as client:
        client.on_connect(lambda peer: names.append(peer.tls.certificate.common_name))
        assert await client.call("probe.add", 2, 3) == 5
    return names[0]


def serving(certificates: Certificates) -> ServerTls:
    """Options for a node whose files a test replaces."""
    return server_tls(certificates.authority.issue("first", *HOSTS, file="replaced"))


def test_no_call_is_dropped_by_a_reload(run_on: Ground, certificates: Certificates) -> None:
    async def scenario(bench: Bench) -> None:
        tls = serving(certificates)
        server = await bench.serve(Probe(), url=LOCAL, tls=tls)
        clients = [await bench.client(server, tls=certificates.client()) for _ in range(4)]
        calls = 0
        stop = asyncio.Event()

        async def call_on(client: Client) -> None:
            nonlocal calls
            while not stop.is_set():
                assert await client.call("probe.later", str(calls)) is not None
                assert await client.call("probe.add", calls, 1) >= 1
                calls += 1

        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(call_on(client))
            await until(lambda: calls > 50)
            peers = list(server.peers)
            for number in range(5):
                certificates.authority.issue(f"renewed {number}", *HOSTS, file="replaced")
                tls.reload()
                reached = calls + 50
                await until(lambda reached=reached: calls > reached)
                assert await shown_to(bench, server, certificates) == f"renewed {number}"
            assert [peer for peer in server.peers if peer in peers] == peers, "nobody had to connect again"
            stop.set()

    run_on(scenario)


def test_a_bad_certificate_leaves_the_old_one_in_use(run_on: Ground, certificates: Certificates) -> None:
    async def scenario(bench: Bench) -> None:
        tls = serving(certificates)
        assert not isinstance(tls.certificate, str)
        assert tls.key is not None
        server = await bench.serve(Probe(), url=LOCAL, tls=tls)
        good = Path(tls.key).read_bytes()
        other = certificates.authority.issue("other", *HOSTS)
        for content, why in (
            (other.key.read_bytes(), "does not belong to the certificate"),
            (b"", "holds no private key"),
        ):
            Path(tls.key).write_bytes(content)
            with pytest.raises(TlsFilesUnusable, match=why):
                tls.reload()
            assert await shown_to(bench, server, certificates) == "first"
        Path(tls.key).unlink()
        with pytest.raises(TlsFilesUnusable, match="there is no such file"):
            tls.reload()
        assert await shown_to(bench, server, certificates) == "first"
        Path(tls.key).write_bytes(good)
        tls.reload()
        assert await shown_to(bench, server, certificates) == "first"

    run_on(scenario)


def test_a_reload_makes_old_sessions_worthless(run_on: Ground, certificates: Certificates) -> None:
    """Whoever was trusted before has to show a certificate again."""

    async def scenario(bench: Bench) -> None:
        tls = serving(certificates)
        server = await bench.serve(Probe(), url=LOCAL, tls=tls)
        own = certificates.client()
        for _ in range(2):
            async with helianthus.connect(url_of(server), tls=own) as client:
                await client.call("probe.add", 1, 1)
        tls.reload()
        async with helianthus.connect(url_of(server), tls=own) as client:
            await client.call("probe.add", 1, 1)
        assert [peer.tls.resumed for peer in bench.connected] == [False, True, False]  # type: ignore[union-attr]

    run_on(scenario)


def test_one_of_several_servers_reloads_with_the_others(run_on: Ground, certificates: Certificates) -> None:
    async def scenario(bench: Bench) -> None:
        tls = serving(certificates)
        servers = [await bench.serve(Probe(), url=LOCAL, tls=tls) for _ in range(2)]
        certificates.authority.issue("second", *HOSTS, file="replaced")
        tls.reload()
        assert [await shown_to(bench, server, certificates) for server in servers] == ["second", "second"]

    run_on(scenario)


def test_files_are_watched(run_on_real: Ground, certificates: Certificates) -> None:
    pytest.importorskip("watchfiles", reason="watchfiles cannot be used here", exc_type=ImportError)

    async def scenario(bench: Bench) -> None:
        tls = serving(certificates)
        server = await bench.serve(Probe(), url=LOCAL, tls=tls)
        done: list[object] = []
        watching = asyncio.create_task(tls.watch(lambda: done.append("again"), done.append))
        try:
            while "again" not in done:  # nothing tells when it has begun to look
                certificates.authority.issue("watched", *HOSTS, file="replaced")
                for _ in range(200):
                    if "again" in done:
                        break
                    await asyncio.sleep(0.005)
            assert await shown_to(bench, server, certificates) == "watched"
        finally:
            watching.cancel()
            await asyncio.wait([watching])

    run_on_real(scenario)


class Watch:
    """Stands in for watchfiles, and says that something has changed when a test wants it to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.on_begin: Callable[[], object] = lambda: None
        self._changes: asyncio.Queue[None] = asyncio.Queue()
        self._asked = asyncio.Event()
        monkeypatch.setitem(sys.modules, "watchfiles", SimpleNamespace(awatch=self._awatch))

    async def _awatch(self, *paths: Path, **options: object) -> AsyncIterator[set[object]]:
        self.on_begin()
        while True:
            self._asked.set()
            await self._changes.get()
            yield set()

    async def begun(self) -> None:
        """Wait until the next change is waited for."""
        await self._asked.wait()

    async def change(self) -> None:
        """Something in the directory has changed; wait until it was looked at."""
        self._asked.clear()
        self._changes.put_nowait(None)
        await self._asked.wait()


@pytest.mark.parametrize("while_it_begins", [False, True])
def test_what_changes_before_the_watch_begins_is_seen(
    run_on: Ground, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, while_it_begins: bool
) -> None:
    """Between "listening" and the watch there is time enough to copy a file."""

    async def scenario(bench: Bench) -> None:
        tls = serving(certificates)
        server = await bench.serve(Probe(), url=LOCAL, tls=tls)
        watch = Watch(monkeypatch)

        def replace() -> None:
            certificates.authority.issue("early", *HOSTS, file="replaced")

        if while_it_begins:
            watch.on_begin = replace
        else:
            replace()
        done: list[object] = []
        watching = asyncio.create_task(tls.watch(lambda: done.append("again"), done.append))
        await watch.begun()
        assert done == ["again"]
        assert await shown_to(bench, server, certificates) == "early"
        await watch.change()
        assert done == ["again"], "nothing has changed since"
        watching.cancel()
        await asyncio.wait([watching])

    run_on(scenario)


def test_a_certificate_is_refused_once(certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a log in the same directory would be a change, and feed the next line of itself."""

    async def scenario() -> None:
        tls = serving(certificates)
        tls.made(server_context)
        watch = Watch(monkeypatch)
        done: list[object] = []
        watching = asyncio.create_task(tls.watch(lambda: done.append("again"), lambda _: done.append("bad")))
        await watch.begun()
        good = Path(tls.certificate).read_bytes()
        for content, told in (
            (b"garbage", ["bad"]),
            (b"other garbage", ["bad", "bad"]),
            (good, ["bad", "bad"]),  # that is in use
            (b"other garbage", ["bad", "bad", "bad"]),
        ):
            Path(tls.certificate).write_bytes(content)
            for _ in range(3):
                await watch.change()
                assert done == told
        certificates.authority.issue("renewed", *HOSTS, file="replaced")
        await watch.change()
        assert done == ["bad", "bad", "bad", "again"]
        watching.cancel()
        await asyncio.wait([watching])

    asyncio.run(scenario())
