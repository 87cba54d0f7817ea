"""The part of a configuration file that says who is who, and who may call what.

```toml
[auth]
allow = ["@staff calculator.*", "anonymous node.services"]
deny = ["mallory *"]

[auth.tokens]             # bearer tokens, by identity
alice = "…"

[auth.secrets]            # random keys in base64, by identity
bob = "…"

[auth.groups]
staff = ["alice", "bob", "cert:carol"]   # whoever has the certificate with the common name carol
```

What is secret in it is never repeated in a message.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import attrs

from ..protocols.auth import CERTIFICATE, Identity, Rule, Rules, check_secret
from ..services.rpc import Authentication, TokenAuthenticator
from .output import Misconfigured


@attrs.frozen
class AuthConfig:
    """What the file says.

    Attributes:
        rules: Who may call what.
        tokens: Bearer tokens by identity.
        secrets: Keys by identity.
        groups: Members by group.
    """

    rules: Rules = attrs.field(factory=Rules)
    tokens: dict[str, str] = attrs.field(factory=dict, repr=False)
    secrets: dict[str, bytes] = attrs.field(factory=dict, repr=False)
    groups: dict[str, list[str]] = attrs.field(factory=dict)

    def identity(self, name: str) -> Identity:
        """Somebody, with the groups that name them."""
        return Identity(name, self.groups_of(name))

    def groups_of(self, name: str) -> list[str]:
        """The groups of somebody."""
        return [group for group, members in self.groups.items() if name in members]

    def authentication(self) -> Authentication:
        """What a server is to be given."""
        tokens = {token: self.identity(name) for name, token in self.tokens.items()}
        by_certificate = [
            name for members in self.groups.values() for name in members if name.startswith(CERTIFICATE)
        ]
        groups = {name: self.groups_of(name) for name in (*self.secrets, *by_certificate)}
        return Authentication(
            [TokenAuthenticator(tokens)] if tokens else [],
            secrets=self.secrets,
            groups=groups,
            rules=self.rules,
        )


def read_auth(where: str, value: Any) -> AuthConfig:
    """Read the table `auth`.

    Raises:
        Misconfigured: The message names the key, and what to write instead.
    """
    given = _table(where, value)
    for key in given:
        if key not in ("allow", "deny", "tokens", "secrets", "groups"):
            raise Misconfigured(
                f"{where}: unknown key {key!r}; known keys are allow, deny, groups, secrets, tokens"
            )
    try:
        rules = Rules(
            _rules(f"{where}.allow", given.get("allow", [])), _rules(f"{where}.deny", given.get("deny", []))
        )
        config = AuthConfig(
            rules,
            _tokens(f"{where}.tokens", given.get("tokens", {})),
            _secrets(f"{where}.secrets", given.get("secrets", {})),
            _groups(f"{where}.groups", given.get("groups", {})),
        )
        for name in (*config.tokens, *config.secrets):
            config.identity(name)
    except ValueError as error:
        raise Misconfigured(f"{where}: {error}") from None
    return config


def _rules(where: str, value: Any) -> list[Rule]:
    if not isinstance(value, list) or not all(isinstance(rule, str) for rule in value):
        raise Misconfigured(f'{where} must be a list of rules, such as ["@staff calculator.*"]')
    return [Rule.parse(rule) for rule in value]


def _tokens(where: str, value: Any) -> dict[str, str]:
    tokens = _table(where, value)
    for name, token in tokens.items():
        if not isinstance(token, str) or not token:
            raise Misconfigured(f"{where}.{name} must be text that is not empty")
    if len(set(tokens.values())) < len(tokens):
        raise Misconfigured(f"{where}: two identities have the same token")
    return tokens


def _secrets(where: str, value: Any) -> dict[str, bytes]:
    secrets = {}
    for name, text in _table(where, value).items():
        if not isinstance(text, str):
            raise Misconfigured(f"{where}.{name} must be a key in base64")
        secrets[name] = read_secret(f"{where}.{name}", name, text)
    return secrets


def read_secret(where: str, name: str, text: str) -> bytes:
    """Read a key in base64; raises `Misconfigured`, without repeating it."""
    try:
        secret = base64.b64decode(text, validate=True)
        check_secret(name, secret)
    except binascii.Error:
        raise Misconfigured(f"{where} is no base64; `openssl rand -base64 32` makes a good key") from None
    except ValueError as error:
        raise Misconfigured(f"{where}: {error}") from None
    return secret


def _groups(where: str, value: Any) -> dict[str, list[str]]:
    groups = _table(where, value)
    for name, members in groups.items():
        if not isinstance(members, list) or not all(isinstance(member, str) for member in members):
            raise Misconfigured(f'{where}.{name} must be a list of identities, such as ["alice"]')
    return groups


def _table(where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Misconfigured(f"{where} must be a table")
    return value
