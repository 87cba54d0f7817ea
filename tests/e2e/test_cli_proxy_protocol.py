"""Where a configuration file and the command line ask for PROXY headers."""

from __future__ import annotations

import socket
from pathlib import Path

import msgpack
from commands import ANYWHERE, END_WITHIN, SERVICES, helianthus, running
from processes import LISTENING

from helianthus.protocols.proxy_header import ProxyHeader, encode_proxy_header


def asks(url: str) -> bool:
    """Whether a node takes a call behind a header, and none without."""
    host, _, port = url.removeprefix("tcp://").rpartition(":")
    header = encode_proxy_header(ProxyHeader.between(("203.0.113.7", 1), ("203.0.113.8", 2)))
    answered = []
    for before in (header, b""):
        with socket.create_connection((host, int(port)), END_WITHIN) as sock:
            sock.sendall(before + msgpack.packb([0, 1, "probe.echo", [1]]))
            data = sock.recv(1000)
            answered.append(bool(data) and msgpack.unpackb(data)[2:] == [None, 1])
    assert answered in ([True, False], [False, True])
    return answered[0]


def test_a_file_asks_for_it(tmp_path: Path) -> None:
    """Of some addresses."""
    file = tmp_path / "node.toml"
    file.write_text(
        f'services = ["{SERVICES}"]\n[[listen]]\nurl = "{ANYWHERE}"\n'
        f'[[listen]]\nurl = "{ANYWHERE}"\nproxy = true\nproxy_from = ["127.0.0.1"]\n'
    )
    with running("serve", str(file)) as node:
        urls = [node.wait_for_line(LISTENING) for _ in range(2)]
        assert [asks(url) for url in urls] == [False, True]


def test_the_option_is_for_all_addresses(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(f'services = ["{SERVICES}"]\nlisten = ["{ANYWHERE}", "{ANYWHERE}"]\n')
    with running("serve", str(file), "--proxy-protocol") as node:
        assert all(asks(node.wait_for_line(LISTENING)) for _ in range(2))


def test_wrong_options_are_explained() -> None:
    serve = ("serve", "--service", SERVICES, "--listen", ANYWHERE)
    helianthus(*serve, "--proxy-from", "10.0.0.0/8").failed(2, "--proxy-from names", "give --proxy-protocol")
    done = helianthus(*serve, "--proxy-protocol", "--proxy-from", "proxy.example")
    done.failed(2, "--proxy-from: 'proxy.example' in proxy_from is no IP address")
