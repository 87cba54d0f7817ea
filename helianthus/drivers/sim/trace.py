"""What happened: a digest of everything, and the last part of it in words.

The digest is what makes determinism testable: two runs with one seed have the same one, in every
process and on every machine. So nothing may enter it that depends on addresses, hash seeds or the
real time; whatever might (the `repr` of a user's exception) goes into `detail`, which only the
timeline shows.
"""

from __future__ import annotations

from collections import deque
from hashlib import blake2b
from typing import Final

from .clock import NANOSECONDS

TIMELINE: Final = 2000
"""Lines that the timeline remembers; the digest covers all of them."""


class Trace:
    """Records what happens in a world, in bounded memory."""

    __slots__ = ("_hash", "_lines")

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=16)
        self._lines: deque[tuple[int, str, str]] = deque(maxlen=TIMELINE)

    def note(self, ns: int, text: str, detail: str = "") -> None:
        """Record an event; `detail` is shown but not digested."""
        self._hash.update(b"%d %s\n" % (ns, text.encode()))
        self._lines.append((ns, text, detail))

    def data(self, ns: int, text: str, data: bytes, *, encrypted: bool = False) -> None:
        """Record bytes that were delivered; of encrypted ones, which no seed gives again, only how many."""
        self._hash.update(b"%d %s %d:" % (ns, text.encode(), len(data)))
        if not encrypted:
            self._hash.update(data)
        self._lines.append((ns, text, f"{len(data)} bytes"))

    def remark(self, ns: int, text: str) -> None:
        """Show something that must not enter the digest: garbage collection decides when it happens."""
        self._lines.append((ns, text, ""))

    def tick(self, ns: int, text: str) -> None:
        """Record something too common to be shown."""
        self._hash.update(b"%d %s\n" % (ns, text.encode()))

    def digest(self) -> str:
        """Thirty-two hexadecimal digits over everything recorded so far."""
        return self._hash.hexdigest()

    def lines(self, last: int) -> list[str]:
        """The end of the timeline, a line an event: seconds, what happened."""
        chosen = list(self._lines)[-last:] if last > 0 else []
        return [
            f"{ns / NANOSECONDS:13.6f}  {text}{': ' if detail else ''}{detail}" for ns, text, detail in chosen
        ]
