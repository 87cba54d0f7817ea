"""Annotations as text: what reflection and error messages say of a type."""

from __future__ import annotations

import collections.abc
import datetime
import decimal
import enum
import sys
import types
import typing
import uuid
from collections.abc import Callable, Sequence
from typing import Annotated, Any, List, Literal, NewType, Optional, TypeVar, Union  # noqa: UP035

import pytest

from helianthus.services.rpc.type_text import default_text, type_text


class Own:
    class Inner:
        pass


class Colour(enum.Enum):
    RED = 1


class Movie(typing.TypedDict):
    name: str


UserId = NewType("UserId", int)
T = TypeVar("T")
Number = TypeVar("Number", int, float)
Bound = TypeVar("Bound", bound=Sequence[int])
Box = typing.Generic


class Boxed(typing.Generic[T]):
    pass


CASES = [
    (int, "int"),
    (None, "None"),
    (type(None), "None"),
    (Any, "Any"),
    (list, "list"),
    (List, "list"),  # noqa: UP006
    (List[int], "list[int]"),  # noqa: UP006
    (dict[str, list[int | None]], "dict[str, list[int | None]]"),
    (Optional[int], "int | None"),  # noqa: UP045
    (Union[int, str, None], "int | str | None"),  # noqa: UP007
    (typing.Sequence[int], "Sequence[int]"),
    (collections.abc.Mapping[str, Any], "Mapping[str, Any]"),
    (collections.abc.AsyncIterator[int], "AsyncIterator[int]"),
    (tuple[int, ...], "tuple[int, ...]"),
    (tuple[()], "tuple[()]"),
    (tuple, "tuple"),
    (Literal["typing.x", 1, None, b"a"], "Literal['typing.x', 1, None, b'a']"),
    (Literal[Colour.RED], "Literal[Any]"),
    (datetime.datetime, "datetime"),
    (list[datetime.date], "list[date]"),
    (uuid.UUID | decimal.Decimal, "UUID | Decimal"),
    (Own, f"{__name__}.Own"),
    (list[Own.Inner], f"list[{__name__}.Own.Inner]"),
    (Movie, f"{__name__}.Movie"),
    (Boxed[int], f"{__name__}.Boxed[int]"),
    (UserId, "int"),
    (Annotated[int, "positive"], "int"),
    (list[T], "list[Any]"),  # type: ignore[valid-type]
    (Number, "int | float"),
    (Bound, "Sequence[int]"),
    (Callable[[int, str], None], "Callable[[int, str], None]"),
    (list["Own"], "list[Own]"),
]


@pytest.mark.parametrize(("annotation", "text"), CASES, ids=[text for _, text in CASES])
def test_types(annotation: Any, text: str) -> None:
    assert type_text(annotation) == text


def test_a_type_that_contains_itself_has_an_end() -> None:
    if sys.version_info < (3, 12):
        pytest.skip("Python has `type X = ...` since 3.12")
    scope: dict[str, Any] = {}
    exec("type Json = dict[str, Json] | int", scope)
    text = type_text(scope["Json"])
    assert text.startswith("dict[str, dict[str, ")
    assert "Any" in text


def test_deep_types_end_in_any() -> None:
    deep: Any = int
    for _ in range(100):
        deep = types.GenericAlias(list, (deep,))
    assert type_text(deep).endswith("list[Any" + "]" * 20)


@pytest.mark.parametrize(
    ("default", "text"),
    [
        (None, "None"),
        (1, "1"),
        (-1.5, "-1.5"),
        ("it's", '"it\'s"'),
        (True, "True"),
        ([1], None),
        (float("nan"), None),
        ("x" * 200, None),
        (Colour.RED, None),
    ],
)
def test_defaults(default: Any, text: str | None) -> None:
    assert default_text(default) == text
