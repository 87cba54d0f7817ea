"""The command `helianthus`: serve services, call them, look at them.

Exit codes: 0 when it went well, 1 when it did not (a call failed, an address is in use), 2 when the
command line or a configuration file is wrong, 130 when Ctrl-C ended it.
"""

from __future__ import annotations

import importlib
import io
import sys

import click

from .. import __version__
from .output import INTERRUPTED, let_go_of_stdout

_COMMANDS = ("bench", "call", "can", "describe", "drivers", "replay", "serve", "services")


class _Commands(click.Group):
    """Imports a command when it is used: what the others need costs nothing."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f".{cmd_name}", __package__)
        command: click.Command = module.command
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
def commands() -> None:
    """Network services on sans-I/O protocol machines with swappable drivers."""


def main() -> None:
    """Run the command line, and end the process with its exit code."""
    sys.exit(_exit_code())


def _exit_code() -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # whatever the terminal's character set is
    try:
        code: int | None = commands.main(prog_name="helianthus", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except OSError as error:  # most likely, whoever read our output has had enough of it
        let_go_of_stdout()
        if not isinstance(error, BrokenPipeError):
            click.echo(f"Error: {error}", err=True)
        return 1
    return code or 0
