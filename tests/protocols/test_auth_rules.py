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


@pytest.mark.parametrize("name", ["", "anonymous", "@staff", "*", "a b", "a\n"])
def test_names_that_rules_could_mistake(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name of an identity"):
        Identity(name)


@given(st.lists(st.sampled_from(["alice m", "* n", "known *", "@staff m"])), st.sampled_from("mno"))
def test_what_is_denied_stays_denied_whatever_is_allowed(deny: list[str], method: str) -> None:
    denied = any(Rule.parse(rule).matches(ALICE, method) for rule in deny)
    verdict = Rules(allow=["* *"], deny=deny).explain(ALICE, method)
    assert verdict.allowed is not denied
