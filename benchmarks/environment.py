"""Where numbers were measured: without it they say nothing."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import attrs

import helianthus
from benchmarks.native import find_compiler

PACKAGES: Sequence[str] = (
    "helianthus",
    "msgpack",
    "uvloop",
    "grpcio",
    "grpclib",
    "aiohttp",
    "rpyc",
    "pyzmq",
    "thriftpy2",
    "trio",
    "attrs",
)


@attrs.frozen
class Environment:
    """The machine and the programs on it.

    Attributes:
        cores: How many this process may use.
        load: The system's load average over the last minute, before anything was measured.
        packages: Versions; what is not installed is left out.
    """

    cpu: str
    cores: int
    system: str
    kernel: str
    python: str
    compiler: str | None
    load: float | None
    packages: dict[str, str]


def describe() -> Environment:
    """Look around."""
    return Environment(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        system=f"{platform.system()} {platform.machine()}",
        kernel=platform.release(),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        compiler=_compiler(),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        packages={name: version for name in PACKAGES if (version := _version(name))},
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, "") or platform.processor() or "unknown"


def _compiler() -> str | None:
    compiler = find_compiler()
    if compiler is None:
        return None
    command = [compiler, "--version"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    return result.stdout.partition("\n")[0]


def _version(package: str) -> str | None:
    if package == "helianthus":
        return helianthus.__version__  # of the tree that is measured, installed or not
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
