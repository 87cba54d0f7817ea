"""`helianthus replay`: what a recorded connection did, done again without a network."""

from __future__ import annotations

from typing import IO, Any

import click

from ..protocols.recording import BadRecording, Replay, Step
from .output import printable

DIFFERS = 1
"""The exit code when the machine does something else than when it was recorded."""


@click.command("replay", short_help="Feed a recorded connection to its machine again.")
@click.argument("files", metavar="FILE...", type=click.File("rb", lazy=True), nargs=-1, required=True)
@click.option("--all", "everything", is_flag=True, help="Print what went in and out, too, not only events.")
@click.option(
    "--allow",
    metavar="MODULE",
    multiple=True,
    help="A module whose classes the recording may hold; its code is run. May be repeated.",
)
def command(files: tuple[IO[bytes], ...], everything: bool, allow: tuple[str, ...]) -> None:
    """Feed the recording in each FILE to a machine again and print the events that come out.

    Without a network and without waiting. Says at the end whether the machine did the same as when it
    was recorded, and ends with exit code 1 if one did not.

    \b
    Examples:
        HELIANTHUS_RECORD=/tmp/rec helianthus call tcp://127.0.0.1:7070 calculator.add 2 3
        helianthus replay /tmp/rec/*.recording
    """
    same = [_replay(file, allow, everything=everything) for file in files]
    if not all(same):
        raise click.exceptions.Exit(DIFFERS)


def _replay(file: IO[bytes], allow: tuple[str, ...], *, everything: bool) -> bool:
    """Replay one recording; gives whether the machine did the same."""
    try:
        replay = Replay(file, allow)
        _print_header(replay)
        difference = _print_steps(replay, everything=everything)
    except BadRecording as error:
        raise click.ClickException(f"{file.name}: {error}") from None
    if difference is not None:
        _print_difference(difference)
    return difference is None


def _print_header(replay: Replay) -> None:
    header = replay.header
    notes = ", ".join(f"{name} {value}" for name, value in header.notes.items())
    click.echo(printable(f"# {header.cls.__name__}, {header.label}; {notes}"))


def _print_steps(replay: Replay, *, everything: bool) -> Step | None:
    """Print every step; gives the first one that differs."""
    began: float | None = None
    elapsed = 0.0
    steps = events = sent = 0
    difference: Step | None = None
    for step in replay.steps():
        if step.now is not None:
            began = step.now if began is None else began
            elapsed = step.now - began
        steps += 1
        events += len(step.events)
        sent += step.output[0] if step.method == "take_data" else 0
        if difference is None and step.differs:
            difference = step
        if everything and _is_telling(step):
            click.echo(printable(f"{elapsed:12.6f} {_what_went_in(step)}"))
        for event in step.events:
            click.echo(printable(f"{elapsed:12.6f} {event}"))
    same = "the same as recorded" if difference is None else "not the same as recorded"
    click.echo(f"# {steps} steps: {events} events and {sent} bytes came out, {same}")
    if replay.ended:
        click.echo(printable(f"# the recording stops there: {replay.ended}"))
    return difference


def _is_telling(step: Step) -> bool:
    """Whether a step is more than a look for events or data that were not there."""
    if step.method == "take_events":  # its events are printed
        return False
    return not step.method.startswith("take_") or _size_of(step.output) > 0


def _size_of(output: Any) -> int:
    return output[0] if isinstance(output, tuple) else len(output)


def _what_went_in(step: Step) -> str:
    if step.method == "take_data":
        return f"-> {step.output[0]} bytes"
    if step.method == "receive_data":
        return f"<- {len(step.args[0])} bytes: {step.args[0]!r}"
    given = [repr(one) for one in step.args]
    given += [f"{name}={value!r}" for name, value in step.kwargs.items()]
    gave = "" if step.output == "None" else f" gave {step.output}"
    return f"{step.method}({', '.join(given)}){gave}"


def _print_difference(step: Step) -> None:
    click.echo(printable(f"step {step.number}, {_what_went_in(step)}, differs"), err=True)
    click.echo(printable(f"  recorded: {step.expected}"), err=True)
    click.echo(printable(f"  now:      {step.output}"), err=True)
