"""Servers and clients as child processes, bounded in time and ended by their own handle."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from benchmarks.placement import running_on

START_SECONDS = 15
"""How long a server may take until it has told its address."""

SPARE_SECONDS = 30
"""How long a measurement may take beyond its own time: starting, connecting, ending."""

END_SECONDS = 5
"""How long a server may take to end once it was asked to, before it is killed."""

REPOSITORY = Path(__file__).parent.parent


class MeasurementFailed(Exception):
    """A server or client failed, answered wrongly or took too long; says which, and what it wrote."""


@contextmanager
def server(command: Sequence[str], core: int | None) -> Iterator[str]:
    """Run a server; gives the address it announced.

    Raises:
        MeasurementFailed: It told no address in time, or had ended before it was asked to.
    """
    with tempfile.TemporaryFile("w+") as complaints:
        with running_on(core):
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=complaints,
                stdin=subprocess.DEVNULL,
                text=True,
                cwd=REPOSITORY,
            )
        try:
            assert process.stdout is not None
            patience = threading.Timer(START_SECONDS, process.kill)
            patience.start()
            address = process.stdout.readline().strip()
            patience.cancel()
            if not address:
                raise MeasurementFailed(f"{_text(command)} told no address:\n{_contents(complaints)}")
            try:
                yield address
            except MeasurementFailed as failure:
                told = _contents(complaints)
                raise MeasurementFailed(
                    f"{failure}\nThe server wrote:\n{told}" if told else str(failure)
                ) from None
            if process.poll() is not None:
                raise MeasurementFailed(f"{_text(command)} ended too early:\n{_contents(complaints)}")
        finally:
            _end(process)


def measure(command: Sequence[str], core: int | None, seconds: float) -> float:
    """Run a client that prints a count and its seconds as JSON; gives their quotient.

    Args:
        command: What to run.
        core: Where to, or None.
        seconds: How long the client means to take.

    Raises:
        MeasurementFailed: It failed, met a wrong answer, or took too long.
    """
    limit = seconds + SPARE_SECONDS
    try:
        with running_on(core):
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                stdin=subprocess.DEVNULL,
                text=True,
                cwd=REPOSITORY,
            )
        with process:
            try:
                output, complaints = process.communicate(timeout=limit)
            except BaseException:
                process.kill()
                raise
    except subprocess.TimeoutExpired:
        raise MeasurementFailed(f"{_text(command)} took more than {limit:g} s") from None
    if process.returncode != 0:
        raise MeasurementFailed(f"{_text(command)} ended with {process.returncode}:\n{complaints.strip()}")
    outcome = json.loads(output)
    if outcome["count"] <= 0:
        raise MeasurementFailed(f"{_text(command)} counted no answer in {outcome['seconds']:g} s")
    return float(outcome["count"] / outcome["seconds"])


def _end(process: subprocess.Popen[str]) -> None:
    with process:
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


def _text(command: Sequence[str]) -> str:
    return " ".join(command)


def _contents(file: IO[str]) -> str:
    file.seek(0)
    return file.read().strip()
