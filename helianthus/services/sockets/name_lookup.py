"""Looking up what a host name stands for, as an operation that can be given up."""

from __future__ import annotations

import asyncio

from ...drivers.address import Address
from ...drivers.base import Driver
from ...drivers.errors import AddressNotAvailable
from ..waiter import Waiter
from .waiting import Bound, Woken


async def addresses_of(driver: Driver, address: Address, what: str, bound: Bound) -> list[Address]:
    """What the name in an address stands for, one at least, in the system's order; a path is what it is.

    Raises:
        TransportError: Nobody knows it.
        OperationTimedOut: The time of the operation is up.
        OperationCancelled: Its token was cancelled.
    """
    if address.local or not address.host:
        return [address]
    waiter = Waiter(asyncio.get_running_loop())
    outcome: list[tuple[list[Address] | None, Exception | None]] = []

    def resolved(found: list[Address] | None, error: Exception | None) -> None:
        outcome.append((found, error))
        waiter.finish(Woken.BY_EVENT, None, direct=False)

    driver.resolve(address, resolved)
    woken = await bound.wait(driver, waiter)
    if not outcome:
        bound.check(what, woken)
    ((found, error),) = outcome
    if not found:
        raise error or AddressNotAvailable("the name has no address", address=str(address))
    return found
