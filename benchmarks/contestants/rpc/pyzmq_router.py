"""ZeroMQ with MessagePack: a ROUTER that answers, a DEALER that keeps a window of requests under way.

Plain blocking sockets, which is ZeroMQ at its quickest: there are no workers here, since the library
has no call to wait for; the client sends a new request for each reply it has checked.
"""

from __future__ import annotations

import argparse
from time import perf_counter

import msgpack
import zmq

from benchmarks.contestants.rpc.load import Load, Outcome, WrongAnswer, parse_role, report
from benchmarks.contestants.serving import LOOPBACK, announce

HIGH_WATER_MARK = 10_000
"""Messages; at ZeroMQ's 1,000 a ROUTER may drop replies with 1,000 requests in flight."""

SILENCE = 5_000
"""Milliseconds without a reply after which the client gives up."""


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
            _, message_id, _, (a, b) = unpack(receive(), use_list=False)
            send(client, more)
            send(pack((1, message_id, None, a + b)))


def load_server(host: str, port: int, load: Load) -> Outcome:
    with zmq.Context() as context, open_socket(context, zmq.DEALER) as socket:
        socket.rcvtimeo = SILENCE
        socket.connect(f"tcp://{host}:{port}")
        pack = msgpack.Packer().pack
        receive, send, unpack = socket.recv, socket.send, msgpack.unpackb
        expected: dict[int, float] = {}
        last_id = 0

        def request() -> None:
            nonlocal last_id
            last_id += 1
            a, b = float(last_id % load.in_flight), float(last_id)
            expected[last_id] = a + b
            send(pack((0, last_id, "calculator.add", (a, b))))

        def take_until(moment: float) -> tuple[int, float]:
            """Check answers, each followed by a request, until `moment`: how many, and the time."""
            done = 0
            while (now := perf_counter()) < moment:
                _, message_id, _, result = unpack(receive(), use_list=False)
                if result != expected.pop(message_id):
                    raise WrongAnswer(f"request {message_id} gave {result!r}")
                request()
                done += 1
            return done, now

        for _ in range(load.in_flight):
            request()
        _, started = take_until(perf_counter() + load.warm_up)
        done, ended = take_until(started + load.seconds)
        return Outcome(done, ended - started)


def main() -> None:
    role = parse_role(argparse.ArgumentParser(description=__doc__))
    if role.load is None:
        serve()
    else:
        report(load_server(role.host, role.port, role.load))


if __name__ == "__main__":
    main()
