"""Who somebody is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

ANONYMOUS = "anonymous"
"""What rules and messages call somebody who is not known."""

KNOWN = "known"
"""What rules call everybody who has proved who they are."""


def _check_name(identity: Identity, attribute: attrs.Attribute[str], name: str) -> None:
    if not name or name in (ANONYMOUS, KNOWN) or name[0] in "@*" or any(c.isspace() for c in name):
        raise ValueError(
            f"{name!r} cannot be the name of an identity: rules could not tell it from {ANONYMOUS!r}, "
            f"{KNOWN!r}, '@group', '*' or the end of a name"
        )


def _as_set(groups: Iterable[str]) -> frozenset[str]:
    if isinstance(groups, str):
        raise ValueError(f"groups must be several names, such as [{groups!r}], not the text {groups!r}")
    return frozenset(groups)


@attrs.frozen
class Identity:
    """Somebody who has proved who they are.

    Attributes:
        name: Unique; without spaces.
        groups: Names of groups, which rules may name in place of their members.
        attributes: Whatever else the authenticator knows.

    Raises:
        ValueError: The name could be mistaken in a rule, or `groups` is a single text.
    """

    name: str = attrs.field(validator=_check_name)
    groups: frozenset[str] = attrs.field(default=(), converter=_as_set)
    attributes: Mapping[str, Any] = attrs.field(factory=dict, eq=False)
