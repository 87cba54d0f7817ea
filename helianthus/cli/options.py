"""Kinds of values on the command line."""

from __future__ import annotations

import math

import click

from ..services.rpc.addresses import rpc_address


def url(value: str) -> str:
    """Check an address, which is kept as the text that it is."""
    try:
        rpc_address(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return value


def seconds(value: str | float) -> float:
    """Read a span of time that may be none."""
    try:
        number = float(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no number of seconds") from None
    if not math.isfinite(number) or number < 0:
        raise click.BadParameter(f"{value!r} cannot be waited for; give a number of seconds, 0 or more")
    return number


def some_seconds(value: str | float) -> float:
    """Read a span of time that is more than none."""
    number = seconds(value)
    if not number:
        raise click.BadParameter("nothing can be done in 0 seconds; give more, or leave the option out")
    return number


def rate(value: str | float) -> float:
    """Read a number of things a second."""
    try:
        number = float(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no number of calls a second") from None
    if not math.isfinite(number) or number <= 0:
        raise click.BadParameter(f"{value!r} is no rate; give calls a second, more than 0")
    return number
