"""From `module:Class` to a service object."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from ..services.rpc import Service
from .config import Setting
from .output import Misconfigured

T = TypeVar("T")


def load_service(setting: Setting) -> Service:
    """Import a module and make an object of its class; an object that it holds is taken as it is.

    Raises:
        Misconfigured: There is no such module or class, it is no service, or its code failed.
    """
    what = f"{setting.where}: {setting.value!r}"
    found = load_attribute(setting)
    if isinstance(found, type) and issubclass(found, Service):
        found = _guarded(f"{what}: {setting.value.partition(':')[2]}() failed", found)
    if not isinstance(found, Service):
        raise Misconfigured(f"{what} is no service; name a class derived from helianthus.Service")
    return found


def load_attribute(setting: Setting) -> Any:
    """Import a module and take what it calls by a name, as in `module:name`.

    Raises:
        Misconfigured: There is no such module or name, or the module's code failed.
    """
    what = f"{setting.where}: {setting.value!r}"
    module_name, _, attribute = setting.value.partition(":")
    found: Any = _import(what, module_name)
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise Misconfigured(f"{what}: the module {module_name} has no {attribute}")
        found = getattr(found, name)
    return found


def _import(what: str, name: str) -> Any:
    try:
        return _guarded(f"{what}: importing {name} failed", lambda: importlib.import_module(name))
    except Misconfigured as failure:
        cause = failure.__cause__
        if isinstance(cause, ModuleNotFoundError) and cause.name and f"{name}.".startswith(f"{cause.name}."):
            raise Misconfigured(
                f"{what}: there is no module {cause.name}; put it beside the configuration file, in the "
                "working directory (for --service) or on PYTHONPATH"
            ) from None
        raise


def _guarded(failure: str, work: Callable[[], T]) -> T:
    """Run somebody's code; its fault is told in one line."""
    try:
        return work()
    except (Exception, SystemExit) as error:  # their code may raise anything
        raise Misconfigured(f"{failure}: {type(error).__name__}: {error}{_place(error)}") from error


def _place(error: BaseException) -> str:
    """Where the error was raised; a `SyntaxError` says so itself."""
    if isinstance(error, SyntaxError):
        return ""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f" ({frame.filename}, line {frame.lineno})" if frame.filename != __file__ else ""
