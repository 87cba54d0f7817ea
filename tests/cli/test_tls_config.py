"""The table `tls` of a node's file."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from helianthus.cli.output import Misconfigured
from helianthus.cli.tls_config import TlsConfig, read_tls


def read(text: str) -> TlsConfig:
    return read_tls("node.toml: tls", tomllib.loads(text))


def test_files_are_looked_for_beside_the_configuration() -> None:
    config = read(
        """
        certificate = "node.pem"
        key = "/keys/node.key"
        client_ca = "clients.pem"
        require_client_certificate = false
        minimum_version = "TLSv1.3"
        handshake_timeout = 5
        alpn = ["helianthus/1"]
        watch = true
        [sni]
        "other.example" = ["other.pem", "other.key"]
        """
    )
    tls = config.beside(Path("/etc/node")).server_tls("node.toml")

    assert config.watch
    assert tls is not None
    assert tls.certificate == Path("/etc/node/node.pem")
    assert tls.key == Path("/keys/node.key")
    assert tls.client_ca == Path("/etc/node/clients.pem")
    assert not tls.require_client_certificate
    assert tls.minimum_version == "TLSv1.3"
    assert tls.sni == {"other.example": (Path("/etc/node/other.pem"), Path("/etc/node/other.key"))}
    assert len(tls.files) == 5


def test_the_command_line_comes_first() -> None:
    config = read('certificate = "node.pem"\nkey = "node.key"\nclient_ca = "clients.pem"')
    tls = config.with_files(certificate=Path("mine.pem"), key=None, client_ca=None).server_tls("")

    assert tls is not None
    assert (tls.certificate, tls.key, tls.client_ca) == (Path("mine.pem"), None, "clients.pem")


def test_nothing_said_is_nothing_encrypted() -> None:
    assert TlsConfig().server_tls("") is None
    assert TlsConfig().with_files(certificate=None, key=None).server_tls("") is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('certificat = "a"', "unknown key 'certificat'; known keys are alpn, certificate"),
        ("certificate = 1", "tls.certificate must be text"),
        ("watch = 1", "tls.watch must be true or false"),
        ("session_tickets = true", "tls.session_tickets must be a whole number"),
        ("handshake_timeout = true", "tls.handshake_timeout must be a number of seconds"),
        ('minimum_version = "TLSv1"\ncertificate = "a"', "minimum_version must be 'TLSv1.2' or 'TLSv1.3'"),
        ("watch = true", "TLS needs a certificate; give --cert"),
        ('certificate = "a"\n[sni]\nb = "c"', 'tls.sni."b" must be two files'),
        ('certificate = "a"\nalpn = [1]', "tls.alpn must be a list of texts"),
    ],
)
def test_what_is_wrong_is_said(text: str, complaint: str) -> None:
    with pytest.raises(Misconfigured) as wrong:
        read(text).server_tls("node.toml")
    assert complaint in wrong.value.message


def test_it_must_be_a_table() -> None:
    with pytest.raises(Misconfigured, match="must be a table"):
        read_tls("node.toml: tls", ["a"])
