"""A peer that takes nothing is dropped; one that is merely slow is not."""

from __future__ import annotations

import time

from machines import TalkingMachine
from pairs import pair
from peers import Peers
from platforms import Platform
from recording import Accepting, in_time

from helianthus.drivers.errors import TimedOut, WriteTimeout

PLENTY = bytes(32 * 1024 * 1024)


def test_a_peer_that_takes_nothing_is_dropped(platform: Platform) -> None:
    """After `write_deadline` without progress the link ends with `WriteTimeout`."""
    platform.driver.write_deadline = 0.1
    client, server = pair(platform, TalkingMachine(), TalkingMachine())
    server.machine.wants_read = False
    server.link.wake()
    platform.turn_until(in_time(platform.driver, 0.01))
    begun = platform.driver.now()
    client.say(PLENTY)
    platform.turn_until(lambda: client.handler.closed)
    error = client.handler.error
    assert isinstance(error, WriteTimeout)
    assert isinstance(error, TimedOut)
    assert client.link.peer_address in str(error)
    assert platform.driver.now() - begun >= 0.1 - 1e-6  # milliseconds, on uvloop: rounded
    server.link.abort()


def test_progress_ends_the_watch(platform: Platform) -> None:
    """Once everything has been taken, an idle link may stay idle for as long as it likes."""
    client, server = pair(platform, TalkingMachine(), TalkingMachine())
    server.machine.wants_read = False
    server.link.wake()
    platform.turn_until(in_time(platform.driver, 0.01))
    client.say(PLENTY[: platform.bulk])
    platform.turn_until(lambda: client.link.unsent > 0)
    assert client.link._write_timer is not None
    server.machine.wants_read = True
    server.link.wake()
    platform.turn_until(lambda: len(server.machine.received) == min(len(PLENTY), platform.bulk))
    platform.turn_until(lambda: client.handler.writable == 1)
    assert client.link._write_timer is None
    assert not client.handler.closed


def test_a_slow_peer_is_not_dropped(socket_platform: Platform, peers: Peers) -> None:
    """Whoever takes something within every deadline may take much longer over the whole."""
    socket_platform.driver.write_deadline = 1.0
    accepting = Accepting(lambda: TalkingMachine(PLENTY, PLENTY))
    listener = socket_platform.driver.listen(socket_platform.address(), accepting)
    peer = peers.dial(listener.address, receive_buffer=65536)

    def sip() -> int:
        taken = 0
        end = time.monotonic() + 2.2  # more than twice the deadline
        while time.monotonic() < end:
            taken += len(peer.recv(32768))
            time.sleep(0.002)  # slowness is what this is about
        return taken

    sipping = peers.work(sip)
    socket_platform.turn_until(sipping.done)
    assert 0 < sipping.result() < 2 * len(PLENTY)
    (handler,) = accepting.handlers
    assert not handler.closed, handler.error
    handler.link.abort()
    socket_platform.turn_until(lambda: handler.closed)
    listener.close()
