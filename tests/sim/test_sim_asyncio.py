"""Ordinary asyncio code on a node's virtual clock."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator

import pytest

from helianthus.drivers.base import Driver
from helianthus.drivers.choose import running_driver
from helianthus.sim import BusyLoop, NotSimulated, SimulationError, Stalled, World, run_in_simulation


def test_sleep_moves_the_clock_and_takes_no_time() -> None:
    with World() as world:
        woke: list[float] = []

        async def main() -> None:
            for seconds in (0.5, 0, 3600.0, 86400.0 * 30):
                await asyncio.sleep(seconds)
                woke.append(asyncio.get_running_loop().time())

        world.node("a").spawn(main())
        world.run()
        assert woke == [0.5, 0.5, 3600.5, 3600.5 + 86400.0 * 30]
        assert world.now == woke[-1]


def test_primitives_behave_as_on_any_loop() -> None:
    async def main() -> list[object]:
        queue: asyncio.Queue[int] = asyncio.Queue(1)
        event = asyncio.Event()
        seen: list[object] = []

        async def produce() -> None:
            for number in range(5):
                await queue.put(number)
                await asyncio.sleep(0.1)
            event.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(produce())
            seen.extend([await queue.get() for _ in range(5)])
            await event.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2.0):
                await asyncio.Event().wait()
        seen.append(asyncio.get_running_loop().time())
        seen.extend(await asyncio.gather(asyncio.sleep(2, "late"), asyncio.sleep(1, "early")))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(10), 1)
        lock, semaphore = asyncio.Lock(), asyncio.Semaphore(2)
        async with lock, semaphore:
            seen.append(asyncio.get_running_loop().time())
        return seen

    with World() as world:
        spawned = world.node("a").spawn(main())
        assert world.run_until(spawned) == [0, 1, 2, 3, 4, 2.5, "late", "early", 5.5]


def test_the_loops_selector_is_the_driver() -> None:
    async def main() -> Driver:
        return running_driver()

    with World() as world:
        node = world.node("a")
        assert world.run_until(node.spawn(main())) is node.driver


def test_call_soon_and_call_later_from_outside() -> None:
    with World() as world:
        called: list[str] = []
        loop = world.node("a").loop
        loop.call_soon(called.append, "soon")
        loop.call_soon_threadsafe(called.append, "threadsafe")
        loop.call_later(1.0, called.append, "later")
        world.run(until=0.5)
        assert called == ["soon", "threadsafe"]
        world.run()
        assert called == ["soon", "threadsafe", "later"]
        assert world.now == 1.0


def test_timers_keep_their_order() -> None:
    with World() as world:
        order: list[object] = []
        node = world.node("a")

        async def sleep(seconds: float) -> None:
            await asyncio.sleep(seconds)
            order.append(seconds)

        for seconds in (0.3, 0.1, 0.2, 1e-9, 0.1 + 1e-9):
            node.spawn(sleep(seconds))
        node.driver.call_at(0.15, lambda: order.append("driver"))
        world.run()
        assert order == [1e-9, 0.1, 0.1 + 1e-9, "driver", 0.2, 0.3]


def test_run_until_a_time_stops_there() -> None:
    with World() as world:
        node = world.node("a")
        spawned = node.spawn(asyncio.sleep(2.0, "done"))
        world.run(until=1.0)
        assert world.now == 1.0
        assert not spawned.done
        world.run(until=2.0)
        assert spawned.done
        world.run(until=10.0)
        assert world.now == 10.0
        with pytest.raises(ValueError, match=r"t=10\.0 already"):
            world.run(until=9.0)


def test_a_busy_loop_is_an_error() -> None:
    async def spin() -> None:
        while True:
            await asyncio.sleep(0)

    with World(seed=3) as world:
        world.node("a").spawn(spin())
        with pytest.raises(BusyLoop, match="node 'a' never rests") as caught:
            world.run(until=1.0)
        assert "seed 3" in caught.value.__notes__[0]


def test_busy_driver_timers_are_an_error() -> None:
    with World() as world:
        driver = world.node("a").driver

        def again() -> None:
            driver.call_at(driver.now(), again)

        again()
        with pytest.raises(BusyLoop):
            world.run(until=1.0)


def test_many_turns_at_one_instant_are_fine() -> None:
    async def main() -> str:
        for _ in range(5000):
            await asyncio.sleep(0)
        return "rested"

    with World() as world:
        assert world.run_until(world.node("a").spawn(main())) == "rested"


def test_a_deadlock_is_an_error() -> None:
    with World() as world:
        spawned = world.node("a").spawn(asyncio.Event().wait(), name="patience")
        with pytest.raises(Stalled, match="patience"):
            world.run_until(spawned)


def test_a_condition_that_comes_too_late_is_an_error() -> None:
    with World() as world:
        spawned = world.node("a").spawn(asyncio.sleep(100))
        with pytest.raises(TimeoutError, match="within 10"):
            world.run_until(spawned, timeout=10)
        assert world.now == 10.0
        world.run_until(spawned, timeout=None)
        assert world.now == 100.0


def test_an_exception_that_nobody_takes_fails_the_run() -> None:
    async def fail() -> None:
        await asyncio.sleep(1)
        raise KeyError("lost")

    with World(seed=11) as world:
        world.node("a").spawn(fail())
        world.run(until=0.5)
        with pytest.raises(KeyError) as caught:
            world.run(until=2)
        note = "\n".join(caught.value.__notes__)
        assert "seed 11" in note
        assert "fail ended with KeyError" in note
        world.run(until=3)  # raised once is enough


def test_an_exception_that_is_taken_does_not_fail_the_run() -> None:
    async def fail() -> None:
        raise KeyError("found")

    with World() as world:
        node = world.node("a")
        first, second = node.spawn(fail()), node.spawn(fail())
        with pytest.raises(KeyError):
            world.run_until(first)
        assert isinstance(second.exception(), KeyError)
        world.run()


def test_waiting_ends_at_a_fault() -> None:
    async def fail() -> None:
        await asyncio.sleep(1)
        raise KeyError("lost")

    async def beat() -> None:
        while True:
            await asyncio.sleep(1)

    with World() as world:
        node = world.node("a")
        node.spawn(fail())
        node.spawn(beat())
        with pytest.raises(KeyError):
            world.run_until(lambda: False)
        assert world.now == 1.0


def test_waiting_goes_on_when_the_fault_is_taken() -> None:
    async def fail() -> None:
        await asyncio.sleep(1)
        raise KeyError("expected")

    with World() as world:
        spawned = world.node("a").spawn(fail())
        world.node("a").spawn(asyncio.sleep(5))
        world.run_until(lambda: spawned.done and spawned.exception() and world.now >= 5)
        assert world.now == 5.0


def test_a_second_fault_is_told_in_a_note() -> None:
    async def fail(error: Exception) -> None:
        raise error

    with World() as world:
        world.node("a").spawn(fail(ValueError("first")))
        world.node("b").spawn(fail(ValueError("second")))
        with pytest.raises(ValueError, match="first") as caught:
            world.run()
        assert any("second" in note for note in caught.value.__notes__)


def test_a_task_that_nobody_awaits_fails_the_run() -> None:
    async def fail() -> None:
        raise KeyError("lost")

    async def main() -> None:
        asyncio.get_running_loop().create_task(fail())
        await asyncio.sleep(1)

    with World() as world:
        world.node("a").spawn(main())
        with pytest.raises(KeyError, match="lost"):
            world.run()


def test_a_callback_that_raises_fails_the_run() -> None:
    def fail() -> None:
        raise KeyError("lost")

    with World() as world:
        world.node("a").loop.call_soon(fail)
        with pytest.raises(KeyError):
            world.run()
        world.node("a").driver.call_at(1.0, fail)
        with pytest.raises(KeyError):
            world.run()
        world.node("a").driver.post(fail)
        with pytest.raises(KeyError):
            world.run()


def test_a_cancelled_task_is_no_fault() -> None:
    with World() as world:
        spawned = world.node("a").spawn(asyncio.Event().wait())
        world.run(until=1)
        spawned.cancel()
        world.run(until=2)
        assert spawned.done
        with pytest.raises(asyncio.CancelledError):
            spawned.result()


def test_result_before_the_end_is_an_error() -> None:
    with World() as world:
        spawned = world.node("a").spawn(asyncio.sleep(1))
        with pytest.raises(asyncio.InvalidStateError, match="not done"):
            spawned.result()
        world.run()
        assert spawned.result() is None


def test_threads_sockets_and_processes_are_refused() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(NotSimulated, match="in_thread"):
            await asyncio.to_thread(print)
        with pytest.raises(NotSimulated, match="no sockets"):
            await loop.getaddrinfo("localhost", 80)
        with pytest.raises(NotSimulated, match="no sockets"):
            await asyncio.open_connection("localhost", 80)
        with pytest.raises(NotSimulated, match="no sockets"):
            await asyncio.start_server(lambda reader, writer: None, "localhost", 80)
        with pytest.raises(NotSimulated, match="no subprocesses"):
            await asyncio.create_subprocess_exec("true")
        with pytest.raises(NotSimulated, match="no subprocesses"):
            await asyncio.create_subprocess_shell("true")
        with pytest.raises(NotSimulated, match="no sockets"):
            loop.add_reader(0, print)
        with pytest.raises(NotSimulated, match="no sockets"):
            loop.add_writer(0, print)

    with World() as world:
        world.run_until(world.node("a").spawn(main()))


def test_in_thread_takes_virtual_time_and_keeps_order() -> None:
    with World() as world:
        driver = world.node("a").driver
        done: list[object] = []
        for number in range(20):
            driver.in_thread(lambda number=number: number, lambda result, error: done.append(result))

        def fail() -> int:
            raise OSError("no disk")

        driver.in_thread(fail, lambda result, error: done.append(str(error)))
        assert done == []
        world.run()
        assert done == [*range(20), "no disk"]
        assert 0 < world.now < 0.1


def test_async_generators_end_quietly() -> None:
    async def numbers() -> AsyncIterator[int]:
        try:
            for number in range(100):
                yield number
        finally:
            await asyncio.sleep(1)

    async def main() -> int:
        async for number in numbers():
            if number == 3:
                return number
        return -1

    async def linger() -> None:
        async for _ in numbers():
            await asyncio.Event().wait()

    with World() as world:
        node = world.node("a")
        node.spawn(linger())
        assert world.run_until(node.spawn(main())) == 3
        world.run(until=5)
    gc.collect()


def test_the_world_cannot_be_run_from_within() -> None:
    with World() as world:

        async def main() -> None:
            for nested in (world.run, world.step, world.close):
                with pytest.raises(SimulationError, match="within itself"):
                    nested()

        world.run_until(world.node("a").spawn(main()))


def test_debug_mode_is_quiet() -> None:
    with World() as world:
        node = world.node("a")
        node.loop.set_debug(True)
        spawned = node.spawn(asyncio.sleep(5, "slept"))
        assert world.run_until(spawned) == "slept"


def test_worlds_that_are_forgotten_close_quietly() -> None:
    async def main() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.Event().wait())
                await asyncio.Event().wait()
        finally:
            await asyncio.sleep(1)  # clean-up that awaits is thrown away as well

    def forget() -> None:
        world = World()
        world.node("a").spawn(main())
        world.node("b").spawn(main())
        world.run(until=1)
        world.crash("b")
        world.node("a").spawn(main())  # never started

    forget()
    gc.collect()


def test_closing_ends_coroutines_that_refuse_to_end() -> None:
    ends: list[str] = []

    async def stubborn() -> None:
        for _ in range(3):
            try:
                await asyncio.Event().wait()
            except BaseException:  # noqa: BLE001 - that is what it is about
                ends.append("not yet")
        ends.append("ended")

    with World() as world:
        world.node("a").spawn(stubborn())
        world.run(until=1)
        assert ends == []
    assert ends == ["not yet"] * 3 + ["ended"]
    world.close()
    with pytest.raises(SimulationError, match="closed"):
        world.run()


class TestRunInSimulation:
    def test_gives_the_result(self) -> None:
        async def main() -> float:
            await asyncio.sleep(1000)
            return asyncio.get_running_loop().time()

        assert run_in_simulation(main()) == 1000.0

    def test_raises_what_the_program_raised(self) -> None:
        async def main() -> None:
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            run_in_simulation(main())

    def test_a_deadlock_is_an_error(self) -> None:
        async def main() -> None:
            await asyncio.Event().wait()

        with pytest.raises(Stalled):
            run_in_simulation(main())

    def test_tasks_that_are_left_are_cancelled_in_order(self) -> None:
        ended: list[str] = []

        async def linger() -> None:
            try:
                await asyncio.sleep(1e6)
            finally:
                await asyncio.sleep(1)
                ended.append("cleanly")

        async def main() -> None:
            asyncio.get_running_loop().create_task(linger())
            await asyncio.sleep(1)

        run_in_simulation(main())
        assert ended == ["cleanly"]

    def test_within_a_running_loop_is_an_error(self) -> None:
        async def inner() -> None:
            pass

        async def main() -> None:
            with pytest.raises(RuntimeError, match="running event loop"):
                run_in_simulation(inner())

        asyncio.run(main())
