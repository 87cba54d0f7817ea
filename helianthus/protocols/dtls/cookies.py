"""Cookies that make a client prove that it gets what is sent to its address (RFC 6347 §4.2.1).

A cookie is an HMAC of the address under a secret that only this machine knows, so that nothing
has to be remembered about whom one was given to. The secret is replaced from time to time, and the
one before is still good, so that a cookie is good for one to two lifetimes.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable

from ..machine import DatagramAddress

SECRET_BYTES = 32
"""As long as the hash, which is what RFC 2104 §3 recommends."""


class Cookies:
    """Makes and checks cookies.

    Args:
        random_bytes: Gives so many bytes that nobody can guess.
        lifetime: Seconds after which the secret is replaced.
    """

    def __init__(self, random_bytes: Callable[[int], bytes], lifetime: float) -> None:
        self._random_bytes = random_bytes
        self._lifetime = lifetime
        self._secrets: list[bytes] = []  # the newest first
        self._changed_at = 0.0

    def make(self, address: DatagramAddress, now: float) -> bytes:
        """The cookie of an address: 32 bytes."""
        return _sign(self._secrets_at(now)[0], address)

    def check(self, address: DatagramAddress, cookie: bytes, now: float) -> bool:
        """Whether `make` has given this cookie to this address within the last lifetime."""
        return any(hmac.compare_digest(_sign(secret, address), cookie) for secret in self._secrets_at(now))

    def _secrets_at(self, now: float) -> list[bytes]:
        age = now - self._changed_at
        if not self._secrets or age >= self._lifetime:
            kept = self._secrets[:1] if age < 2 * self._lifetime else []
            self._secrets = [self._random_bytes(SECRET_BYTES), *kept]
            self._changed_at = now
        return self._secrets


def _sign(secret: bytes, address: DatagramAddress) -> bytes:
    host, port = address
    return hmac.digest(secret, f"{host} {port}".encode(), "sha256")
