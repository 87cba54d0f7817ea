"""An RPC server inside a game's own loop: no asyncio, no thread.

The loop turns the driver once per frame with `poll(0)`, which does what there is to do and never
waits. Methods run within that call, so they may read and change the world without a lock. They
must be plain functions, because nothing here runs coroutines.

    python examples/game_loop.py --frames 600 --listen tcp://127.0.0.1:7070
    helianthus call tcp://127.0.0.1:7070 world.push 2.5
"""

from __future__ import annotations

import argparse
import time

import helianthus
from helianthus import Driver

FRAME = 1 / 60


class World(helianthus.Service):
    """A ball between two walls, ten metres apart."""

    def __init__(self) -> None:
        self.frame = 0
        self.position = 0.0
        self.speed = 1.0

    @helianthus.method
    def look(self) -> dict[str, float]:
        """Where the ball is (metres), how fast it is (metres a second), and in which frame."""
        return {"frame": self.frame, "position": self.position, "speed": self.speed}

    @helianthus.method
    def push(self, by: float) -> float:
        """Make the ball faster; returns its speed."""
        self.speed += by
        return self.speed

    def update(self, seconds: float) -> None:
        """Move everything on."""
        self.frame += 1
        self.position += self.speed * seconds
        if not 0 <= self.position <= 10:
            self.position = min(max(self.position, 0.0), 10.0)
            self.speed = -self.speed


def play(driver: Driver, world: World, frames: int) -> None:
    next_frame = time.monotonic()
    while frames == 0 or world.frame < frames:
        driver.poll(0)
        world.update(FRAME)
        # ... draw the world here ...
        next_frame += FRAME
        time.sleep(max(0.0, next_frame - time.monotonic()))


def main() -> None:
    parser = argparse.ArgumentParser(description="A game that can be called.")
    parser.add_argument("--frames", type=int, default=0, help="end after so many; 0 goes on until Ctrl-C")
    parser.add_argument("--listen", default="tcp://127.0.0.1:7070", help="default: %(default)s")
    parser.add_argument("--driver", default="auto", help="default: %(default)s")
    options = parser.parse_args()

    world = World()
    driver = helianthus.driver(options.driver)
    server = helianthus.Server([world], driver=driver)
    print(f"listening on {server.open(options.listen)}", flush=True)
    try:
        play(driver, world, options.frames)
    except KeyboardInterrupt:
        pass
    finally:
        server.close_now()
        while server.peers:  # connections that are being closed in good order
            driver.poll()
        driver.close()
    print(f"the end, after {world.frame} frames")


if __name__ == "__main__":
    main()
