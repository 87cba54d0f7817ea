"""Checks a method's parameters against its annotations.

The check asks what a decoded value can be. MessagePack has no tuples, so a `tuple` or `Sequence`
annotation takes a list; `float` takes an int (PEP 484), `bool` is no int, and a `datetime` is no
`date`. Objects come of the classes that are registered, and of Protocol Buffers messages. A type
that no decoded value can have, and an annotation that cannot be resolved, is not checked.
"""

from __future__ import annotations

import collections.abc
import contextlib
import datetime
import inspect
import itertools
import math
import typing
import uuid
from collections.abc import Callable, Mapping
from decimal import Decimal
from types import SimpleNamespace, UnionType
from typing import Any

import attrs

from ...protocols.rpc import StatusCode, TypeRegistry, is_message_class
from .errors import NotRun, RpcError
from .type_text import default_text, type_text

Check = Callable[[Any], bool]

_PLAIN: dict[Any, frozenset[type]] = {
    bool: frozenset({bool}),
    int: frozenset({int}),
    float: frozenset({float, int}),
    str: frozenset({str}),
    bytes: frozenset({bytes}),
    bytearray: frozenset({bytes}),
    None: frozenset({type(None)}),
    type(None): frozenset({type(None)}),
    list: frozenset({list}),
    tuple: frozenset({list}),
    dict: frozenset({dict}),
    datetime.datetime: frozenset({datetime.datetime}),
    datetime.date: frozenset({datetime.date}),
    datetime.time: frozenset({datetime.time}),
    datetime.timedelta: frozenset({datetime.timedelta}),
    uuid.UUID: frozenset({uuid.UUID}),
    Decimal: frozenset({Decimal}),
}
_MAX_PLAIN_CASES = 64  # combinations of classes that are worth their memory
_ARRAYS = (list, tuple, set, frozenset, collections.abc.Sequence, collections.abc.Iterable)
_MAPS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


@attrs.frozen
class Parameter:
    """One parameter that a caller can give.

    Attributes:
        name: As in the method.
        type_text: The annotation as text; "Any" where there is none.
        required: Whether the caller must give it.
        variadic: Whether it takes any number of positional values.
        positional: Whether it can be given by its position.
        keyword: Whether it can be given by its name.
        default_text: Its default as text, where it has a short one.
    """

    name: str
    type_text: str
    required: bool
    variadic: bool
    positional: bool
    keyword: bool
    default_text: str | None
    _classes: frozenset[type[Any]] | None
    _check: Check | None

    def describe(self) -> dict[str, Any]:
        """What reflection tells of it."""
        return {
            "name": self.name,
            "type": self.type_text,
            "required": self.required,
            "variadic": self.variadic,
            "positional": self.positional,
            "keyword": self.keyword,
            "default": self.default_text,
        }

    def accepts(self, value: Any) -> bool:
        """Whether a decoded value has the parameter's type."""
        if self._classes is not None and value.__class__ in self._classes:
            return True
        return self._check(value) if self._check is not None else self._classes is None


class Signature:
    """The parameters that callers give, and how to check them.

    Args:
        name: The method's full name, for messages.
        function: What will be called; bound, so without `self`.
        skip: Parameters that the library fills in.
        types: Classes that objects can come of.

    Attributes:
        parameters: In order.
        other_keywords: What stands for all other names, or None.
        returns: The type of the result, as text.
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        skip: frozenset[str] = frozenset(),
        types: TypeRegistry | None = None,
    ) -> None:
        self._name = name
        types = types or TypeRegistry()
        hints = annotations_of(function)
        given = [p for p in inspect.signature(function).parameters.values() if p.name not in skip]
        self.parameters = [_parameter(p, hints, types) for p in given if p.kind is not p.VAR_KEYWORD]
        self.returns = type_text(hints.get("return", Any))
        self._positional = [p for p in self.parameters if p.positional]
        self._rest = next((p for p in self.parameters if p.variadic), None)
        self._by_name = {p.name: p for p in self.parameters if p.keyword}
        self.other_keywords = next(
            (_parameter(p, hints, types) for p in given if p.kind is p.VAR_KEYWORD), None
        )
        self._required = [p for p in self.parameters if p.required]
        self._accepted = self._plain_cases()

    def check(self, params: list[Any] | dict[str, Any]) -> None:
        """Check what a caller gave.

        Raises:
            RpcError: INVALID_ARGUMENT; the message names the parameter.
        """
        if params.__class__ is list and tuple(map(type, params)) in self._accepted:
            return
        if isinstance(params, dict):
            self._check_keywords(params)
        else:
            self._check_positional(params)

    def _plain_cases(self) -> frozenset[tuple[type[Any], ...]]:
        """The classes of all positional parameters, in every combination that needs no closer look.

        One look into this set costs a third of going through the parameters. It is empty where the
        parameters are of other kinds, and where it would be large.
        """
        classes = [parameter._classes for parameter in self._positional]
        if len(classes) < len(self.parameters):
            return frozenset()
        known = [one for one in classes if one is not None]
        if len(known) < len(classes) or math.prod(map(len, known)) > _MAX_PLAIN_CASES:
            return frozenset()
        return frozenset(itertools.product(*known))

    def by_name(self, params: list[Any]) -> dict[str, Any]:
        """Positional values under the names of their parameters."""
        return {parameter.name: value for parameter, value in zip(self._positional, params, strict=False)}

    def _check_positional(self, params: list[Any]) -> None:
        if len(params) > len(self._positional) and self._rest is None:
            raise self._invalid(f"takes {self._count()}, got {len(params)}")
        for index, value in enumerate(params):
            parameter = self._positional[index] if index < len(self._positional) else self._rest
            if parameter is not None:
                self._check_value(parameter, value)
        given = {p.name for p in self._positional[: len(params)]}
        self._check_complete(given, len(params))

    def _check_keywords(self, params: dict[str, Any]) -> None:
        for name, value in params.items():
            parameter = self._by_name.get(name, self.other_keywords)
            if parameter is None:
                raise self._invalid(f"has no parameter {name!r} that can be given by name")
            self._check_value(parameter, value, name)
        self._check_complete(set(params), len(params))

    def _check_value(self, parameter: Parameter, value: Any, name: str = "") -> None:
        if not parameter.accepts(value):
            got = type_text(type(value)) if value is not None else "NoneType"
            raise self._invalid(
                f"parameter {(name or parameter.name)!r} must be {parameter.type_text}, got {got}"
            )

    def _check_complete(self, given: set[str], count: int) -> None:
        missing = [p.name for p in self._required if p.name not in given]
        if missing:
            names = ", ".join(repr(name) for name in missing)
            raise self._invalid(f"takes {self._count()}, got {count}: {names} is missing")

    def _count(self) -> str:
        least = len(self._required)
        most = len(self.parameters)
        number = str(most) if least == most else f"{least} to {most}"
        if self._rest is not None:
            number = f"{least} or more"
        return f"{number} parameter{'' if number == '1' else 's'}"

    def _invalid(self, reason: str) -> RpcError:
        return NotRun(StatusCode.INVALID_ARGUMENT, f"{self._name} {reason}")


def annotations_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a function, resolved as far as they can be."""
    try:
        return typing.get_type_hints(function)
    except Exception:  # noqa: BLE001 - resolving one runs what stands in it
        return _resolve_one_by_one(function)


def _resolve_one_by_one(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations that can be resolved, where some cannot: a name that only type-checkers import."""
    scope = getattr(inspect.unwrap(function), "__globals__", {})
    resolved: dict[str, Any] = {}
    for name, note in inspect.get_annotations(function).items():
        alone = SimpleNamespace(__annotations__={name: note})
        with contextlib.suppress(Exception):
            resolved.update(typing.get_type_hints(alone, globalns=scope))
    return resolved


def _parameter(parameter: inspect.Parameter, hints: dict[str, Any], types: TypeRegistry) -> Parameter:
    annotation = hints.get(parameter.name, Any)
    variadic = parameter.kind is parameter.VAR_POSITIONAL
    return Parameter(
        name=parameter.name,
        type_text=type_text(annotation),
        required=parameter.default is parameter.empty and not variadic,
        variadic=variadic,
        positional=parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD),
        keyword=parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD),
        default_text=default_text(parameter.default),
        classes=_PLAIN.get(annotation) if isinstance(annotation, collections.abc.Hashable) else None,
        check=_check_for(annotation, types),
    )


def _check_for(annotation: Any, types: TypeRegistry) -> Check | None:
    """A check for an annotation, or None where any value passes."""
    if isinstance(annotation, collections.abc.Hashable) and annotation in _PLAIN:
        classes = _PLAIN[annotation]
        return lambda value: value.__class__ in classes
    if isinstance(annotation, typing.NewType):
        return _check_for(annotation.__supertype__, types)
    origin, arguments = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    if origin is typing.Annotated:
        return _check_for(arguments[0], types)
    if origin is typing.Literal:
        return lambda value: any(value == one and type(value) is type(one) for one in arguments)
    if origin in (typing.Union, UnionType):
        return _check_union([_check_for(argument, types) for argument in arguments])
    if origin in _MAPS:
        return _check_map(*(_check_for(argument, types) for argument in arguments))
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        return _check_tuple([_check_for(argument, types) for argument in arguments])
    if origin in _ARRAYS:
        return _check_array(_check_for(arguments[0], types) if arguments else None)
    if typing.is_typeddict(annotation):
        return lambda value: isinstance(value, dict)
    if isinstance(annotation, type) and (types.of_class(annotation) or is_message_class(annotation)):
        return lambda value: isinstance(value, annotation)
    return None


def _check_union(checks: list[Check | None]) -> Check | None:
    if None in checks:
        return None
    known = [check for check in checks if check is not None]
    return lambda value: any(check(value) for check in known)


def _check_array(item: Check | None) -> Check:
    if item is None:
        return lambda value: isinstance(value, list)
    return lambda value: isinstance(value, list) and all(map(item, value))


def _check_tuple(items: list[Check | None]) -> Check:
    def check(value: Any) -> bool:
        if not isinstance(value, list) or len(value) != len(items):
            return False
        return all(item is None or item(part) for item, part in zip(items, value, strict=True))

    return check


def _check_map(key: Check | None = None, item: Check | None = None) -> Check:
    def check(value: Any) -> bool:
        if not isinstance(value, Mapping):
            return False
        return (key is None or all(map(key, value))) and (item is None or all(map(item, value.values())))

    return check
