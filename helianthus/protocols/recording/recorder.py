"""Makes a machine that writes down what goes into it.

A recorded machine is of a subclass made on the spot: each public method notes its arguments, runs,
and notes what it gave. Methods that a machine calls on itself are not noted, since a replay makes it
call them again. Everything else of a machine follows from how it was made and from these calls,
because it is pure: that is all a replay needs.

Attributes, properties and `deadline()` are only looked at, and leave no trace.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from .format import CALL, END, HEADER, MAGIC, RESULT, BadRecording, Tape, encode_record
from .outputs import output_of

M = TypeVar("M")
P = ParamSpec("P")

_ONLY_LOOKED_AT = frozenset({"deadline"})


def recorded(
    label: str, tape: Tape, notes: dict[str, str], cls: Callable[P, M], *args: P.args, **kwargs: P.kwargs
) -> M:
    """Make a machine whose inputs are recorded from its first one on.

    Args:
        label: What the machine is for.
        tape: Takes the recording; what it raises ends the recording, not the machine.
        notes: About the process.
        cls: The class of the machine.
        args: Of its constructor.
        kwargs: Likewise.

    Raises:
        BadRecording: The constructor's arguments cannot be kept.
    """
    if not isinstance(cls, type):
        raise TypeError(f"a machine's class is needed to record it, got {cls!r}")
    header = encode_record(HEADER, (label, cls, args, kwargs, notes))
    machine = _recorded_class(cls).__new__(_recorded_class(cls))
    journal = _Journal(tape)
    machine.__dict__["_journal"] = journal
    journal.note(MAGIC + header)
    journal.inside = True
    try:
        machine.__init__(*args, **kwargs)
    finally:
        journal.inside = False
    made: M = machine
    return made


class _Journal:
    """Where one machine's calls are noted."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self._going = True
        self._ended = False
        self.inside = False

    def note(self, data: bytes) -> None:
        try:
            self._tape.write(data)
        except Exception:  # noqa: BLE001 - whoever writes has reported it
            self._going = False

    def note_value(self, kind: bytes, value: object) -> None:
        if not self._going:
            return
        try:
            data = encode_record(kind, value)
        except BadRecording as error:
            self._going = False
            data = encode_record(END, str(error))
        self.note(data)

    def called(self, method: str) -> None:
        """Close the tape behind the last words of a link's machine."""
        if method == "connection_lost":
            self._ended = True
        elif self._ended and method == "take_events":
            self._tape.rest()


@functools.cache
def _recorded_class(cls: type) -> Any:
    methods = {
        name: _recording(name, member)
        for name, member in inspect.getmembers(cls, inspect.isfunction)
        if not name.startswith("_") and name not in _ONLY_LOOKED_AT
    }
    return type(f"Recorded{cls.__name__}", (cls,), {"__module__": cls.__module__, **methods})


def _recording(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        journal: _Journal = self._journal
        if journal.inside:
            return method(self, *args, **kwargs)
        journal.note_value(CALL, (name, args, kwargs))  # first: the machine may keep or change them
        journal.inside = True
        try:
            result = method(self, *args, **kwargs)
        except Exception as error:
            journal.note_value(RESULT, output_of(name, error))
            raise
        finally:
            journal.inside = False
        journal.note_value(RESULT, output_of(name, result))
        journal.called(name)
        return result

    return call
