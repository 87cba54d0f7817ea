"""What the manual page kqueue(2) of FreeBSD and macOS says of queues and events, statement by statement.

On Linux the double has to live up to it; where there is a kqueue, the same tests show what that does.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import warnings
from typing import Any

import pytest
from kqueue_words import (
    ADD,
    CLEAR,
    DELETE,
    DISABLE,
    DISPATCH,
    ENABLE,
    ERROR,
    ONESHOT,
    PATIENCE,
    READ,
    RECEIPT,
    WRITE,
    Pair,
    Queue,
    arrived,
    drain,
    fill,
    kq,
)

# -- a kevent is known by ident and filter ------------------------------------------------------------


def test_adding_an_event_again_modifies_it(queue: Queue, pair: Pair) -> None:
    """There is one event for each ident and filter; its parameters are the latest."""
    near, far = pair
    queue.change(near, READ, ADD, udata=1)
    queue.change(near, READ, ADD, udata=2)
    far.send(b"x")
    found = queue.event()
    assert (found.ident, found.filter, found.udata) == (near.fileno(), READ, 2)


def test_the_filters_of_a_descriptor_are_events_of_their_own(queue: Queue, pair: Pair) -> None:
    """Input says nothing about room for output."""
    near, far = pair
    queue.change(near, READ, ADD | CLEAR)
    queue.change(near, WRITE, ADD | CLEAR)
    assert queue.event().filter == WRITE
    far.send(b"x")
    assert queue.event().filter == READ
    assert queue.events() == []


def test_the_filter_runs_when_the_event_is_registered(queue: Queue, pair: Pair) -> None:
    """A condition that holds already is detected."""
    near, far = pair
    far.send(b"early")
    arrived(near)
    queue.change(near, READ, ADD | CLEAR)
    assert queue.event().data == 5


def test_the_filter_runs_when_the_event_is_retrieved(queue: Queue, pair: Pair) -> None:
    """What no longer holds is not returned."""
    near, far = pair
    queue.change(near, READ, ADD)
    far.send(b"x")
    assert queue.event().data == 1
    near.recv(1)
    assert queue.events() == []


def test_events_are_aggregated(queue: Queue, pair: Pair) -> None:
    """Much that has happened to one filter is one event."""
    near, far = pair
    queue.change(near, READ, ADD | CLEAR)
    for _ in range(3):
        far.send(b"abc")
    arrived(near)
    assert queue.event().data == 9
    assert queue.events() == []


# -- flags ----------------------------------------------------------------------------------------------


def test_without_flags_it_reports_the_state(queue: Queue, pair: Pair) -> None:
    """As long as the condition holds, every look finds the event."""
    near, far = pair
    queue.change(near, READ, ADD)
    far.send(b"x")
    for _ in range(3):
        assert queue.event().filter == READ


def test_clear_resets_the_state_after_retrieval(queue: Queue, pair: Pair) -> None:
    """A change is reported once, although what it brought has not been read; the next one is again."""
    near, far = pair
    queue.change(near, READ, ADD | CLEAR)
    far.send(b"ab")
    assert queue.event().data == 2
    assert queue.events() == []
    far.send(b"c")
    assert queue.event().data == 3
    assert queue.events() == []


def test_clear_reports_room_again_after_there_was_none(queue: Queue, pair: Pair) -> None:
    """The write filter reports when the peer has read."""
    near, far = pair
    queue.change(near, WRITE, ADD | CLEAR)
    assert queue.event().filter == WRITE
    filled = fill(near)
    while queue.events():
        filled += fill(near)
    drain(far, filled)
    assert queue.event().filter == WRITE


def test_oneshot_deletes_the_event_after_retrieval(queue: Queue, pair: Pair) -> None:
    """The first occurrence is the only one."""
    near, far = pair
    queue.change(near, READ, ADD | ONESHOT)
    far.send(b"x")
    assert queue.event().filter == READ
    far.send(b"x")
    assert queue.events() == []
    with pytest.raises(FileNotFoundError):  # ENOENT
        queue.change(near, READ, DELETE)


def test_disable_and_enable(queue: Queue, pair: Pair) -> None:
    """A disabled event is not returned, but its filter goes on, and enabling shows it."""
    near, far = pair
    queue.change(near, READ, ADD | CLEAR)
    queue.change(near, READ, DISABLE)
    far.send(b"x")
    arrived(near)
    assert queue.events() == []
    queue.change(near, READ, ENABLE)
    assert queue.event().data == 1


def test_adding_enables_unless_it_disables(queue: Queue, pair: Pair) -> None:
    near, far = pair
    far.send(b"x")
    arrived(near)
    queue.change(near, READ, ADD | DISABLE)
    assert queue.events() == []
    queue.change(near, READ, ADD)
    assert queue.event().filter == READ


def test_dispatch_disables_after_delivery(queue: Queue, pair: Pair) -> None:
    near, far = pair
    queue.change(near, READ, ADD | DISPATCH)
    far.send(b"x")
    assert queue.event().filter == READ
    assert queue.events() == []
    queue.change(near, READ, ENABLE)
    assert queue.event().filter == READ


def test_delete_removes_the_event(queue: Queue, pair: Pair) -> None:
    near, far = pair
    queue.change(near, READ, ADD)
    far.send(b"x")
    assert queue.event().filter == READ
    queue.change(near, READ, DELETE)
    assert queue.events() == []


@pytest.mark.parametrize("flags", [DELETE, ENABLE, DISABLE])
def test_what_is_not_there_cannot_be_changed(queue: Queue, pair: Pair, flags: int) -> None:
    """ENOENT, also for the other filter of a descriptor that is known."""
    near, _ = pair
    queue.change(near, READ, ADD)
    with pytest.raises(FileNotFoundError) as caught:
        queue.change(near, WRITE, flags)
    assert caught.value.errno == errno.ENOENT


def test_receipt_reports_each_change_and_drains_nothing(queue: Queue, pair: Pair) -> None:
    """EV_ERROR always comes, with zero for success, and pending events stay where they are."""
    near, far = pair
    queue.change(near, READ, ADD | CLEAR)
    far.send(b"x")
    arrived(near)
    changes = [
        kq.kevent(near, WRITE, ADD | CLEAR | RECEIPT),
        kq.kevent(far, WRITE, DELETE | RECEIPT),
        kq.kevent(far, READ, ADD | RECEIPT),
    ]
    receipts = queue.kernel.control(changes, 16, PATIENCE)
    assert [(one.ident, one.filter, one.data) for one in receipts] == [
        (near.fileno(), WRITE, 0),
        (far.fileno(), WRITE, errno.ENOENT),
        (far.fileno(), READ, 0),
    ]
    assert all(one.flags & ERROR for one in receipts)
    assert {one.filter for one in queue.events()} == {READ, WRITE}


@pytest.mark.skipif(sys.platform == "darwin", reason="the page of macOS does not say it")
def test_receipt_without_room_ends_the_changes(queue: Queue, pair: Pair) -> None:
    """Those behind it are not processed."""
    near, far = pair
    changes = [kq.kevent(near, READ, ADD | RECEIPT), kq.kevent(far, READ, ADD)]
    assert queue.kernel.control(changes, 0) == []
    queue.change(near, READ, DELETE)
    with pytest.raises(FileNotFoundError):
        queue.change(far, READ, DELETE)


# -- kevent() itself ------------------------------------------------------------------------------------


def test_a_timeout_of_zero_polls_and_any_other_ends(queue: Queue, pair: Pair) -> None:
    queue.change(pair[0], READ, ADD)
    assert queue.kernel.control(None, 1, 0) == []
    assert queue.kernel.control(None, 1, 0.01) == []


def test_no_timeout_waits(queue: Queue, pair: Pair) -> None:
    near, far = pair
    queue.change(near, READ, ADD)
    threading.Timer(0.02, far.send, [b"x"]).start()
    (found,) = queue.kernel.control(None, 1)
    assert found.ident == near.fileno()


def test_no_room_returns_at_once(queue: Queue, pair: Pair) -> None:
    """Also where there is a timeout, and where something is ready."""
    near, far = pair
    assert queue.kernel.control([kq.kevent(near, READ, ADD)], 0, 3600) == []
    far.send(b"x")
    arrived(near)
    assert queue.kernel.control(None, 0, 3600) == []
    assert queue.event().filter == READ


def test_changes_are_applied_before_events_are_read(queue: Queue, pair: Pair) -> None:
    near, far = pair
    far.send(b"x")
    arrived(near)
    (found,) = queue.kernel.control([kq.kevent(near, READ, ADD)], 4, PATIENCE)
    assert (found.ident, found.filter) == (near.fileno(), READ)


def test_no_more_events_than_there_is_room_for(queue: Queue, pair: Pair) -> None:
    """The others come the next time."""
    for end in pair:
        queue.change(end, WRITE, ADD | CLEAR)
    first, second = queue.events(1), queue.events(1)
    assert {first[0].ident, second[0].ident} == {end.fileno() for end in pair}


def test_an_error_is_placed_in_the_eventlist(queue: Queue, pair: Pair) -> None:
    """With EV_ERROR in flags and the error in data; the other changes are made."""
    near, far = pair
    far.send(b"x")
    changes = [kq.kevent(near, WRITE, DELETE), kq.kevent(near, READ, ADD)]
    (found,) = queue.kernel.control(changes, 4, PATIENCE)
    assert found.flags & ERROR
    assert (found.ident, found.filter, found.data) == (near.fileno(), WRITE, errno.ENOENT)
    assert queue.event().filter == READ


def test_an_error_without_room_is_raised(queue: Queue, pair: Pair) -> None:
    """Changes before it have been made, those behind it have not."""
    near, far = pair
    changes = [kq.kevent(near, READ, ADD), kq.kevent(near, WRITE, DELETE), kq.kevent(far, READ, ADD)]
    with pytest.raises(FileNotFoundError):
        queue.kernel.control(changes, 0)
    queue.change(near, READ, DELETE)
    with pytest.raises(FileNotFoundError):
        queue.change(far, READ, DELETE)


def test_a_filter_that_does_not_exist(queue: Queue, pair: Pair) -> None:
    with pytest.raises(OSError, match="Invalid argument") as caught:
        queue.change(pair[0], -1000, ADD)
    assert caught.value.errno == errno.EINVAL


def test_a_child_does_not_inherit_the_queue(queue: Queue, pair: Pair) -> None:
    near, far = pair
    queue.change(near, READ, ADD | CLEAR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork() where threads may exist
        child = os.fork()
    if child == 0:
        try:
            queue.kernel.control(None, 1, 0)
        except (OSError, ValueError):
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    far.send(b"x")
    assert queue.event().data == 1


# -- what Python makes of it ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((None, -1), ValueError),
        ((None, 1, -1.0), ValueError),
        ((["no kevent"], 0), TypeError),
    ],
)
def test_what_control_refuses(queue: Queue, arguments: tuple[Any, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        queue.kernel.control(*arguments)


def test_a_closed_queue() -> None:
    queue = kq.kqueue()
    assert queue.fileno() >= 0
    assert not queue.closed
    queue.close()
    queue.close()
    assert queue.closed
    for use in (lambda: queue.control(None, 1, 0), queue.fileno):
        with pytest.raises(ValueError, match="closed"):
            use()


def test_events_are_values(pair: Pair) -> None:
    assert kq.kevent(pair[0]) == kq.kevent(pair[0].fileno(), READ, ADD, 0, 0, 0)
    assert kq.kevent(1, WRITE, udata=3) != kq.kevent(1, WRITE, udata=4)
    assert "ident=1" in repr(kq.kevent(1, WRITE))
