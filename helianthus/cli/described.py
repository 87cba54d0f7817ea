"""What a node tells of its services, read with care: it may be anybody's node."""

from __future__ import annotations

import re
from typing import Any

import attrs

from ..protocols.rpc import ExtensionsMissing, Flow, StatusCode
from ..services.rpc import Client, RpcError

_STREAM = re.compile(r"Async(?:Iterator|Iterable|Generator)(?:\[(?P<item>.*?)(?:, None)?\])?")
_NOT_DESCRIBED = (StatusCode.UNIMPLEMENTED, StatusCode.PERMISSION_DENIED, StatusCode.UNAUTHENTICATED)


class NotDescribed(Exception):
    """The node does not tell of its services, or tells what is no description."""


@attrs.frozen
class Method:
    """One method of a service.

    Attributes:
        name: Its full name.
        doc: Its documentation, or nothing.
        flow: Which ends send stream items.
        parameters: What a caller gives, as it would stand in source code.
        returns: The type of the result, or of the items that it streams.
    """

    name: str
    doc: str
    flow: Flow
    parameters: str
    returns: str


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
    except (TypeError, KeyError, ValueError):
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
    parts = [_parameter(parameter) for parameter in raw["params"]]
    if flow & Flow.FROM_CALLER:
        parts.append(f"stream of {raw['items']}")
    return Method(str(raw["name"]), str(raw["doc"]), flow, ", ".join(parts), _returns(str(raw["returns"])))


def _parameter(raw: Any) -> str:
    star = "*" if raw["variadic"] else ""
    default = "" if raw["required"] or raw["variadic"] else " = ..."
    return f"{star}{raw['name']}: {raw['type']}{default}"


def _returns(text: str) -> str:
    stream = _STREAM.fullmatch(text)
    return text if stream is None else f"stream of {stream['item'] or 'Any'}"
