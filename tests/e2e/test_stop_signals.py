"""The signals that stop a node reach its loop, whatever the loop is doing."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading

import pytest

from helianthus.cli.stopping import StopSignals
from helianthus.drivers.choose import run, running_driver

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals to send")


@pytest.mark.parametrize("driver", ["auto", "asyncio"])
def test_a_signal_that_does_not_interrupt_the_wait(driver: str) -> None:
    """As one does that comes just before the wait: here another thread is interrupted in its place."""

    def send() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        os.kill(os.getpid(), signal.SIGTERM)

    async def serve() -> None:
        with StopSignals(running_driver().post) as stop:
            threading.Timer(0.2, send).start()
            loop = asyncio.get_running_loop()
            began = loop.time()
            await asyncio.wait_for(stop.wanted.wait(), 20)
            assert loop.time() - began < 10, "something else has ended the wait"
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        run(serve(), driver=driver)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
