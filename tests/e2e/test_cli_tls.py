"""`helianthus serve` and the commands that call it, over TLS."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import Authority, Pair
from commands import EXAMPLES, SERVICES, helianthus, needs_signals, running
from processes import LISTENING, Node

ANYWHERE = "tls://127.0.0.1:0"
CALCULATOR = "calculator:Calculator"


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.issue("node", "127.0.0.1", "localhost")


@pytest.fixture(scope="module")
def alice(authority: Authority) -> Pair:
    return authority.issue("alice")


def files(pair: Pair) -> list[str]:
    return ["--cert", str(pair.certificate), "--key", str(pair.key)]


@pytest.fixture(scope="module")
def node(pair: Pair) -> Iterator[Node]:
    with running(
        "serve", "--listen", ANYWHERE, "--service", CALCULATOR, *files(pair), cwd=EXAMPLES
    ) as process:
        yield Node(process.wait_for_line(LISTENING), process)


def test_every_command_calls_it(node: Node, authority: Authority) -> None:
    assert node.url.startswith("tls://127.0.0.1:")
    trust = ["--ca", str(authority.file)]
    assert helianthus("call", node.url, "calculator.add", "2", "3", *trust).succeeded() == ["5"]
    assert "calculator" in helianthus("services", node.url, *trust).out
    assert "calculator.add(" in helianthus("describe", node.url, "calculator", *trust).out
    bench = helianthus("bench", node.url, "calculator.add", "2", "3", "--duration", "0.2", "--json", *trust)
    assert bench.code == 0
    assert '"tls"' not in bench.out


def test_what_is_wrong_is_said(node: Node, authority: Authority, pair: Pair, tmp_path: Path) -> None:
    call = ("call", node.url, "calculator.add", "2", "3")
    helianthus(*call).failed(1, "is signed by CN=test authority, whom this side does not trust; set ca")
    trust = ["--ca", str(authority.file)]
    helianthus(*call, *trust, "--server-name", "other.example").failed(
        1, "not valid for 'other.example', but for localhost, 127.0.0.1"
    )
    none = tmp_path / "none"
    helianthus(*call, "--ca", str(none)).failed(2, f"--ca: {none}: there is no such file")
    helianthus(*call, *trust, "--cert", str(none)).failed(2, f"--cert: {none}: there is no such file")
    helianthus(*call, "--cert", str(pair.certificate), "--key", str(none)).failed(
        2, f"--cert and --key: {none}: there is no such file"
    )
    helianthus(*call, "--key", str(pair.key)).failed(2, "no certificate that it belongs to")
    plain = ("call", node.url.replace("tls:", "tcp:"), "calculator.add", "2", "3")
    refused = helianthus(*plain)
    refused.failed(1, "so begins the answer of a TLS port: connect to tls://")
    assert len(refused.err.splitlines()) == 1, "it says so once"
    helianthus(*plain, *trust).failed(2, "is not encrypted; write it as tls://127.0.0.1:")


def test_serve_says_what_is_wrong(pair: Pair, authority: Authority, tmp_path: Path) -> None:
    serve = ("serve", "--service", SERVICES)
    helianthus(*serve, "--listen", ANYWHERE).failed(2, "needs a certificate; give --cert and --key")
    helianthus(*serve, "--listen", "tcp://127.0.0.1:0", *files(pair)).failed(2, "no tls:// address")
    other = authority.issue("other")
    wrong = ["--cert", str(pair.certificate), "--key", str(other.key)]
    helianthus(*serve, "--listen", ANYWHERE, *wrong).failed(2, "does not belong to the certificate")
    helianthus(*serve, "--listen", ANYWHERE, "--client-ca", str(authority.file)).failed(2, "give --cert")


def test_a_file_says_it_all(pair: Pair, authority: Authority, alice: Pair, tmp_path: Path) -> None:
    (tmp_path / "calculator.py").write_text((EXAMPLES / "calculator.py").read_text())
    for source, name in (
        (pair.certificate, "node.pem"),
        (pair.key, "node.key"),
        (authority.file, "clients.pem"),
    ):
        (tmp_path / name).write_bytes(source.read_bytes())
    special = authority.issue("special", "special.example")
    config = tmp_path / "node.toml"
    config.write_text(
        f"""
        listen = ["{ANYWHERE}", "tcp://127.0.0.1:0"]
        services = ["calculator:Calculator"]
        [tls]
        certificate = "node.pem"
        key = "node.key"
        client_ca = "clients.pem"
        minimum_version = "TLSv1.3"
        [tls.sni]
        "special.example" = ['{special.certificate}', '{special.key}']
        [auth]
        allow = ["@staff calculator.*", "anonymous calculator.add"]
        [auth.groups]
        staff = ["cert:alice"]
        """
    )
    with running("serve", str(config)) as process:
        encrypted = process.wait_for_line(LISTENING)
        plain = process.wait_for_line(LISTENING)
        trust = ["--ca", str(authority.file)]
        divide = ("calculator.divide", "1", "4")
        assert helianthus("call", encrypted, *divide, *trust, *files(alice)).succeeded() == ["0.25"]
        named = ("--server-name", "special.example")
        assert helianthus("call", encrypted, *divide, *trust, *named, *files(alice)).succeeded() == ["0.25"]
        refused = helianthus("call", encrypted, *divide, *trust)
        refused.failed(1, "requires a client certificate")
        assert len(refused.err.splitlines()) == 1, "it says so once"
        helianthus("call", plain, *divide).failed(1, "UNAUTHENTICATED")
        assert helianthus("call", plain, "calculator.add", "1", "4").succeeded() == ["5"]
    verdict = helianthus("can", "cert:alice", "calculator.divide", str(config))
    assert verdict.out == (
        'cert:alice (in staff) may call calculator.divide: allowed by the rule "@staff calculator.*"\n'
    )


@needs_signals
def test_sighup_reads_certificates_again(authority: Authority) -> None:
    hosts = ("127.0.0.1",)
    first = authority.issue("first", *hosts, file="replaced")
    arguments = ("--listen", ANYWHERE, "--service", CALCULATOR, *files(first))
    with running("serve", *arguments, cwd=EXAMPLES) as process:
        url = process.wait_for_line(LISTENING)
        call = ("call", url, "calculator.add", "2", "3", "--ca", str(authority.file))
        assert helianthus(*call).succeeded() == ["5"]

        other = authority.issue("second", "192.0.2.1", file="replaced")
        assert other.key == first.key
        process.process.send_signal(signal.SIGHUP)
        process.wait_for_line("certificates read again")
        helianthus(*call).failed(1, "not valid for '127.0.0.1', but for 192.0.2.1")

        good = other.key.read_bytes()
        other.key.write_text("nonsense")
        process.process.send_signal(signal.SIGHUP)
        process.wait_for_line("ERROR: the certificates stay as they were")
        helianthus(*call).failed(1, "not valid for '127.0.0.1', but for 192.0.2.1")

        other.key.write_bytes(good)
        process.process.send_signal(signal.SIGTERM)
        assert process.process.wait(30) == 0
