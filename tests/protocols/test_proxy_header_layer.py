"""The layer: what comes through it, what does not, and that it costs nothing afterwards. No I/O."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from helianthus.protocols.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from helianthus.protocols.framing import (
    ConnectionLost,
    DelimiterFraming,
    EndOfStream,
    FrameReceived,
    LengthPrefix,
    LengthPrefixFraming,
)
from helianthus.protocols.machine import Action, Buffer, Closing, ConnectionFailed, Outcome
from helianthus.protocols.proxy_header import (
    DEFAULT_MAX_HEADER,
    HEADER_TIMEOUT,
    BadProxyHeader,
    ProxyEndpoint,
    ProxyHeader,
    ProxyHeaderLayer,
    ProxyHeaderReceived,
    ProxyHeaderState,
    ProxySsl,
    ProxyTransport,
    Tlv,
    TlvType,
    encode_proxy_header,
    parse_proxy_header,
)

HEADER = ProxyHeader.between(("10.0.0.1", 4242), ("10.0.0.2", 7070))
TEXT_HEADER = ProxyHeader.between(("10.0.0.1", 4242), ("10.0.0.2", 7070), version=1)
WIRE = encode_proxy_header(HEADER)

both_versions = pytest.mark.parametrize("header", [TEXT_HEADER, HEADER], ids=["version 1", "version 2"])


class Child:
    """A machine that keeps what it is told, and asks for everything that a machine can ask for."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.views: list[type] = []
        self.wants_read = True
        self.closing = Closing.OPEN
        self.due: float | None = 3.0

    def receive_data(self, data: Buffer, now: float) -> None:
        self.told.append((bytes(data), now))
        self.views.append(type(data))

    def receive_eof(self, now: float) -> None:
        self.told.append(("eof", now))

    def connection_lost(self, error: Exception | None, now: float) -> None:
        self.told.append(("lost", error))

    def handle_timeout(self, now: float) -> None:
        self.told.append(("time", now))

    def deadline(self) -> float | None:
        return self.due

    def complete(self, action_id: int, outcome: Outcome, now: float) -> None:
        self.told.append(("complete", action_id))

    def take_actions(self) -> list[Action]:
        return [Action(1)]

    def take_data(self) -> list[Buffer]:
        return [b"out"]

    def take_events(self) -> list[Any]:
        return ["event"]


def layered(**options: Any) -> tuple[ProxyHeaderLayer[Any], Child]:
    child = Child()
    return ProxyHeaderLayer(child, 0.0, **options), child


def failure(layer: ProxyHeaderLayer[Any]) -> Exception:
    """The error with which it has failed."""
    *_, last = layer.take_events()
    assert isinstance(last, ConnectionFailed)
    assert layer.state is ProxyHeaderState.ENDED
    assert layer.deadline() is None
    return last.error


# -- the header comes --------------------------------------------------------------------------------------


@both_versions
@pytest.mark.parametrize("piece", [1, 2, 7, 1000])
def test_what_is_behind_the_header_is_the_childs(header: ProxyHeader, piece: int) -> None:
    layer, child = layered()
    stream = encode_proxy_header(header) + b"hello"
    for start in range(0, len(stream), piece):
        layer.receive_data(stream[start : start + piece], 1.0)
    assert layer.take_events()[0] == ProxyHeaderReceived(header)
    assert layer.header == header
    assert layer.state is ProxyHeaderState.PASSED
    assert b"".join(data for data, _ in child.told) == b"hello"


def test_nothing_goes_in_or_out_before_it() -> None:
    layer, child = layered()
    layer.receive_data(WIRE[:-1], 1.0)
    assert (layer.take_actions(), layer.take_data(), layer.take_events()) == ([], [], [])
    child.closing, child.wants_read = Closing.FULL, False
    assert layer.closing is Closing.OPEN
    assert layer.wants_read
    assert layer.deadline() == HEADER_TIMEOUT, "not the child's"
    layer.handle_timeout(4.0)
    assert child.told == []
    with pytest.raises(LocalProtocolError, match="no action 1"):
        layer.complete(1, Outcome(), 1.0)


def test_afterwards_everything_is_the_childs_own() -> None:
    """Not a frame of the layer's is left between the driver and the child."""
    layer, child = layered()
    layer.receive_data(WIRE + b"first", 1.0)
    assert layer.take_events() == [ProxyHeaderReceived(HEADER), "event"]
    assert child.views == [memoryview], "what is behind the header is not copied"
    for name in (
        "receive_data",
        "receive_eof",
        "connection_lost",
        "handle_timeout",
        "deadline",
        "complete",
        "take_actions",
        "take_data",
        "take_events",
    ):
        assert getattr(layer, name) == getattr(child, name), name
    child.closing, child.wants_read = Closing.HALF, False
    assert layer.closing is Closing.HALF
    assert not layer.wants_read


def test_a_connection_of_the_proxys_own_tells_of_nobody() -> None:
    layer, _ = layered()
    layer.receive_data(encode_proxy_header(ProxyHeader(local=True)), 1.0)
    assert layer.header is not None
    assert layer.header.source is None


# -- it does not ---------------------------------------------------------------------------------------------


def test_a_missing_header_says_what_came_and_what_to_do() -> None:
    layer, child = layered()
    layer.receive_data(b"\x94\x00\x01\xa3add", 1.0)
    error = failure(layer)
    assert isinstance(error, BadProxyHeader)
    assert "takes connections with a PROXY header only" in str(error)
    assert "in haproxy: send-proxy" in str(error)
    assert layer.closing is Closing.FULL
    assert child.told == [("lost", error)]
    layer.receive_data(WIRE, 1.0)
    layer.receive_eof(1.0)
    layer.handle_timeout(100.0)
    layer.connection_lost(None, 1.0)
    assert child.told == [("lost", error)], "once"
    assert layer.take_data() == []


def test_a_header_that_is_too_long_names_the_limit() -> None:
    layer, _ = layered(max_header=200)
    layer.receive_data(WIRE[:14] + b"\xff\xff", 1.0)
    error = failure(layer)
    assert isinstance(error, LimitExceeded)
    assert (error.limit, error.maximum) == ("max_header", 200)


def test_a_header_that_never_comes() -> None:
    layer, _ = layered(header_timeout=3.0)
    layer.handle_timeout(2.9)
    assert layer.take_events() == []
    layer.receive_data(WIRE[:5], 2.9)
    assert layer.deadline() == 3.0, "what comes slowly has no more time"
    layer.handle_timeout(3.0)
    assert "only b'\\r\\n\\r\\n\\x00' came within header_timeout (3 s)" in str(failure(layer))
    layer, _ = layered()
    layer.handle_timeout(5.0)
    assert "nothing came within header_timeout (5 s)" in str(failure(layer))


def test_an_end_in_the_middle_is_an_error_and_one_before_it_is_none() -> None:
    layer, child = layered()
    layer.receive_data(WIRE[:5], 1.0)
    layer.receive_eof(1.0)
    assert "in the middle of it" in str(failure(layer))
    layer, child = layered()
    layer.receive_eof(1.0)
    assert layer.take_events() == ["event"]
    assert layer.closing is Closing.FULL
    assert child.told == [("lost", None)]


def test_a_loss_is_the_childs_too() -> None:
    layer, child = layered()
    lost = OSError("reset")
    layer.connection_lost(lost, 1.0)
    assert child.told == [("lost", lost)]
    assert layer.state is ProxyHeaderState.ENDED


def test_somebody_can_be_refused_before_they_have_said_anything() -> None:
    layer, _ = layered()
    layer.refuse("10.1.2.3:4 is not among those who may", 0.0)
    assert str(failure(layer)) == "10.1.2.3:4 is not among those who may"
    assert layer.closing is Closing.ABORT
    layer.receive_data(WIRE, 1.0)
    assert layer.header is None
    with pytest.raises(LocalProtocolError, match="nobody to refuse"):
        layer.refuse("again", 1.0)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"header_timeout": 0.0}, "more than 0"),
        ({"max_header": 106}, "107 or more"),
    ],
)
def test_limits_have_bounds(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        layered(**options)


# -- any header, any pieces, any rubbish -------------------------------------------------------------------

ports = st.integers(0, 65535)
ip4 = st.ip_addresses(v=4).map(str)
ip6 = st.ip_addresses(v=6).map(str)
paths = st.binary(max_size=108).map(
    lambda path: path.rstrip(b"\0") if path[:1] == b"\0" else path.split(b"\0")[0]
)


@st.composite
def tlvs(draw: st.DrawFn) -> tuple[Tlv, ...]:
    plain = st.builds(
        Tlv,
        st.integers(0, 255).filter(lambda kind: kind not in (TlvType.CRC32C, TlvType.SSL)),
        st.binary(max_size=100),
    )
    ssl = st.builds(
        lambda flags, verify, inner: ProxySsl(flags, verify, tuple(inner)).encode(),
        st.integers(0, 255),
        st.integers(0, 2**32 - 1),
        st.lists(st.builds(Tlv, st.integers(0x21, 0x25), st.binary(max_size=50)), max_size=3),
    )
    return tuple(draw(st.lists(st.one_of(plain, ssl), max_size=4)))


@st.composite
def headers(draw: st.DrawFn) -> ProxyHeader:
    version = draw(st.sampled_from([1, 2]))
    told = tlvs() if version == 2 else st.just(())
    kind = draw(st.sampled_from(["unknown", "local", 4, 6, "unix", "udp"]))
    if kind == "unknown" or (version == 1 and kind in ("local", "unix", "udp")):
        return ProxyHeader(version=version)
    if kind == "local":
        return ProxyHeader(local=True)
    if kind == "unix":
        ends = [ProxyEndpoint("", 0, draw(paths)) for _ in range(2)]
        transport = draw(st.sampled_from([ProxyTransport.UNIX_STREAM, ProxyTransport.UNIX_DATAGRAM]))
        return ProxyHeader(ends[0], ends[1], transport, tlvs=draw(told))
    ips = ip4 if kind in (4, "udp") else ip6
    header = ProxyHeader.between(
        (draw(ips), draw(ports)), (draw(ips), draw(ports)), version=version, tlvs=draw(told)
    )
    if kind == "udp":
        return ProxyHeader(header.source, header.destination, ProxyTransport.UDP4, tlvs=header.tlvs)
    return header


@given(headers(), st.booleans(), st.binary(max_size=20))
def test_what_is_written_is_read(header: ProxyHeader, checksum: bool, behind: bytes) -> None:
    wire = encode_proxy_header(header, checksum=checksum and header.version == 2)
    found = parse_proxy_header(wire + behind)
    assert found is not None
    read, size = found
    assert size == len(wire)
    tlvs = tuple(tlv for tlv in read.tlvs if tlv.kind != TlvType.CRC32C)
    assert (read.source, read.destination, read.transport, read.version, read.local, tlvs) == (
        header.source,
        header.destination,
        header.transport,
        header.version,
        header.local,
        header.tlvs,
    )
    assert str(read.source)


beginnings = st.sampled_from(
    [b"", b"PROXY ", b"PROXY TCP4 ", b"PROXY UNKNOWN", WIRE[:12], WIRE[:13], WIRE[:16]]
)


@settings(max_examples=300)
@given(beginnings, st.binary(max_size=300), st.lists(st.integers(1, 50), max_size=20))
def test_nothing_that_a_peer_sends_raises(beginning: bytes, rubbish: bytes, cuts: list[int]) -> None:
    """And how it is cut makes no difference: the child gets what is behind the header, or nobody anything."""
    stream = beginning + rubbish
    whole, cut = (LayerOver() for _ in range(2))
    whole.layer.receive_data(stream, 1.0)
    position = 0
    for size in [*cuts, len(stream)]:
        if position < len(stream):
            cut.layer.receive_data(stream[position : position + size], 1.0)
            assert len(cut.layer._begun) < DEFAULT_MAX_HEADER
            position += size
    assert whole.outcome() == cut.outcome()


class LayerOver:
    """A layer over a child, and what becomes of them."""

    def __init__(self) -> None:
        self.layer, self.child = layered()

    def outcome(self) -> tuple[Any, ...]:
        events = self.layer.take_events()
        heard = b"".join(data for data, _ in self.child.told if isinstance(data, bytes))
        failed = [str(event.error) for event in events if isinstance(event, ConnectionFailed)]
        return self.layer.state, self.layer.header, heard, [_first_reason(text) for text in failed]


def _first_reason(text: str) -> str:
    """What a failure is about; how much of a bad beginning is shown depends on how much there was."""
    for shown in ("began with", "its line", "is not the"):
        if shown in text:
            return shown
    return text


# -- in any order -------------------------------------------------------------------------------------------


class InAnyOrder(RuleBasedStateMachine):
    """Every input in every state: no exception, one end, and the child hears what it should."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.child = LengthPrefixFraming(LengthPrefix.UINT8)
        self.layer: ProxyHeaderLayer[Any] = ProxyHeaderLayer(self.child, 0.0)
        self.stream = WIRE + b"\x05hello" * 3
        self.sent = 0
        self.spoilt = False
        self.events: list[Any] = []

    @rule(size=st.integers(1, 40))
    def data(self, size: int) -> None:
        self.layer.receive_data(self.stream[self.sent : self.sent + size], self.now)
        self.sent = min(self.sent + size, len(self.stream))

    @rule()
    def rubbish(self) -> None:
        if self.layer.state is ProxyHeaderState.WAITING and self.sent < 12:
            self.spoilt = True
            self.layer.receive_data(b"\xff" * 20, self.now)

    @rule()
    def eof(self) -> None:
        self.layer.receive_eof(self.now)

    @rule()
    def lost(self) -> None:
        self.layer.connection_lost(None, self.now)

    @rule(seconds=st.floats(0.0, 3.0))
    def time(self, seconds: float) -> None:
        self.now += seconds
        self.layer.handle_timeout(self.now)
        deadline = self.layer.deadline()
        assert deadline is None or deadline > self.now

    @rule()
    def refuse(self) -> None:
        if self.layer.state is ProxyHeaderState.WAITING:
            self.layer.refuse("not you", self.now)

    @rule()
    def drain(self) -> None:
        assert self.layer.take_actions() == []
        assert self.layer.take_data() == []
        self.events += self.layer.take_events()

    @invariant()
    def is_in_order(self) -> None:
        kinds = [type(event) for event in self.events]
        assert kinds.count(ProxyHeaderReceived) <= 1
        if FrameReceived in kinds:
            assert kinds[0] is ProxyHeaderReceived
            assert not self.spoilt
        if ProxyHeaderReceived in kinds and ConnectionFailed in kinds:
            assert isinstance(self.events[-1].error, RemoteProtocolError), "the child's own"
        if ConnectionFailed in kinds:
            assert kinds.index(ConnectionFailed) == len(kinds) - 1
        assert kinds.count(ConnectionLost) + kinds.count(EndOfStream) <= 2
        assert len(self.layer._begun) <= DEFAULT_MAX_HEADER


TestInAnyOrder = InAnyOrder.TestCase
TestInAnyOrder.settings = settings(max_examples=100, stateful_step_count=20, deadline=None)


def test_two_layers_can_lie_around_each_other() -> None:
    """As behind two proxies of which each adds a header."""
    child = DelimiterFraming(b"\n")
    inner: ProxyHeaderLayer[Any] = ProxyHeaderLayer(child, 0.0)
    outer: ProxyHeaderLayer[Any] = ProxyHeaderLayer(inner, 0.0)
    outer.receive_data(WIRE + encode_proxy_header(TEXT_HEADER) + b"hello\n", 1.0)
    outer.receive_data(b"again\n", 1.0)
    assert outer.take_events() == [
        ProxyHeaderReceived(HEADER),
        ProxyHeaderReceived(TEXT_HEADER),
        FrameReceived(b"hello"),
        FrameReceived(b"again"),
    ]
    assert inner.header == TEXT_HEADER


# -- files and slow peers -------------------------------------------------------------------------------


class Sealing(Child):
    """A layer by itself, as TLS is: what is sent through it changes."""

    dropped_messages = 7

    def write_through(self, data: Buffer) -> list[Buffer]:
        return [b"<", bytes(data), b">"]


def test_files_go_through_what_is_within() -> None:
    layer = ProxyHeaderLayer(Sealing(), 0.0)
    with pytest.raises(LocalProtocolError, match="the PROXY header has not passed"):
        layer.write_through(b"")
    layer.receive_data(WIRE, 0.0)
    assert layer.write_through(b"file") == [b"<", b"file", b">"]
    assert layer.dropped_messages == 7


def test_files_pass_as_they_are_where_nothing_changes_them() -> None:
    layer = ProxyHeaderLayer(Child(), 0.0)
    layer.receive_data(WIRE, 0.0)
    assert layer.write_through(b"file") == [b"file"]
    assert layer.dropped_messages == 0
