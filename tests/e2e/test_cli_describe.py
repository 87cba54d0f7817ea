"""`helianthus describe`: text for people, and typed client stubs that type-checkers and clients use."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import END_WITHIN, EXAMPLES, PlainServer, closed_port, helianthus, importable, serving
from processes import HERE, Node

import helianthus as package

USE = HERE / "stub_use.py"


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node with the example services and the shop."""
    with serving(str(EXAMPLES / "node.toml"), "--service", "stub_services:Shop") as node:
        yield node


@pytest.fixture(scope="module")
def stub(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The module that the command writes of the shop."""
    done = helianthus("describe", node.url, "shop", "--python")
    assert (done.code, done.err) == (0, "")
    path = tmp_path_factory.mktemp("stub") / "shop_client.py"
    path.write_text(done.out, "utf-8")
    return path


@pytest.fixture(scope="module")
def module(stub: Path) -> Any:
    spec = importlib.util.spec_from_file_location("shop_client", stub)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


# -- for people -------------------------------------------------------------------------------------------


def test_a_service_is_described_as_it_is_called(node: Node) -> None:
    out = helianthus("describe", node.url, "shop").out
    assert 'shop\n\n    Sells "things".\n' in out
    for line in (
        "shop.price(article: str, amount: int = 1, *, currency: Literal['EUR', 'USD'] = 'EUR') -> int",
        "shop.search(tags: Sequence[str], limits: Mapping[str, tuple[int, int]] | None = None)"
        " -> dict[str, dict[str, float]]",
        "shop.sum(*numbers: float) -> float",
        "shop.by_position(a: int, /, b: int = 2) -> int",
        "shop.free(**: int) -> dict[str, int]",
        "shop.hidden_default(items: dict[str, int] = ...) -> None",
        "shop.make(article: stub_services.Article, parts: dict[str, stub_services.Article])"
        " -> stub_services.Article",
        "shop.haggle(floor: float = 0.5, stream of float) -> stream of str",
        "shop.restock(note: str | None = None, stream of dict[str, int]) -> int",
    ):
        assert f"    {line}\n" in out
    assert "-> int\n        What some articles cost, in cents.\n" in out


def test_all_services_are_described(node: Node) -> None:
    lines = helianthus("describe", node.url).succeeded()
    assert [line for line in lines if re.fullmatch(r"\w+", line)] == ["calculator", "node", "shop", "strings"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--python"], 2, "name it after the URL"),
        (["absent"], 1, "NOT_FOUND"),
        (["absent", "--python"], 1, "NOT_FOUND"),
        (["shop", "--timeout", "0"], 2, "0 seconds"),
    ],
)
def test_mistakes(node: Node, arguments: list[str], code: int, said: str) -> None:
    done = helianthus("describe", node.url, *arguments)
    done.failed(code, said)
    assert done.out == ""


def test_nobody_there_and_one_who_does_not_tell() -> None:
    helianthus("describe", closed_port()).failed(1, "UNAVAILABLE", "refused")
    with PlainServer() as server:
        helianthus("describe", server.url, "s", "--python").failed(1, "does not tell what it serves")


# -- type-checkers ------------------------------------------------------------------------------------------


def marked(path: Path) -> set[int]:
    lines = path.read_text("utf-8").splitlines()
    return {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}


def checked(*command: str, cwd: Path) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env={
            "PYTHONPATH": importable(),
            "MYPYPATH": str(HERE.parents[1]),
            "HOME": str(cwd),
            "PATH": "/usr/bin:/bin",
        },
        capture_output=True,
        encoding="utf-8",
        timeout=3 * END_WITHIN,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def project(stub: Path, tmp_path: Path) -> Path:
    """A directory with the stub and what uses it."""
    for path in (stub, USE):
        shutil.copy(path, tmp_path)
    return tmp_path


def test_wrong_use_is_an_error_of_mypy_and_right_use_is_none(project: Path) -> None:
    pytest.importorskip("mypy")
    out = checked(sys.executable, "-m", "mypy", "--strict", "shop_client.py", "stub_use.py", cwd=project)
    errors = {
        (match[1], int(match[2])) for match in re.finditer(r"^([\w.]+):(\d+): error", out, re.MULTILINE)
    }
    assert errors == {("stub_use.py", line) for line in marked(USE)}, out


def test_wrong_use_is_an_error_of_pyright_and_right_use_is_none(project: Path) -> None:
    pyright = Path(sysconfig.get_path("scripts")) / "basedpyright"
    if not pyright.exists():
        pytest.skip("basedpyright is not installed: pip install basedpyright")
    config = {"typeCheckingMode": "strict", "extraPaths": [str(HERE.parents[1])]}
    (project / "pyrightconfig.json").write_text(json.dumps(config), "utf-8")
    options = ["--outputjson", "--pythonpath", sys.executable]
    out = checked(str(pyright), *options, "shop_client.py", "stub_use.py", cwd=project)
    found = json.loads(out)["generalDiagnostics"]
    errors = {
        (Path(one["file"]).name, one["range"]["start"]["line"] + 1)
        for one in found
        if one["severity"] == "error"
    }
    assert errors == {("stub_use.py", line) for line in marked(USE)}, found


# -- calls --------------------------------------------------------------------------------------------------


def test_an_async_client_calls_through_the_stub(node: Node, module: Any) -> None:
    async def use() -> None:
        async with package.connect(node.url) as client:
            shop = client.service(module.Shop)
            assert await shop.price("pear") == 104
            assert await shop.price("pear", 2, currency="USD", timeout=30.0) == 224
            assert await shop.list() == ["apple", "pear"]
            assert await shop.search(("a", "b"), {"a": (4, 5)}) == {"a": {"low": 2.0}, "b": {"low": 0.5}}
            assert await shop.sum(1, 2.5) == 3.5
            assert await shop.pair() == [1, "a"]
            assert await shop.class_() == "first"
            assert await shop.name_() == "a shop"
            assert await shop.odd_names(1.5, "m", timeout=30.0) == [1.5, "m", False]
            assert await shop.by_position(3) == 6
            assert await shop.free(a=1, timeout=30.0) == {"a": 1}
            assert [change async for change in shop.changes(1)] == [["change", 1], ["change", 2]]
            async with shop.restock(note="n") as restock:
                await restock.send({"a": 1, "b": 2})
                await restock.send({"c": 3})
                assert await restock.result() == 6
            haggle = shop.haggle(floor=2.0, timeout=30.0)
            await haggle.send(1)
            assert await anext(haggle) == "no"
            await haggle.send(3)
            await haggle.end()
            assert [answer async for answer in haggle] == ["yes"]
            with pytest.raises(AttributeError, match="Shop declares no method 'impossible'"):
                shop.impossible()

    asyncio.run(use())


def test_a_blocking_client_calls_through_the_stub(node: Node, module: Any) -> None:
    with package.connect_sync(node.url) as client:
        shop = client.service(module.BlockingShop)
        assert shop.price("pear", 2, currency="USD", timeout=30.0) == 224
        assert list(shop.changes(2)) == [["change", 2]]
        with shop.restock() as restock:
            restock.send({"a": 1})
            assert restock.result() == 1
        with shop.haggle() as haggle:
            haggle.send(1)
            haggle.end()
            assert list(haggle) == ["yes"]
        with pytest.raises(package.RpcError) as caught:
            shop.price(5)
        assert caught.value.code is package.StatusCode.INVALID_ARGUMENT


def test_the_stub_has_documentation_and_defaults(stub: Path, module: Any) -> None:
    text = stub.read_text("utf-8")
    assert module.Shop.__doc__.startswith('Sells "things".')
    assert 'a backslash and a quote: \\"' in module.Shop.__doc__
    assert module.Shop.price.__doc__ == "What some articles cost, in cents."
    assert module.Shop.price.__kwdefaults__["currency"] == "EUR"
    assert module.Shop.hidden_default.__defaults__ == (...,)
    assert "# Any stands for 'stub_services.Article'\n" in text
    assert "# 'impossible' is left out: 'timeout' cannot be given by this name\n" in text
