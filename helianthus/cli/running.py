"""Running a command's coroutine on a driver, and telling what ended it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ..drivers.choose import ENVIRONMENT_VARIABLE, driver, run
from ..drivers.errors import DriverUnavailable
from ..services.rpc import RpcError
from .output import Failed, Misconfigured
from .values import to_json

T = TypeVar("T")


def check_driver(name: str | None, where: str | None = None) -> None:
    """Make sure that a driver exists here and can reach the network.

    Args:
        name: As for `helianthus.driver`.
        where: What named it, for the message; None for the environment.

    Raises:
        Misconfigured: It does not, or cannot.
    """
    prefix = f"{where}: " if where else ""  # else the message names the variable itself
    try:
        made = driver(name)
    except (ValueError, DriverUnavailable) as error:
        raise Misconfigured(f"{prefix}{error}; `helianthus drivers` lists those that work here") from None
    made.close()
    if made.name == "sim":
        where = where or ENVIRONMENT_VARIABLE
        raise Misconfigured(f"{where}: the sim driver knows simulated networks only; choose another")


def run_client(work: Callable[[], Coroutine[Any, Any, T]], driver_name: str | None = None) -> T:
    """Run what calls a node, on a driver; by default the one that HELIANTHUS_DRIVER names.

    Raises:
        Failed: A call ended without a result.
        Misconfigured: There is no such driver.
    """
    check_driver(driver_name, None if driver_name is None else "--driver")
    try:
        return run(work(), driver=driver_name)
    except RpcError as error:
        raise Failed(_explain(error)) from None


def _explain(error: RpcError) -> str:
    if error.details is None:
        return str(error)
    try:
        return f"{error}\ndetails: {to_json(error.details)}"
    except ValueError as reason:
        return f"{error}\ndetails: {reason}"
