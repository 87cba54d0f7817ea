"""The part of a configuration file that says where a node listens, and who connects there.

A URL is enough; a table says more of one:

```toml
listen = ["tcp://127.0.0.1:7070", "unix:///run/node.sock?mode=0660"]
```

```toml
[[listen]]                 # or [listen], where there is one only
url = "tcp://0.0.0.0:7071"
proxy = true               # every connection begins with a PROXY header
proxy_from = ["10.0.0.0/8"]
```
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from ..services.proxy_trust import proxy_trust
from ..services.rpc.addresses import rpc_address
from .config_values import as_list, found
from .output import Misconfigured

_EXAMPLE = "tcp://127.0.0.1:7070"


@attrs.frozen
class ListenSetting:
    """One address to listen at.

    Attributes:
        url: Where.
        proxy: Whether every connection begins with a PROXY header.
        proxy_from: Whose headers are believed; empty for everybody's.
    """

    url: str
    proxy: bool = False
    proxy_from: tuple[str, ...] = ()


def read_listen(where: str, value: Any) -> list[ListenSetting]:
    """Read the key `listen`: URLs, tables, or one table.

    Raises:
        Misconfigured: The message names the place, the value and what to write instead.
    """
    if isinstance(value, dict):
        return [_read_table(where, value)]
    return [_read_one(f"{where}[{i}]", one) for i, one in enumerate(as_list(where, value, _EXAMPLE))]


def behind_proxies(setting: ListenSetting, proxy_from: tuple[str, ...], where: str) -> ListenSetting:
    """The same address, for connections through proxies.

    Args:
        setting: The address.
        proxy_from: Whose headers are believed, in place of what the setting says; empty for that.
        where: What names them, for messages.

    Raises:
        Misconfigured: One of them is no network.
    """
    _check_trust(where, True, proxy_from)
    return attrs.evolve(setting, proxy=True, proxy_from=proxy_from or setting.proxy_from)


def _read_one(where: str, value: Any) -> ListenSetting:
    return _read_table(where, value) if isinstance(value, dict) else ListenSetting(_url(where, value))


def _read_table(where: str, table: dict[str, Any]) -> ListenSetting:
    for key in table:
        if key not in _KEYS:
            raise Misconfigured(f"{where}: unknown key {key!r}; known keys are {', '.join(sorted(_KEYS))}")
    if "url" not in table:
        raise Misconfigured(f'{where}: there is no url; write one as url = "{_EXAMPLE}"')
    setting = ListenSetting(**{key: _KEYS[key](f"{where}.{key}", value) for key, value in table.items()})
    _check_trust(where, setting.proxy, setting.proxy_from)
    return setting


def _check_trust(where: str, proxy: bool, proxy_from: tuple[str, ...]) -> None:
    try:
        proxy_trust(proxy, proxy_from)
    except ValueError as error:
        raise Misconfigured(f"{where}: {error}") from None


def _url(where: str, value: Any) -> str:
    if not isinstance(value, str):
        raise Misconfigured(f"{found(where, value)} is no URL; write it as tcp://host:port")
    try:
        rpc_address(value)
    except ValueError as error:
        raise Misconfigured(f"{where}: {error}") from None
    return value


def _flag(where: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise Misconfigured(f"{found(where, value)} must be true or false")
    return value


def _networks(where: str, value: Any) -> tuple[str, ...]:
    networks = as_list(where, value, "10.0.0.0/8")
    for network in networks:
        if not isinstance(network, str):
            raise Misconfigured(f'{found(where, value)} must be a list of networks, such as ["10.0.0.0/8"]')
    return tuple(networks)


_KEYS: dict[str, Callable[[str, Any], Any]] = {"url": _url, "proxy": _flag, "proxy_from": _networks}
