"""The one exception that a call raises."""

from __future__ import annotations

from typing import Any

from ...protocols.rpc import StatusCode


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

    def __init__(self, code: StatusCode, message: str) -> None:
        super().__init__(code, message, maybe_executed=False)
