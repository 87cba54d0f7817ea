"""What a server tells of itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal

import pytest
from rpc_bench import Bench, Ground

from helianthus import CallContext, RpcError, Service, StatusCode, method


class Catalogue(Service):
    """Everything that can be bought.

    Prices are in cents.
    """

    @method
    def price(self, article: str, amount: int = 1, *, currency: Literal["EUR", "USD"] = "EUR") -> int:
        """What some articles cost.

        In cents.
        """
        return amount

    @method
    async def restock(self, articles: AsyncIterator[dict[str, int]], note: str | None = None) -> float:
        """Add to the stock."""
        return 0.0

    @method
    async def watch(self, context: CallContext, *tags: str) -> None:
        """Refused, see below."""

    @method
    async def changes(self, since) -> AsyncIterator[list[str]]:  # type: ignore[no-untyped-def]
        yield []


del Catalogue.watch  # a context beside *parameters cannot be served


class Silent(Service):
    @method
    def sum(self, *numbers: float) -> float:
        return sum(numbers)


def test_services_lists_names_docs_and_methods(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Silent(), Catalogue())
        listed = await client.call("node.services")
        assert [one["name"] for one in listed] == ["catalogue", "node", "silent"]
        catalogue, node, silent = listed
        assert catalogue["doc"] == "Everything that can be bought.\n\nPrices are in cents."
        assert catalogue["methods"] == ["catalogue.changes", "catalogue.price", "catalogue.restock"]
        assert node["methods"] == ["node.describe", "node.services", "node.stats"]
        assert silent["doc"] == ""

    run_on(scenario)


def test_a_server_without_services_still_describes_itself(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair()
        assert [one["name"] for one in await client.call("node.services")] == ["node"]
        assert (await client.call("node.describe", "node"))["name"] == "node"

    run_on(scenario)


def parameters(described: dict[str, Any]) -> list[tuple[str, str, bool, bool]]:
    return [(p["name"], p["type"], p["required"], p["variadic"]) for p in described["params"]]


def test_describe_tells_documentation_and_annotations(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Silent(), Catalogue())
        described = await client.call("node.describe", "catalogue")
        assert described["name"] == "catalogue"
        assert described["doc"].startswith("Everything that can be bought.")
        changes, price, restock = described["methods"]

        assert price["name"] == "catalogue.price"
        assert price["doc"] == "What some articles cost.\n\nIn cents."
        assert (price["kind"], price["flow"], price["items"], price["returns"]) == (
            "function",
            0,
            None,
            "int",
        )
        assert parameters(price) == [
            ("article", "str", True, False),
            ("amount", "int", False, False),
            ("currency", "Literal['EUR', 'USD']", False, False),
        ]

        assert (restock["kind"], restock["flow"]) == ("coroutine", 2)
        assert restock["items"] == "dict[str, int]"
        assert restock["returns"] == "float"
        assert [p["name"] for p in restock["params"]] == ["note"]
        assert "str" in restock["params"][0]["type"]
        assert "None" in restock["params"][0]["type"]

        assert (changes["kind"], changes["flow"], changes["doc"]) == ("stream", 1, "")
        assert parameters(changes) == [("since", "Any", True, False)]
        assert "list[str]" in changes["returns"]

    run_on(scenario)


def test_any_number_of_parameters_is_told(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Silent())
        (described,) = (await client.call("node.describe", "silent"))["methods"]
        assert parameters(described) == [("numbers", "float", False, True)]

    run_on(scenario)


def test_describing_an_unknown_service_names_the_known_ones(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Silent())
        with pytest.raises(RpcError, match="'nothing'") as caught:
            await client.call("node.describe", "nothing")
        assert caught.value.code is StatusCode.NOT_FOUND
        assert "silent" in caught.value.message

    run_on(scenario)


def test_everything_described_can_be_sent_to_clients_of_any_language(run_on: Ground) -> None:
    """Only text, numbers, booleans, None, lists and maps with text as keys."""

    def check(value: Any) -> None:
        if isinstance(value, dict):
            assert all(isinstance(key, str) for key in value)
            for inner in value.values():
                check(inner)
        elif isinstance(value, list):
            for inner in value:
                check(inner)
        else:
            assert isinstance(value, str | int | bool | None)

    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Silent(), Catalogue())
        for service in await client.call("node.services"):
            check(service)
            check(await client.call("node.describe", service["name"]))

    run_on(scenario)
