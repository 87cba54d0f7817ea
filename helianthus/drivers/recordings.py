"""Keeps recordings of machines in a directory, a file each."""

from __future__ import annotations

import logging
import os
import re
import weakref
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import ParamSpec, TypeVar

_log = logging.getLogger("helianthus.drivers")

M = TypeVar("M")
P = ParamSpec("P")

MAX_RECORDINGS = 1000
"""Files of one driver; machines beyond it run without being recorded."""

MAX_SIZE = 64 * 1024 * 1024
"""Bytes of one recording; what comes later is not recorded."""


class Recordings:
    """A directory of recordings, for `Driver.recordings`.

    A recording holds everything that a peer has sent: tokens and personal data, too. Its file can be
    read by its owner only.

    Args:
        directory: Made where it is missing.
        max_recordings: Machines that are recorded.
        max_size: Bytes of each recording.

    Raises:
        OSError: The directory cannot be made.
    """

    def __init__(
        self, directory: str | Path, *, max_recordings: int = MAX_RECORDINGS, max_size: int = MAX_SIZE
    ) -> None:
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self._max_recordings = max_recordings
        self._max_size = max_size
        self._begun = 0
        self._files: weakref.WeakSet[_File] = weakref.WeakSet()

    def close(self) -> None:
        """Close the files of machines that have no end, such as those of datagrams.

        A file is closed by itself when its link has ended, or its machine is gone; one that is
        written to again is opened again.
        """
        for file in list(self._files):
            file.rest()

    def make(self, label: str, driver: str, cls: Callable[P, M], *args: P.args, **kwargs: P.kwargs) -> M:
        """Make a machine that is recorded, or, where that is not possible, one that is not."""
        from ..protocols.recording import BadRecording, recorded  # who never records need not load it

        if self._begun >= self._max_recordings:
            return cls(*args, **kwargs)
        self._begun += 1
        notes = {"driver": driver, "begun": datetime.now(UTC).isoformat(timespec="seconds")}
        name = f"{os.getpid()}-{self._begun:04}-{_file_name(label)}.recording"
        try:
            file = _File(self.directory / name, self._max_size)
        except OSError as error:
            _log.warning("%s is not recorded: %s", label, error)
            return cls(*args, **kwargs)
        self._files.add(file)
        try:
            return recorded(label, file, notes, cls, *args, **kwargs)
        except BadRecording as error:
            _log.warning("%s is not recorded: it %s", label, error)
            file.discard()
            return cls(*args, **kwargs)


class _File:
    """One recording's file. Nothing is buffered: a recording of what ends a process has its end."""

    def __init__(self, path: Path, max_size: int) -> None:
        self._path = path
        self._file = open(path, "xb", buffering=0, opener=_for_owner_only)  # noqa: SIM115 - kept open
        self._room = max_size

    def write(self, data: bytes) -> None:
        self._room -= len(data)
        if self._room < 0:
            _log.warning("%s is full; what comes later is not recorded", self._path)
            self.rest()
            raise OSError("the recording is full")
        try:
            if self._file.closed:
                self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115 - as above
            if self._file.write(data) < len(data):
                raise OSError("the disk has taken a part of a record only")
        except OSError as error:
            _log.warning("%s ends here: %s", self._path, error)
            raise

    def rest(self) -> None:
        self._file.close()

    def discard(self) -> None:
        self.rest()
        self._path.unlink(missing_ok=True)

    def __del__(self) -> None:
        if hasattr(self, "_file"):  # it could be opened
            self.rest()


def _for_owner_only(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_CLOEXEC", 0), 0o600)


def _file_name(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", label).strip("-")[:80]
