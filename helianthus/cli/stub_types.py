"""From a type as a server tells it to an annotation in a generated stub.

The text is parsed, and written anew from what is known: Python's own types that a message can carry.
Anything else, such as a class of the server's, becomes `Any`. A value can have another type where it
is given than where it is taken: MessagePack has one kind of array, so a tuple that a method returns
arrives as a list, and a set cannot be sent.
"""

from __future__ import annotations

import ast
import warnings
from typing import Any

from .stub_names import Imports

MAX_TEXT = 1000
"""Characters of a type; longer ones are not looked into."""

_PLAIN = {name: name for name in ("bool", "int", "float", "str", "bytes", "None", "object")} | {
    "bytearray": "bytes",
    "memoryview": "bytes",
}
_EXTENDED = {
    "datetime": "datetime",
    "date": "datetime",
    "time": "datetime",
    "timedelta": "datetime",
    "UUID": "uuid",
    "Decimal": "decimal",
}
_LISTS = {"list", "List", "MutableSequence"}
_SEQUENCES = {"Sequence", "Iterable", "Collection", "Reversible", "Container"}
_SETS = {"set", "Set", "frozenset", "FrozenSet", "AbstractSet", "MutableSet"}
_DICTS = {"dict", "Dict", "MutableMapping"}
_MODULES = {"typing", "builtins", "collections.abc", "datetime", "uuid", "decimal"}
_STREAMS = {"AsyncIterator", "AsyncIterable", "AsyncGenerator"}


class _Unknown(Exception):
    """A part of a type that nothing is known of."""


class StubTypes:
    """Writes annotations.

    Args:
        imports: Hears of what they use.

    Attributes:
        unknown: Texts of types that became `Any`, in order, since it was last emptied.
    """

    def __init__(self, imports: Imports) -> None:
        self._imports = imports
        self.unknown: dict[str, None] = {}

    def given(self, text: str) -> str:
        """The annotation of what a caller gives."""
        return self._written(text, _parse(text), given=True)

    def taken(self, text: str) -> str:
        """The annotation of what a caller gets."""
        return self._written(text, _parse(text), given=False)

    def streamed(self, text: str) -> str:
        """The annotation of the items of a method that returns such an iterator."""
        node = _parse(text)
        if isinstance(node, ast.Subscript) and _dotted(node.value) in _STREAMS:
            return self._written(text, next(iter(_elements(node)), None), given=False)
        return self.any()

    def any(self) -> str:
        """What stands for a type that is not known."""
        return self._imports.use("Any", "typing")

    def _written(self, text: str, node: ast.expr | None, *, given: bool) -> str:
        if node is None:
            self.unknown[text] = None
            return self.any()
        try:
            return _Writer(self._imports, self.unknown, given=given).write(node)
        except RecursionError:
            self.unknown[text] = None
            return self.any()


def default_fits(default: object, text: str) -> bool:
    """Whether a plain value has a type that is told as `text`; False where that is not known."""
    node = _parse(text)
    return node is not None and any(_accepts(part, default) for part in _alternatives(node))


def _accepts(node: ast.expr, value: object) -> bool:
    if isinstance(node, ast.Subscript) and _dotted(node.value) == "Literal":
        return any(type(one) is type(value) and one == value for one in map(_constant, _elements(node)))
    accepted: dict[str, tuple[type, ...]] = {
        "bool": (bool,),
        "int": (bool, int),
        "float": (bool, int, float),
        "str": (str,),
        "bytes": (bytes,),
        "None": (type(None),),
        "Any": (object,),
        "object": (object,),
    }
    return isinstance(value, accepted.get(_dotted(node), ()))


class _Writer:
    def __init__(self, imports: Imports, unknown: dict[str, None], *, given: bool) -> None:
        self._use = imports.use
        self._unknown = unknown
        self._given = given

    def write(self, node: ast.expr) -> str:
        return " | ".join(dict.fromkeys(map(self._one, _alternatives(node)))) or self._any()

    def _one(self, node: ast.expr) -> str:
        try:
            if isinstance(node, ast.Subscript):
                return self._subscripted(_dotted(node.value), _elements(node))
            return self._bare(_dotted(node))
        except _Unknown:
            self._unknown[ast.unparse(node)] = None
            return self._any()

    def _any(self) -> str:
        return self._use("Any", "typing")

    def _bare(self, name: str) -> str:
        if name == "None":
            return name
        if name in _PLAIN:
            return self._use(_PLAIN[name])
        if name in _EXTENDED:
            return self._use(name, _EXTENDED[name])
        if name == "Any":
            return self._any()
        if name in ("tuple", "Tuple"):
            return self._array("Sequence", self._any())
        if name in _DICTS or name == "Mapping":
            return self._map(name, self._any(), self._any())
        return self._array(name, self._any())

    def _subscripted(self, name: str, elements: list[ast.expr]) -> str:
        if name == "Annotated" and elements:
            return self.write(elements[0])
        if name == "Literal":
            return self._literal(elements)
        if name in ("tuple", "Tuple"):
            return self._tuple(elements)
        if (name in _DICTS or name == "Mapping") and len(elements) == 2:
            return self._map(name, *map(self.write, elements))
        if len(elements) == 1:
            return self._array(name, self.write(elements[0]))
        raise _Unknown

    def _array(self, name: str, item: str) -> str:
        if name not in _LISTS | _SEQUENCES | _SETS:
            raise _Unknown
        if name in _LISTS or not self._given:
            return f"{self._use('list')}[{item}]"
        return f"{self._use('Sequence', 'collections.abc')}[{item}]"

    def _tuple(self, elements: list[ast.expr]) -> str:
        endless = len(elements) == 2 and _is_ellipsis(elements[1])
        items = list(map(self.write, elements[:1] if endless else elements))
        if endless:
            return self._array("Sequence", items[0])
        if self._given:
            return f"{self._use('tuple')}[{', '.join(items) or '()'}]"
        return f"{self._use('list')}[{' | '.join(dict.fromkeys(items)) or self._any()}]"

    def _map(self, name: str, key: str, item: str) -> str:
        if name == "Mapping" and self._given:
            return f"{self._use('Mapping', 'collections.abc')}[{key}, {item}]"
        return f"{self._use('dict')}[{key}, {item}]"

    def _literal(self, elements: list[ast.expr]) -> str:
        values = list(map(_constant, elements))
        if not values or Ellipsis in values:
            raise _Unknown
        return f"{self._use('Literal', 'typing')}[{', '.join(map(repr, values))}]"


# -- reading --------------------------------------------------------------------------------------------


def _parse(text: str) -> ast.expr | None:
    if len(text) > MAX_TEXT:
        return None
    try:
        with warnings.catch_warnings(action="ignore"):  # of odd escapes in what may be anything
            return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _alternatives(node: ast.expr) -> list[ast.expr]:
    """The members of a union, in whichever way it is written; of any other type, itself."""
    found: list[ast.expr] = []
    left = [node]
    while left:
        part = left.pop()
        if isinstance(part, ast.BinOp) and isinstance(part.op, ast.BitOr):
            left += [part.right, part.left]
        elif isinstance(part, ast.Subscript) and _dotted(part.value) == "Union":
            left += reversed(_elements(part))
        elif isinstance(part, ast.Subscript) and _dotted(part.value) == "Optional":
            left += [ast.Constant(None), part.slice]
        else:
            found.append(part)
    return found


def _dotted(node: ast.expr) -> str:
    """A name as it is looked up; nothing where it is none."""
    if isinstance(node, ast.Constant) and node.value is None:
        return "None"
    if isinstance(node, ast.Attribute):
        text = ast.unparse(node)
        module, _, name = text.rpartition(".")
        return name if module in _MODULES else text
    return node.id if isinstance(node, ast.Name) else ""


def _elements(node: ast.Subscript) -> list[ast.expr]:
    return list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]


def _is_ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is Ellipsis


def _constant(node: ast.expr) -> Any:
    """The value of a literal that may stand in `Literal`; Ellipsis for anything else."""
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError, MemoryError):
        return Ellipsis
    return value if type(value) in (bool, int, str, bytes, type(None)) else Ellipsis
