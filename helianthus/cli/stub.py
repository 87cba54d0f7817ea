"""A Python module with classes that declare a service, for type-checkers: a client stub.

`client.service(Calculator)` of such a class knows the methods, their parameters and results. It is
written from what the node tells of itself, which may be anybody's node. So its text gets into the
module in three ways only: as identifiers that were checked, as literals, and as documentation and
comments in which whatever could end them is escaped.
"""

from __future__ import annotations

import ast
import re

import attrs

from ..protocols.rpc import Flow
from .described import Described, Method
from .stub_names import Imports, class_name, distinct, identifier, is_usable
from .stub_parameters import HIDDEN_DEFAULT, Layout, lay_out, write_parameters
from .stub_types import StubTypes

_INDENT = "    "
_MAX_QUOTED = 100


class StubImpossible(Exception):
    """What a node tells of a service cannot be written as Python."""


@attrs.frozen
class _Named:
    """A method, and what it is called in the stub."""

    attribute: str
    served: str
    method: Method
    layout: Layout


@attrs.frozen
class _Client:
    """What is different for async and blocking clients."""

    prefix: str
    connect: str
    coroutines: bool


_CLIENTS = (_Client("", "connect", True), _Client("Blocking", "connect_sync", False))


def write_stub(service: Described) -> str:
    """The source of a module that declares a service.

    Raises:
        StubImpossible: The description makes no sense; nothing of it is to be used.
    """
    named, left_out = _name_methods(service)
    classes = [client.prefix + class_name(service.name) for client in _CLIENTS]
    imports = Imports([*classes, *(one.attribute for one in named)])
    body: list[str] = []
    for name, client in zip(classes, _CLIENTS, strict=True):
        body += ["", "", *_class(name, client, service, imports)]
        body += [_comment(reason) for reason in left_out]
        for one in named:
            body += ["", *_method(one, client, imports)]
    text = "\n".join([*_head(service, classes, imports, body), *body, ""])
    try:
        ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise StubImpossible(
            f"what it tells of {service.name!r} cannot be written as Python: {error}"
        ) from None
    return text


def _head(service: Described, classes: list[str], imports: Imports, body: list[str]) -> list[str]:
    default = []
    if any(f"= {HIDDEN_DEFAULT}," in line for line in body):
        any_type = imports.use("Any", "typing")
        default = ["", f"{HIDDEN_DEFAULT}: {any_type} = ...  # a default that the server does not tell"]
    return [
        *_docstring(f"Client stub of the service {service.name}, by `helianthus describe --python`.", ""),
        "",
        "from __future__ import annotations",
        "",
        *imports.lines(),
        "",
        f"__all__ = [{', '.join(map(_literal, sorted(classes)))}]",
        *default,
    ]


# -- which methods, under which names ---------------------------------------------------------------------


def _name_methods(service: Described) -> tuple[list[_Named], list[str]]:
    """The methods under names of their own, and why others are left out."""
    named: list[_Named] = []
    left_out: list[str] = []
    taken = {"name"}  # of the service
    prefix = f"{service.name}."
    usable_first = sorted(
        service.methods.values(), key=lambda one: not is_usable(one.name.removeprefix(prefix))
    )
    for method in usable_first:
        served = method.name.removeprefix(prefix)
        layout = lay_out(method)
        if served in ("", method.name):
            left_out.append(f"{_quoted(method.name)} is left out: it is no method of this service")
        elif layout.impossible:
            parameter = _quoted(layout.impossible)
            left_out.append(f"{_quoted(served)} is left out: {parameter} cannot be given by this name")
        else:
            attribute = distinct(identifier(served, "method"), taken)
            taken.add(attribute)
            named.append(_Named(attribute, served, method, layout))
    return named, left_out


# -- source -----------------------------------------------------------------------------------------------


def _class(name: str, client: _Client, service: Described, imports: Imports) -> list[str]:
    use = f"For `client.service({name})` of a `helianthus.{client.connect}` client."
    text = imports.use("str")
    return [
        f"class {name}:",
        *_docstring(f"{service.doc}\n\n{use}" if service.doc else use, _INDENT),
        "",
        f"{_INDENT}name: {imports.use('ClassVar', 'typing')}[{text}] = {_literal(service.name)}",
    ]


def _method(one: _Named, client: _Client, imports: Imports) -> list[str]:
    types = StubTypes(imports)
    parameters = write_parameters(one.layout, types, imports)
    returns = _returns(one.method, client, types, imports)
    lines = []
    if types.unknown:
        lines.append(_comment(f"Any stands for {', '.join(map(_quoted, types.unknown))}"))
    if one.layout.left_out:
        lines.append(_comment(f"without {', '.join(map(_quoted, one.layout.left_out))}: not with a position"))
    if one.attribute != one.served:
        lines.append(f"{_INDENT}@{imports.use('method', 'helianthus')}(name={_literal(one.served)})")
    define = "async def" if client.coroutines and not one.method.flow else "def"
    return [
        *lines,
        f"{_INDENT}{define} {one.attribute}(",
        *(f"{_INDENT * 2}{parameter}," for parameter in parameters),
        f"{_INDENT}) -> {returns}:",
        *(_docstring(one.method.doc, _INDENT * 2) if one.method.doc else []),
        f"{_INDENT * 2}raise {imports.use('NotImplementedError')}",
    ]


def _returns(method: Method, client: _Client, types: StubTypes, imports: Imports) -> str:
    sent = types.given(method.items or "Any") if method.flow & Flow.FROM_CALLER else ""
    if method.flow == Flow.UNARY:
        return types.taken(method.returned)
    if method.flow == Flow.FROM_CALLEE:
        kind, arguments = "ServerStream", types.streamed(method.returned)
    elif method.flow == Flow.FROM_CALLER:
        kind, arguments = "ClientStream", f"{sent}, {types.taken(method.returned)}"
    else:
        kind, arguments = "BidirectionalStream", f"{sent}, {types.streamed(method.returned)}"
    return f"{imports.use(client.prefix + kind, 'helianthus.stubs')}[{arguments}]"


# -- text of the server's ---------------------------------------------------------------------------------


def _docstring(text: str, indent: str) -> list[str]:
    """A docstring that says the text, whatever is in it."""
    lines = [f"{indent}{_escaped(line)}".rstrip(" ") for line in text.strip().split("\n")]
    lines[0] = f'{indent}"""{lines[0].removeprefix(indent)}'
    if len(lines) == 1:
        return [f'{lines[0]}"""']
    return [*lines, f'{indent}"""']


def _escaped(line: str) -> str:
    quoted = "".join(c if c.isprintable() and c != "\\" else repr(c)[1:-1] for c in line)
    return re.sub('"{3,}|"+$', lambda quotes: '\\"' * len(quotes[0]), quoted)


def _literal(text: str) -> str:
    """A string literal, in the quotes that formatters prefer where that is all the same."""
    plain = repr(text)
    return plain if '"' in plain or "\\" in plain or plain[0] == '"' else f'"{plain[1:-1]}"'


def _comment(text: str) -> str:
    """A comment in one line; `text` holds nothing of the server's but what was quoted."""
    return f"{_INDENT}# {text}"


def _quoted(text: str) -> str:
    """The text in quotes, all in one line, and without what a comment could give a meaning to."""
    short = text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}…"
    return repr(short).replace("#", "\\x23")
