"""The ground floor does no I/O, reads no clock, and draws from no generator but those handed in."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROTOCOLS = ROOT / "helianthus" / "protocols"
FILES = sorted(PROTOCOLS.rglob("*.py"))

BANNED = frozenset(
    {"socket", "select", "selectors", "asyncio", "threading", "time", "os"}
    | {"logging", "subprocess", "sqlite3", "signal", "importlib"}
)
"""`importlib` too: through it any other could come in unseen."""

ALLOWED_ONLY_IN = {"ssl": "tls/layer.py", "OpenSSL": "dtls/"}
"""Modules that do I/O but have a part in memory, and the one file or package that may use that part."""


def impurities(source: str, filename: str) -> list[str]:
    """What in a module breaks the rule, as `line: reason`."""
    tree = ast.parse(source)
    found = [*_bad_imports(tree, filename), *_bad_randomness(tree), *_bad_calls(tree)]
    return [f"{line}: {reason}" for line, reason in sorted(found)]


def _imported_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module


def _bad_imports(tree: ast.AST, filename: str) -> Iterator[tuple[int, str]]:
    for line, name in _imported_names(tree):
        package = name.partition(".")[0]
        if package in BANNED or not filename.startswith(ALLOWED_ONLY_IN.get(package, "")):
            yield line, f"imports {name}"


def _bad_randomness(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every use of `random` but its class `Random`, and every `Random()` seeded by the system."""
    modules: set[str] = set()
    classes: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name for alias in node.names if alias.name == "random"}
        elif isinstance(node, ast.ImportFrom) and node.module == "random" and node.level == 0:
            for alias in node.names:
                if alias.name == "Random":
                    classes.add(alias.asname or alias.name)
                else:
                    yield node.lineno, f"imports random.{alias.name}"
    fine = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "Random" and isinstance(node.value, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in modules and id(node) not in fine:
            yield node.lineno, "uses the random module's own generator"
        elif isinstance(node, ast.Call) and not node.args and not node.keywords:
            called = ast.unparse(node.func)
            if called in classes or called in {f"{module}.Random" for module in modules}:
                yield node.lineno, "makes a generator without a seed"


def _bad_calls(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in {"__import__", "open", "input", "print"}:
            yield node.lineno, f"uses {node.id}"


def test_there_are_files_to_check() -> None:
    assert PROTOCOLS / "machine.py" in FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PROTOCOLS)))
def test_protocols_are_pure(path: Path) -> None:
    assert impurities(path.read_text(encoding="utf-8"), path.relative_to(PROTOCOLS).as_posix()) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import socket", "1: imports socket"),
        ("import os.path as p", "1: imports os.path"),
        ("from time import monotonic", "1: imports time"),
        ("from asyncio.streams import StreamReader", "1: imports asyncio.streams"),
        ("def f():\n    import logging", "2: imports logging"),
        ("if TYPE_CHECKING:\n    import threading", "2: imports threading"),
        ("import attrs, selectors", "1: imports selectors"),
        ("import importlib", "1: imports importlib"),
        ("import ssl", "1: imports ssl"),
        ("from OpenSSL import SSL", "1: imports OpenSSL"),
        ("__import__('socket')", "1: uses __import__"),
        ("def f():\n    print(1)", "2: uses print"),
        ("from random import randint", "1: imports random.randint"),
        ("from random import SystemRandom", "1: imports random.SystemRandom"),
        ("import random\nx = random.random()", "2: uses the random module's own generator"),
        ("import random as r\nx = r.choice([1])", "2: uses the random module's own generator"),
        ("import random\nBackoff(random)", "2: uses the random module's own generator"),
        ("import random\nx = random.Random()", "2: makes a generator without a seed"),
        ("from random import Random as R\nx = R()", "2: makes a generator without a seed"),
    ],
)
def test_the_checker_finds_what_is_impure(source: str, found: str) -> None:
    assert impurities(source, "session.py") == [found]


@pytest.mark.parametrize(
    ("source", "filename"),
    [
        ("import random\ndef f(rng: random.Random) -> float:\n    return rng.random()", "backoff.py"),
        ("from random import Random\nchild = Random(rng.getrandbits(64))", "session.py"),
        ("import random\nchild = random.Random(7)", "session.py"),
        ("import ssl", "tls/layer.py"),
        ("from OpenSSL import SSL", "dtls/association.py"),
        ("from . import select", "session.py"),
        ("import timeit_of_another_name, osmosis", "session.py"),
    ],
)
def test_the_checker_lets_pure_code_pass(source: str, filename: str) -> None:
    assert impurities(source, filename) == []


IMPORT_ALL = """
import builtins, json, pkgutil, sys, types

parent = types.ModuleType("helianthus")  # without the public face, which imports every floor
parent.__path__ = ["helianthus"]
sys.modules["helianthus"] = parent
banned = set(sys.argv[1].split())
culprits = []
real_import = builtins.__import__

def recording_import(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {}).get("__name__", "")
    if level == 0 and importer.partition(".")[0] == "helianthus" and name.partition(".")[0] in banned:
        culprits.append(f"{importer} imports {name}")
    return real_import(name, globals, locals, fromlist, level)

builtins.__import__ = recording_import
import helianthus.protocols as package
names = [module.name for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
for name in names:
    __import__(name)
json.dump({"names": names, "culprits": culprits, "asyncio": "asyncio" in sys.modules}, sys.stdout)
"""


def run_python(*arguments: str, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ, PYTHONPATH=str(root))
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def import_all(root: Path = ROOT) -> dict[str, object]:
    result = run_python("-c", IMPORT_ALL, " ".join(sorted(BANNED)), root=root)
    assert result.returncode == 0, result.stderr
    outcome = json.loads(result.stdout)
    assert isinstance(outcome, dict)
    return outcome


def test_importing_every_protocol_brings_in_no_io_of_ours() -> None:
    """Dependencies may import what they like (attrs wants threading, ssl wants socket); but
    nothing on the ground floor needs an event loop, not even through them."""
    outcome = import_all()

    assert "helianthus.protocols.framing.length_prefix" in outcome["names"]  # type: ignore[operator]
    assert outcome["culprits"] == []
    assert outcome["asyncio"] is False


def make_package(root: Path, **sources: str) -> Path:
    """A package of the house's floors, each with the given source."""
    for floor in ("", "protocols", "drivers", "services", "cli"):
        directory = root / "helianthus" / floor
        directory.mkdir(exist_ok=True, parents=True)
        (directory / "__init__.py").write_text(sources.get(floor or "root", ""), encoding="utf-8")
    return root


def test_an_impure_import_at_run_time_is_found(tmp_path: Path) -> None:
    root = make_package(tmp_path, protocols="import asyncio, email")
    outcome = import_all(root)

    assert outcome["culprits"] == ["helianthus.protocols imports asyncio"]
    assert outcome["asyncio"] is True


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("importlinter", reason="import-linter is not installed")
    call = "import importlinter.cli as cli; cli.lint_imports_command()"
    config = str(ROOT / "pyproject.toml")
    return run_python("-c", call, "--no-cache", "--no-logo", "--config", config, root=root)


def test_imports_only_go_down() -> None:
    if not (ROOT / "helianthus" / "cli" / "__init__.py").exists():
        pytest.skip("the contracts name helianthus.cli, which is not there yet")
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("sources", "broken"),
    [
        ({}, None),
        ({"services": "import helianthus.protocols"}, None),
        ({"protocols": "import helianthus.drivers"}, "Imports only go down"),
        ({"drivers": "import helianthus.services"}, "Imports only go down"),
        ({"protocols": "import socket"}, "Protocols are pure"),
        ({"services": "import selectors"}, "Services know no socket"),
    ],
)
def test_the_import_contracts_can_fail(tmp_path: Path, sources: dict[str, str], broken: str | None) -> None:
    result = lint_imports(make_package(tmp_path, **sources))

    assert (result.returncode == 0) is (broken is None), result.stdout + result.stderr
    verdicts = [line for line in result.stdout.splitlines() if line.endswith(("KEPT", "BROKEN"))]
    assert len(verdicts) >= 3
    assert [line.startswith(broken or "?") for line in verdicts if line.endswith("BROKEN")] == (
        [True] if broken else []
    )
