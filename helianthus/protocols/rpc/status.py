"""The seventeen status codes of gRPC, by name and number.

Source: https://grpc.io/docs/guides/status-codes/. The library itself generates only those that
gRPC lets a library generate; the others are for services to use.
"""

from __future__ import annotations

import enum


class StatusCode(enum.IntEnum):
    """Why a call ended."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16
