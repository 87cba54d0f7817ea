"""The one set of exceptions that every platform's codes map onto."""

from __future__ import annotations

import errno
import socket

import pytest

from helianthus.drivers.errors import (
    AddressInUse,
    AddressNotAvailable,
    ConnectionRefused,
    ConnectionReset,
    MessageTooLarge,
    PermissionDenied,
    TimedOut,
    TooManyFiles,
    TransportError,
    Unreachable,
    WriteTimeout,
    from_os_error,
)

POSIX = [
    (errno.ECONNREFUSED, ConnectionRefused),
    (errno.ECONNRESET, ConnectionReset),
    (errno.EPIPE, ConnectionReset),
    (errno.ECONNABORTED, ConnectionReset),
    (errno.ENOTCONN, ConnectionReset),
    (errno.ETIMEDOUT, TimedOut),
    (errno.ENETUNREACH, Unreachable),
    (errno.EHOSTUNREACH, Unreachable),
    (errno.EADDRINUSE, AddressInUse),
    (errno.EADDRNOTAVAIL, AddressNotAvailable),
    (errno.EACCES, PermissionDenied),
    (errno.EPERM, PermissionDenied),
    (errno.EMSGSIZE, MessageTooLarge),
    (errno.EMFILE, TooManyFiles),
    (errno.ENFILE, TooManyFiles),
    (errno.EIO, TransportError),
]

WINDOWS = [
    (10061, ConnectionRefused),  # WSAECONNREFUSED
    (1225, ConnectionRefused),  # ERROR_CONNECTION_REFUSED
    (10054, ConnectionReset),  # WSAECONNRESET
    (64, ConnectionReset),  # ERROR_NETNAME_DELETED
    (1236, ConnectionReset),  # ERROR_CONNECTION_ABORTED
    (10060, TimedOut),  # WSAETIMEDOUT
    (121, TimedOut),  # ERROR_SEM_TIMEOUT
    (10065, Unreachable),  # WSAEHOSTUNREACH
    (10048, AddressInUse),  # WSAEADDRINUSE
    (10049, AddressNotAvailable),  # WSAEADDRNOTAVAIL
    (10013, PermissionDenied),  # WSAEACCES
    (10040, MessageTooLarge),  # WSAEMSGSIZE
    (10024, TooManyFiles),  # WSAEMFILE
]


@pytest.mark.parametrize(("code", "kind"), POSIX, ids=lambda value: getattr(value, "__name__", str(value)))
def test_posix_codes(code: int, kind: type[TransportError]) -> None:
    error = from_os_error(OSError(code, "what the system says"), "10.0.0.1:4242")
    assert type(error) is kind
    assert error.errno == code, "the platform's own code is kept"
    assert error.address == "10.0.0.1:4242"
    assert str(error) == "10.0.0.1:4242: what the system says"


@pytest.mark.parametrize(("code", "kind"), WINDOWS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_windows_codes(code: int, kind: type[TransportError]) -> None:
    class WindowsError(OSError):
        """As on Windows: `errno` is a POSIX number made of the real one, which `winerror` keeps."""

        winerror = code

    error = from_os_error(WindowsError(errno.EINVAL, "what the system says"))
    assert type(error) is kind
    assert error.errno == code


def test_a_name_that_cannot_be_resolved() -> None:
    error = from_os_error(socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "tcp://x:1")
    assert type(error) is AddressNotAvailable
    assert "Name or service not known" in str(error)


def test_an_error_without_a_code() -> None:
    """As asyncio raises when several attempts failed in different ways."""
    error = from_os_error(OSError("Multiple exceptions: this, that"))
    assert type(error) is TransportError
    assert error.errno is None
    assert str(error) == "Multiple exceptions: this, that"
    assert str(from_os_error(OSError())) == "OSError"


def test_a_transport_error_is_returned_as_it_is() -> None:
    error = WriteTimeout("slow", address="a:1")
    assert from_os_error(error, "b:2") is error


def test_they_are_os_errors() -> None:
    """Who knows nothing of this module catches them all the same."""
    for kind in (ConnectionRefused, ConnectionReset, TimedOut, WriteTimeout, AddressInUse):
        assert issubclass(kind, TransportError)
        assert issubclass(kind, OSError)
    assert issubclass(WriteTimeout, TimedOut)
