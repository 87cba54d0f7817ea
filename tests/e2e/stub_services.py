"""A service with all that a stub has to say of one; served by `helianthus serve` in the tests."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, NewType, Optional, Union
from uuid import UUID

from helianthus import CallContext, Service, method

Cents = NewType("Cents", int)


class Article:
    """A class that only the server has."""


class Shop(Service):
    """Sells "things".

    Its documentation ends with a backslash and a quote: \\"
    """

    @method
    def price(self, article: str, amount: int = 1, *, currency: Literal["EUR", "USD"] = "EUR") -> Cents:
        """What some articles cost, in cents."""
        return Cents(amount * {"EUR": 100, "USD": 110}[currency] + len(article))

    @method
    def list(self) -> list[str]:
        """It hides a class of Python's from all other methods."""
        return ["apple", "pear"]

    @method
    async def search(
        self,
        tags: Sequence[str],
        limits: Optional[Mapping[str, tuple[int, int]]] = None,  # noqa: UP045
    ) -> dict[str, dict[str, float]]:
        return {tag: {"low": (limits or {}).get(tag, (1, 2))[0] / 2} for tag in tags}

    @method
    def sum(self, *numbers: float) -> float:
        return sum(numbers)

    @method
    def either(self, value: Union[int, str], depth: Literal[1, -2, True, None] = None) -> int | str | None:  # noqa: UP007
        return value

    @method
    def at(
        self, when: datetime.datetime, days: tuple[datetime.date, ...], ident: UUID | None, price: Decimal
    ) -> tuple[datetime.datetime, Decimal]:
        return when, price

    @method
    def pair(self) -> tuple[int, str]:
        return 1, "a"

    @method
    def make(self, article: Article, parts: dict[str, Article]) -> Article:
        """Of whatever."""
        return article

    @method
    async def changes(self, since: int, context: CallContext) -> AsyncIterator[tuple[str, int]]:
        for number in range(since, 3):
            yield ("change", number)

    @method
    async def restock(self, articles: AsyncIterator[dict[str, int]], note: str | None = None) -> int:
        return sum([sum(article.values()) async for article in articles])

    @method
    async def haggle(self, offers: AsyncIterator[float], floor: float = 0.5) -> AsyncIterator[str]:
        async for offer in offers:
            yield "no" if offer < floor else "yes"

    @method(name="class")
    def class_(self) -> str:
        return "first"

    @method(name="name")
    def own_name(self) -> str:
        return "a shop"

    @method
    def odd_names(self, timeout: float, meta: str, cancel: bool = False) -> Any:
        return [timeout, meta, cancel]

    @method
    def by_position(self, a: int, /, b: int = 2) -> int:
        return a * b

    @method
    def free(self, **others: int) -> dict[str, int]:
        return others

    @method
    def hidden_default(self, items: dict[str, int] = {"a": 1}) -> None:  # noqa: B006
        return None

    @method
    def impossible(self, *, timeout: float) -> None:
        """Can be called by no Python client."""
