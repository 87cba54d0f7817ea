"""One set of exceptions for every platform's error codes.

POSIX errno values and Windows' WSA codes name the same faults by different numbers. A driver
raises and reports these classes only, with the original code kept, so that a service written
against one driver handles the faults of all of them.
"""

from __future__ import annotations

import errno
import socket
import sys


class TransportError(OSError):
    """A transport failed. `errno` keeps the platform's own code, or is None.

    Attributes:
        address: What the transport was connected to, bound to or meant for, as text.
    """

    def __init__(self, message: str, *, code: int | None = None, address: str = "") -> None:
        super().__init__(code, message)
        self.message = message
        self.address = address

    def __str__(self) -> str:
        return f"{self.address}: {self.message}" if self.address else self.message


class ConnectionRefused(TransportError):
    """Nobody listens at the address."""


class ConnectionReset(TransportError):
    """The peer, or something between, ended the connection without a proper close."""


class TimedOut(TransportError):
    """The peer did not take or answer something within its time."""


class Unreachable(TransportError):
    """No route leads to the address."""


class AddressInUse(TransportError):
    """Somebody else listens at the address."""


class AddressNotAvailable(TransportError):
    """The address does not belong to this machine, or its name cannot be resolved."""


class AddressNotSupported(TransportError):
    """This platform, or this driver, has no such transport."""


class PermissionDenied(TransportError):
    """The operating system does not allow this user to use the address."""


class MessageTooLarge(TransportError):
    """A datagram does not fit."""


class TooManyFiles(TransportError):
    """The process or the system has no file descriptor left."""


class AcceptPaused(TooManyFiles):
    """A listener finds no descriptor or no memory for the connections that wait at it.

    Reported to `Driver.on_error` once for each shortage. The listener tries again until it can, and
    the connections wait in the system.
    """


class DriverUnavailable(RuntimeError):
    """The driver asked for does not exist on this platform or installation."""


class WriteTimeout(TimedOut):
    """The peer took nothing for the link's write deadline."""


class FileTooShort(EOFError):
    """A file that was being sent ended before all that was to be sent of it."""


class TransferCancelled(Exception):
    """A transfer of a file was cancelled by whoever began it."""


class BuffersExhausted(RuntimeError):
    """A buffer pool has reached a limit, and was made to refuse what is past it.

    Attributes:
        limit: The limit's name, as it is spelled where it is set.
        maximum: Its value.
    """

    def __init__(self, message: str, *, limit: str, maximum: int) -> None:
        super().__init__(message)
        self.limit = limit
        self.maximum = maximum


class BufferReleased(ValueError):
    """A lease of a buffer was used or released after its release."""


_BY_CODE: dict[int, type[TransportError]] = {}


def _register(kind: type[TransportError], posix: tuple[str, ...], windows: tuple[int, ...]) -> None:
    for name in posix:
        code = getattr(errno, name, None)
        if code is not None:
            _BY_CODE[code] = kind
    for code in windows:
        _BY_CODE[code] = kind


# Windows codes: "Windows Sockets Error Codes" (WSAE*) and the Win32 codes that overlapped
# operations report for the same faults (ERROR_CONNECTION_REFUSED 1225, ERROR_PORT_UNREACHABLE 1234,
# ERROR_NETNAME_DELETED 64…).
_register(ConnectionRefused, ("ECONNREFUSED",), (10061, 1225, 1234))
_register(
    ConnectionReset,
    ("ECONNRESET", "EPIPE", "ECONNABORTED", "ENOTCONN", "ESHUTDOWN"),
    (10054, 10053, 10057, 10058, 64, 1236),
)
if sys.platform == "darwin":  # from a socket that is being torn down while something is sent
    _register(ConnectionReset, ("EPROTOTYPE",), ())
_register(TimedOut, ("ETIMEDOUT",), (10060, 121))
_register(
    Unreachable, ("ENETUNREACH", "EHOSTUNREACH", "ENETDOWN", "EHOSTDOWN"), (10051, 10065, 10050, 1231, 1232)
)
_register(AddressInUse, ("EADDRINUSE",), (10048,))
_register(AddressNotAvailable, ("EADDRNOTAVAIL",), (10049,))
_register(AddressNotSupported, ("EAFNOSUPPORT", "EPROTONOSUPPORT"), (10047, 10043))
_register(PermissionDenied, ("EACCES", "EPERM"), (10013,))
_register(MessageTooLarge, ("EMSGSIZE",), (10040,))
_register(TooManyFiles, ("EMFILE", "ENFILE"), (10024,))


def from_os_error(error: OSError, address: str = "") -> TransportError:
    """Translate an error of the operating system; a `TransportError` is returned as it is.

    Args:
        error: What a socket call raised or reported.
        address: What the transport was connected to, for the message.
    """
    if isinstance(error, TransportError):
        return error
    if isinstance(error, socket.gaierror):
        return AddressNotAvailable(f"cannot resolve the name: {error.strerror}", address=address)
    code = getattr(error, "winerror", None) or error.errno
    kind = _BY_CODE.get(code, TransportError) if code is not None else TransportError
    return kind(error.strerror or str(error) or type(error).__name__, code=code, address=address)
