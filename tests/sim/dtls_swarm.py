"""A DTLS server and its clients in a world that is unkind to datagrams, until it stops being so.

Faults first, then a phase without any, in which everybody has to be served. A client begins anew when
its handshake fails; whatever it receives has to be an answer to something that it has said, and the
server remembers no more peers than there are.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from functools import cache, partial

import pytest
from certificates import Authority, Pair

pytest.importorskip("OpenSSL", reason="pyOpenSSL is not installed: no DTLS")

from helianthus import ClientTls, ServerTls
from helianthus.dtls import DtlsListener, DtlsOptions, DtlsSocket, connect, listen
from helianthus.errors import TransportError
from helianthus.protocols.tls import TlsError
from helianthus.sim import World
from helianthus.sockets import OperationTimedOut, SocketClosed

CLIENTS = ("a", "b", "c")
FAULTS_END = 60.0
URL = "dtls://server:4433"


@cache
def certificates() -> tuple[Authority, Pair]:
    authority = Authority.of_this_process()
    return authority, authority.issue("server", "server", ecdsa=True)


class Swarm:
    """One world.

    Attributes:
        outcomes: What has happened, and how often.
    """

    def __init__(self, seed: int) -> None:
        self.outcomes: Counter[str] = Counter()
        self._rng = random.Random(seed)
        self._world = World(
            seed=seed,
            loss=self._rng.choice((0.1, 0.3, 0.5)),
            duplicate=self._rng.random() * 0.3,
            reorder=self._rng.random() * 0.5,
            latency=(0.001, self._rng.choice((0.01, 0.2))),
        )
        self._options = DtlsOptions(
            mtu=self._rng.choice((256, 400, 1200)), idle_timeout=self._rng.choice((5.0, 60.0))
        )
        self._listener: DtlsListener | None = None
        self._served: Counter[str] = Counter()
        self._answering: set[asyncio.Task[None]] = set()

    def run(self) -> Counter[str]:
        with self._world as world:
            world.node("server").spawn(self.serve)
            for name in CLIENTS:
                world.node(name).spawn(partial(self.ask, name))
            while world.now < FAULTS_END:
                self._fault()
                world.run(until=world.now + self._rng.random() * 10)
            self._stop_faults()
            self._served.clear()
            world.run_until(lambda: all(self._served[name] > 2 for name in CLIENTS), timeout=90.0)
            assert self._listener is not None
            assert self._listener.peers <= len(CLIENTS) * 20
            self.outcomes["recovered"] += 1
        return self.outcomes

    def _fault(self) -> None:
        name = self._rng.choice(CLIENTS)
        self._world.heal()
        match self._rng.randrange(4):
            case 0:
                self._world.partition(name, "server", one_way=self._rng.random() < 0.5)
                self.outcomes["partition"] += 1
            case 1:
                self._world.restart(name)
                self.outcomes["restart"] += 1

    def _stop_faults(self) -> None:
        self._world.heal()
        for name in CLIENTS:
            self._world.link(name, "server", loss=0.0, duplicate=0.0, reorder=0.0, latency=(0.001, 0.01))

    async def serve(self) -> None:
        pair = certificates()[1]
        tls = ServerTls(pair.certificate, pair.key)
        async with await listen(URL, tls=tls, options=self._options) as self._listener:
            async for sock in self._listener:
                task = asyncio.create_task(self._answer(sock))
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)

    async def _answer(self, sock: DtlsSocket) -> None:
        async with sock:
            try:
                async for datagram in sock:
                    await sock.send(datagram[::-1])
            except (TlsError, SocketClosed):
                self.outcomes["server lost a peer"] += 1

    async def ask(self, name: str) -> None:
        tls = ClientTls(certificates()[0].file)
        while True:
            try:
                async with await connect(URL, tls=tls, options=self._options) as sock:
                    self.outcomes["connected"] += 1
                    await self._talk(name, sock)
            except (TlsError, TransportError, SocketClosed) as error:
                self.outcomes[type(error).__name__] += 1
            await asyncio.sleep(0.1)

    async def _talk(self, name: str, sock: DtlsSocket) -> None:
        said: set[bytes] = set()
        number = silent = 0
        while silent < 5:
            number += 1
            said.add(b"%d" % number)
            await sock.send(b"%d" % number)
            try:
                answer = await sock.recv(timeout=1.0)
            except OperationTimedOut:
                silent += 1
                continue
            if not answer:
                self.outcomes["goodbye"] += 1
                return
            silent = 0
            assert answer[::-1] in said, answer
            said.discard(answer[::-1])  # none comes twice
            self._served[name] += 1
            await asyncio.sleep(0.2)
        self.outcomes["gave up"] += 1


def run_world(seed: int) -> Counter[str]:
    """One world; gives what happened in it."""
    return Swarm(seed).run()
