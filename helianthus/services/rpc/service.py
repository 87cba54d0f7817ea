"""Classes whose methods can be called over the network."""

from __future__ import annotations

import collections.abc
import enum
import functools
import inspect
import re
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, overload

from ...protocols.rpc import Flow, TypeRegistry
from .context import CallContext
from .middleware import Middleware, chain_for
from .signature import Signature, annotations_of
from .stream_types import STREAM_TYPES
from .type_text import type_text

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "_helianthus_method"
_STREAMS = (collections.abc.AsyncIterator, collections.abc.AsyncIterable, collections.abc.AsyncGenerator)
_BLOCKING_STREAMS = (collections.abc.Iterator, collections.abc.Generator)  # a list is an Iterable, too


@overload
def method(function: F, /) -> F: ...
@overload
def method(*, name: str) -> Callable[[F], F]: ...
def method(function: F | None = None, /, *, name: str | None = None) -> F | Callable[[F], F]:
    """Mark a method of a `Service` to be served.

    A plain function runs at once, in the driver's turn, and must not block. A coroutine function
    runs as a task. An async generator function sends a stream item with each `yield`. A parameter
    annotated `AsyncIterator[T]` receives the items that the caller sends, one annotated
    `CallContext` what is known of the call.

    Args:
        function: The method.
        name: What callers call it, after the service's name; by default its own name.
    """

    def mark(marked: F) -> F:
        setattr(marked, _MARK, name or marked.__name__)
        return marked

    return mark if function is None else mark(function)


class Service:
    """A group of methods under one name.

    The name is the class' own in snake case (`UserStore` is served as "user_store"), or `name`.

    Attributes:
        name: Set it in a subclass, or on an object, to choose another.
    """

    name: str = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = _snake_case(cls.__name__)


class Kind(enum.Enum):
    """How a method runs."""

    FUNCTION = "function"
    COROUTINE = "coroutine"
    STREAM = "stream"


class ServedMethod:
    """One method of one service object, ready to be called.

    Attributes:
        name: The full name, `service.method`.
        function: The bound method.
        kind: How it runs.
        flow: Which ends send stream items.
        signature: What callers give.
        check: Checks it; at hand for every call.
        items: Name of the parameter that receives the caller's items, or None.
        context: Name of the parameter that receives the `CallContext`, or None.
        chain: The middleware that applies to it, or None.
        takes_time: Whether it runs as a task, so that others may run before it ends.
        simple: Whether it is a plain function that needs nothing but its parameters, and no
            middleware of it waits.
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        middleware: Sequence[Middleware] = (),
        types: TypeRegistry | None = None,
    ) -> None:
        self.name = name
        self.chain = chain_for(name, middleware)
        self.function = function
        if inspect.isgeneratorfunction(function):
            raise TypeError(
                f"{name} is a plain generator; write it with `async def` to stream what it yields"
            )
        self.kind = _kind(function)
        hints = annotations_of(function)
        names = inspect.signature(function).parameters
        self.items = next((n for n in names if _is_stream(hints.get(n))), None)
        self.context = next((n for n in names if hints.get(n) is CallContext), None)
        filled = frozenset(n for n in (self.items, self.context) if n is not None)
        self.signature = Signature(name, function, filled, types)
        self.check = self.signature.check
        self.flow = Flow.UNARY
        if self.kind is Kind.STREAM:
            self.flow |= Flow.FROM_CALLEE
        if self.items is not None:
            self.flow |= Flow.FROM_CALLER
        self.takes_time = self.kind is not Kind.FUNCTION or (self.chain is not None and self.chain.waits)
        self.simple = not self.takes_time and not filled
        if filled and any(p.variadic or not p.keyword for p in self.signature.parameters):
            raise TypeError(
                f"{name} cannot have both a stream or CallContext parameter and parameters that can only be "
                "given by position, such as *parameters"
            )
        if self.kind is Kind.FUNCTION and self.items is not None:
            raise TypeError(f"{name} takes a stream, so it must be a coroutine or an async generator")

    def arguments(self, params: list[Any] | dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """What the caller gave, as positional and keyword arguments.

        Where the library fills parameters in, all go by name: those may stand anywhere.
        """
        if isinstance(params, dict):
            return [], dict(params)
        if self.items is None and self.context is None:
            return params, {}
        return [], self.signature.by_name(params)

    def call_by_name(self, params: Any) -> Any:
        """Call a method that needs nothing but what the caller gave by keyword."""
        return self.function(**params)

    def describe(self) -> dict[str, Any]:
        """What reflection tells of it."""
        others = self.signature.other_keywords
        return {
            "name": self.name,
            "doc": inspect.getdoc(self.function) or "",
            "kind": self.kind.value,
            "flow": int(self.flow),
            "params": [parameter.describe() for parameter in self.signature.parameters],
            "keywords": others.type_text if others is not None else None,
            "items": self._item_type(self.items),
            "returns": self.signature.returns,
        }

    def _item_type(self, parameter: str | None) -> str | None:
        if parameter is None:
            return None
        arguments = typing.get_args(annotations_of(self.function)[parameter])
        return type_text(arguments[0]) if arguments else "Any"


def methods_of(
    service: Service, middleware: Sequence[Middleware] = (), types: TypeRegistry | None = None
) -> list[ServedMethod]:
    """The methods that a service object serves, by name, with the middleware that applies to each.

    Raises:
        TypeError: Two of them have the same name, or one cannot be served.
    """
    found: dict[str, ServedMethod] = {}
    for attribute, value in inspect.getmembers_static(type(service)):
        name = getattr(value, _MARK, None) or getattr(getattr(value, "__func__", None), _MARK, None)
        if name is None:
            continue
        if name in found:
            raise TypeError(f"{service.name} has two methods named {name!r}; rename one of them")
        found[name] = ServedMethod(f"{service.name}.{name}", getattr(service, attribute), middleware, types)
    return [found[name] for name in sorted(found)]


def method_table(
    services: Iterable[Service], middleware: Sequence[Middleware] = (), types: TypeRegistry | None = None
) -> dict[str, ServedMethod]:
    """All methods of some services, by full name, with the middleware that applies to each.

    Raises:
        TypeError: Two services have the same name, or something is no service object.
    """
    table: dict[str, ServedMethod] = {}
    names: set[str] = set()
    for service in services:
        if not isinstance(service, Service):
            raise TypeError(f"{service!r} is no Service object; pass an instance such as Calculator()")
        if service.name in names:
            raise TypeError(f"two services are named {service.name!r}; give one of them another `name`")
        names.add(service.name)
        table.update((served.name, served) for served in methods_of(service, middleware, types))
    return table


def service_name(declaration: type) -> str:
    """The name under which a class is served: its `name`, or its own name in snake case."""
    name = getattr(declaration, "name", None)
    return name if isinstance(name, str) and name else _snake_case(declaration.__name__)


@functools.lru_cache(maxsize=1024)
def declared_method(declaration: type, attribute: str) -> tuple[str, bool, tuple[str, ...]]:
    """What a class that declares a service says of one of its methods.

    Returns:
        The name under which the method is served; whether it streams to its caller: it is a
        generator, or is annotated to return an iterator or one of `helianthus.stubs`, as protocols
        and stubs do; and the names of its positional parameters.

    Raises:
        AttributeError: The class declares no such method.
    """
    function = getattr(declaration, attribute, None)
    if not callable(function):
        raise AttributeError(f"{declaration.__name__} declares no method {attribute!r}")
    hints = annotations_of(function)
    streams = inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function)
    if not streams and not inspect.iscoroutinefunction(function):
        returned = hints.get("return")
        streams = (typing.get_origin(returned) or returned) in (*_STREAMS, *_BLOCKING_STREAMS, *STREAM_TYPES)
    positional = tuple(
        name
        for name, parameter in list(inspect.signature(function).parameters.items())[1:]  # without `self`
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        and hints.get(name) is not CallContext
        and not _is_stream(hints.get(name))
    )
    return getattr(function, _MARK, attribute), streams, positional


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _kind(function: Callable[..., Any]) -> Kind:
    inner = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    if inspect.isasyncgenfunction(inner):
        return Kind.STREAM
    if inspect.iscoroutinefunction(inner):
        return Kind.COROUTINE
    return Kind.FUNCTION


def _is_stream(annotation: Any) -> bool:
    return (typing.get_origin(annotation) or annotation) in _STREAMS
