"""Tells the two versions apart, and what is neither."""

from __future__ import annotations

from ..errors import RemoteProtocolError
from ..machine import Buffer
from .errors import BadProxyHeader
from .header import ProxyHeader
from .version1 import PREFIX, encode_version1, parse_version1
from .version2 import SIGNATURE, encode_version2, parse_version2

DEFAULT_MAX_HEADER = 4096
"""Bytes of a header of version 2. The specification wants it to fit a segment of 536 bytes; what proxies
tell of certificates may take more."""

_TLS_HANDSHAKE = b"\x16\x03"
_SHOWN = 16  # bytes of what came instead


def parse_proxy_header(data: Buffer, max_header: int = DEFAULT_MAX_HEADER) -> tuple[ProxyHeader, int] | None:
    """Read a PROXY header of either version at the beginning of some bytes.

    Returns:
        The header and how many bytes it has; None where it is not all there yet.

    Raises:
        BadProxyHeader: There is none.
        LimitExceeded: It has more than `max_header` bytes.
    """
    start = bytes(data[: len(SIGNATURE)])
    if start[: len(PREFIX)] == PREFIX[: len(start)]:
        if len(start) < len(PREFIX):
            return None
        return parse_version1(bytes(data[:128]))
    if start != SIGNATURE[: len(start)]:
        raise BadProxyHeader(_missing(bytes(data[:_SHOWN])))
    if len(start) < len(SIGNATURE):
        return None
    return parse_version2(memoryview(data), max_header)


def encode_proxy_header(header: ProxyHeader, *, checksum: bool = False) -> bytes:
    """Write a header in its version.

    Args:
        header: What to tell.
        checksum: Whether to add a CRC32C, which version 2 has.

    Raises:
        LocalProtocolError: It cannot be told so.
    """
    if header.version == 2:
        return encode_version2(header, checksum=checksum)
    return encode_version1(header)


def explained(error: RemoteProtocolError) -> str:
    """What to say of a header that is none, so that somebody can do something about it."""
    return f"this listener takes connections with a PROXY header only: {error}"


def _missing(start: bytes) -> str:
    what = "TLS, which comes after the header" if start.startswith(_TLS_HANDSHAKE) else "none"
    return (
        f"the connection began with {start!r}, which is {what}; have the proxy send one (in haproxy: "
        "send-proxy or send-proxy-v2), or do not ask for it"
    )
