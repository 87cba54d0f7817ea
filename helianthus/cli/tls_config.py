"""The part of a configuration file that says how a node's connections are encrypted.

```toml
[tls]
certificate = "node.pem"          # files are looked for beside this one
key = "node.key"
client_ca = "clients.pem"         # clients need a certificate then
require_client_certificate = true
minimum_version = "TLSv1.3"
watch = true                      # read the files again when they change

[tls.sni]
"other.example" = ["other.pem", "other.key"]
```
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs

from ..services.tls import ServerTls
from .output import Misconfigured


@attrs.frozen
class TlsConfig:
    """What the file says, and the command line.

    Attributes:
        options: Those of `ServerTls`.
        watch: Whether to read the files again when they change.
    """

    options: dict[str, Any] = attrs.field(factory=dict)
    watch: bool = False

    def beside(self, directory: Path) -> TlsConfig:
        """The same, with files that are looked for in a directory."""
        options = dict(self.options)
        for name in _FILES & options.keys():
            options[name] = directory / options[name]
        if "sni" in options:
            options["sni"] = {
                name: (directory / certificate, directory / key)
                for name, (certificate, key) in options["sni"].items()
            }
        return attrs.evolve(self, options=options)

    def with_files(self, **files: Path | None) -> TlsConfig:
        """The same, with those of these files that are given in place of its own.

        A certificate does not go with the key of another one.
        """
        given = {name: file for name, file in files.items() if file is not None}
        options = self.options
        if "certificate" in given:
            options = {name: value for name, value in options.items() if name != "key"}
        return attrs.evolve(self, options={**options, **given})

    def server_tls(self, where: str) -> ServerTls | None:
        """What a server is to be given; None where nothing is said of it.

        Raises:
            Misconfigured: There is no certificate, or an option has a value that it cannot have.
        """
        if not self.options and not self.watch:
            return None
        if "certificate" not in self.options:
            raise Misconfigured(f"{where}: TLS needs a certificate; give --cert, or certificate in [tls]")
        try:
            return ServerTls(**self.options)
        except ValueError as error:
            raise Misconfigured(f"{where}: tls: {error}") from None


def read_tls(where: str, value: Any) -> TlsConfig:
    """Read the table `tls`.

    Raises:
        Misconfigured: The message names the key, and what to write instead.
    """
    if not isinstance(value, dict):
        raise Misconfigured(f"{where} must be a table")
    for key, found in value.items():
        kind = _KINDS.get(key)
        if kind is None:
            raise Misconfigured(f"{where}: unknown key {key!r}; known keys are {', '.join(sorted(_KINDS))}")
        if not isinstance(found, kind) or isinstance(found, bool) is not (kind is bool):
            raise Misconfigured(f"{where}.{key} must be {_WRITTEN[kind]}")
    options = {key: found for key, found in value.items() if key != "watch"}
    if "sni" in options:
        options["sni"] = _sni(f"{where}.sni", options["sni"])
    if "alpn" in options and not all(isinstance(name, str) for name in options["alpn"]):
        raise Misconfigured(f"{where}.alpn must be a list of texts")
    return TlsConfig(options, value.get("watch", False))


def _sni(where: str, table: dict[str, Any]) -> dict[str, tuple[str, str]]:
    for name, pair in table.items():
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(one, str) for one in pair):
            raise Misconfigured(f'{where}."{name}" must be two files, such as ["other.pem", "other.key"]')
    return {name: (pair[0], pair[1]) for name, pair in table.items()}


_FILES = {"certificate", "key", "client_ca"}
_KINDS: dict[str, Any] = {
    "certificate": str,
    "key": str,
    "client_ca": str,
    "require_client_certificate": bool,
    "key_password": str,
    "minimum_version": str,
    "handshake_timeout": int | float,
    "require_close_notify": bool,
    "session_tickets": int,
    "alpn": list,
    "sni": dict,
    "watch": bool,
}
_WRITTEN: dict[Any, str] = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    int | float: "a number of seconds",
    list: "a list",
    dict: "a table",
}
