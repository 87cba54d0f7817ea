"""Writes those parts of the documentation that the sources know best: limits, states, status codes."""

from __future__ import annotations

import enum
import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from helianthus.protocols import byte_stream, dtls, framing, policies, pool, proxy_header, rpc, tls
from helianthus.protocols.rpc.session_state import SESSION_TRANSITIONS, SessionInput, SessionState


def write_all(place: Path) -> None:
    """Write every part into a directory, as Markdown."""
    place.mkdir(parents=True, exist_ok=True)
    parts = {
        "rpc-limits": fields_of(rpc.RpcLimits),
        "pool-options": fields_of(pool.PoolOptions),
        "keep-alive": fields_of(rpc.KeepAlive),
        "rpc-states": transitions(SESSION_TRANSITIONS, SessionState, SessionInput),
        "framing-states": transitions(framing.TRANSITIONS, framing.FramingState, framing.FramingInput),
        "proxy-header-states": transitions(
            proxy_header.PROXY_HEADER_TRANSITIONS,
            proxy_header.ProxyHeaderState,
            proxy_header.ProxyHeaderInput,
        ),
        "dtls-states": transitions(
            dtls.ASSOCIATION_TRANSITIONS, dtls.AssociationState, dtls.AssociationInput
        ),
        "dtls-options": fields_of(dtls.DtlsOptions),
        "tls-states": transitions(tls.TLS_TRANSITIONS, tls.TlsState, tls.TlsInput),
        "byte-stream-states": transitions(
            byte_stream.BYTE_STREAM_TRANSITIONS, byte_stream.ByteStreamState, byte_stream.ByteStreamInput
        ),
        "byte-stream-limits": fields_of(byte_stream.ByteStreamLimits),
        "retry-states": transitions(policies.RETRY_TRANSITIONS, policies.RetryState, policies.RetryInput),
        "retry-policy": fields_of(policies.RetryPolicy),
        "hedging-policy": fields_of(policies.HedgingPolicy),
        "status-codes": table(("number", "name"), [(str(code.value), code.name) for code in rpc.StatusCode]),
    }
    for name, text in parts.items():
        (place / f"{name}.md").write_text(text, "utf-8")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def fields_of(kind: type[Any]) -> str:
    """The fields of an attrs class, with their defaults and what its docstring says of them."""
    said = dict(
        re.findall(r"^    (\w+): (.*(?:\n        .*)*)", inspect.cleandoc(kind.__doc__ or ""), re.MULTILINE)
    )
    rows = []
    for field in attrs.fields(kind):
        text = " ".join(said[field.name].split())
        rows.append((f"`{field.name}`", _default(field.default), text))
    return table(("name", "default", "meaning"), rows)


def _default(value: object) -> str:
    if value is attrs.NOTHING:
        return "(must be given)"
    if isinstance(value, enum.Enum):
        return f'"{value.value}"'
    return f"{value:,}" if type(value) in (int, float) else str(value)


def transitions(
    moves: Mapping[tuple[Any, Any], enum.Enum], states: type[enum.Enum], inputs: type[enum.Enum]
) -> str:
    """A transition table: a row for each state, a column for each input."""
    rows = []
    for state in states:
        targets = [moves.get((state, cause)) for cause in inputs]
        rows.append((f"**{state.value}**", *(str(target.value) if target else "" for target in targets)))
    return table(("state", *(str(cause.value) for cause in inputs)), rows)
