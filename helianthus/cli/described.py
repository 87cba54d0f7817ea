"""What a node tells of its services, read with care: it may be anybody's node."""

from __future__ import annotations

import re
import time
from typing import Any

import attrs

from ..protocols.rpc import ExtensionsMissing, Flow, StatusCode
from ..services.rpc import Client, RpcError, connect
from ..services.tls import ClientTls
from .credentials import credentials
from .output import Failed

_STREAM = re.compile(r"Async(?:Iterator|Iterable|Generator)(?:\[(?P<item>.*?)(?:, None)?\])?")
_NOT_DESCRIBED = (StatusCode.UNIMPLEMENTED, StatusCode.PERMISSION_DENIED, StatusCode.UNAUTHENTICATED)


class NotDescribed(Exception):
    """The node does not tell of its services, or tells what is no description."""


@attrs.frozen
class MethodParameter:
    """One parameter of a method.

    Attributes:
        name: Its name.
        type: Its type, as the node writes it.
        required: Whether a caller must give it.
        variadic: Whether it takes any number of positional values.
        positional: Whether it can be given by its position.
        keyword: Whether it can be given by its name.
        default: Its default in Python's notation, where the node tells.
    """

    name: str
    type: str
    required: bool
    variadic: bool
    positional: bool
    keyword: bool
    default: str | None

    def __str__(self) -> str:
        default = "" if self.required or self.variadic else f" = {self.default or '...'}"
        return f"{'*' if self.variadic else ''}{self.name}: {self.type}{default}"


@attrs.frozen
class Method:
    """One method of a service.

    Attributes:
        name: Its full name.
        doc: Its documentation, or nothing.
        flow: Which ends send stream items.
        params: What a caller gives.
        keywords: The type of what can be given under any other name, or None.
        items: The type of the items that a caller streams, or None.
        returned: What it is annotated to return; for a stream, an iterator.
    """

    name: str
    doc: str
    flow: Flow
    params: list[MethodParameter]
    keywords: str | None
    items: str | None
    returned: str

    @property
    def parameters(self) -> str:
        """What a caller gives, as it would stand in source code."""
        positional = [p for p in self.params if p.positional or p.variadic]
        only_by_position = sum(not p.keyword and not p.variadic for p in positional)
        only_by_name = [p for p in self.params if not p.positional and not p.variadic]
        parts = list(map(str, positional))
        if only_by_position:
            parts.insert(only_by_position, "/")
        if only_by_name and not any(p.variadic for p in positional):
            parts.append("*")
        parts += map(str, only_by_name)
        if self.keywords is not None:
            parts.append(f"**: {self.keywords}")
        if self.flow & Flow.FROM_CALLER:
            parts.append(f"stream of {self.items}")
        return ", ".join(parts)

    @property
    def returns(self) -> str:
        """What a caller gets, in words."""
        stream = _STREAM.fullmatch(self.returned)
        return self.returned if stream is None else f"stream of {stream['item'] or 'Any'}"


@attrs.frozen
class Described:
    """One service.

    Attributes:
        name: Its name.
        doc: Its documentation, or nothing.
        methods: By full name.
        raw: All that the node said.
    """

    name: str
    doc: str
    methods: dict[str, Method]
    raw: dict[str, Any]


async def describe_node(
    url: str, service: str | None, timeout: float, tls: ClientTls | None
) -> list[Described]:
    """What a node serves.

    Args:
        url: Where it is.
        service: The one to describe, or None for all.
        timeout: Seconds for all of it.
        tls: How to encrypt.

    Raises:
        Failed: The node does not tell.
        RpcError: It could not be asked.
    """
    deadline = time.monotonic() + timeout

    def remaining() -> float:
        return deadline - time.monotonic()

    async with connect(url, credentials=credentials(), tls=tls) as client:
        try:
            names = [service] if service is not None else await list_services(client, remaining())
            return [await describe(client, name, remaining()) for name in names]
        except NotDescribed as error:
            raise Failed(f"{url} does not tell what it serves: {error}") from None


async def list_services(client: Client, timeout: float | None) -> list[str]:
    """The names of a node's services.

    Raises:
        NotDescribed: The node does not tell.
        RpcError: It could not be asked.
    """
    services = await _ask(client, "node.services", timeout)
    try:
        return [str(service["name"]) for service in services]
    except (TypeError, KeyError):
        raise NotDescribed("the answer to node.services is no list of services") from None


async def describe(client: Client, service: str, timeout: float | None) -> Described:
    """What a node tells of one service; raises as `list_services`."""
    raw = await _ask(client, "node.describe", timeout, service)
    try:
        methods = [_method(method) for method in raw["methods"]]
        return Described(str(raw["name"]), str(raw["doc"]), {method.name: method for method in methods}, raw)
    except (AttributeError, TypeError, KeyError, ValueError):
        raise NotDescribed(f"the answer to node.describe({service!r}) is no description") from None


async def _ask(client: Client, method: str, timeout: float | None, *params: Any) -> Any:
    """Call a method as a stream: a server of plain MessagePack-RPC, which has none, is not asked at all."""
    try:
        return await client.stream(method, *params, timeout=timeout).result()
    except RpcError as error:
        if error.code in _NOT_DESCRIBED or isinstance(error.__cause__, ExtensionsMissing):
            raise NotDescribed(error.message) from error
        raise


def _method(raw: Any) -> Method:
    flow = Flow(raw["flow"])
    return Method(
        name=str(raw["name"]),
        doc=str(raw["doc"]),
        flow=flow,
        params=[_parameter(parameter) for parameter in raw["params"]],
        keywords=_text_or_none(raw.get("keywords")),
        items=str(raw["items"]) if flow & Flow.FROM_CALLER else None,
        returned=str(raw["returns"]),
    )


def _parameter(raw: Any) -> MethodParameter:
    variadic = bool(raw["variadic"])
    return MethodParameter(
        name=str(raw["name"]),
        type=str(raw["type"]),
        required=bool(raw["required"]),
        variadic=variadic,
        positional=bool(raw.get("positional", not variadic)),  # nodes of an older version do not tell
        keyword=bool(raw.get("keyword", not variadic)),
        default=_text_or_none(raw.get("default")),
    )


def _text_or_none(raw: Any) -> str | None:
    return None if raw is None else str(raw)
