"""rpyc: a service on threads, a client that keeps a window of asynchronous requests under way.

The server has a thread for each connection. Compression, which only costs here, is off.
"""

from __future__ import annotations

import argparse
import logging
from collections import deque
from time import monotonic, perf_counter, sleep
from typing import Any

import rpyc
from rpyc.core.channel import Channel
from rpyc.utils.server import ThreadedServer

from benchmarks.cases import Work
from benchmarks.contestants.rpc import connections
from benchmarks.contestants.rpc.load import payloads
from benchmarks.contestants.rpc.program import (
    Findings,
    Load,
    Outcome,
    WrongAnswer,
    parse_role,
    report,
    report_and_end,
)
from benchmarks.contestants.rpc.window import keep_full
from benchmarks.contestants.serving import LOOPBACK, announce

SILENCE = 10
"""Seconds without an answer after which the client gives up."""

Channel.COMPRESSION_THRESHOLD = 1 << 40


class Calculator(rpyc.Service):
    def exposed_add(self, a: float, b: float) -> float:
        return a + b

    def exposed_mirror(self, data: bytes) -> bytes:
        return data


def serve() -> None:
    quiet = logging.getLogger("rpyc-benchmark")
    quiet.setLevel(logging.CRITICAL)
    server = ThreadedServer(Calculator(), hostname=LOOPBACK, port=0, logger=quiet)
    server._listen()  # `start` does so too late for the address to be told
    announce(LOOPBACK, server.port)
    server.active = False  # else `start` would not begin to accept
    server.start()


def open_connection(host: str, port: int) -> Any:
    return rpyc.connect(host, port, config={"sync_request_timeout": SILENCE})


def load_server(host: str, port: int, load: Load) -> Outcome:
    root = open_connection(host, port).root
    add, mirror = rpyc.async_(root.add), rpyc.async_(root.mirror)
    sent = [payload for n in range(load.in_flight) for payload in payloads(n)]
    waiting: deque[tuple[Any, Any]] = deque()
    last = 0

    def ask_add() -> None:
        nonlocal last
        last += 1
        a, b = float(last % load.in_flight), float(last)
        waiting.append((add(a, b), a + b))

    def ask_mirror() -> None:
        nonlocal last
        last += 1
        payload = sent[last % len(sent)]
        waiting.append((mirror(payload), payload))

    def take() -> None:
        answer, expected = waiting.popleft()
        if answer.value != expected:
            raise WrongAnswer("a request was answered wrongly")

    return keep_full(load, ask_add if load.work is Work.ADD else ask_mirror, take)


def hold(host: str, port: int, load: Load) -> Findings:
    """The same as `connections.hold`, without a loop."""
    number, notes = connections.Room().of(load.connections)
    pid = load.server_pid
    first = [open_client(host, port) for _ in range(connections.FIRST)]
    before = connections.resident(pid)
    clients = [open_client(host, port) for _ in range(number)]
    memory = (connections.resident(pid) - before) / number
    sleep(load.warm_up)
    used, started = connections.processor_time(pid), perf_counter()
    sleep(load.seconds * connections.IDLE_FACTOR)
    idle = (connections.processor_time(pid) - used) / (perf_counter() - started)
    active = use(clients, load)
    assert len(first) == connections.FIRST
    return Findings({"memory": memory, "idle": idle, "active": active}, notes)


def open_client(host: str, port: int) -> Any:
    """Open a connection; gives its `add`."""
    add = rpyc.async_(open_connection(host, port).root.add)
    if add(1.0, 2.0).value != 3.0:
        raise WrongAnswer("add(1, 2) was answered wrongly")
    return add


def use(clients: list[Any], load: Load) -> float:
    """Have a call in flight on each, and take the answers in turn."""
    waiting = deque((add, 0.0, add(0.0, 1.0)) for add in clients)

    def take(number: int, moment: float) -> int:
        done = 0
        while done < number and monotonic() < moment:
            add, a, answer = waiting.popleft()
            if answer.value != a + 1.0:
                raise WrongAnswer("a request was answered wrongly")
            waiting.append((add, a + 1.0, add(a + 1.0, 1.0)))
            done += 1
        return done

    take(len(clients), monotonic() + 60)  # the first round of all is the warm-up
    started = monotonic()
    done = take(1 << 60, started + load.seconds)
    return done / (monotonic() - started)


def main() -> None:
    role = parse_role(argparse.ArgumentParser(description=__doc__))
    if role.load is None:
        serve()
    elif role.load.work is Work.CONNECTIONS:
        report_and_end(hold(role.host, role.port, role.load))
    else:
        report(load_server(role.host, role.port, role.load))


if __name__ == "__main__":
    main()
