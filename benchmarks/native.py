"""The C programs: compiled anew for every run, into a directory that goes with it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

SOURCES = Path(__file__).parent
COMPILE_SECONDS = 60


class NotCompiled(Exception):
    """A C program could not be had; says why."""


def compile_program(name: str, directory: Path) -> Path:
    """Compile `name.c` with the system's compiler into `directory`.

    Raises:
        NotCompiled: There is no compiler, or it failed.
    """
    compiler = find_compiler()
    if compiler is None:
        raise NotCompiled("no C compiler (cc, gcc or clang) on the PATH")
    program = directory / name
    command = [compiler, "-O2", "-o", str(program), str(SOURCES / f"{name}.c")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=False)
    if result.returncode != 0:
        raise NotCompiled(f"{compiler} failed: {result.stderr.strip()}")
    return program


def find_compiler() -> str | None:
    """The path of a C compiler."""
    return next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
