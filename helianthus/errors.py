"""Every exception that Helianthus raises on purpose."""

from .drivers.errors import (
    AddressInUse,
    AddressNotAvailable,
    ConnectionRefused,
    ConnectionReset,
    DriverUnavailable,
    MessageTooLarge,
    PermissionDenied,
    TimedOut,
    TooManyFiles,
    TransportError,
    Unreachable,
    WriteTimeout,
)
from .protocols.errors import LimitExceeded, LocalProtocolError, ProtocolError, RemoteProtocolError
from .services.rpc.errors import RpcError

__all__ = [
    "AddressInUse",
    "AddressNotAvailable",
    "ConnectionRefused",
    "ConnectionReset",
    "DriverUnavailable",
    "LimitExceeded",
    "LocalProtocolError",
    "MessageTooLarge",
    "PermissionDenied",
    "ProtocolError",
    "RemoteProtocolError",
    "RpcError",
    "TimedOut",
    "TooManyFiles",
    "TransportError",
    "Unreachable",
    "WriteTimeout",
]
