"""Clients that break the rules, over real sockets: each ends by itself, and nobody else notices."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import msgpack
import pytest
from rpc_bench import Bench, Ground, until
from rpc_raw import CANCEL, CREDIT, END, GOAWAY, HELLO, ITEM, NOTIFICATION, PING, REQUEST, RESPONSE
from rpc_sockets import BadClient, with_extensions, witnessed

from helianthus import RpcLimits, Server, Service, StatusCode, method
from helianthus.errors import LimitExceeded, RemoteProtocolError


class Probe(Service):
    """What everybody calls."""

    def __init__(self) -> None:
        self.waiting = 0
        self.cancelled = 0
        self.noted: list[int] = []

    @method
    def add(self, a: int, b: int) -> int:
        return a + b

    @method
    def note(self, value: int) -> None:
        self.noted.append(value)

    @method
    async def wait(self) -> None:
        self.waiting += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.waiting -= 1
            self.cancelled += 1

    @method
    async def total(self, items: AsyncIterator[Any]) -> int:
        return len([item async for item in items])

    @method
    async def ignore(self, items: AsyncIterator[Any]) -> None:
        await asyncio.Event().wait()


async def ended(bench: Bench, server: Server, connections: int = 1) -> list[Exception]:
    """Wait until so many connections have ended; gives what was reported of them."""
    await until(lambda: len(bench.disconnected) >= connections)
    assert len(server.peers) == 1  # the witness
    reported = bench.take_errors()
    assert all(name == "" for name, _ in reported)
    return [error for _, error in reported]


# -- not MessagePack, not a message ------------------------------------------------


STRANGERS = {
    "http": b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
    "tls": bytes.fromhex("160301010001000000fc0303") + bytes(range(240)),
    "ssh": b"SSH-2.0-OpenSSH_9.6\r\n",
    "redis": b"*1\r\n$4\r\nPING\r\n",
    "never_used": b"\xc1",
    "nil": b"\xc0",
    "text": msgpack.packb("hello"),
    "map": msgpack.packb({"jsonrpc": "2.0"}),
    "empty_array": b"\x90",
    "nested_deeply": b"\x91" * 100_000,
    "maps_nested_deeply": b"\x81\x01" * 100_000,
    "long_array_announced": b"\xdd\xff\xff\xff\xff",
    "long_map_announced": b"\xdf\xff\xff\xff\xff",
    "long_text_announced": b"\xdb\xff\xff\xff\xff" + b"x" * 1000,
    "long_bytes_announced": b"\xc6\xff\xff\xff\xff" + b"x" * 1000,
    "long_ext_announced": b"\xc9\xff\xff\xff\xff\x01" + b"x" * 1000,
    "key_that_cannot_be_hashed": b"\x94\x00\x01\xa1m\x81\x90\x01",
    "no_utf_8": b"\x94\x00\x01\xa2\xff\xfe\x90",
    "bad_timestamp": b"\x94\x00\x01\xa1m\x91\xc7\x05\xff12345",
}
MALFORMED: dict[str, Any] = {
    "type_as_text": ["0", 1, "m", []],
    "type_as_float": [0.0, 1, "m", []],
    "type_as_bool": [True, 1, None, None],
    "type_unknown": [9, 1],
    "type_huge": [2**40, 1, "m", []],
    "type_negative": [-1, 1, "m", []],
    "request_short": [REQUEST, 1, "m"],
    "request_long": [REQUEST, 1, "m", [], {}, {}],
    "request_id_negative": [REQUEST, -1, "m", []],
    "request_id_too_large": [REQUEST, 2**32, "m", []],
    "request_id_text": [REQUEST, "1", "m", []],
    "request_id_bool": [REQUEST, True, "m", []],
    "request_method_number": [REQUEST, 1, 7, []],
    "request_params_nil": [REQUEST, 1, "m", None],
    "request_params_text": [REQUEST, 1, "m", "abc"],
    "request_keys_numbers": [REQUEST, 1, "m", {1: 2}],
    "request_meta_list": [REQUEST, 1, "m", [], [1]],
    "request_timeout_negative": [REQUEST, 1, "m", [], {"timeout": -1}],
    "request_timeout_text": [REQUEST, 1, "m", [], {"timeout": "1"}],
    "request_timeout_nan": [REQUEST, 1, "m", [], {"timeout": float("nan")}],
    "request_stream_unknown": [REQUEST, 1, "m", [], {"stream": 4}],
    "request_stream_before_hello": [REQUEST, 1, "m", [], {"stream": 1}],
    "response_short": [RESPONSE, 1, None],
    "response_id_text": [RESPONSE, "1", None, None],
    "notification_short": [NOTIFICATION, "m"],
    "notification_method_nil": [NOTIFICATION, None, []],
    "notification_params_number": [NOTIFICATION, "m", 1],
    "hello_without_map": [NOTIFICATION, "helianthus.hello", []],
    "hello_without_version": [NOTIFICATION, "helianthus.hello", [{}]],
    "hello_version_zero": [NOTIFICATION, "helianthus.hello", [{"version": 0}]],
    "hello_credit_negative": [NOTIFICATION, "helianthus.hello", [{"version": 1, "credit": -1}]],
    "cancel_short": [CANCEL],
    "cancel_id_text": [CANCEL, "x"],
    "item_short": [ITEM, 1],
    "end_long": [END, 1, 2],
    "credit_zero": [CREDIT, 1, 0],
    "credit_negative": [CREDIT, 1, -5],
    "credit_huge": [CREDIT, 1, 2**40],
    "ping_short": [PING, 1],
    "ping_reply_number": [PING, 1, 1],
    "goaway_short": [GOAWAY, 1],
    "goaway_reason_number": [GOAWAY, None, 3],
}


@pytest.mark.parametrize("extended", [False, True], ids=["plain", "extended"])
def test_what_is_no_message_ends_the_connection_with_an_error(run_on_real: Ground, extended: bool) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Probe())
        async with witnessed(bench, server):
            data = STRANGERS | {name: msgpack.packb(message) for name, message in MALFORMED.items()}
            if extended:
                del data["request_stream_before_hello"]
                for name in [name for name in data if name.startswith("hello_")]:
                    del data[name]  # a second hello is not looked at
            for number, (name, sent) in enumerate(data.items(), start=1):
                async with BadClient(server) as bad:
                    if extended:
                        await with_extensions(bad)
                    await bad.say([REQUEST, 5, "probe.add", [1, 1]])
                    assert await bad.hear() == [RESPONSE, 5, None, 2]
                    await bad.send(sent)
                    if name.startswith("long_") or name == "tls":
                        bad.end()  # some announce what is within the limits, and never send it
                    farewell = await bad.hear_all()
                    if extended:
                        ((kind, last, reason),) = farewell
                        assert (kind, last in (1, 5)) == (GOAWAY, True), name
                        assert reason
                    else:
                        assert farewell == [], name
                errors = await ended(bench, server, number)
                assert len(errors) == 1, name
                assert isinstance(errors[0], RemoteProtocolError), name
                assert str(errors[0]), name

    run_on_real(scenario)


def test_what_came_before_the_fault_has_run(run_on_real: Ground) -> None:
    """Though its answers may be lost: the connection ends with the fault."""

    async def scenario(bench: Bench) -> None:
        probe = Probe()
        server = await bench.serve(probe)
        async with witnessed(bench, server), BadClient(server) as bad:
            good = b"".join(msgpack.packb([REQUEST, number, "probe.note", [number]]) for number in range(20))
            await bad.send(good + b"\xc1" + good)
            await bad.hear_all()
            bad.close()
            assert len(await ended(bench, server)) == 1
            assert probe.noted == list(range(20))

    run_on_real(scenario)


def test_random_bytes(run_on_real: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        rng = random.Random(20)
        server = await bench.serve(Probe())
        rounds = 150
        async with witnessed(bench, server):
            for _ in range(rounds):
                async with BadClient(server) as bad:
                    if rng.random() < 0.3:
                        await with_extensions(bad)
                    await bad.send(rng.randbytes(rng.choice([1, 2, 10, 100, 5000])))
                    bad.end()
                    await bad.hear_all()
            errors = await ended(bench, server, rounds)
            assert len(errors) == rounds  # no random byte is the beginning of a message, and then nothing
            assert all(isinstance(error, RemoteProtocolError) for error in errors)

    run_on_real(scenario)


def test_messages_with_random_faults(run_on_real: Ground) -> None:
    """Nearly right is harder than random: the connection ends with an error, or serves on."""

    async def scenario(bench: Bench) -> None:
        rng = random.Random(21)
        server = await bench.serve(Probe())
        messages = [
            HELLO,
            [REQUEST, 1, "probe.add", [1, 2]],
            [REQUEST, 3, "probe.total", [], {"stream": 3, "timeout": 5000}],
            [ITEM, 3, {"a": [1, 2, 3]}],
            [CREDIT, 3, 5],
            [END, 3],
            [PING, 77, False],
            [NOTIFICATION, "probe.add", [1, 2], {"traceparent": "x"}],
            [CANCEL, 1],
            [RESPONSE, 9, [1, "x", None], None],
            [GOAWAY, None, "bye"],
        ]
        rounds = 200
        async with witnessed(bench, server):
            for _ in range(rounds):
                data = bytearray(b"".join(msgpack.packb(message) for message in messages))
                for _ in range(rng.choice([1, 1, 2, 5])):
                    place = rng.randrange(len(data))
                    match rng.randrange(3):
                        case 0:
                            data[place] = rng.randrange(256)
                        case 1:
                            del data[place]
                        case 2:
                            data.insert(place, rng.randrange(256))
                async with BadClient(server) as bad:
                    await bad.send(bytes(data))
                    bad.end()
                    await bad.hear_all()
            await ended(bench, server, rounds)

    run_on_real(scenario)


def test_truncated_messages(run_on_real: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Probe())
        whole = msgpack.packb([REQUEST, 300, "probe.add", [1000, "x" * 40]])
        async with witnessed(bench, server):
            for size in range(1, len(whole)):
                async with BadClient(server) as bad:
                    await bad.send(whole[:size])
                    bad.end()
                    assert await bad.hear_all() == []
            errors = await ended(bench, server, len(whole) - 1)
            assert [str(error) for error in errors] == [
                f"the peer ended the stream {size} bytes into a message" for size in range(1, len(whole))
            ]

    run_on_real(scenario)


@pytest.mark.parametrize("size", [70_000, 1_000_000, 30_000_000])
def test_messages_that_are_too_large(run_on_real: Ground, size: int) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Probe(), limits=RpcLimits(max_message_size=65_536))
        async with witnessed(bench, server), BadClient(server) as bad:
            await bad.send(msgpack.packb([REQUEST, 1, "probe.add", [bytes(size)]]))
            assert await bad.hear_all() == []
            bad.close()
            (error,) = await ended(bench, server)
            assert isinstance(error, LimitExceeded)
            assert (error.limit, error.maximum) == ("max_message_size", 65_536)
            assert "max_message_size (65536" in str(error)

    run_on_real(scenario)


# -- messages that may not come now ------------------------------------------------


def test_an_id_used_twice(run_on_real: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        probe = Probe()
        server = await bench.serve(probe)
        async with witnessed(bench, server), BadClient(server) as bad:
            await bad.say([REQUEST, 1, "probe.wait", []])
            await until(lambda: probe.waiting == 1)
            await bad.say([REQUEST, 2, "probe.add", [1, 1]])
            assert await bad.hear() == [RESPONSE, 2, None, 2]
            await bad.say([REQUEST, 1, "probe.add", [1, 1]])
            assert await bad.hear_all() == []
            bad.close()
            (error,) = await ended(bench, server)
            assert "message id 1 again" in str(error)
            assert (probe.waiting, probe.cancelled) == (0, 1)

    run_on_real(scenario)


def test_answers_that_nobody_asked_for(run_on_real: Ground) -> None:
    """They are dropped, and the first is reported; more may be a client that repeats itself."""

    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Probe())
        async with witnessed(bench, server), BadClient(server) as bad:
            for number in range(200):
                await bad.say([RESPONSE, number, None, "surprise"], [RESPONSE, number, [2, "no"], None])
            await bad.say([REQUEST, 1, "probe.add", [1, 1]])
            assert await bad.hear() == [RESPONSE, 1, None, 2]
            ((name, error),) = bench.take_errors()
            assert name == ""
            assert "no call awaits" in str(error)

    run_on_real(scenario)


def test_messages_about_calls_that_do_not_exist(run_on_real: Ground) -> None:
    """They may have ended while those were under way: nothing comes of them."""

    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Probe())
        async with witnessed(bench, server), BadClient(server) as bad:
            await with_extensions(bad)
            for msgid in (0, 1, 2, 7, 2**32 - 1):
                await bad.say([CANCEL, msgid], [ITEM, msgid, "x"], [END, msgid], [CREDIT, msgid, 5])
            await bad.say([REQUEST, 1, "probe.add", [1, 1]], [CANCEL, 1], [ITEM, 1, "x"], [CANCEL, 1])
            assert await bad.hear() == [RESPONSE, 1, None, 2]
            await bad.say([REQUEST, 3, "probe.add", [1, 1]])
            assert await bad.hear() == [RESPONSE, 3, None, 2]

    run_on_real(scenario)


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (
            [[REQUEST, 1, "probe.ignore", [], {"stream": 3}], *([ITEM, 1, n] for n in range(257))],
            "credit (256)",
        ),
        ([[REQUEST, 1, "probe.wait", [], {"stream": 1}], [ITEM, 1, "x"]], "stream it does not have"),
        ([[REQUEST, 1, "probe.ignore", [], {"stream": 3}], [END, 1], [ITEM, 1, "x"]], "stream"),
        ([[REQUEST, 2, "probe.total", [], {"stream": 2}]], "odd ids"),
        ([[PING, number, False] for number in range(10)], "too_many_pings"),
    ],
    ids=["more_than_the_credit", "no_such_direction", "after_the_end", "even_id", "pings"],
)
def test_extensions_used_against_the_rules(run_on_real: Ground, messages: list[Any], reason: str) -> None:
    async def scenario(bench: Bench) -> None:
        probe = Probe()
        server = await bench.serve(probe)
        async with witnessed(bench, server), BadClient(server) as bad:
            await with_extensions(bad)
            await bad.say(*messages)
            *_, (kind, _, said) = await bad.hear_all()
            assert kind == GOAWAY
            assert reason in said
            bad.close()
            (error,) = await ended(bench, server)
            assert reason in str(error)
            assert probe.waiting == 0

    run_on_real(scenario)


def test_too_many_streams_and_requests_are_refused_one_by_one(run_on_real: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        probe = Probe()
        server = await bench.serve(probe, limits=RpcLimits(max_streams=3, max_calls=10))
        async with witnessed(bench, server), BadClient(server) as bad:
            await with_extensions(bad)
            await bad.say(*([REQUEST, 2 * n + 1, "probe.wait", [], {"stream": 1}] for n in range(5)))
            refused = [await bad.hear() for _ in range(2)]
            assert [(msgid, error[0]) for _, msgid, error, _ in refused] == [
                (7, StatusCode.RESOURCE_EXHAUSTED),
                (9, StatusCode.RESOURCE_EXHAUSTED),
            ]
            await bad.say(*([REQUEST, 2 * n + 101, "probe.wait", []] for n in range(10)))
            refused = [await bad.hear() for _ in range(3)]
            assert [(msgid, error[0]) for _, msgid, error, _ in refused] == [
                (115, StatusCode.RESOURCE_EXHAUSTED),
                (117, StatusCode.RESOURCE_EXHAUSTED),
                (119, StatusCode.RESOURCE_EXHAUSTED),
            ]
            await until(lambda: probe.waiting == 10)
            bad.close()
            await until(lambda: probe.cancelled == 10)

    run_on_real(scenario)


# -- slow, silent, in and out ------------------------------------------------


def test_one_byte_at_a_time(run_on_real: Ground) -> None:
    """As fast as they are taken; see `test_one_byte_a_second` for patience."""

    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Probe())
        requests = b"".join(
            msgpack.packb([REQUEST, number, "probe.add", [number, 1]]) for number in range(30)
        )
        async with witnessed(bench, server), BadClient(server) as bad:
            for byte in requests:
                await bad.send(bytes([byte]))
                await asyncio.sleep(0)
            assert [await bad.hear() for _ in range(30)] == [[RESPONSE, n, None, n + 1] for n in range(30)]

    run_on_real(scenario)


def test_connections_that_come_and_go(run_on_real: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        probe = Probe()
        server = await bench.serve(probe)
        rng = random.Random(3)
        rounds = 400

        async def visit(manner: int) -> None:
            async with BadClient(server) as bad:
                if manner == 0:
                    return  # at once
                if manner == 1:
                    bad.reset()
                elif manner == 2:
                    await bad.send(b"\x94\x00")  # in the middle of a message
                elif manner == 3:
                    await bad.say([REQUEST, 1, "probe.add", [1, 1]])  # does not wait for the answer
                elif manner == 4:
                    await bad.say(HELLO, [REQUEST, 1, "probe.wait", []])
                else:
                    await bad.say([REQUEST, 1, "probe.add", [1, 1]])
                    assert await bad.hear() == [RESPONSE, 1, None, 2]

        async with witnessed(bench, server):
            manners = [rng.randrange(6) for _ in range(rounds)]
            for start in range(0, rounds, 50):
                await asyncio.gather(*(visit(manner) for manner in manners[start : start + 50]))
            await until(lambda: len(server.peers) == 1)
            await until(lambda: probe.waiting == 0)
            for name, error in bench.take_errors():
                assert name == ""
                assert "bytes into a message" in str(error)

    run_on_real(scenario)


def test_many_silent_connections(run_on_real: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Probe())
        silent = [BadClient(server) for _ in range(300)]
        try:
            async with witnessed(bench, server):
                await asyncio.gather(*(one.connect() for one in silent))
                await until(lambda: len(server.peers) == 301)
                for one in silent[::3]:
                    await one.send(b"\x94")  # and no more
                for one in silent[::50]:
                    one.end()
                await until(lambda: bench.disconnected)
        finally:
            for one in silent:
                one.close()
        await until(lambda: len(server.peers) == 1)
        assert all("bytes into a message" in str(error) for _, error in bench.take_errors())

    run_on_real(scenario)
