"""How commands that call a node prove who calls: by the environment, which other users cannot see."""

from __future__ import annotations

import os

from ..services.rpc import BearerToken, Credentials, SharedSecret
from .auth_config import read_secret
from .output import Misconfigured

TOKEN = "HELIANTHUS_TOKEN"
SECRET = "HELIANTHUS_SECRET"


def credentials() -> Credentials | None:
    """What HELIANTHUS_TOKEN, or HELIANTHUS_SECRET as `NAME:KEY`, says; None without either.

    Raises:
        Misconfigured: Both are there, or the secret is malformed.
    """
    token, secret = os.environ.get(TOKEN), os.environ.get(SECRET)
    if token and secret:
        raise Misconfigured(f"{TOKEN} and {SECRET} are both set; unset one")
    if token:
        return BearerToken(token)
    if not secret:
        return None
    name, colon, key = secret.partition(":")
    if not colon or not name:
        raise Misconfigured(f"{SECRET} must be NAME:KEY, with the key in base64")
    return SharedSecret(name, read_secret(SECRET, name, key))
