"""Middleware that writes a line for each call."""

from __future__ import annotations

import logging

from .middleware import Middleware, Request, Response

_log = logging.getLogger("helianthus.rpc.calls")


class CallLog(Middleware):
    """Logs each call at its end: method, caller, code and duration.

    Logging costs more than a plain call does; choose the methods, or `only_failed`, on a busy server.

    Args:
        logger: By default "helianthus.rpc.calls".
        level: Of calls that succeeded; others are logged as warnings.
        only_failed: Whether those that succeeded are left out.
    """

    order = 100

    def __init__(
        self, logger: logging.Logger = _log, *, level: int = logging.INFO, only_failed: bool = False
    ) -> None:
        self._logger = logger
        self._level = level
        self._only_failed = only_failed

    def after(self, request: Request, response: Response) -> None:
        """Write the line."""
        caller = request.peer.address if request.peer is not None else "-"
        milliseconds = response.elapsed * 1000
        if response.error is not None:
            self._logger.warning(
                "%s from %s: %s in %.3f ms", request.method, caller, response.error, milliseconds
            )
        elif not self._only_failed:
            self._logger.log(self._level, "%s from %s: OK in %.3f ms", request.method, caller, milliseconds)
