"""Sessions whose peer takes less than it is sent: what is dropped, what never is, and when it ends."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from rpc_pair import Talk

from helianthus.protocols.errors import LocalProtocolError, SlowConsumer
from helianthus.protocols.machine import Closing, ConnectionFailed
from helianthus.protocols.rpc import (
    CancelReceived,
    CreditGranted,
    Flow,
    RequestReceived,
    RpcLimits,
    StatusCode,
)

TEXT = "x" * 91
"""An item with it takes 96 bytes on the wire: [4, 1, TEXT]."""

ITEM = 96


def talk(policy: str, *, credit: int = 3, items: int = 4, **limits: Any) -> Talk:
    """A server's session with one open stream of the peer's (id 1), and room for a few items."""
    made = Talk(
        initiator=False,
        credit=credit,
        limits=RpcLimits(slow_consumer=policy, max_pending=items * ITEM, **limits),
    )
    made.hear([0, 1, "numbers", [], {"stream": 1}])
    (request,) = made.events()
    assert isinstance(request, RequestReceived)
    assert request.flow == Flow.FROM_CALLEE
    return made


def item(number: int) -> str:
    return f"{number:03}" + TEXT[3:]


def numbers(messages: list[Any], msgid: int = 1) -> list[int]:
    """Those of the items among some messages."""
    return [int(message[2][:3]) for message in messages if message[0] == 4 and message[1] == msgid]


def test_items_have_the_size_that_these_tests_reckon_with() -> None:
    assert talk("block").session.send_item(1, item(0)) == ITEM


# -- block ---------------------------------------------------------------------------------------------


def test_block_waits_for_credit() -> None:
    conversation = talk("block", credit=1)
    session = conversation.session
    assert not session.never_waits
    session.send_item(1, item(0))
    with pytest.raises(LocalProtocolError, match="no credit"):
        session.send_item(1, item(1))
    assert session.credit(1) == 0
    conversation.hear([6, 1, 2])
    assert conversation.events() == [CreditGranted(1)]
    assert session.dropped_messages == 0


# -- drop oldest ---------------------------------------------------------------------------------------


def test_items_without_credit_wait_in_order() -> None:
    conversation = talk("drop-oldest", credit=2)
    session = conversation.session
    assert session.never_waits
    for number in range(4):
        session.send_item(1, item(number))
    assert numbers(conversation.said()) == [0, 1]
    assert session.pending == 2 * ITEM
    conversation.hear([6, 1, 1])
    assert numbers(conversation.said()) == [2]
    conversation.hear([6, 1, 5])
    session.send_item(1, item(4))
    assert numbers(conversation.said()) == [3, 4]
    assert conversation.events() == []  # nobody waits, so nobody is told
    assert session.dropped_messages == 0


def test_the_oldest_items_that_wait_are_dropped() -> None:
    conversation = talk("drop-oldest", credit=2)
    session = conversation.session
    for number in range(2):
        session.send_item(1, item(number))
    conversation.said()
    for number in range(2, 10):
        session.send_item(1, item(number))
        assert session.pending <= 4 * ITEM
    assert session.dropped_messages == 4
    conversation.hear([6, 1, 100])
    assert numbers(conversation.said()) == [6, 7, 8, 9]


def test_a_dropped_item_gives_its_credit_back() -> None:
    """The transport takes nothing: the oldest in its queue go, and the window stays whole."""
    conversation = talk("drop-oldest", credit=3, items=2)
    session = conversation.session
    for number in range(9):
        session.send_item(1, item(number))
    assert numbers(conversation.said()) == [7, 8]
    assert session.credit(1) == 1
    session.send_item(1, item(9))
    session.send_item(1, item(10))
    assert numbers(conversation.said()) == [9]


def test_answers_and_requests_are_never_dropped() -> None:
    conversation = talk("drop-oldest", credit=100)
    session = conversation.session
    conversation.hear([0, 3, "plain", []])
    conversation.events()
    mine = session.call("theirs", (TEXT,), 100.0)
    session.respond(3, TEXT * 4)
    for number in range(6):
        session.send_item(1, item(number))
    said = conversation.said()
    assert [message[0] for message in said if message[0] != 4] == [0, 1]
    assert said[0][1] == mine
    assert numbers(said) == []  # the answer alone is more than may wait
    assert session.dropped_messages == 6


def test_notifications_may_be_dropped() -> None:
    conversation = talk("drop-oldest")
    for number in range(20):
        conversation.session.notify("tick", [item(number)])
    said = conversation.said()
    assert [int(message[2][0][:3]) for message in said] == [17, 18, 19]
    assert conversation.session.dropped_messages == 17


def test_a_message_that_alone_is_too_large_still_goes() -> None:
    conversation = talk("drop-oldest")
    conversation.session.notify("small", [])
    conversation.session.notify("large", [TEXT * 10])
    assert [message[1] for message in conversation.said()] == ["large"]


def test_the_answer_keeps_behind_the_items() -> None:
    conversation = talk("drop-oldest", credit=1)
    session = conversation.session
    for number in range(3):
        session.send_item(1, item(number))
    session.respond(1, "done")
    assert session.awaits_answer(1)
    with pytest.raises(LocalProtocolError, match="has been answered"):
        session.respond(1, "again")
    with pytest.raises(LocalProtocolError, match="sends no"):
        session.send_item(1, item(3))
    assert numbers(conversation.said()) == [0]
    conversation.hear([6, 1, 1])
    assert numbers(conversation.said()) == [1]
    conversation.hear([6, 1, 1])
    said = conversation.said()
    assert numbers(said) == [2]
    assert said[-1] == [1, 1, None, "done"]
    assert not session.awaits_answer(1)


def test_a_caller_that_gives_up_gets_its_answer_at_once() -> None:
    conversation = talk("drop-oldest", credit=1)
    session = conversation.session
    for number in range(3):
        session.send_item(1, item(number))
    session.respond(1, "done")
    conversation.said()
    conversation.hear([3, 1])
    assert conversation.said() == [[1, 1, None, "done"]]
    assert conversation.events() == []
    assert session.pending == 0


def test_a_caller_that_gives_up_before_that_is_heard() -> None:
    conversation = talk("drop-oldest", credit=1)
    conversation.hear([3, 1])
    assert conversation.events() == [CancelReceived(1)]


def test_the_end_keeps_behind_the_items() -> None:
    conversation = Talk(credit=1, limits=RpcLimits(slow_consumer="drop-oldest", max_pending=4 * ITEM))
    session = conversation.session
    msgid = session.call("sum", (), 100.0, flow=Flow.BOTH)
    for number in range(3):
        session.send_item(msgid, item(number))
    session.end_stream(msgid)
    session.end_stream(msgid)
    with pytest.raises(LocalProtocolError):
        session.send_item(msgid, item(3))
    assert numbers(conversation.said(), msgid) == [0]
    conversation.hear([6, msgid, 5])
    said = conversation.said()
    assert numbers(said, msgid) == [1, 2]
    assert said[-1] == [5, msgid]


def test_what_waits_ends_with_its_call() -> None:
    conversation = Talk(credit=0, limits=RpcLimits(slow_consumer="drop-oldest", max_pending=4 * ITEM))
    session = conversation.session
    msgid = session.call("sum", (), 100.0, flow=Flow.BOTH)
    session.send_item(msgid, item(0))
    conversation.said()
    assert session.pending == ITEM
    conversation.hear([1, msgid, None, 5])
    assert session.pending == 0
    assert conversation.said() == []


def test_each_stream_makes_room_for_its_own_items_first() -> None:
    conversation = talk("drop-oldest", credit=0)
    session = conversation.session
    conversation.hear([0, 3, "others", [], {"stream": 1}])
    conversation.events()
    for number in range(4):
        session.send_item(3, item(number))
    for number in range(20):
        session.send_item(1, item(number))
    conversation.hear([6, 3, 9], [6, 1, 9])
    said = conversation.said()
    assert numbers(said, 3) == [1, 2, 3]
    assert numbers(said, 1) == [19]


# -- disconnect ----------------------------------------------------------------------------------------


def test_disconnect_names_the_limit() -> None:
    conversation = talk("disconnect", credit=2)
    session = conversation.session
    for number in range(4):
        session.send_item(1, item(number))
    with pytest.raises(LocalProtocolError, match="slow consumer"):
        session.send_item(1, item(4))
    (event,) = conversation.events()
    assert isinstance(event, ConnectionFailed)
    assert isinstance(event.error, SlowConsumer)
    assert (event.error.limit, event.error.maximum) == ("max_pending", 4 * ITEM)
    assert "384 bytes wait for it, and 96 more exceed max_pending (384)" in str(event.error)
    assert session.closing is Closing.ABORT
    assert conversation.said() == []
    with pytest.raises(LocalProtocolError, match="slow consumer"):
        session.notify("tick", [])


def test_a_notification_disconnects_too() -> None:
    conversation = talk("disconnect")
    with pytest.raises(LocalProtocolError, match="max_pending"):
        for number in range(20):
            conversation.session.notify("tick", [item(number)])
    assert conversation.session.closing is Closing.ABORT


def test_a_peer_that_keeps_up_is_not_disconnected() -> None:
    conversation = talk("disconnect", credit=2)
    for number in range(100):
        conversation.session.send_item(1, item(number))
        assert numbers(conversation.said()) == [number]
        conversation.hear([6, 1, 1])
    assert conversation.session.closing is Closing.OPEN


def test_an_unknown_policy() -> None:
    with pytest.raises(ValueError, match="slow_consumer must be one of"):
        RpcLimits(slow_consumer="perhaps")  # type: ignore[arg-type]  # a name is converted


# -- any order -----------------------------------------------------------------------------------------


class SlowPeer(RuleBasedStateMachine):
    """Streams, notifications and answers in any order, to a peer that takes and grants as it likes."""

    CREDIT = 2
    ROOM = 6 * ITEM

    def __init__(self) -> None:
        super().__init__()
        self.talk = Talk(
            initiator=False,
            credit=self.CREDIT,
            limits=RpcLimits(slow_consumer="drop-oldest", max_pending=self.ROOM),
        )
        self.session = self.talk.session
        self.next_id = 1
        self.open: list[int] = []  # streams that have not been answered by us
        self.answered: list[int] = []
        self.credit: dict[int, int] = {}  # as the peer reckons
        self.sent: dict[int, int] = {}
        self.arrived: dict[int, list[int]] = {}
        self.over: list[int] = []
        self.ticks = 0
        self.ticks_arrived: list[int] = []

    @rule()
    def open_stream(self) -> None:
        if len(self.open) + len(self.answered) - len(self.over) < 5:
            self.talk.hear([0, self.next_id, "numbers", [], {"stream": 1}])
            self.talk.events()
            self.open.append(self.next_id)
            self.credit[self.next_id] = self.CREDIT
            self.sent[self.next_id] = 0
            self.arrived[self.next_id] = []
            self.next_id += 2

    @precondition(lambda self: self.open)
    @rule(data=st.data(), count=st.integers(1, 9))
    def send(self, data: st.DataObject, count: int) -> None:
        msgid = data.draw(st.sampled_from(self.open))
        for _ in range(count):
            self.session.send_item(msgid, item(self.sent[msgid]))
            self.sent[msgid] += 1

    @rule()
    def tick(self) -> None:
        self.session.notify("tick", [item(self.ticks)])
        self.ticks += 1

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        msgid = data.draw(st.sampled_from(self.open))
        self.open.remove(msgid)
        self.answered.append(msgid)
        self.session.respond_error(msgid, StatusCode.ABORTED, "over")

    @rule()
    def take(self) -> None:
        for message in self.talk.said():
            if message[0] == 4:
                msgid = message[1]
                assert msgid not in self.over, "an item came after the answer"
                self.credit[msgid] -= 1
                assert self.credit[msgid] >= 0, "more items than the credit"
                self.arrived[msgid] += numbers([message], msgid)
            elif message[0] == 1:
                assert message[1] not in self.over
                self.over.append(message[1])
            else:
                self.ticks_arrived.append(int(message[2][0][:3]))

    @precondition(lambda self: self.credit)
    @rule(data=st.data(), count=st.integers(1, 4))
    def grant(self, data: st.DataObject, count: int) -> None:
        msgid = data.draw(st.sampled_from(sorted(self.credit)))
        self.credit[msgid] += count
        self.talk.hear([6, msgid, count])

    @invariant()
    def memory_is_bounded(self) -> None:
        undroppable = sum(len(chunk) for chunk in self.session.output.chunks if chunk[1:2] == b"\1")
        kept = 5 * ITEM  # the newest item of every other stream
        assert self.session.pending <= self.ROOM + undroppable + kept

    @invariant()
    def order_is_kept(self) -> None:
        for arrived in [*self.arrived.values(), self.ticks_arrived]:
            assert arrived == sorted(set(arrived))

    def teardown(self) -> None:
        """A peer that reads all gets every answer, and everything that was not dropped."""
        for msgid in list(self.open):
            self.open.remove(msgid)
            self.answered.append(msgid)
            self.session.respond_error(msgid, StatusCode.ABORTED, "over")
        for _ in range(20):
            self.take()
            for msgid in self.answered:
                if msgid not in self.over:
                    self.credit[msgid] += 50
                    self.talk.hear([6, msgid, 50])
        self.take()
        assert sorted(self.over) == sorted(self.answered)
        arrived = len(self.ticks_arrived) + sum(map(len, self.arrived.values()))
        assert arrived + self.session.dropped_messages == self.ticks + sum(self.sent.values())
        assert self.session.pending == 0


TestSlowPeer = SlowPeer.TestCase
TestSlowPeer.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
