"""The parameters of a method in a generated stub.

Messages carry parameters by position or by name, not both. So where one can only be given by its
position, because it is variadic or because its name is no name in Python or one of the call's own
options, all are, and those that can only be given by name are left out.
"""

from __future__ import annotations

import ast
import keyword
import unicodedata
from collections.abc import Sequence

import attrs

from .described import Method, MethodParameter
from .stub_names import MAX_NAME, Imports, distinct, identifier
from .stub_types import StubTypes, default_fits

OPTIONS = ("timeout", "cancel", "meta")
"""Keywords of a call, which no parameter can have."""

HIDDEN_DEFAULT = "_DEFAULT"
"""Stands for a default value that the server does not tell."""


@attrs.frozen
class Layout:
    """Which parameters a stub has, and why it lacks others.

    Attributes:
        positional: Given by position, or by name as well unless `only_by_position`.
        rest: Takes any further ones, or None.
        named: Given by name.
        others: The type of what can be given under any other name, or None.
        only_by_position: Whether none can be given by name.
        left_out: Names of those that cannot be given.
        impossible: The name of one that must be given, and cannot; or nothing.
    """

    positional: Sequence[MethodParameter]
    rest: MethodParameter | None
    named: Sequence[MethodParameter]
    others: str | None
    only_by_position: bool
    left_out: Sequence[str]
    impossible: str


def lay_out(method: Method) -> Layout:
    """Divide a method's parameters as Python does."""
    positional = [p for p in method.params if p.positional and not p.variadic]
    rest = next((p for p in method.params if p.variadic), None)
    names = [p.name for p in positional]
    forced = any(not p.keyword or not can_be_named(p.name) for p in positional) or len(set(names)) < len(
        names
    )
    by_name = [p for p in method.params if not p.positional and not p.variadic]
    named = list({p.name: p for p in by_name if can_be_named(p.name) and p.name not in names}.values())
    needed = next((p.name for p in by_name if p.required and (forced or p not in named)), "")
    if any(p.required for p in named):
        rest = None
    if forced or rest is not None:
        named = []
    kept = {p.name for p in (*positional, *named)} | ({rest.name} if rest is not None else set())
    return Layout(
        positional=_in_order(positional),
        rest=rest,
        named=named,
        others=None if forced or rest is not None else method.keywords,
        only_by_position=forced,
        left_out=[p.name for p in method.params if p.name not in kept],
        impossible=needed,
    )


def write_parameters(layout: Layout, types: StubTypes, imports: Imports) -> list[str]:
    """Write them, each as a part of the list that begins with `self`."""
    used = {"self", *OPTIONS}
    parts = ["self"]

    def declared(parameter: MethodParameter, star: str = "") -> str:
        name = distinct(
            parameter.name
            if not star and can_be_named(parameter.name)
            else identifier(parameter.name, "param"),
            used,
        )
        used.add(name)
        default = "" if parameter.required or star else f" = {_default(parameter)}"
        return f"{star}{name}: {types.given(parameter.type)}{default}"

    parts += map(declared, layout.positional)
    if layout.only_by_position and layout.positional:
        parts.append("/")
    parts.append("*" if layout.rest is None else declared(layout.rest, "*"))
    parts += map(declared, layout.named)
    none = " | None = None"
    parts.append(f"timeout: {imports.use('float')}{none}")
    parts.append(f"cancel: {imports.use('CancelToken', 'helianthus')}{none}")
    parts.append(f"meta: {imports.use('dict')}[{imports.use('str')}, {types.any()}]{none}")
    if layout.others is not None:
        parts.append(f"**{distinct('keywords', used)}: {types.given(layout.others)}")
    return parts


def can_be_named(parameter: str) -> bool:
    """Whether a call in Python can give a parameter by this name."""
    return (
        parameter.isidentifier()
        and not keyword.iskeyword(parameter)
        and not parameter.startswith("__")
        and parameter not in ("self", *OPTIONS)
        and len(parameter) <= MAX_NAME
        and unicodedata.normalize("NFKC", parameter) == parameter
    )


def _in_order(positional: Sequence[MethodParameter]) -> list[MethodParameter]:
    """The same, with those required that stand before one that is."""
    ordered: list[MethodParameter] = []
    required = False
    for parameter in reversed(positional):
        required = required or parameter.required
        ordered.append(attrs.evolve(parameter, required=required))
    return ordered[::-1]


def _default(parameter: MethodParameter) -> str:
    """What stands for a default; the value itself where it is known to have the parameter's type."""
    if parameter.default is not None and len(parameter.default) <= 200:
        try:
            value = ast.literal_eval(parameter.default)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            return HIDDEN_DEFAULT
        plain = value is None or type(value) in (bool, int, float, str, bytes)
        if plain and default_fits(value, parameter.type):
            return repr(value)
    return HIDDEN_DEFAULT
