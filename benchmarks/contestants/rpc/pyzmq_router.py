"""ZeroMQ with MessagePack: a ROUTER that answers, a DEALER that keeps a window of requests under way.

Plain blocking sockets, which is ZeroMQ at its quickest.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import msgpack
import zmq

from benchmarks.cases import Work
from benchmarks.contestants.rpc.load import payloads
from benchmarks.contestants.rpc.program import Load, Outcome, WrongAnswer, parse_role, report
from benchmarks.contestants.rpc.window import keep_full
from benchmarks.contestants.serving import LOOPBACK, announce

HIGH_WATER_MARK = 10_000
"""Messages; at ZeroMQ's 1,000 a ROUTER may drop replies with 1,000 requests in flight."""

SILENCE = 5_000
"""Milliseconds without a reply after which the client gives up."""


def add(a: float, b: float) -> float:
    return a + b


def mirror(data: bytes) -> bytes:
    return data


METHODS: dict[str, Callable[..., object]] = {"calculator.add": add, "calculator.mirror": mirror}


def open_socket(context: zmq.Context[zmq.Socket[bytes]], kind: int) -> zmq.Socket[bytes]:
    socket = context.socket(kind)
    socket.set_hwm(HIGH_WATER_MARK)
    socket.linger = 0
    return socket


def serve() -> None:
    with zmq.Context() as context, open_socket(context, zmq.ROUTER) as socket:
        port = socket.bind_to_random_port(f"tcp://{LOOPBACK}")
        announce(LOOPBACK, port)
        pack = msgpack.Packer().pack
        receive, send, unpack, more = socket.recv, socket.send, msgpack.unpackb, zmq.SNDMORE
        while True:
            client = receive()
            _, message_id, method, params = unpack(receive(), use_list=False)
            send(client, more)
            send(pack((1, message_id, None, METHODS[method](*params))))


def load_server(host: str, port: int, load: Load) -> Outcome:
    with zmq.Context() as context, open_socket(context, zmq.DEALER) as socket:
        socket.rcvtimeo = SILENCE
        socket.connect(f"tcp://{host}:{port}")
        pack = msgpack.Packer().pack
        receive, send, unpack = socket.recv, socket.send, msgpack.unpackb
        expected: dict[int, Any] = {}
        last_id = 0
        sent = [payload for n in range(load.in_flight) for payload in payloads(n)]

        def ask_add() -> None:
            nonlocal last_id
            last_id += 1
            a, b = float(last_id % load.in_flight), float(last_id)
            expected[last_id] = a + b
            send(pack((0, last_id, "calculator.add", (a, b))))

        def ask_mirror() -> None:
            nonlocal last_id
            last_id += 1
            expected[last_id] = payload = sent[last_id % len(sent)]
            send(pack((0, last_id, "calculator.mirror", (payload,))))

        def take() -> None:
            _, message_id, _, result = unpack(receive(), use_list=False)
            if result != expected.pop(message_id):
                raise WrongAnswer(f"request {message_id} was answered wrongly")

        return keep_full(load, ask_add if load.work is Work.ADD else ask_mirror, take)


def main() -> None:
    role = parse_role(argparse.ArgumentParser(description=__doc__))
    if role.load is None:
        serve()
    else:
        report(load_server(role.host, role.port, role.load))


if __name__ == "__main__":
    main()
