"""What both ends say of their codecs in hello, and the options for it."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from rpc_codecs import JSON_CLIENT, ZIPPED, codec_pair
from rpc_pair import WINDOW, Talk, join, unpack

from helianthus.protocols.rpc import (
    Codec,
    HelloReceived,
    RpcSession,
    SessionState,
)


def said_by(session: RpcSession) -> list[Any]:
    return unpack(join(session.take_data()))


def test_what_hello_says() -> None:
    client = RpcSession(0.0, initiator=True, codec=Codec(codec="json", compression="zstd"))
    hello = {"version": 1, "credit": WINDOW, "codecs": ["json", "zstd"], "codec": "json"}
    assert said_by(client) == [[2, "helianthus.hello", [hello]]]
    assert said_by(RpcSession(0.0, initiator=True)) == [
        [2, "helianthus.hello", [{"version": 1, "credit": WINDOW}]]
    ]


def test_hello_is_told_with_what_it_announces() -> None:
    pair = codec_pair(JSON_CLIENT, {"accepts": ["json", "msgpack"], **ZIPPED}, greet=False)
    pair.pump()
    assert pair.client.take_events() == [HelloReceived(1, WINDOW, ("json", "zstd"), "msgpack")]
    assert pair.server.take_events() == [HelloReceived(1, WINDOW, ("json",), "json")]


@pytest.mark.parametrize("field", [{"codecs": "json"}, {"codecs": [1]}, {"codec": 5}, {"codec": None}])
def test_a_malformed_announcement_ends_the_connection(field: dict[str, Any]) -> None:
    talk = Talk(extended=False)
    talk.hear([2, "helianthus.hello", [{"version": 1, "credit": 1, **field}]])
    assert talk.session.state is SessionState.ENDED


def test_codecs_of_the_future_are_ignored() -> None:
    talk = Talk(extended=False, initiator=False)
    talk.hear([2, "helianthus.hello", [{"version": 1, "credit": 1, "codecs": ["cbor"], "codec": "cbor"}]])
    talk.hear([0, 1, "m", []])
    talk.session.respond(1, "plain")
    assert talk.said()[-1] == [1, 1, None, "plain"]


@pytest.mark.parametrize(
    "options",
    [
        {"codec": "xml"},
        {"accepts": ["xml"]},
        {"compression": "gzip"},
        {"compress_above": -1},
        {"codec": "zstd"},
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        Codec(**options)


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'helianthus\[zstd\]'"):
        Codec(compression="zstd")
