"""Names in a generated stub: those that the server gives, made into identifiers, and imported ones.

A server's names are anybody's text. None of them gets into source code but as an identifier that was
checked, or as a literal that `repr` has quoted.
"""

from __future__ import annotations

import builtins
import keyword
import re
import unicodedata
from collections.abc import Iterable

MAX_NAME = 80
"""Characters of an identifier; longer names are cut."""


def is_usable(name: str) -> bool:
    """Whether a name can stand in source code as it is.

    Python turns identifiers into their NFKC form, so one in another form would be another name.
    Those that begin with an underscore are private or, in a class, mangled.
    """
    return (
        name.isidentifier()
        and not keyword.iskeyword(name)
        and not name.startswith("_")
        and len(name) <= MAX_NAME
        and unicodedata.normalize("NFKC", name) == name
    )


def identifier(name: str, fallback: str) -> str:
    """The name itself where it is usable, or one that reminds of it."""
    if is_usable(name):
        return name
    plain = unicodedata.normalize("NFKC", name[: 2 * MAX_NAME])
    plain = re.sub(r"\W", "_", plain).strip("_")[:MAX_NAME].rstrip("_")
    if is_usable(plain):
        return plain
    marked = f"{plain}_" if keyword.iskeyword(plain) else f"{fallback}_{plain}".rstrip("_")
    return marked if is_usable(marked) else fallback


def distinct(name: str, taken: Iterable[str]) -> str:
    """The name, with as many underscores as it takes to be no other's."""
    others = set(taken)
    while name in others:
        name += "_"
    return name


def class_name(service: str) -> str:
    """The name of a class for a service: `user_store` becomes `UserStore`."""
    words = [word for word in re.split(r"[\W_]+", unicodedata.normalize("NFKC", service)) if word]
    joined = "".join(word[:1].upper() + word[1:] for word in words)
    return identifier(joined, "Service")


class Imports:
    """What a stub uses from elsewhere, under names that nothing else in it has.

    Args:
        taken: Names of the stub's own classes and methods: a method `list` would hide the class in
            the annotations of all others.
    """

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = frozenset(taken)
        self._names: dict[str, set[str]] = {}

    def use(self, name: str, module: str = "builtins") -> str:
        """What to write for `name` of `module`."""
        hidden = name in self._taken
        if hidden or module != "builtins":
            self._names.setdefault(module, set()).add(name)
        elif not hasattr(builtins, name):
            raise ValueError(f"there is no {name} in Python")
        return f"_{name}" if hidden else name

    def lines(self) -> list[str]:
        """The import statements."""
        ours = sorted(module for module in self._names if module.startswith("helianthus"))
        python = sorted(self._names.keys() - set(ours))
        return [*map(self._line, python), *([""] if python and ours else []), *map(self._line, ours)]

    def _line(self, module: str) -> str:
        names = (f"{n} as _{n}" if n in self._taken else n for n in sorted(self._names[module]))
        return f"from {module} import {', '.join(names)}"
