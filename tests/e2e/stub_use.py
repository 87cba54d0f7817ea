"""What an editor says of calls through a stub: every line marked `# wrong` is an error, no other is.

Type-checkers read it beside the module `shop_client`, which the test has the command write.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from shop_client import BlockingShop, Shop

import helianthus


async def right(client: helianthus.Client) -> None:
    shop = client.service(Shop)
    cents: int = await shop.price("apple")
    cents = await shop.price("apple", amount=2, currency="USD", timeout=1.0, meta={"tenant": 1})
    names: list[str] = await shop.list()
    found: dict[str, dict[str, float]] = await shop.search(("a", "b"), {"a": (1, 2)})
    total: float = await shop.sum(1, 2.5, cancel=helianthus.CancelToken())
    pair: list[int | str] = await shop.pair()
    anything: Any = await shop.make(object(), {"a": 1})
    await shop.either(1, -2)
    await shop.free(a=1, b=2)
    odd: Any = await shop.odd_names(1.0, "m", True)
    changes: AsyncIterator[list[str | int]] = shop.changes(1)
    async with shop.changes(since=1) as entered:
        async for change in entered:
            print(change)
    async with shop.restock(note="n") as restock:
        await restock.send({"a": 1})
        stock: int = await restock.result()
    stock = await shop.restock()
    haggle = shop.haggle(floor=2)
    await haggle.send(1)
    await haggle.end()
    answers: list[str] = [answer async for answer in haggle]
    print(cents, names, found, total, pair, anything, odd, changes, stock, answers, await shop.class_())


async def wrong(client: helianthus.Client) -> None:
    shop = client.service(Shop)
    await shop.price(1)  # wrong
    await shop.price()  # wrong
    await shop.price("apple", 1, "EUR")  # wrong
    await shop.price("apple", currency="DEM")  # wrong
    await shop.price("apple", size=1)  # wrong
    await shop.price("apple", timeout="1")  # wrong
    await shop.prize("apple")  # wrong
    name: str = await shop.price("apple")  # wrong
    shop.price("apple") + 1  # wrong
    await shop.search({"a"})  # wrong
    await shop.sum("1")  # wrong
    await shop.either(1.5)  # wrong
    await shop.at("today", [], None, 1)  # wrong
    await shop.by_position(a=1)  # wrong
    await shop.changes(1)  # wrong
    for _ in shop.changes(1):  # wrong
        pass
    await shop.restock().send(1)  # wrong
    async for _ in shop.restock():  # wrong
        pass
    async for text in shop.haggle():
        number: int = text  # wrong
        print(number)
    nothing: int = await shop.hidden_default()  # wrong
    print(name, nothing)


def right_without_await(client: helianthus.BlockingClient) -> None:
    shop = client.service(BlockingShop)
    cents: int = shop.price("apple", 2, currency="EUR", timeout=1.0)
    changes: Iterator[list[str | int]] = shop.changes(1)
    with shop.restock() as restock:
        restock.send({"a": 1})
        stock: int = restock.result()
    with shop.haggle() as haggle:
        haggle.send(1.0)
        haggle.end()
        answers: list[str] = list(haggle)
    print(cents, changes, stock, answers, shop.name_())


def wrong_without_await(client: helianthus.BlockingClient) -> None:
    shop = client.service(BlockingShop)
    shop.price(b"apple")  # wrong
    shop.price("apple").upper()  # wrong
    shop.restock().send("a")  # wrong
    answer: int = next(shop.haggle())  # wrong
    shop.changes(1).send(1)  # wrong
    print(answer)
