"""Reads and writes what stands inside messages: meta, hello, errors, message ids."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from ..errors import LocalProtocolError, RemoteProtocolError
from .events import CallFailed, Flow, HelloReceived
from .status import StatusCode
from .wire import HELLO, MAX_MSGID, malformed

Params: TypeAlias = Sequence[Any] | Mapping[str, Any]

MAX_TIMEOUT = 2**53 - 1
"""Milliseconds of a timeout in `meta`: what every language's numbers hold. 285,000 years."""

MAX_REASON = 200
"""Characters of a peer's text that are repeated in texts of our own, which the peer may get back."""

_UNARY = Flow.UNARY

_FOREIGN_ERROR = reprlib.Repr()
_FOREIGN_ERROR.maxstring = _FOREIGN_ERROR.maxother = MAX_REASON


def check_call_form(method: str, params: Params) -> None:
    """Raise `LocalProtocolError` where the peer would take a call for a broken message."""
    if not isinstance(method, str):
        raise LocalProtocolError(f"the name of a method must be a str, got {type(method).__name__}")
    if not isinstance(params, (list, tuple, dict)):
        raise LocalProtocolError(
            f"the parameters of {method} must be a list, a tuple or a dict, got {type(params).__name__}"
        )
    if isinstance(params, dict) and not has_text_keys(params):
        raise LocalProtocolError(f"the keyword parameters of {method} must have names that are str")


def has_text_keys(keywords: dict[Any, Any]) -> bool:
    """Whether every key is a str."""
    for key in keywords:  # noqa: SIM110 - `all` takes three times as long for the few keys there are
        if not isinstance(key, str):
            return False
    return True


def call_deadline(timeout: float | None, now: float) -> float | None:
    """When a call with this timeout in seconds must end, or None."""
    if timeout is None or timeout == math.inf:
        return None
    if timeout != timeout:
        raise LocalProtocolError("the timeout of a call must be a number of seconds, got NaN")
    return now + timeout


def request_meta(timeout: float | None, meta: dict[str, Any] | None, flow: Flow) -> dict[str, Any]:
    """Join what the caller and the library tell the peer."""
    joined: dict[str, Any] = {}
    if meta:
        if "timeout" in meta or "stream" in meta or not has_text_keys(meta):
            raise LocalProtocolError(
                "the keys of meta must be str; `timeout` and `stream` are set by the call's arguments"
            )
        joined.update(meta)
    if timeout is not None and timeout != math.inf:
        joined["timeout"] = math.ceil(min(timeout * 1000, MAX_TIMEOUT)) if timeout > 0 else 0
    if flow:
        joined["stream"] = int(flow)
    return joined


def read_meta(meta: Any) -> tuple[float | None, Flow]:
    """Read timeout (seconds) and flow from a request's meta."""
    if meta.__class__ is not dict or not has_text_keys(meta):
        raise RemoteProtocolError("the meta of a request must be a map whose keys are strings")
    timeout = meta.get("timeout")
    if timeout is not None:
        if timeout.__class__ not in (int, float) or not 0 <= timeout <= MAX_TIMEOUT:
            raise RemoteProtocolError("the timeout of a request must be a number of milliseconds, 0 or more")
        timeout /= 1000
    if "stream" not in meta:
        return timeout, _UNARY
    flow = meta["stream"]
    if flow.__class__ is not int or not 0 <= flow <= Flow.BOTH:
        raise RemoteProtocolError("the stream flags of a request must be 0, 1, 2 or 3")
    return timeout, Flow(flow)


def read_hello(params: Any) -> HelloReceived:
    """Read what the peer announces."""
    hello = params[0] if params.__class__ is list and params else None
    if hello.__class__ is not dict:
        raise RemoteProtocolError(f"the parameters of {HELLO} must be an array that begins with a map")
    version, credit = hello.get("version"), hello.get("credit", 0)
    if version.__class__ is not int or version < 1 or credit.__class__ is not int or credit < 0:
        raise RemoteProtocolError(f"{HELLO} must name a version of 1 or more and a credit of 0 or more")
    codecs, codec = hello.get("codecs", []), hello.get("codec", "msgpack")
    if codecs.__class__ is not list or codec.__class__ is not str or not all(map(_is_text, codecs)):
        raise RemoteProtocolError(f"the codecs of {HELLO} must be an array of strings, its codec a string")
    return HelloReceived(version, credit, tuple(codecs), codec)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def read_method(method: Any, message: list[Any]) -> str:
    """Read a method's name that is no str: some clients, pynvim among them, send it as bytes."""
    if method.__class__ is not bytes:
        raise malformed(message)
    try:
        name: str = method.decode()
    except UnicodeDecodeError:
        raise malformed(message) from None
    return name


def read_msgid(message: list[Any], length: int) -> int:
    """Read the message id of a message with this many elements."""
    if len(message) != length or message[1].__class__ is not int or not 0 <= message[1] <= MAX_MSGID:
        raise malformed(message)
    msgid: int = message[1]
    return msgid


def read_failure(msgid: int, error: Any, size: int) -> CallFailed:
    """Read the error of a response of this size; a foreign peer may send anything."""
    if error.__class__ is list and len(error) >= 2 and error[1].__class__ is str:
        code = error[0]
        if code.__class__ is int and 0 < code <= StatusCode.UNAUTHENTICATED:
            details = error[2] if len(error) > 2 else None
            executed = len(error) < 4 or error[3] is not False
            return CallFailed(msgid, StatusCode(code), error[1], details, maybe_executed=executed, size=size)
    # `repr` itself would raise on what is nested deeply, and repeat what is long.
    message = error if error.__class__ is str else _FOREIGN_ERROR.repr(error)
    return CallFailed(msgid, StatusCode.UNKNOWN, message, error, size=size)


def clip(reason: str) -> str:
    """Shorten a peer's text, so that texts which repeat it always fit into a message."""
    return reason if len(reason) <= MAX_REASON else f"{reason[:MAX_REASON]}…"
