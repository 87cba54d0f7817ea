"""Other threads and signal handlers: `post` and `in_thread`."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from machines import EchoMachine, Fault, TalkingMachine
from pairs import pair
from peers import PATIENCE, Peers
from platforms import Platform
from recording import in_time


def test_post_runs_callbacks_in_order(platform: Platform) -> None:
    """They run later, in the driver, in the order of posting; a posted callback may post."""
    driver = platform.driver
    ran: list[object] = []
    for number in range(10):
        driver.post(lambda number=number: ran.append(number))
    driver.post(lambda: driver.post(lambda: ran.append("again")))
    assert ran == []
    platform.turn_until(lambda: "again" in ran)
    assert ran == [*range(10), "again"]


def test_a_posted_callback_that_raises_does_not_stop_the_others(platform: Platform) -> None:
    """The fault is reported."""
    ran: list[int] = []

    def fail() -> None:
        raise Fault("posted")

    platform.driver.post(fail)
    platform.driver.post(lambda: ran.append(1))
    platform.turn_until(lambda: ran)
    assert [str(error) for error in platform.take_errors()] == ["posted"]


def test_post_from_many_threads(socket_platform: Platform, peers: Peers) -> None:
    """None is lost, each thread's come in its order, and all run in the driver's thread."""
    driver = socket_platform.driver
    ran: list[tuple[int, int]] = []
    threads: set[int] = set()

    def note(thread: int, number: int) -> None:
        ran.append((thread, number))
        threads.add(threading.get_ident())

    def post_all(thread: int) -> None:
        for number in range(1000):
            driver.post(lambda number=number: note(thread, number))

    workers = [peers.work(post_all, thread) for thread in range(8)]
    socket_platform.turn_until(lambda: len(ran) == 8000 and all(worker.done() for worker in workers))
    for thread in range(8):
        assert [number for origin, number in ran if origin == thread] == list(range(1000))
    assert threads == {threading.get_ident()}


def test_a_storm_of_posts_among_traffic(socket_platform: Platform, peers: Peers) -> None:
    """Eight threads that never stop posting: links are served, timers ring, nothing is lost."""
    driver = socket_platform.driver
    counts = [0] * 8
    posted = [0] * 8
    over = threading.Event()

    def storm(thread: int) -> None:
        def ran() -> None:
            counts[thread] += 1

        while not over.is_set():
            for _ in range(10):  # in gusts, so that the driver may fall asleep between them
                driver.post(ran)
                posted[thread] += 1
            over.wait(0.0005)

    workers = [peers.work(storm, thread) for thread in range(8)]
    client, _ = pair(socket_platform, TalkingMachine(), EchoMachine())
    for number in range(100):
        client.say(b"x")
        socket_platform.turn_until(lambda number=number: len(client.machine.received) > number)
    socket_platform.turn_until(in_time(driver, 0.01))
    socket_platform.turn_until(lambda: min(counts) > 0)
    over.set()
    socket_platform.turn_until(lambda: all(worker.done() for worker in workers))
    socket_platform.turn_until(lambda: counts == posted)


def test_a_storm_that_outlives_the_driver(socket_platform: Platform, peers: Peers) -> None:
    """Threads cannot know when a driver is closed: what they post then is ignored, and harms nobody."""
    driver = socket_platform.driver
    over = threading.Event()
    ran: list[int] = []

    def storm() -> None:
        while not over.is_set():
            driver.post(lambda: ran.append(1))
            over.wait(0.0001)

    workers = [peers.work(storm) for _ in range(8)]
    socket_platform.turn_until(lambda: len(ran) > 100)
    driver.close()
    closed_after = len(ran)
    with contextlib.ExitStack() as stack:  # these are likely to get the numbers it has given back
        ends = [stack.enter_context(end) for _ in range(8) for end in socket.socketpair()]
        for _ in range(20):
            over.wait(0.001)
        over.set()
        for worker in workers:
            worker.join(PATIENCE)
            worker.result()
        for end in ends:
            end.setblocking(False)
            with pytest.raises(BlockingIOError):
                end.recv(1)
    assert len(ran) == closed_after


def test_post_wakes_the_driver(socket_platform: Platform, peers: Peers) -> None:
    """However long the driver meant to wait, it does not."""
    ran: list[float] = []
    begun = time.monotonic()

    def post_later() -> None:
        time.sleep(0.05)  # so that the driver waits by then; where it does not, nothing is tested
        socket_platform.driver.post(lambda: ran.append(time.monotonic()))

    peers.work(post_later)
    socket_platform.turn_until(lambda: ran)
    assert ran[0] - begun < 5.0


@pytest.fixture
def signals() -> Iterator[None]:
    """Put signal handlers back as they were."""
    if not hasattr(signal, "setitimer"):
        pytest.skip("Windows has no signals to send")
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGALRM)}
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals")
def test_post_from_a_signal_handler(socket_platform: Platform) -> None:
    """Also while the driver runs a callback, and while it waits."""
    ran: list[str] = []
    driver = socket_platform.driver
    signal.signal(signal.SIGUSR1, lambda *_: driver.post(lambda: ran.append("during a callback")))
    signal.signal(signal.SIGALRM, lambda *_: driver.post(lambda: ran.append("while waiting")))
    driver.post(lambda: os.kill(os.getpid(), signal.SIGUSR1))
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    socket_platform.turn_until(lambda: len(ran) == 2)
    assert sorted(ran) == ["during a callback", "while waiting"]


def test_in_thread(platform: Platform) -> None:
    """The work is done elsewhere; its result or its error comes back in the driver's thread."""
    outcomes: list[tuple[object, object, int]] = []
    workers: list[int] = []

    def done(result: object, error: object) -> None:
        outcomes.append((result, error, threading.get_ident()))

    def work() -> int:
        workers.append(threading.get_ident())
        return 42

    def fail() -> None:
        raise Fault("disk")

    platform.driver.in_thread(work, done)
    platform.turn_until(lambda: len(outcomes) == 1)
    platform.driver.in_thread(fail, done)
    platform.turn_until(lambda: len(outcomes) == 2)
    assert outcomes[0] == (42, None, threading.get_ident())
    assert outcomes[1][0] is None
    assert str(outcomes[1][1]) == "disk"
    if platform.sockets:
        assert workers[0] != threading.get_ident()


def test_a_done_that_raises_is_reported(platform: Platform) -> None:
    """As any other callback."""

    def fail(result: object, error: object) -> None:
        raise Fault("done")

    platform.driver.in_thread(lambda: None, fail)
    platform.turn_until(lambda: platform.errors)
    assert [str(error) for error in platform.take_errors()] == ["done"]


def test_work_that_outlives_the_driver(socket_platform: Platform) -> None:
    """Its result reaches nobody, and nothing complains."""
    release = threading.Event()
    finished = threading.Event()
    outcomes: list[object] = []

    def work() -> None:
        release.wait(30)
        finished.set()

    socket_platform.driver.in_thread(work, lambda *outcome: outcomes.append(outcome))
    socket_platform.turn_until(in_time(socket_platform.driver, 0.01))
    socket_platform.driver.close()
    release.set()
    assert finished.wait(30)
    assert outcomes == []


def test_post_to_a_closed_driver(platform: Platform) -> None:
    """Other threads cannot know: it is ignored, and touches no descriptor."""
    driver = platform.driver
    driver.close()
    ran: list[int] = []
    with contextlib.ExitStack() as stack:  # these are likely to get the numbers it has given back
        ends = [stack.enter_context(end) for _ in range(4) for end in socket.socketpair()]
        driver.post(lambda: ran.append(1))
        for end in ends:
            end.setblocking(False)
            with pytest.raises(BlockingIOError):
                end.recv(1)
    assert ran == []
