"""Checks of values in a configuration file, with messages that name where they stand."""

from __future__ import annotations

import reprlib
from typing import Any

from .output import Misconfigured


def found(where: str, value: Any) -> str:
    """What stands where, in short."""
    return f"{where} = {short(value)}"


def short(value: Any) -> str:
    """A value for a message, cut where it is long."""
    shortened = reprlib.Repr()
    shortened.maxstring = 100
    return shortened.repr(value)


def as_list(where: str, value: Any, example: str) -> list[Any]:
    """Make sure of a list.

    Raises:
        Misconfigured: It is none.
    """
    if not isinstance(value, list):
        raise Misconfigured(f'{found(where, value)} is no list; write it as ["{example}"]')
    return value
