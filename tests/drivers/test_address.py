"""Addresses as users write them."""

from __future__ import annotations

import pytest

from helianthus.drivers.address import Address


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("tcp://localhost:4242", "localhost", 4242),
        ("tcp://127.0.0.1:0", "127.0.0.1", 0),
        ("tcp://[::1]:65535", "::1", 65535),
        ("tcp://[2001:db8::7]:1/", "2001:db8::7", 1),
        ("tcp://node-3.example:80", "node-3.example", 80),
    ],
)
def test_parse_and_write(url: str, host: str, port: int) -> None:
    address = Address.parse(url)
    assert address == Address(host, port, "tcp")
    assert str(address) == url.rstrip("/")
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("localhost:4242", "no known scheme"),
        ("http://localhost:4242", "no known scheme"),
        ("tcp:localhost:4242", "no known scheme"),
        ("", "no known scheme"),
        ("tcp://localhost", "no port"),
        ("tcp://:4242", "no host"),
        ("tcp://localhost:many", "bad port"),
        ("tcp://localhost:65536", "bad port"),
        ("tcp://localhost:-1", "bad port"),
        ("tcp://localhost:1/path", "more than a host and a port"),
        ("tcp://localhost:1?tls=yes", "more than a host and a port"),
        ("tcp://me@localhost:1", "more than a host and a port"),
        ("tcp://localhost:1#part", "more than a host and a port"),
    ],
)
def test_what_is_no_address_says_why(url: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        Address.parse(url)
    assert repr(url) in str(caught.value)


@pytest.mark.parametrize("url", ["tcp://[::1", "tcp://::1]:1", "tcp://[nonsense]:1"])
def test_bad_brackets_are_a_value_error(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Address.parse(url)


@pytest.mark.parametrize("scheme", ["tls", "udp", "dtls"])
def test_other_schemes_of_a_host_and_a_port(scheme: str) -> None:
    address = Address.parse(f"{scheme}://[::1]:7070")
    assert address == Address("::1", 7070, scheme)
    assert str(address) == f"{scheme}://[::1]:7070"
    assert address.secure is scheme.endswith("tls")
    assert not address.local


@pytest.mark.parametrize(
    ("url", "scheme", "path"),
    [
        ("unix:///run/app.sock", "unix", "/run/app.sock"),
        ("unix:///with%20space", "unix", "/with space"),
        ("pipe:///helianthus", "pipe", "/helianthus"),
    ],
)
def test_addresses_within_this_machine(url: str, scheme: str, path: str) -> None:
    address = Address.parse(url)
    assert address == Address("", 0, scheme, path)
    assert address.local
    assert str(address) == address.endpoint == url
    assert Address.parse(str(address)) == address


def test_a_path_is_read_back_whatever_it_holds() -> None:
    """What a URL means by a character is written as a number; file names may be no text at all."""
    for path in ("/a?b#c%41", "/ leading and trailing ", "/tab\tnew\nline", "/\xff\udc80", "/[a]", "//@file"):
        address = Address("", 0, "unix", path)
        assert Address.parse(str(address)) == address
        assert str(address).isascii()


def test_a_mode_is_written_as_for_chmod() -> None:
    address = Address.parse("unix:///run/app.sock?mode=0660")
    assert address == Address("", 0, "unix", "/run/app.sock", 0o660)
    assert str(address) == "unix:///run/app.sock?mode=0660"
    assert Address.parse("unix:///a?mode=600").mode == 0o600
    assert Address.parse("unix:///a").with_mode(0o770).mode == 0o770
    assert Address.parse("unix:///a?mode=600").with_mode(None).mode == 0o600


def test_abstract_names() -> None:
    address = Address.parse("unix:///@helianthus")
    assert address.abstract
    assert str(address) == "unix:///@helianthus"
    assert not Address.parse("unix:///a@b").abstract
    assert not Address.parse("pipe:///@a").abstract


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("unix://run/app.sock", "has a host.*three slashes"),
        ("unix:///", "no usable path"),
        ("unix://", "no usable path"),
        ("unix:///a%00b", "no usable path"),
        ("unix:///a?b=c", r"more than a path and a mode; write it as unix:///path\?mode=0660"),
        ("unix:///a?&", "more than a path and a mode"),
        ("unix:///a?mode=0660&mode=1", "more than a path and a mode"),
        ("unix:///a?mode=", "mode of .* is ''; write three octal digits"),
        ("unix:///a?mode=0o660", "three octal digits as for chmod, such as 0660"),
        ("unix:///a?mode=1777", "three octal digits"),
        ("unix:///a?mode=98", "three octal digits"),
        ("unix:///a?mode=-1", "three octal digits"),
        ("unix:///@a?mode=0660", "no file whose mode could be set"),
        ("unix:///@", "no usable path"),
        ("pipe:///a?mode=0660", "more than a path;"),
        ("unix:///a#b", "more than a path"),
    ],
)
def test_bad_paths_say_why(url: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Address.parse(url)


@pytest.mark.parametrize("mode", [-1, 0o1000])
def test_a_mode_that_is_none(mode: int) -> None:
    with pytest.raises(ValueError, match="from 0o000 to 0o777, such as 0o660"):
        Address.parse("unix:///a").with_mode(mode)
    with pytest.raises(ValueError, match="tcp://a:1 has no file whose mode could be set"):
        Address.parse("tcp://a:1").with_mode(0o660)


def test_only_schemes_that_make_sense_are_read() -> None:
    with pytest.raises(ValueError, match=r"no known scheme \(tcp, tls\); write it as tcp://host:port"):
        Address.parse("udp://host:1", ("tcp", "tls"))


def test_addresses_are_values() -> None:
    assert Address("a", 1) == Address("a", 1)
    assert len({Address("a", 1), Address("a", 1), Address("b", 1)}) == 2
