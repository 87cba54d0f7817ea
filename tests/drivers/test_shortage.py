"""What a listener reports that cannot accept for want of descriptors."""

from __future__ import annotations

import asyncio
import errno
import logging
import os

import pytest

from helianthus.drivers import shortage
from helianthus.drivers.address import Address
from helianthus.drivers.choose import running_driver
from helianthus.drivers.shortage import ACCEPT_PAUSE, QUIET, SHORTAGES, Shortage

HERE = Address("127.0.0.1", 7070, "tls")


def failed(found: Shortage, now: float, code: int = errno.EMFILE) -> str | None:
    report = found.failed(OSError(code, os.strerror(code)), HERE, now)
    return None if report is None else str(report)


def test_once_for_each_shortage() -> None:
    found = Shortage()
    assert failed(found, 5.0) is not None
    for pause in range(1, 1000):  # far longer than QUIET, but without an end in between
        assert failed(found, 5.0 + pause * ACCEPT_PAUSE) is None
    ended = 5.0 + 999 * ACCEPT_PAUSE
    assert failed(found, ended + QUIET - 0.01) is None, "it comes and goes"
    assert failed(found, ended + 2 * QUIET) is not None
    assert failed(found, ended + 2 * QUIET + ACCEPT_PAUSE) is None


def test_it_names_the_limit_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource", reason="Windows does not limit descriptors")
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    text = failed(Shortage(), 0.0)
    assert text is not None
    assert text.startswith("tls://127.0.0.1:7070: connections wait here and cannot be accepted: ")
    assert f"all {limit} file descriptors that this process may have are in use" in text
    assert "raise the limit (RLIMIT_NOFILE: ulimit -n" in text
    monkeypatch.setattr(shortage, "resource", None)  # as on Windows
    assert "all file descriptors that this process may have" in str(failed(Shortage(), 0.0))


@pytest.mark.parametrize("code", SHORTAGES)
def test_each_is_told_apart(code: int) -> None:
    report = Shortage().failed(OSError(code, os.strerror(code)), HERE, 0.0)
    assert report is not None
    assert report.errno == code
    windows = getattr(errno, "WSAEMFILE", errno.EMFILE)
    process = dict.fromkeys((errno.EMFILE, windows), "this process")
    what = {**process, errno.ENFILE: "the whole system"}.get(code, "no memory")
    assert what in str(report)


def test_the_log_blames_no_callback(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody let an exception out, and there is no traceback to read."""
    report = Shortage().failed(OSError(errno.EMFILE, "x"), HERE, 0.0)
    assert report is not None

    async def main() -> None:
        running_driver().on_error(report)

    with caplog.at_level(logging.ERROR, "helianthus.drivers"):
        asyncio.run(main())
    (record,) = caplog.records
    assert record.getMessage() == str(report)
    assert record.exc_info is None
