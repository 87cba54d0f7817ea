"""Who may call what.

A rule names somebody and methods. Deny rules are looked at first, then allow rules; where neither
matches, the call is denied, once there is any rule at all. Without rules everybody may call
everything.

| WHO | |
|---|---|
| `alice` | this identity; `*` stands for any characters, as in `build-*` |
| `@staff` | every member of a group; `*` as above |
| `anonymous` | whoever has not proved who they are |
| `known` | whoever has |
| `*` | everybody |
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import attrs

from .identity import ANONYMOUS, KNOWN, Identity


def _matcher(pattern: str) -> Callable[[str], object]:
    """Only `*` is special, unlike in `fnmatch`: a name with a bracket must not slip through a rule."""
    return re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL).fullmatch


@attrs.frozen
class Rule:
    """Somebody and methods.

    Attributes:
        who: See above.
        methods: A full name such as `calculator.add`; `*` stands for any characters.
    """

    who: str
    methods: str
    _is_who: Callable[[str], object] = attrs.field(init=False, repr=False, eq=False)
    _is_method: Callable[[str], object] = attrs.field(init=False, repr=False, eq=False)

    @_is_who.default
    def _match_who(self) -> Callable[[str], object]:
        return _matcher(self.who.removeprefix("@"))

    @_is_method.default
    def _match_method(self) -> Callable[[str], object]:
        return _matcher(self.methods)

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Read `WHO METHODS`, such as "@staff calculator.*".

        Raises:
            ValueError: It is not two words.
        """
        words = text.split()
        if len(words) != 2:
            raise ValueError(f'{text!r} is no rule; write WHO and METHODS, such as "@staff calculator.*"')
        return cls(*words)

    def matches(self, identity: Identity | None, method: str) -> bool:
        """Whether it speaks of this call."""
        return self._is_about(identity) and self._is_method(method) is not None

    def _is_about(self, identity: Identity | None) -> bool:
        who = self.who
        if who == "*":
            return True
        if identity is None:
            return who == ANONYMOUS
        if who.startswith("@"):
            return any(self._is_who(group) is not None for group in identity.groups)
        return who == KNOWN or self._is_who(identity.name) is not None

    def __str__(self) -> str:
        return f"{self.who} {self.methods}"


@attrs.frozen
class Verdict:
    """Whether a call is allowed, and why.

    Attributes:
        allowed: Whether it is.
        reason: For people.
        rule: What decided; None where no rule matched.
    """

    allowed: bool
    reason: str
    rule: Rule | None = None


class Rules:
    """What is denied, what is allowed.

    Args:
        allow: Rules, or their texts.
        deny: The same; they come first.
    """

    def __init__(self, allow: Iterable[Rule | str] = (), deny: Iterable[Rule | str] = ()) -> None:
        self.allow = [Rule.parse(rule) if isinstance(rule, str) else rule for rule in allow]
        self.deny = [Rule.parse(rule) if isinstance(rule, str) else rule for rule in deny]

    def explain(self, identity: Identity | None, method: str) -> Verdict:
        """Decide, and say why."""
        for rule in self.deny:
            if rule.matches(identity, method):
                return Verdict(False, f'denied by the rule "{rule}"', rule)
        for rule in self.allow:
            if rule.matches(identity, method):
                return Verdict(True, f'allowed by the rule "{rule}"', rule)
        if not self.allow and not self.deny:
            return Verdict(True, "allowed: there are no rules")
        return Verdict(False, "denied: no rule allows it")
