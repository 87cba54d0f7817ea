from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helianthus.protocols.auth import Identity, Rule, Rules

ALICE = Identity("alice", {"staff", "admins"})
BUILD = Identity("build-7")

CASES = [
    ("alice", ALICE, True),
    ("alice", BUILD, False),
    ("build-*", BUILD, True),
    ("@staff", ALICE, True),
    ("@adm*", ALICE, True),
    ("@staff", BUILD, False),
    ("known", BUILD, True),
    ("known", None, False),
    ("anonymous", None, True),
    ("anonymous", ALICE, False),
    ("*", None, True),
    ("*", ALICE, True),
    ("ALICE", ALICE, False),
]


@pytest.mark.parametrize(("who", "identity", "matches"), CASES)
def test_whom_a_rule_names(who: str, identity: Identity | None, matches: bool) -> None:
    assert Rule(who, "m").matches(identity, "m") is matches


def test_methods_are_named_with_wildcards() -> None:
    rule = Rule.parse("* calculator.*")
    assert rule.matches(None, "calculator.add")
    assert not rule.matches(None, "calculators.add")
    assert Rule.parse("* *").matches(None, "anything.at.all")


def test_nothing_but_the_asterisk_is_special() -> None:
    """A deny rule that does not match what it names would let the call through."""
    for name in ("svc[1]", "svc?", "a.b", "a|b", "a\\d", "(a)+$"):
        rules = Rules(allow=["* *"], deny=[f"{name} *", f"* {name}"])
        assert not rules.explain(Identity(name), "m").allowed
        assert not rules.explain(ALICE, name).allowed
        assert rules.explain(ALICE, "m").allowed
        assert Rule(f"@{name}", "*").matches(Identity("x", [name]), "m")
    for who in ("svc?", "svc[1]", "svc.", "svc", "vc1"):
        assert not Rule(who, "*").matches(Identity("svc1"), "m")


@given(st.text("ab*.", max_size=6), st.text("ab.", max_size=6))
def test_an_asterisk_stands_for_any_characters(pattern: str, method: str) -> None:
    def matches(pattern: str, text: str) -> bool:
        if not pattern or not text:
            return not text and not pattern.strip("*")
        if pattern[0] == "*":
            return matches(pattern[1:], text) or matches(pattern, text[1:])
        return pattern[0] == text[0] and matches(pattern[1:], text[1:])

    assert Rule("*", pattern).matches(None, method) is matches(pattern, method)


def test_groups_are_several() -> None:
    assert Identity("alice", ["staff"]).groups == {"staff"}
    with pytest.raises(ValueError, match=r"groups must be several names, such as \['staff'\]"):
        Identity("alice", "staff")


def test_deny_comes_before_allow_and_silence_denies() -> None:
    rules = Rules(allow=["@staff *", "anonymous node.services"], deny=["alice shop.close"])
    assert rules.explain(ALICE, "shop.open").reason == 'allowed by the rule "@staff *"'
    denied = rules.explain(ALICE, "shop.close")
    assert (denied.allowed, denied.reason) == (False, 'denied by the rule "alice shop.close"')
    assert denied.rule == Rule("alice", "shop.close")
    assert rules.explain(BUILD, "shop.open").reason == "denied: no rule allows it"
    assert rules.explain(None, "node.services").allowed
    assert not rules.explain(BUILD, "node.services").allowed


def test_without_rules_all_is_allowed_and_one_deny_rule_ends_that() -> None:
    assert Rules().explain(None, "m").allowed
    assert not Rules(deny=["mallory *"]).explain(ALICE, "m").allowed


@pytest.mark.parametrize("text", ["", "alice", "alice calculator.add now"])
def test_what_is_no_rule(text: str) -> None:
    with pytest.raises(ValueError, match="is no rule; write WHO and METHODS"):
        Rules(allow=[text])


@pytest.mark.parametrize("name", ["", "anonymous", "known", "@staff", "*", "a b", "a\n"])
def test_names_that_rules_could_mistake(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name of an identity"):
        Identity(name)


@given(st.lists(st.sampled_from(["alice m", "* n", "known *", "@staff m"])), st.sampled_from("mno"))
def test_what_is_denied_stays_denied_whatever_is_allowed(deny: list[str], method: str) -> None:
    denied = any(Rule.parse(rule).matches(ALICE, method) for rule in deny)
    verdict = Rules(allow=["* *"], deny=deny).explain(ALICE, method)
    assert verdict.allowed is not denied
