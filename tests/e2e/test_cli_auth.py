"""A protected node, and `helianthus can`, which says what it would do."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import EXAMPLES, helianthus, serving
from processes import Node

KEY = base64.b64encode(b"0123456789abcdef").decode()

CONFIG = f"""
listen = ["tcp://127.0.0.1:0"]
services = ["calculator:Calculator"]

[auth]
allow = ["@staff calculator.*", "anonymous calculator.add", "known node.*"]
deny = ["bob calculator.divide"]

[auth.tokens]
alice = "token-of-alice"

[auth.secrets]
bob = "{KEY}"

[auth.groups]
staff = ["alice", "bob"]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "node.toml"
    path.write_text(text)
    (folder / "calculator.py").write_text((EXAMPLES / "calculator.py").read_text())
    return path


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("auth"), CONFIG)


@pytest.fixture(scope="module")
def node(config: Path) -> Iterator[Node]:
    with serving(str(config)) as node:
        yield node


CASES = [
    (
        "alice",
        "calculator.divide",
        0,
        'alice (in staff) may call calculator.divide: allowed by the rule "@staff',
    ),
    ("bob", "calculator.divide", 1, 'bob (in staff) may not call calculator.divide: denied by the rule "bob'),
    ("anonymous", "calculator.add", 0, "anonymous may call calculator.add: allowed by the rule"),
    ("anonymous", "node.services", 1, "anonymous may not call node.services: denied: no rule allows it"),
    ("anonymous", "auth.bearer", 0, "anonymous may call auth.bearer: allowed: it is how callers prove who"),
    ("eve", "calculator.add", 1, "(the file has no token and no secret for eve)"),
]


@pytest.mark.parametrize(("who", "method", "code", "says"), CASES)
def test_can_explains_the_verdict(config: Path, who: str, method: str, code: int, says: str) -> None:
    done = helianthus("can", who, method, str(config))
    assert (done.code, done.err) == (code, "")
    assert says in done.out


def test_can_needs_a_file_and_a_name(config: Path, tmp_path: Path) -> None:
    missing = str(tmp_path / "none.toml")
    helianthus("can", "alice", "m", missing).failed(2, "does not exist")
    helianthus("can", "alice", "m", "--config", missing).failed(2, "does not exist")
    helianthus("can", "alice", "m", str(config), "--config", str(config)).failed(2, "not both")
    helianthus("can", "alice", "m", cwd=tmp_path).failed(2, "there is no helianthus.toml here")
    helianthus("can", "@staff", "m", "--config", str(config)).failed(2, "cannot be the name of an identity")


def test_the_node_does_what_can_says(node: Node) -> None:
    call = ("call", node.url, "calculator.divide", "6", "3")
    helianthus(*call).failed(1, "UNAUTHENTICATED", "calculator.divide is not for everybody")
    assert helianthus("call", node.url, "calculator.add", "1", "2").succeeded() == ["3"]
    assert helianthus(*call, HELIANTHUS_TOKEN="token-of-alice").succeeded() == ["2.0"]
    helianthus(*call, HELIANTHUS_SECRET=f"bob:{KEY}").failed(1, "PERMISSION_DENIED", "bob must not call")
    add = helianthus("call", node.url, "calculator.add", "1", "2", HELIANTHUS_SECRET=f"bob:{KEY}")
    assert add.succeeded() == ["3"]
    assert "calculator" in helianthus("services", node.url, HELIANTHUS_TOKEN="token-of-alice").out


def test_wrong_credentials_end_the_command(node: Node) -> None:
    call = ("call", node.url, "calculator.add", "1", "2")
    done = helianthus(*call, HELIANTHUS_TOKEN="guessed")
    done.failed(1, "UNAUTHENTICATED", "authentication failed")
    assert "guessed" not in done.err
    helianthus(*call, HELIANTHUS_TOKEN="t", HELIANTHUS_SECRET="b:c").failed(2, "are both set")
    helianthus(*call, HELIANTHUS_SECRET="bob").failed(2, "must be NAME:KEY")
    helianthus(*call, HELIANTHUS_SECRET="bob:no base64!").failed(2, "HELIANTHUS_SECRET is no base64")


MISTAKES = [
    ('allow = ["alice"]', "'alice' is no rule; write WHO and METHODS"),
    ('allow = "all"', "auth.allow must be a list of rules"),
    ("wrong = 1", "auth: unknown key 'wrong'"),
    ('[auth.tokens]\nalice = ""', "auth.tokens.alice must be text that is not empty"),
    ('[auth.tokens]\na = "hush"\nb = "hush"', "two identities have the same token"),
    ('[auth.tokens]\n"@a" = "hush"', "cannot be the name of an identity"),
    ('[auth.secrets]\nbob = "aHVzaA=="', "the secret of bob has 4 bytes; use a random one of 16"),
    ('[auth.secrets]\nbob = "hush!"', "auth.secrets.bob is no base64"),
    ('[auth.groups]\nstaff = "bob"', "auth.groups.staff must be a list of identities"),
]


@pytest.mark.parametrize(("text", "says"), MISTAKES)
def test_mistakes_in_the_file_are_named_and_secrets_are_not(tmp_path: Path, text: str, says: str) -> None:
    config = write(tmp_path, f'services = ["calculator:Calculator"]\n[auth]\n{text}\n')
    for command in (("serve", str(config)), ("can", "bob", "m", "--config", str(config))):
        done = helianthus(*command)
        done.failed(2, says)
        assert "hush" not in done.err
        assert "aHVzaA" not in done.err
