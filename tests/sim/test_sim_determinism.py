"""The same seed does the same, and what happened can be read."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sim_streams import connect, serve_echo

import helianthus
from helianthus.sim import World

ROOT = Path(helianthus.__file__).parents[1]

# The scenario has what tempts asyncio into chance: many tasks cancelled at once, sets of tasks.
SCENARIO = """
import asyncio
from sim_streams import connect, serve_echo
from helianthus.sim import World

async def cancelled_last_words(stream, number):
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        stream.say(b"cancelled %d " % number)
        raise

async def client():
    stream = await connect("a")
    try:
        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(cancelled_last_words(stream, number))
            await asyncio.sleep(0.1)
            raise KeyError
    except* KeyError:
        pass
    await asyncio.wait([asyncio.create_task(asyncio.sleep(0.1 * n)) for n in range(5)])
    for number in range(50):
        stream.say(b"%d " % number)
        await asyncio.sleep(0.05)

with World(seed=42) as world:
    world.node("a").spawn(serve_echo)
    for name in ("b", "c", "d"):
        world.node(name, drift=1e-5).spawn(client())
    world.chaos(until=3.0, crashable=["a"])
    world.run(until=0.5)
    world.partition("a", "b")
    world.run(until=1.0)
    world.heal()
    try:
        world.run(until=20.0)
    except (OSError, EOFError) as error:
        pass
    print(world.digest())
"""


SCENARIO_DIGEST = "b3ecbdff85e108f3cec08bcc93e2b359"
"""What every machine and every version of Python must come to.

A change to the simulator or the pump may change it; then all machines must agree on another.
"""


def digest_in_a_process(hash_seed: str) -> str:
    environment = {
        **os.environ,
        "PYTHONHASHSEED": hash_seed,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)]),
    }
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCENARIO],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.stderr == ""
    return finished.stdout


def test_the_digest_is_the_same_in_every_process() -> None:
    for hash_seed in ("0", "4242", "random"):
        assert digest_in_a_process(hash_seed) == SCENARIO_DIGEST + "\n"


def run_some(seed: int | str) -> tuple[str, float, str]:
    async def client() -> None:
        stream = await connect("a")
        for number in range(10):
            stream.say(b"%d " % number)
            await asyncio.sleep(0.01)
        stream.end()
        await stream.wait_closed()

    with World(seed) as world:
        world.node("a").spawn(serve_echo)
        world.node("b").spawn(client())
        world.run()
        return world.digest(), world.now, world.timeline()


def test_equal_seeds_are_equal_and_different_ones_differ() -> None:
    assert run_some(1) == run_some(1)
    assert run_some("word") == run_some("word")
    assert len({run_some(seed)[0] for seed in range(50)}) == 50


def test_the_timeline_tells_what_happened() -> None:
    _, _, timeline = run_some(3)
    lines = timeline.splitlines()
    assert lines[0].split(maxsplit=1) == ["0.000000", "a starts"]
    for expected in (
        "a listens at 7070",
        "b connects to a:7070",
        "b>a#1 data: ",
        "b>a#1 end",
        "client returned",
    ):
        assert any(expected in line for line in lines), expected
    times = [float(line.split()[0]) for line in lines]
    assert times == sorted(times)


def test_the_timeline_is_bounded_and_the_digest_is_not() -> None:
    with World() as world:
        world.node("a")
        world.node("b")
        digests = set()
        for _ in range(5000):
            world.partition("a", "b")
            digests.add(world.digest())
        assert len(digests) == 5000
        assert len(world.timeline(10_000).splitlines()) == 2000
        assert len(world.timeline(7).splitlines()) == 7
        assert world.timeline(0) == ""


def test_a_failing_run_tells_its_seed_and_timeline() -> None:
    async def fail() -> None:
        await asyncio.sleep(2)
        raise AssertionError("the invariant does not hold")

    with World(seed=99) as world:
        world.node("a").spawn(fail())
        world.node("b")
        world.run(until=1.0)
        world.partition("a", "b")
        with pytest.raises(AssertionError) as caught:
            world.run()
        (note,) = caught.value.__notes__
        assert note.startswith("simulated with seed 99; at t=2.000000")
        assert "1.000000  partition a - b" in note


def test_addresses_in_exceptions_stay_out_of_the_digest() -> None:
    def run() -> str:
        async def fail() -> None:
            raise ValueError(object())

        with World() as world:
            world.node("a").spawn(fail()).exception  # noqa: B018
            with pytest.raises(ValueError, match="object at"):
                world.run()
            return world.digest()

    assert run() == run()
