"""Every exception that Helianthus raises on purpose."""

from .drivers.errors import (
    AcceptPaused,
    AddressInUse,
    AddressNotAvailable,
    BufferReleased,
    BuffersExhausted,
    ConnectionRefused,
    ConnectionReset,
    DriverUnavailable,
    FileTooShort,
    MessageTooLarge,
    PermissionDenied,
    TimedOut,
    TooManyFiles,
    TransferCancelled,
    TransportError,
    Unreachable,
    WriteTimeout,
)
from .protocols.errors import (
    LimitExceeded,
    LocalProtocolError,
    ProtocolError,
    RemoteProtocolError,
    SlowConsumer,
)
from .protocols.tls.errors import TlsError, TlsHandshakeFailed, TlsTruncated
from .services.rpc.errors import RpcError
from .services.sockets.errors import (
    IncompleteRead,
    OperationCancelled,
    OperationTimedOut,
    SocketBusy,
    SocketClosed,
)
from .services.tls.files import TlsFilesUnusable

__all__ = [
    "AcceptPaused",
    "AddressInUse",
    "AddressNotAvailable",
    "BufferReleased",
    "BuffersExhausted",
    "ConnectionRefused",
    "ConnectionReset",
    "DriverUnavailable",
    "FileTooShort",
    "IncompleteRead",
    "LimitExceeded",
    "LocalProtocolError",
    "MessageTooLarge",
    "OperationCancelled",
    "OperationTimedOut",
    "PermissionDenied",
    "ProtocolError",
    "RemoteProtocolError",
    "RpcError",
    "SlowConsumer",
    "SocketBusy",
    "SocketClosed",
    "TimedOut",
    "TlsError",
    "TlsFilesUnusable",
    "TlsHandshakeFailed",
    "TlsTruncated",
    "TooManyFiles",
    "TransferCancelled",
    "TransportError",
    "Unreachable",
    "WriteTimeout",
]
