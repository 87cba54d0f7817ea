"""Which addresses RPC takes, and what it says of others."""

from __future__ import annotations

import re

import pytest

import helianthus
from helianthus.services.rpc.addresses import rpc_address, rpc_addresses


@pytest.mark.parametrize(("url", "instead"), [("udp://a:1", "tcp://a:1"), ("DTLS://a:1", "tls://a:1")])
def test_datagrams_are_not_for_rpc(url: str, instead: str) -> None:
    said = re.escape(f"{url!r} is for datagrams, but RPC needs a connection; write it as {instead}")
    with pytest.raises(ValueError, match=said):
        rpc_address(url)
    with pytest.raises(ValueError, match=said):
        rpc_addresses(["tcp://a:1", url])
    with pytest.raises(ValueError, match=said):
        helianthus.connect_sync(url)


def test_others_are_read_as_ever() -> None:
    assert [str(address) for address in rpc_addresses(["tcp://a:1", "tls://a:1"])] == [
        "tcp://a:1",
        "tls://a:1",
    ]
    with pytest.raises(ValueError, match="no known scheme"):
        rpc_address("http://a:1")
