"""Linux' queue of errors of a socket: what came back by ICMP, and about whom (ip(7), IP_RECVERR).

Without it a socket that is not connected never hears that nobody is bound where it sends to, and a
connected one hears an error number. Where there is no such queue, `take_errors` gives nothing.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys

from ..protocols.machine import DatagramAddress
from .datagram_addresses import DatagramAddresses
from .datagram_link import text_of
from .errors import TransportError, from_os_error

_MSG_ERRQUEUE = 0x2000  # linux/socket.h
_RECVERR = {(socket.IPPROTO_IP, 11), (socket.IPPROTO_IPV6, 25)}
_EXTENDED = struct.Struct("@IBBBBII")  # sock_extended_err of linux/errqueue.h: errno, origin, type, …
_ICMP, _ICMP6 = 2, 3
_ROOM = 512  # bytes of control messages; one error and the address of who reported it take 44

TAKEN_AT_ONCE = 64
"""Errors taken from the queue in one go."""


def take_errors(
    sock: socket.socket, addresses: DatagramAddresses
) -> list[tuple[TransportError, DatagramAddress | None]]:
    """The errors that have come back, the oldest first, each with whom it is about.

    Those that the system found itself are left out: the call that met them has failed with them.
    """
    if sys.platform != "linux":
        return []
    found: list[tuple[TransportError, DatagramAddress | None]] = []
    while len(found) < TAKEN_AT_ONCE:
        try:
            _, control, _, sockaddr = sock.recvmsg(0, _ROOM, _MSG_ERRQUEUE)
        except OSError:
            break
        destination = addresses.from_socket(sockaddr) if sockaddr else None
        for level, kind, data in control:
            if (level, kind) in _RECVERR and len(data) >= _EXTENDED.size:
                found += _read(data, destination)
    return found


def _read(
    data: bytes, destination: DatagramAddress | None
) -> list[tuple[TransportError, DatagramAddress | None]]:
    code, origin, kind, icmp_code, _, info, _ = _EXTENDED.unpack_from(data)
    if origin not in (_ICMP, _ICMP6):
        return []
    text = os.strerror(code)
    if code == errno.ECONNREFUSED:
        text = "nobody is bound there"
    elif code == errno.EMSGSIZE and info:
        text = f"the way there takes packets of {info} bytes at most"
    text += f" ({'ICMP' if origin == _ICMP else 'ICMPv6'} type {kind}, code {icmp_code})"
    return [(from_os_error(OSError(code, text), text_of(destination)), destination)]
