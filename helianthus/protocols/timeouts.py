"""What is taken for a timeout, wherever one is given."""

from __future__ import annotations


def check_timeout(timeout: float | None, name: str = "timeout") -> None:
    """Refuse what is no length of time.

    Args:
        timeout: Seconds; infinity and None set no bound.
        name: What it is called where it was given.

    Raises:
        ValueError: It is no number, NaN or less than 0.
    """
    if timeout is None or (isinstance(timeout, int | float) and timeout >= 0):  # NaN is not
        return
    raise ValueError(f"{name} must be a number of seconds, 0 or more, not {timeout!r}")


def check_time(when: float, name: str = "when") -> None:
    """Refuse what is no point in time.

    Args:
        when: Seconds of some clock; infinity is never.
        name: What it is called where it was given.

    Raises:
        ValueError: It is no number, or NaN.
    """
    if not isinstance(when, int | float) or when != when:
        raise ValueError(f"{name} must be a time in seconds, not {when!r}")
