"""Running the interpreter under another memory allocator.

`malloc` cannot be exchanged in a process that runs, so the command starts Python anew, in place of
itself, with the allocator's library in LD_PRELOAD. Python has an allocator of its own in front of
`malloc` for everything small (pymalloc); PYTHONMALLOC=malloc takes that away, so that the library
serves all of Python.

Which one is active is not believed but looked up: the address of the function that the name `malloc`
leads to belongs to some file that the process has mapped.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import attrs

from .output import Failed, Misconfigured

RESTARTED = "HELIANTHUS_MALLOC"
"""Set in the process that has been started anew: the path of the library it was given."""

_DIRECTORIES = (
    "/usr/local/lib",
    "/usr/local/lib64",
    "/usr/lib/*-linux-*",
    "/lib/*-linux-*",
    "/usr/lib64",
    "/lib64",
    "/usr/lib",
    "/lib",
)
"""Where Linux distributions put shared libraries."""


def _jemalloc_version(library: ctypes.CDLL) -> str:
    text, size = ctypes.c_char_p(), ctypes.c_size_t(ctypes.sizeof(ctypes.c_char_p))
    library.mallctl(b"version", ctypes.byref(text), ctypes.byref(size), None, ctypes.c_size_t(0))
    return (text.value or b"").decode().partition("-")[0]


def _tcmalloc_version(library: ctypes.CDLL) -> str:
    library.tc_version.restype = ctypes.c_char_p
    major, minor, patch = ctypes.c_int(), ctypes.c_int(), ctypes.c_char_p()
    library.tc_version(ctypes.byref(major), ctypes.byref(minor), ctypes.byref(patch))
    return f"{major.value}.{minor.value}{(patch.value or b'').decode()}"


def _mimalloc_version(library: ctypes.CDLL) -> str:
    number = library.mi_version()  # 209 is 2.0.9; since 2.1 there may be two digits more
    return f"{number // 100}.{number // 10 % 10}.{number % 10}"


@attrs.frozen
class Allocator:
    """A memory allocator that can be preloaded.

    Attributes:
        name: As given to `--malloc`.
        files: What its library may be called, the best first; patterns of `Path.glob`.
        package: Of Debian.
        version: Asks the loaded library.
    """

    name: str
    files: tuple[str, ...]
    package: str
    version: Callable[[ctypes.CDLL], str]

    def find(self, directories: Iterable[str] = _DIRECTORIES) -> Path | None:
        """The library's file, or None where it is not installed."""
        for pattern in self.files:
            for directory in directories:
                for found in sorted(Path("/").glob(f"{directory.lstrip('/')}/{pattern}")):
                    return found
        return None


ALLOCATORS = {
    allocator.name: allocator
    for allocator in (
        Allocator(
            "tcmalloc",
            ("libtcmalloc_minimal.so.*", "libtcmalloc.so.*"),
            "libtcmalloc-minimal4",
            _tcmalloc_version,
        ),
        Allocator("jemalloc", ("libjemalloc.so.*",), "libjemalloc2", _jemalloc_version),
        Allocator("mimalloc", ("libmimalloc.so.*",), "libmimalloc2.0", _mimalloc_version),
    )
}


def run_under(name: str) -> None:
    """Make sure that this process runs under an allocator: where it does not, start it anew.

    Raises:
        Misconfigured: There is no preloading here, or the library is not installed.
        Failed: The library was preloaded, and something else is active all the same.
    """
    allocator = ALLOCATORS[name]
    preloaded = os.environ.pop(RESTARTED, None)
    if preloaded is not None:
        _tidy(preloaded)
        _check_active(allocator, preloaded)
        return
    if not sys.platform.startswith("linux"):
        raise Misconfigured(
            f"--malloc {name}: another allocator is put before the system's with LD_PRELOAD, which "
            f"{sys.platform} does not have; leave the option out"
        )
    if sys.flags.ignore_environment:
        raise Misconfigured(
            f"--malloc {name}: Python was told to ignore its environment (-E or -I), and would not hear "
            "of PYTHONMALLOC; start it without that"
        )
    found = allocator.find()
    if found is None:
        raise Misconfigured(
            f"--malloc {name}: its library ({' or '.join(allocator.files)}) is not installed; "
            f"on Debian: apt-get install {allocator.package}"
        )
    _start_anew(str(found))


def active() -> str:
    """Which allocator serves this process, for people: name, version and file; empty for the system's."""
    path = malloc_file()
    for allocator in ALLOCATORS.values():
        if path and any(Path(path).match(pattern) for pattern in allocator.files):
            try:
                version = f" {allocator.version(ctypes.CDLL(None))}"
            except (AttributeError, OSError):
                version = ""  # a build without that function
            return f"{allocator.name}{version} ({path})"
    return ""


def malloc_file() -> str:
    """The file that the function `malloc` of this process comes from; empty where that cannot be told."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return ""
    address = ctypes.cast(ctypes.CDLL(None).malloc, ctypes.c_void_p).value or 0
    for line in maps.read_text().splitlines():
        bounds, *_, path = line.split(maxsplit=5)
        start, _, end = bounds.partition("-")
        if int(start, 16) <= address < int(end, 16):
            return path
    return ""


def _start_anew(library: str) -> None:
    """Become the same command under the library; does not return."""
    before = os.environ.get("LD_PRELOAD", "")
    environment = {
        **os.environ,
        "LD_PRELOAD": f"{library}:{before}" if before else library,
        "PYTHONMALLOC": "malloc",
        RESTARTED: library,
    }
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def _tidy(library: str) -> None:
    """Leave nothing of it in the environment: what services start is to have its own allocator."""
    rest = os.environ.get("LD_PRELOAD", "").removeprefix(library).removeprefix(":")
    if rest:
        os.environ["LD_PRELOAD"] = rest
    else:
        os.environ.pop("LD_PRELOAD", None)
    os.environ.pop("PYTHONMALLOC", None)


def _check_active(allocator: Allocator, library: str) -> None:
    path = malloc_file()
    if Path(path).name and Path(path).resolve() == Path(library).resolve():
        return
    raise Failed(
        f"--malloc {allocator.name}: {library} was preloaded, but malloc comes from {path or 'elsewhere'}; "
        "programs that are statically linked or change their user cannot be preloaded"
    )
