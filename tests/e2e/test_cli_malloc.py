"""`helianthus serve --malloc`: the interpreter runs under another allocator, and says which."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
from commands import SERVICES, helianthus, serving

from helianthus import connect_sync
from helianthus.cli.malloc import ALLOCATORS, Allocator, malloc_file
from helianthus.cli.output import Misconfigured

NAMES = list(ALLOCATORS)

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="LD_PRELOAD is Linux's")


def installed(name: str) -> Allocator:
    allocator = ALLOCATORS[name]
    if allocator.find() is None:
        pytest.skip(f"{name} is not installed: apt-get install {allocator.package}")
    return allocator


@linux_only
@pytest.mark.parametrize("name", NAMES)
def test_it_serves_under_the_allocator_and_says_so(name: str) -> None:
    installed(name)
    with serving("--service", SERVICES, "--malloc", name) as node:
        (line,) = [line for line in node.running.lines if line.startswith("malloc: ")]
        match = re.fullmatch(rf"malloc: {name} (\d+\.\d+\S*) \((/.*lib{name}.*\.so.*)\)", line)
        assert match, line
        maps = Path(f"/proc/{node.running.process.pid}/maps").read_text()
        assert match[2] in maps
        with connect_sync(node.url) as client:
            assert client.call("node.services")


@linux_only
def test_it_leaves_nothing_in_the_environment(tmp_path: Path) -> None:
    """What the services start, and a variable of the user's own, stay as they were."""
    installed("jemalloc")
    (tmp_path / "env.py").write_text(
        "import os\nimport helianthus\n\n\nclass Env(helianthus.Service):\n"
        "    @helianthus.method\n    def get(self) -> dict[str, str]:\n"
        "        return {k: v for k, v in os.environ.items() if 'MALLOC' in k or k == 'LD_PRELOAD'}\n\n"
        "    @helianthus.method\n    def allocators(self) -> str:\n"
        "        try:\n            import _testcapi\n"
        "            return _testcapi.pymem_getallocatorsname()\n"
        "        except (ImportError, AttributeError):\n            return ''\n"
    )
    with (
        serving("--service", "env:Env", "--malloc", "jemalloc", cwd=tmp_path) as node,
        connect_sync(node.url) as client,
    ):
        assert client.call("env.get") == {}
        assert client.call("env.allocators") in ("malloc", "")


def test_without_the_option_nothing_is_said() -> None:
    with serving("--service", SERVICES) as node:
        assert not [line for line in node.running.lines if line.startswith("malloc")]


def test_an_allocator_that_is_not_known() -> None:
    helianthus("serve", "--service", SERVICES, "--malloc", "hoard").failed(
        2, "tcmalloc", "jemalloc", "mimalloc"
    )


@linux_only
@pytest.mark.parametrize("name", NAMES)
def test_a_library_that_is_not_installed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from helianthus.cli import malloc

    monkeypatch.delenv(malloc.RESTARTED, raising=False)
    monkeypatch.setattr(Allocator, "find", lambda self: None)
    with pytest.raises(Misconfigured, match=f"apt-get install {ALLOCATORS[name].package}"):
        malloc.run_under(name)


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_platforms_without_preloading(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from helianthus.cli import malloc

    monkeypatch.delenv(malloc.RESTARTED, raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    with pytest.raises(Misconfigured, match=f"LD_PRELOAD, which {platform} does not have"):
        malloc.run_under("jemalloc")


@linux_only
def test_a_library_that_was_preloaded_in_vain() -> None:
    """It is looked up what is active, whatever was asked for."""
    helianthus(
        "serve", "--service", SERVICES, "--malloc", "jemalloc", HELIANTHUS_MALLOC="/nowhere/libjemalloc.so.2"
    ).failed(1, "/nowhere/libjemalloc.so.2 was preloaded, but malloc comes from")


@linux_only
def test_where_malloc_comes_from() -> None:
    assert "libc" in malloc_file() or "musl" in malloc_file() or os.environ.get("LD_PRELOAD")


def test_libraries_are_looked_for_in_order(tmp_path: Path) -> None:
    allocator = ALLOCATORS["tcmalloc"]
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    places = [str(first), str(second)]
    assert allocator.find(places) is None
    (first / "libtcmalloc.so.4").touch()
    assert allocator.find(places) == first / "libtcmalloc.so.4"
    (second / "libtcmalloc_minimal.so.4").touch()
    assert allocator.find(places) == second / "libtcmalloc_minimal.so.4"
