"""Annotations as text, for error messages and for those whom reflection tells of a method.

The text says what the check of a value goes by: a `NewType` is its supertype, and whatever cannot be
known to the other side, such as a type variable, is its bound or "Any". Names of Python's own types
stand alone; every other class stands with its module, so that no two are taken for each other.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterable
from typing import Any

from ...protocols.rpc import is_message_class

MAX_NESTING = 20
"""Levels of a type that are written; deeper ones, and types that contain themselves, end in "Any"."""

MAX_DEFAULT = 100
"""Characters of a default value that are told."""

_OWN_MODULES = frozenset({"builtins", "typing", "collections.abc", "datetime", "decimal", "uuid"})


def type_text(annotation: Any) -> str:
    """Write an annotation as it would stand in source code."""
    return _text(annotation, MAX_NESTING)


def default_text(default: Any) -> str | None:
    """A parameter's default value in Python's notation; None where it has no short, plain one."""
    if default is None or type(default) in (bool, int, float, str, bytes):
        text = repr(default)
        if len(text) <= MAX_DEFAULT and text not in ("nan", "inf", "-inf"):
            return text
    return None


def _text(annotation: Any, levels: int) -> str:
    if annotation is None or annotation is type(None):
        return "None"
    if annotation is Ellipsis:
        return "..."
    if levels == 0 or annotation is Any or annotation is inspect.Parameter.empty:
        return "Any"
    meant = _stands_for(annotation)
    if meant is not annotation:
        return _text(meant, levels - 1)
    if isinstance(annotation, list):  # the parameters of a Callable
        return f"[{_joined(annotation, levels)}]"
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return f"Literal[{', '.join(map(_literal, arguments))}]"
    if origin in (typing.Union, types.UnionType):
        return " | ".join(dict.fromkeys(_text(argument, levels - 1) for argument in arguments))
    name = _name(origin or annotation)
    return f"{name}[{_joined(arguments, levels) or '()'}]" if _is_subscribed(annotation) else name


def _joined(arguments: Iterable[Any], levels: int) -> str:
    return ", ".join(_text(argument, levels - 1) for argument in arguments)


def _stands_for(annotation: Any) -> Any:
    """What an annotation means to a check: itself, or another."""
    if isinstance(annotation, typing.NewType):
        return annotation.__supertype__
    if isinstance(annotation, typing.TypeVar):
        if annotation.__constraints__:
            return typing.Union[annotation.__constraints__]  # noqa: UP007 - of a tuple
        return Any if annotation.__bound__ is None else annotation.__bound__
    if typing.get_origin(annotation) in (typing.Annotated, typing.Required, typing.NotRequired):
        return typing.get_args(annotation)[0]
    if type(annotation).__name__ == "TypeAliasType":  # of `type X = ...`, since Python 3.12
        return annotation.__value__
    return annotation


def _is_subscribed(annotation: Any) -> bool:
    """Whether it has arguments; `tuple[()]` has none, and yet is no plain `tuple`."""
    return bool(typing.get_args(annotation)) or annotation == tuple[()]


def _literal(value: Any) -> str:
    # repr() of a member of an enum is no expression, and what is sent is no member
    return repr(value) if type(value) in (bool, int, str, bytes, type(None)) else "Any"


def _name(annotation: Any) -> str:
    if isinstance(annotation, str):  # a name that could not be resolved
        return annotation
    if isinstance(annotation, typing.ForwardRef):
        return annotation.__forward_arg__
    if is_message_class(annotation):
        full_name: str = annotation.DESCRIPTOR.full_name
        return full_name
    name = getattr(annotation, "__qualname__", None) or getattr(annotation, "__name__", None)
    if not isinstance(name, str):
        return str(annotation).removeprefix("typing.")
    module = getattr(annotation, "__module__", None)
    return name if module in _OWN_MODULES or not isinstance(module, str) else f"{module}.{name}"
