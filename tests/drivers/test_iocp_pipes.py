"""Named pipes, `pipe:///name`: on the IOCP driver."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from iocp_ends import End, turn_until

if sys.platform != "win32":
    pytest.skip("named pipes exist on Windows only", allow_module_level=True)

import helianthus
from helianthus import Service, method
from helianthus.drivers.address import Address
from helianthus.drivers.errors import AddressInUse, AddressNotAvailable, ConnectionRefused, WriteTimeout
from helianthus.drivers.iocp import IocpDriver
from helianthus.drivers.iocp_pipe import INSTANCES, PipeListener
from helianthus.protocols.machine import Closing

UNDER_WINE = hasattr(ctypes.windll.ntdll, "wine_get_version")


@pytest.fixture
def driver() -> Iterator[IocpDriver]:
    made = IocpDriver()
    errors: list[Exception] = []
    made.on_error = errors.append
    yield made
    made.close()
    assert made._operations == {}
    assert made.buffers.statistics().leased == 0
    assert errors == []


@pytest.fixture
def address(request: pytest.FixtureRequest) -> Address:
    return Address.parse(f"pipe:///helianthus-{os.getpid()}-{request.node.name[:40]}", ("pipe",))


def serve(driver: IocpDriver, address: Address, **options: Any) -> tuple[PipeListener, list[End]]:
    ends: list[End] = []

    def accept(peer: str) -> tuple[Any, Any]:
        ends.append(End(**({"echoes": True} | options)))
        return ends[-1], ends[-1]

    listener = driver.listen(address, accept)
    assert isinstance(listener, PipeListener)
    return listener, ends


def connect(driver: IocpDriver, address: Address, *output: bytes) -> End:
    end = End(list(output))
    driver.connect(address, end, end)
    return end


def test_there_and_back(driver: IocpDriver, address: Address) -> None:
    listener, ends = serve(driver, address)
    client = connect(driver, address, b"hello")
    turn_until(driver, lambda: client.received == b"hello")
    assert client.link.peer_address == str(address) == ends[0].link.local_address
    assert client.link.local_address == ends[0].link.peer_address == "pipe:"
    assert listener.address == address
    numbers = client.link.statistics()
    assert (numbers.bytes_in, numbers.bytes_out) == (5, 5)


def test_a_large_transfer_both_ways(driver: IocpDriver, address: Address) -> None:
    data = bytes(range(256)) * 40_000
    serve(driver, address)
    client = connect(driver, address, data)
    turn_until(driver, lambda: len(client.received) == len(data))
    assert client.received == data


def test_more_clients_than_instances(driver: IocpDriver, address: Address) -> None:
    """Those who find every instance taken try again."""
    serve(driver, address)
    clients = [connect(driver, address, b"%d" % number) for number in range(8 * INSTANCES)]
    turn_until(driver, lambda: all(client.received for client in clients))
    assert [bytes(client.received) for client in clients] == [
        b"%d" % number for number in range(len(clients))
    ]


def test_what_was_written_before_the_end_arrives(driver: IocpDriver, address: Address) -> None:
    _, ends = serve(driver, address, echoes=False)
    client = connect(driver, address, b"x" * 50_000)
    client.closing = Closing.FULL
    turn_until(driver, lambda: ends and ends[0].closed)
    assert ends[0].received == b"x" * 50_000
    assert ends[0].ended
    turn_until(driver, lambda: client.closed)
    assert client.error is None


def test_an_abort_is_noticed(driver: IocpDriver, address: Address) -> None:
    _, ends = serve(driver, address)
    client = connect(driver, address, b"x")
    turn_until(driver, lambda: client.received)
    client.link.abort()
    turn_until(driver, lambda: ends[0].closed)
    assert ends[0].ended


def test_nobody_listens(driver: IocpDriver, address: Address) -> None:
    client = connect(driver, address)
    turn_until(driver, lambda: client.closed)
    assert isinstance(client.error, ConnectionRefused)
    assert "no such pipe" in str(client.error)


def test_nobody_listens_any_more(driver: IocpDriver, address: Address) -> None:
    listener, ends = serve(driver, address)
    first = connect(driver, address, b"x")
    turn_until(driver, lambda: first.received)
    listener.close()
    listener.close()
    turn_until(driver, lambda: not listener._under_way)
    ends[0].link.abort()
    turn_until(driver, lambda: first.closed)
    client = connect(driver, address)
    turn_until(driver, lambda: client.closed)
    assert isinstance(client.error, ConnectionRefused)
    serve(driver, address)


@pytest.mark.skipif(UNDER_WINE, reason="Wine lets anybody add instances to a pipe that is said to be new")
def test_a_name_that_is_taken(driver: IocpDriver, address: Address) -> None:
    serve(driver, address)
    with pytest.raises(AddressInUse, match="somebody listens there"):
        serve(driver, address)


@pytest.mark.parametrize("name", ["a%2Fb", "a%5Cb", "x" * 300])
def test_a_name_that_no_pipe_can_have(driver: IocpDriver, name: str) -> None:
    with pytest.raises(AddressNotAvailable, match="no slashes"):
        serve(driver, Address.parse(f"pipe:///{name}", ("pipe",)))
    client = connect(driver, Address.parse(f"pipe:///{name}", ("pipe",)))
    turn_until(driver, lambda: client.closed)
    assert isinstance(client.error, AddressNotAvailable)


def test_a_peer_that_reads_nothing_is_dropped(driver: IocpDriver, address: Address) -> None:
    driver.write_deadline = 0.2
    _, ends = serve(driver, address, echoes=False, wants_read=False)
    client = connect(driver, address, bytes(8 << 20))
    turn_until(driver, lambda: client.closed)
    assert isinstance(client.error, WriteTimeout)
    assert not ends[0].received


def test_a_paused_listener(driver: IocpDriver, address: Address) -> None:
    """As many connect as there are instances already; the others find none, and try again."""
    listener, ends = serve(driver, address)
    listener.pause()
    clients = [connect(driver, address, b"x") for _ in range(3 * INSTANCES)]
    turn_until(driver, lambda: len(listener._held) == INSTANCES)
    tried_again: list[bool] = []
    driver.call_at(driver.now() + 0.1, lambda: tried_again.append(True))
    turn_until(driver, lambda: tried_again)
    assert len(listener._held) == INSTANCES
    assert ends == []
    listener.resume()
    turn_until(driver, lambda: all(client.received == b"x" for client in clients))


def test_accept_that_raises(driver: IocpDriver, address: Address) -> None:
    reported: list[Exception] = []
    driver.on_error = reported.append
    outcomes: list[Any] = [ZeroDivisionError("today not"), (End(echoes=True),) * 2]

    def accept(peer: str) -> tuple[Any, Any]:
        outcome: Any = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return tuple(outcome)[:2]

    driver.listen(address, accept)
    refused = connect(driver, address, b"x")
    turn_until(driver, lambda: refused.closed)
    served = connect(driver, address, b"x")
    turn_until(driver, lambda: served.received == b"x")
    assert [str(error) for error in reported] == ["today not"]


class Sums(Service):
    name = "sums"

    @method
    def add(self, a: int, b: int) -> int:
        return a + b


def test_calls_over_a_pipe(address: Address) -> None:
    async def main() -> int:
        async with helianthus.Server([Sums()]) as server:
            await server.listen(str(address))
            async with helianthus.connect(str(address)) as client:
                return int(await client.call("sums.add", 1, 2))

    assert helianthus.run(main(), driver="iocp") == 3
