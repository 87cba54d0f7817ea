"""The classes of a user's own whose objects may travel."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar, overload

import attrs

from .protobuf import is_message_class

C = TypeVar("C", bound=type)

_HAVE_A_FORM = (dict, list, tuple, str, int, float, bytes, bytearray, memoryview, type(None))
MAX_NAME = 200
"""Characters of a class' name on the wire."""


@attrs.frozen
class RegisteredType:
    """How the objects of one class travel.

    Attributes:
        name: On the wire.
        cls: The class.
        to_value: Turns an object into what can be encoded.
        from_value: The reverse; what it raises fails the call.
        given: Whether these two were given, and do not follow from the class.
    """

    name: str
    cls: type
    to_value: Callable[[Any], Any]
    from_value: Callable[[Any], Any]
    given: bool = False


class TypeRegistry:
    """Classes whose objects may be parameters, results and stream items.

    Give it to both ends: `Server(…, types=registry)` and `connect(…, types=registry)`. Nothing else
    that a peer sends is ever turned into an object of a user's class.

    attrs classes and dataclasses travel as a map of the fields that their constructor takes. A
    field that is missing takes the constructor's default, one that is unknown is ignored, so that
    both ends need not change at once. Other classes need `to_value` and `from_value`. The classes
    of Protocol Buffers messages need not be registered, unless they are of a descriptor pool of
    their own.
    """

    def __init__(self) -> None:
        self._by_class: dict[type, RegisteredType] = {}
        self._by_name: dict[str, RegisteredType] = {}

    @overload
    def register(
        self,
        cls: C,
        /,
        *,
        name: str | None = None,
        to_value: Callable[[Any], Any] | None = None,
        from_value: Callable[[Any], Any] | None = None,
    ) -> C: ...
    @overload
    def register(self, /, *, name: str | None = None) -> Callable[[C], C]: ...
    def register(
        self,
        cls: C | None = None,
        /,
        *,
        name: str | None = None,
        to_value: Callable[[Any], Any] | None = None,
        from_value: Callable[[Any], Any] | None = None,
    ) -> C | Callable[[C], C]:
        """Let the objects of a class travel; also a decorator, with or without arguments.

        Args:
            cls: An attrs class or a dataclass, or any other with the two functions below.
            name: On the wire; by default the class' own.
            to_value: Turns an object into what can be encoded.
            from_value: Makes an object of that; whatever it raises fails the call.

        Raises:
            TypeError: The class cannot be registered.
            ValueError: The name or the class is registered already.
        """
        if cls is None:
            return lambda decorated: self.register(decorated, name=name)
        kind = _registered(cls, name, to_value, from_value)
        if kind.cls in self._by_class or kind.name in self._by_name:
            taken = self._by_name.get(kind.name) or self._by_class[kind.cls]
            raise ValueError(
                f"{cls.__qualname__} cannot be registered as {kind.name!r}: "
                f"{taken.cls.__qualname__} is registered as {taken.name!r} already"
            )
        self._by_class[kind.cls] = self._by_name[kind.name] = kind
        return cls

    def __getstate__(self) -> list[tuple[Any, ...]]:
        """A recording keeps how the registry was filled."""
        return [
            (kind.cls, kind.name, *((kind.to_value, kind.from_value) if kind.given else ()))
            for kind in self._by_class.values()
        ]

    def __setstate__(self, kinds: list[tuple[Any, ...]]) -> None:
        TypeRegistry.__init__(self)
        for cls, name, *given in kinds:
            to_value, from_value = given or (None, None)
            name = None if is_message_class(cls) else name
            self.register(cls, name=name, to_value=to_value, from_value=from_value)

    def of_class(self, cls: type) -> RegisteredType | None:
        """How the objects of a class travel; those of a subclass do not by themselves."""
        return self._by_class.get(cls)

    def named(self, value: Any) -> RegisteredType | None:
        """How a value travels, if it is of a registered class."""
        return self._by_class.get(value.__class__)

    def of_name(self, name: str) -> RegisteredType | None:
        """The class with this name on the wire."""
        return self._by_name.get(name)

    @property
    def names(self) -> list[str]:
        """Those on the wire, sorted."""
        return sorted(self._by_name)


def _registered(
    cls: Any,
    name: str | None,
    to_value: Callable[[Any], Any] | None,
    from_value: Callable[[Any], Any] | None,
) -> RegisteredType:
    if not isinstance(cls, type):
        raise TypeError(f"only a class can be registered, got {cls!r}")
    if is_message_class(cls):  # travels by itself; here it becomes known by its own name
        if name is not None or to_value is not None or from_value is not None:
            raise TypeError(f"the message {cls.DESCRIPTOR.full_name} has a name and a form of its own")
        return RegisteredType(cls.DESCRIPTOR.full_name, cls, _unchanged, _unchanged)
    name = cls.__name__ if name is None else name
    if not 0 < len(name) <= MAX_NAME:
        raise TypeError(f"the name of a registered class must have 1 to {MAX_NAME} characters")
    if issubclass(cls, _HAVE_A_FORM):
        form = next(base for base in _HAVE_A_FORM if issubclass(cls, base))
        raise TypeError(f"{cls.__qualname__} travels as a {form.__name__} already, and comes back as one")
    if (to_value is None) != (from_value is None):
        raise TypeError(f"{cls.__qualname__} needs both to_value and from_value, or neither")
    if to_value is not None and from_value is not None:
        return RegisteredType(name, cls, to_value, from_value, given=True)
    return RegisteredType(name, cls, *_by_fields(cls))


def _unchanged(thing: Any) -> Any:
    return thing


def _by_fields(cls: type) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """How an attrs class or a dataclass travels: as a map of what its constructor takes."""
    if attrs.has(cls):
        fields = [(field.alias or field.name, field.name) for field in attrs.fields(cls) if field.init]
    elif dataclasses.is_dataclass(cls):
        fields = [(field.name, field.name) for field in dataclasses.fields(cls) if field.init]
    else:
        raise TypeError(
            f"{cls.__qualname__} is neither an attrs class nor a dataclass: give to_value and from_value"
        )

    def to_value(thing: Any) -> dict[str, Any]:
        return {name: getattr(thing, attribute) for name, attribute in fields}

    def from_value(value: Any) -> Any:
        if value.__class__ is not dict:
            raise ValueError(f"needs a map of its fields, got {type(value).__name__}")
        return cls(**{name: value[name] for name, _ in fields if name in value})

    return to_value, from_value
