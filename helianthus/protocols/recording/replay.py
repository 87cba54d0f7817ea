"""Feeds a recording to a machine again, and compares what it gives."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator
from typing import IO, Any

import attrs

from .format import CALL, END, HEADER, RESULT, BadRecording, Header, read_records
from .outputs import output_of

_Call = tuple[str, tuple[Any, ...], dict[str, Any]]


@attrs.define
class Step:
    """One call of a machine's method, done again.

    Attributes:
        number: From 1.
        method: Its name.
        args: As recorded.
        kwargs: Likewise.
        now: The time that the machine was told, in seconds, or None where it was told none.
        output: What the machine gave now, as `output_of` has it.
        expected: What it gave when it was recorded; None where the recording ends before.
    """

    number: int
    method: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    now: float | None
    output: Any
    expected: Any

    @property
    def events(self) -> list[str]:
        """The events that came out, a text each."""
        return list(self.output) if self.method == "take_events" else []

    @property
    def differs(self) -> bool:
        """Whether the machine gave something else than when it was recorded."""
        return self.expected is not None and self.output != self.expected


class Replay:
    """A recording, about to be fed to a machine that is made as the recorded one was.

    Args:
        file: Of the recording.
        allow: Modules whose classes the recording may hold, besides those of the library; their
            code is run.

    Attributes:
        header: How the machine was made.
        machine: The machine.
        ended: Why the recording stops before the machine did; empty where it does not say.

    Raises:
        BadRecording: The file is no recording, or one that cannot be read.
    """

    def __init__(self, file: IO[bytes], allow: Collection[str] = ()) -> None:
        self._records = read_records(file, allow)
        self.header = header = _read_header(*next(self._records, (b"", None)))
        self.ended = ""
        try:
            self.machine: Any = header.cls(*header.args, **header.kwargs)
        except Exception as error:
            raise BadRecording(f"no {header.cls.__name__} can be made as it was then: {error}") from error

    def steps(self) -> Iterator[Step]:
        """Do each call again, in order.

        Raises:
            BadRecording: A record cannot be read.
        """
        number = 0
        call: _Call | None = None
        for kind, value in self._records:
            if kind == CALL:
                call = _read_call(value)
            elif kind == RESULT and call is not None:
                number += 1
                yield self._do(number, call, value)
                call = None
            elif kind == END:
                self.ended = str(value)
        if call is not None:  # what it gave then, if anything, nobody knows
            self.ended = self.ended or f"it was cut off in {call[0]}(): its process may have ended there"
            yield self._do(number + 1, call, None)

    def _do(self, number: int, call: _Call, expected: Any) -> Step:
        name, args, kwargs = call
        method = getattr(self.machine, name, None)
        if name.startswith("_") or not inspect.ismethod(method):
            cls = type(self.machine).__name__
            raise BadRecording(f"{cls} has no method {name!r}; another version may have made the recording")
        now = _time_in(method, args, kwargs)
        try:
            result = method(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - as when it was recorded, or else a difference
            result = error
        return Step(number, name, args, kwargs, now, output_of(name, result), expected)


def _read_header(kind: bytes, value: Any) -> Header:
    match value:
        case (str(label), type() as cls, tuple(args), dict(kwargs), dict(notes)) if kind == HEADER:
            if not callable(getattr(cls, "take_events", None)):
                raise BadRecording(f"the recording is of {cls.__name__}, which is no machine")
            return Header(label, cls, args, kwargs, notes)
    raise BadRecording("the recording has no header")


def _read_call(value: Any) -> _Call:
    match value:
        case (str(name), tuple(args), dict(kwargs)):
            return name, args, kwargs
    raise BadRecording("a record of a call is damaged")


def _time_in(method: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float | None:
    """The time among a call's arguments."""
    try:
        now = inspect.signature(method).bind(*args, **kwargs).arguments.get("now")
    except TypeError:
        return None
    return now if isinstance(now, float) else None
