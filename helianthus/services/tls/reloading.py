"""What was made of files, until it is made anew: all of it, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Options = TypeVar("Options")
T = TypeVar("T")


class Reloadable:
    """Keeps what functions have made of the same options."""

    def __init__(self) -> None:
        self._made: dict[Callable[[Any], Any], Any] = {}

    def get(self, make: Callable[[Options], T], options: Options) -> T:
        """What a function makes of the options; it is called the first time."""
        if make not in self._made:
            self._made[make] = make(options)
        made: T = self._made[make]
        return made

    def make_again(self, options: object) -> None:
        """Call all functions again; where one fails, its exception comes out and nothing changes."""
        self._made = {make: make(options) for make in self._made}
