"""The file that says what a node serves.

TOML, or the same in JSON, by the file's name. Every key may be left out:

```toml
listen = ["tcp://127.0.0.1:7070"]
services = ["calculator:Calculator", "strings:Strings"]
driver = "auto"
grace = 30.0
```

`auth_config.py` has the table `auth`, `tls_config.py` the table `tls`, and `listen_config.py` what else
can be said of an address.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from .auth_config import AuthConfig, read_auth
from .config_values import as_list, found, short
from .listen_config import ListenSetting, read_listen
from .output import Misconfigured
from .tls_config import TlsConfig, read_tls

_SERVICE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


@attrs.frozen
class Setting:
    """Something that was set, and where: for the message, should it turn out to be wrong."""

    value: str
    where: str


@attrs.frozen
class Config:
    """What a configuration file says.

    Attributes:
        services: As `module:Class`.
        listen: Where, and who connects there.
        driver: A driver's name, or None.
        grace: Seconds for calls in flight to finish when the node stops, or None.
        auth: Who is who, and who may call what; None where everybody may.
        tls: How connections are encrypted.
    """

    services: list[Setting] = attrs.field(factory=list)
    listen: list[ListenSetting] = attrs.field(factory=list)
    driver: Setting | None = None
    grace: float | None = None
    auth: AuthConfig | None = None
    tls: TlsConfig = attrs.field(factory=TlsConfig)


def read_config(path: Path) -> Config:
    """Read a configuration file.

    Raises:
        Misconfigured: The message names the file, the key, the value and what to write instead.
    """
    given = _parse(path)
    for key in given:
        if key not in _KEYS:
            raise Misconfigured(f"{path}: {_unknown(key)}")
    try:
        return Config(**{key: _KEYS[key](f"{path}: {key}", value) for key, value in given.items()})
    except RecursionError:
        raise Misconfigured(f"{path}: nested too deeply") from None


def service_setting(where: str, value: Any) -> Setting:
    """Check the form of a service's name."""
    if not isinstance(value, str) or not _SERVICE.fullmatch(value):
        raise Misconfigured(
            f'{found(where, value)} names no service; write it as "module:Class", '
            'such as "calculator:Calculator"'
        )
    return Setting(value, where)


# -- reading -----------------------------------------------------------------------------------------


def _parse(path: Path) -> dict[str, Any]:
    loads: dict[str, Callable[[str], Any]] = {".toml": tomllib.loads, ".json": json.loads}
    load = loads.get(path.suffix.lower())
    if load is None:
        raise Misconfigured(f"{path}: cannot tell its format; give it a name that ends in .toml or .json")
    try:
        given = load(path.read_text("utf-8"))
    except OSError as error:
        raise Misconfigured(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # both parsers' errors are ValueErrors; so is bad UTF-8
        raise Misconfigured(f"{path}: is no valid {path.suffix[1:].upper()}: {error}") from None
    if not isinstance(given, dict):
        raise Misconfigured(f"{path}: must hold an object with keys, not {short(given)}")
    return given


def _unknown(key: str) -> str:
    alike = difflib.get_close_matches(key, _KEYS, n=1)
    hint = f", did you mean {alike[0]!r}?" if alike else ";"
    return f"unknown key {key!r}{hint} known keys are {', '.join(sorted(_KEYS))}"


def _services(where: str, value: Any) -> list[Setting]:
    return [
        service_setting(f"{where}[{i}]", one)
        for i, one in enumerate(as_list(where, value, "calculator:Calculator"))
    ]


def _name(where: str, value: Any) -> Setting:
    if not isinstance(value, str) or not value:
        raise Misconfigured(f'{found(where, value)} is no driver\'s name; write "auto"')
    return Setting(value, where)


def _seconds(where: str, value: Any) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0:
        raise Misconfigured(f"{found(where, value)} is no number of seconds; write 0 or more, such as 30.0")
    return float(value)


_KEYS: dict[str, Callable[[str, Any], Any]] = {
    "auth": read_auth,
    "tls": read_tls,
    "services": _services,
    "listen": read_listen,
    "driver": _name,
    "grace": _seconds,
}
