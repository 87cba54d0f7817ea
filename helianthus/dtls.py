"""Encrypted datagrams for people: DTLS 1.2. Needs the extra `helianthus[dtls]`.

    from helianthus import ClientTls, ServerTls
    from helianthus.dtls import connect, listen

    async with await listen("dtls://0.0.0.0:4433", tls=ServerTls("server.pem", "server.key")) as listener:
        async for peer in listener:
            await peer.send(await peer.recv(timeout=5))

    async with await connect("dtls://example.org:4433", tls=ClientTls(ca="ca.pem")) as sock:
        await sock.send(b"hello")
        answer = await sock.recv(timeout=1)

The options of TLS are those of DTLS, except that there is no version 1.3, and that no session is resumed.
"""

from __future__ import annotations

from .protocols.dtls import DtlsEstablished, DtlsOptions, DtlsServerStatistics
from .services.dtls import DtlsListener, DtlsSocket, listen

connect = DtlsSocket.connect

__all__ = [
    "DtlsEstablished",
    "DtlsListener",
    "DtlsOptions",
    "DtlsServerStatistics",
    "DtlsSocket",
    "connect",
    "listen",
]
