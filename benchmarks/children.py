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

import attrs

from benchmarks.placement import running_on

START_SECONDS = 15
"""How long a server may take until it has told its address."""

END_SECONDS = 5
"""How long a server may take to end once it was asked to, before it is killed."""

MAX_COMPLAINTS = 2000
"""Characters of what a failed program wrote that are shown."""

REPOSITORY = Path(__file__).parent.parent


@attrs.frozen
class Running:
    """A server that listens: where, and as which process."""

    address: str
    pid: int


@attrs.frozen
class Reading:
    """What a client found.

    Attributes:
        values: By the key of the measure.
        notes: What the reader has to know of them.
    """

    values: dict[str, float]
    notes: list[str]


class MeasurementFailed(Exception):
    """A server or client failed, answered wrongly or took too long; says which, and what it wrote."""


@contextmanager
def server(command: Sequence[str], core: int | None) -> Iterator[Running]:
    """Run a server; gives the address it announced, and its process.

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
                yield Running(address, process.pid)
            except MeasurementFailed as failure:
                told = _contents(complaints)
                raise MeasurementFailed(
                    f"{failure}\nThe server wrote:\n{told}" if told else str(failure)
                ) from None
            if process.poll() is not None:
                raise MeasurementFailed(f"{_text(command)} ended too early:\n{_contents(complaints)}")
        finally:
            _end(process)


def measure(command: Sequence[str], core: int | None, limit: float) -> Reading:
    """Run a client that prints what it found as JSON: a count and its seconds, or values and notes.

    Args:
        command: What to run.
        core: Where to, or None.
        limit: Seconds that the client may take.

    Raises:
        MeasurementFailed: It failed, met a wrong answer, or took too long.
    """
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
        raise MeasurementFailed(f"{_text(command)} ended with {process.returncode}:\n{_clip(complaints)}")
    outcome = json.loads(output)
    if "values" in outcome:
        return Reading(outcome["values"], outcome["notes"])
    if outcome["count"] <= 0:
        raise MeasurementFailed(f"{_text(command)} counted no answer in {outcome['seconds']:g} s")
    return Reading({"rate": outcome["count"] / outcome["seconds"]}, [])


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
    return _clip(file.read())


def _clip(complaints: str) -> str:
    """The end of what a program wrote: ten thousand tracebacks say no more than one."""
    text = complaints.strip()
    return text if len(text) <= MAX_COMPLAINTS else f"...\n{text[-MAX_COMPLAINTS:]}"
