"""Values and pairs of sessions for the tests of what a payload can carry."""

from __future__ import annotations

import dataclasses
from typing import Any

import attrs
from hypothesis import strategies as st
from rpc_pair import Pair, Split, whole

from helianthus.protocols.rpc import Codec, RequestReceived, ResponseReceived, RpcLimits, TypeRegistry

JSON, ZSTD = 80, 81
JSON_CLIENT, JSON_SERVER = {"codec": "json"}, {"accepts": ["json"]}
ZIPPED = {"compression": "zstd", "compress_above": 100}
TEXT = "to be compressed " * 100

JSON_VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(),
    ),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    max_leaves=20,
)


@attrs.define
class Point:
    x: int
    y: int = 0


@attrs.define
class Shape:
    name: str
    corners: list[Point]
    _hidden: Any = None
    size: int = attrs.field(init=False, default=7)


@attrs.frozen
class Positive:
    value: int = attrs.field(validator=attrs.validators.gt(0))


@dataclasses.dataclass
class Song:
    title: str
    tags: list[Any] = dataclasses.field(default_factory=list)


class Celsius:
    """A class that is neither attrs' nor a dataclass."""

    def __init__(self, degrees: float) -> None:
        self.degrees = degrees

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Celsius) and other.degrees == self.degrees

    def __hash__(self) -> int:
        return hash(self.degrees)


def registry() -> TypeRegistry:
    """All of the above."""
    types = TypeRegistry()
    for cls in (Point, Shape, Positive, Song):
        types.register(cls)
    types.register(Celsius, name="temp", to_value=lambda one: one.degrees, from_value=Celsius)
    return types


def codec_pair(
    client: dict[str, Any] | None = None,
    server: dict[str, Any] | None = None,
    *,
    split: Split = whole,
    limits: RpcLimits | None = None,
    greet: bool = True,
) -> Pair:
    """Two sessions with these options of their codecs, which have said hello."""
    limits = limits or RpcLimits()
    pair = Pair(
        split=split,
        client={"limits": limits, "codec": Codec(limits, **(client or {}))},
        server={"limits": limits, "codec": Codec(limits, **(server or {}))},
    )
    return pair.greet() if greet else pair


def echoed(pair: Pair, value: Any) -> tuple[Any, Any]:
    """A value as the server gets it as a parameter, and as the client gets it back as the result."""
    pair.call("echo", (value,))
    pair.pump()
    (request,) = pair.server.take_events()
    assert isinstance(request, RequestReceived), request
    pair.server.respond(request.msgid, request.params[0])  # type: ignore[index]  # a list
    pair.pump()
    (response,) = pair.client.take_events()
    assert isinstance(response, ResponseReceived), response
    return request.params[0], response.result  # type: ignore[index]  # a list
