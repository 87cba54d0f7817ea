"""The one exception that a call raises, and what else becomes of it."""

from __future__ import annotations

import asyncio
from typing import Any, TypeGuard

from ...protocols.errors import LocalProtocolError
from ...protocols.rpc import OversizedMessage, StatusCode


class RpcError(Exception):
    """A call ended without a result. Raise it in a method to answer with its code.

    Attributes:
        code: Why, in gRPC's terms.
        message: For people.
        details: Anything MessagePack can carry.
        maybe_executed: False where the method surely did not begin to run, so that repeating the
            call is safe; True where it may have run, wholly or in part.

    Raises:
        ValueError: `code` is no code of an error.
    """

    def __init__(
        self, code: StatusCode, message: str, details: Any = None, *, maybe_executed: bool = True
    ) -> None:
        self.code = StatusCode(code)
        if self.code is StatusCode.OK:
            raise ValueError("OK is no code of an error")
        self.message = str(message)
        super().__init__(self.code, self.message)
        self.details = details
        self.maybe_executed = maybe_executed

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}"


class NotRun(RpcError):
    """The library's own refusal of a call, before its method was begun; the caller is told that."""

    def __init__(self, code: StatusCode, message: str, details: Any = None) -> None:
        super().__init__(code, message, details, maybe_executed=False)


class NotSent(RpcError):
    """The end of a call whose request never left this side.

    It is no `NotRun`: a method that lets it out to its own caller has run.
    """

    def __init__(self, code: StatusCode, message: str) -> None:
        super().__init__(code, message, maybe_executed=False)


def error_of(method: str, failure: BaseException) -> RpcError:
    """What a caller is told of something that a method, or the answer to it, let out."""
    if isinstance(failure, RpcError):
        return failure
    if isinstance(failure, asyncio.CancelledError):
        return RpcError(StatusCode.CANCELLED, f"{method} was cancelled")
    if isinstance(failure, OversizedMessage):
        return RpcError(StatusCode.RESOURCE_EXHAUSTED, f"the result of {method} {failure}")
    if isinstance(failure, LocalProtocolError):
        return RpcError(StatusCode.INTERNAL, f"the result of {method} {failure}")
    text = f"{method} failed: {type(failure).__name__}: {_text_of(failure)}"
    return RpcError(StatusCode.UNKNOWN, text)


def is_fault(error: BaseException) -> TypeGuard[Exception]:
    """Whether somebody should look into it: it was not raised for the caller."""
    return isinstance(error, Exception) and not isinstance(error, RpcError)


def _text_of(error: BaseException) -> str:
    """What an exception says; its `__str__` may fail itself."""
    try:
        return encodable(str(error))
    except Exception:  # noqa: BLE001 - whatever it is, the request is answered
        return "(it has no text)"


def encodable(text: str) -> str:
    """Text without lone surrogates, which stand for bytes of file names that are no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()
