"""What a configuration file can say of where a node listens."""

from __future__ import annotations

from pathlib import Path

import pytest

from helianthus.cli.config import read_config
from helianthus.cli.listen_config import ListenSetting
from helianthus.cli.output import Misconfigured

A, B = "tcp://a:1", "unix:///b?mode=0660"


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        (f'listen = ["{A}", "{B}"]', [ListenSetting(A), ListenSetting(B)]),
        (
            f'listen = ["{A}", {{url = "{B}", proxy = true}}]',
            [ListenSetting(A), ListenSetting(B, proxy=True)],
        ),
        (
            f'[[listen]]\nurl = "{A}"\n[[listen]]\nurl = "{B}"\nproxy = true\nproxy_from = ["unix", "::1"]\n',
            [ListenSetting(A), ListenSetting(B, True, ("unix", "::1"))],
        ),
        (f'[listen]\nurl = "{A}"\nproxy = true\n', [ListenSetting(A, proxy=True)]),
        (f'[listen]\nurl = "{A}"\nproxy = false\nproxy_from = []\n', [ListenSetting(A)]),
        ("", []),
    ],
)
def test_forms(tmp_path: Path, text: str, settings: list[ListenSetting]) -> None:
    file = tmp_path / "node.toml"
    file.write_text(text)
    assert read_config(file).listen == settings


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[listen]\nproxy = true", 'listen: there is no url; write one as url = "tcp://127.0.0.1:7070"'),
        (
            "listen = ['dtls://[::1]:7070']",
            "listen[0]: 'dtls://[::1]:7070' is for datagrams, but RPC needs a connection; "
            "write it as tls://[::1]:7070",
        ),
        ("[listen]\nurl = 7070", "listen.url = 7070 is no URL"),
        ("[listen]\nurl = 'tcp://a:1'\nproxi = true", "listen: unknown key 'proxi'; known keys are proxy, "),
        ("[listen]\nurl = 'tcp://a:1'\nproxy = 'yes'", "listen.proxy = 'yes' must be true or false"),
        ("listen = [{url = 'tcp://a:1', proxy = 1}]", "listen[0].proxy = 1 must be true or false"),
        ("[listen]\nurl = 'tcp://a:1'\nproxy_from = ['10.0.0.0/8']", "listen: proxy_from is given, but"),
        (
            "[listen]\nurl = 'tcp://a:1'\nproxy = true\nproxy_from = '10.0.0.0/8'",
            """listen.proxy_from = '10.0.0.0/8' is no list; write it as ["10.0.0.0/8"]""",
        ),
        (
            "[listen]\nurl = 'tcp://a:1'\nproxy = true\nproxy_from = [10]",
            "listen.proxy_from = [10] must be a list of networks",
        ),
        (
            "[listen]\nurl = 'tcp://a:1'\nproxy = true\nproxy_from = ['10.0.0.1/8']",
            "listen: '10.0.0.1/8' in proxy_from is no IP address, no network such as 10.0.0.0/8",
        ),
    ],
)
def test_a_wrong_one_is_explained(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "node.toml"
    file.write_text(text)
    with pytest.raises(Misconfigured) as caught:
        read_config(file)
    assert str(caught.value).startswith(f"{file}: {complaint}")
