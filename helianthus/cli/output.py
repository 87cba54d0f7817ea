"""What a command tells its user, and how it ends."""

from __future__ import annotations

import os
import sys
from typing import IO, TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it: 128 and the number of SIGINT."""

PIPE_WIDTH = 200
"""Columns of a table where there is no terminal to fit it to."""


class Failed(click.ClickException):
    """What was asked for could not be done."""

    exit_code = 1

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message; what came from the network cannot control the terminal."""
        click.echo(f"Error: {printable(self.message)}", file=file or sys.stderr)


class Misconfigured(Failed):
    """What was asked for makes no sense: the message says what to change."""

    exit_code = 2


def say(line: str) -> None:
    """Print a line at once; one that nobody reads any more is dropped."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        let_go_of_stdout()


def printable(text: str) -> str:
    """The text with control characters written out, except line breaks and tabs."""
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def table_console() -> Console:
    """A console for tables: as wide as the terminal, or as it takes where there is none."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(highlight=False, markup=False, emoji=False, width=width)


def let_go_of_stdout() -> None:
    """Send further output nowhere, so that Python does not complain of it at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
