"""Answering strangers without remembering them (RFC 6347 §4.2.1).

One OpenSSL connection serves all of them: `DTLSv1_listen` looks at a ClientHello, answers one without
a good cookie by a HelloVerifyRequest, and forgets it. The connection becomes a peer's own when a good
cookie comes back, and the next one takes its place.
"""

from __future__ import annotations

from collections.abc import Callable

from OpenSSL import SSL

from ..machine import DatagramAddress
from .cookies import Cookies
from .verification import Verification


class Greeter:
    """Has clients prove that they get what is sent to their address.

    Args:
        context: Gives the context for a handshake that begins; see `DtlsServer`.
        cookies: Makes and checks them.
    """

    def __init__(self, context: Callable[[], SSL.Context], cookies: Cookies) -> None:
        self._context = context
        self._cookies = cookies
        self._connection: SSL.Connection | None = None
        self._address: DatagramAddress = ("", 0)  # of whoever is being greeted
        self._now = 0.0

    def greet(
        self, client_hello: bytes, address: DatagramAddress, now: float
    ) -> tuple[bytes, SSL.Connection | None]:
        """Look at a ClientHello.

        Returns:
            The answer to be sent, which may be empty, and once the client has proved its address, a
            connection that has read the ClientHello and is to go on with the handshake.
        """
        self._address, self._now = address, now
        connection = self._listening()
        connection.bio_write(client_hello)
        try:
            connection.DTLSv1_listen()
        except SSL.WantReadError:
            return _written_by(connection), None
        except SSL.Error:  # it was none
            self._connection = None
            return b"", None
        self._connection = None
        connection.set_app_data(Verification(server_side=True))
        return b"", connection

    def make_cookie(self) -> bytes:
        """The cookie of whoever is being greeted."""
        return self._cookies.make(self._address, self._now)

    def check_cookie(self, cookie: bytes) -> bool:
        """Whether a cookie belongs to whoever is being greeted."""
        return self._cookies.check(self._address, cookie, self._now)

    def _listening(self) -> SSL.Connection:
        connection, context = self._connection, self._context()
        if connection is None or connection.get_context() is not context:
            connection = self._connection = SSL.Connection(context, None)
            connection.set_app_data(self)
            connection.set_accept_state()
        return connection


def make_cookie(connection: SSL.Connection) -> bytes:
    """What OpenSSL calls for a cookie (SSL_CTX_set_cookie_generate_cb)."""
    greeter = connection.get_app_data()
    assert isinstance(greeter, Greeter)
    return greeter.make_cookie()


def check_cookie(connection: SSL.Connection, cookie: bytes) -> bool:
    """What OpenSSL calls to check one (SSL_CTX_set_cookie_verify_cb)."""
    greeter = connection.get_app_data()
    if isinstance(greeter, Greeter):
        return greeter.check_cookie(cookie)
    return True  # OpenSSL asks a second time, when the handshake goes on with what was greeted


def _written_by(connection: SSL.Connection) -> bytes:
    try:
        return connection.bio_read(2**16)
    except SSL.WantReadError:
        return b""
