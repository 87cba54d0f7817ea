"""What kqueue(2) says of each filter, and of descriptors that are closed; and the double's own ways."""

from __future__ import annotations

import errno
import os
import socket
import threading
from typing import Any

import pytest
from kqueue_words import (
    ADD,
    CLEAR,
    DELETE,
    ENABLE,
    EOF,
    NOTE_FFAND,
    NOTE_FFCOPY,
    NOTE_FFOR,
    NOTE_TRIGGER,
    PATIENCE,
    READ,
    USER,
    WRITE,
    Pair,
    Queue,
    arrived,
    double_only,
    drain,
    fill,
    kq,
    reset,
    using_number,
)

# -- EVFILT_READ ---------------------------------------------------------------------------------------


def test_data_of_a_listener_is_its_backlog(queue: Queue, listener: socket.socket) -> None:
    queue.change(listener, READ, ADD)
    assert queue.events() == []
    visitors = []
    for number in range(1, 4):
        visitors.append(socket.create_connection(listener.getsockname()))
        assert queue.event().data == number
    listener.accept()[0].close()
    assert queue.event().data == 2
    for visitor in visitors:
        visitor.close()


def test_data_of_a_socket_is_what_can_be_read(queue: Queue, pair: Pair) -> None:
    near, far = pair
    far.send(bytes(1000))
    queue.change(near, READ, ADD)
    assert queue.event().data == 1000
    near.recv(400)
    assert queue.event().data == 600


def test_low_water_mark_of_a_filter(queue: Queue, pair: Pair) -> None:
    """NOTE_LOWAT says how much it takes."""
    near, far = pair
    queue.change(near, READ, ADD, fflags=kq.KQ_NOTE_LOWAT, data=10)
    far.send(bytes(9))
    arrived(near)
    assert queue.events() == []
    far.send(b"x")
    assert queue.event().data == 10


def test_end_of_stream_comes_with_what_is_still_to_be_read(queue: Queue, pair: Pair) -> None:
    """EV_EOF does not mean that there is no data."""
    near, far = pair
    far.send(b"last words")
    far.shutdown(socket.SHUT_WR)
    queue.change(near, READ, ADD)
    found = queue.event()
    while not found.flags & EOF:  # the end may come a moment later
        found = queue.event()
    assert found.data == 10
    assert found.fflags == 0
    near.recv(10)
    found = queue.event()
    assert found.flags & EOF
    assert found.data == 0


def test_end_of_stream_is_a_change(queue: Queue, pair: Pair) -> None:
    """With EV_CLEAR too, it is reported after the data was."""
    near, far = pair
    queue.change(near, READ, ADD | CLEAR)
    far.send(b"x")
    assert not queue.event().flags & EOF
    far.shutdown(socket.SHUT_WR)
    assert queue.event().flags & EOF
    assert queue.events() == []


def test_the_error_of_a_socket_is_in_fflags(queue: Queue, pair: Pair) -> None:
    """A reset is an end of the read direction, and is not taken away from who reads."""
    near, far = pair
    queue.change(near, READ, ADD | CLEAR)
    reset(far)
    found = queue.event()
    assert found.flags & EOF
    assert found.fflags == errno.ECONNRESET
    with pytest.raises(ConnectionResetError):
        near.recv(1)


def test_pipes_tell_bytes_and_the_last_writers_end(queue: Queue) -> None:
    reader, writer = os.pipe()
    try:
        queue.change(reader, READ, ADD)
        assert queue.events() == []
        os.write(writer, b"12345")
        found = queue.event()
        assert found.data == 5
        assert not found.flags & EOF
        os.read(reader, 5)
        assert queue.events() == []
        os.close(writer)
        assert queue.event().flags & EOF
    finally:
        os.close(reader)


# -- EVFILT_WRITE ---------------------------------------------------------------------------------------


def test_data_of_the_write_filter_is_the_room_that_is_left(queue: Queue, pair: Pair) -> None:
    """It shrinks, and when there is none the filter does not report."""
    near, _ = pair
    queue.change(near, WRITE, ADD)
    room = queue.event().data
    assert room > 0
    fill(near)
    while found := queue.events():
        assert found[0].data < room
        fill(near)


def test_the_write_filter_ends_when_the_reader_does(queue: Queue) -> None:
    reader, writer = os.pipe()
    try:
        queue.change(writer, WRITE, ADD)
        assert not queue.event().flags & EOF
        os.close(reader)
        assert queue.event().flags & EOF
    finally:
        os.close(writer)


def test_a_socket_that_connects_is_writable_when_it_has(queue: Queue, listener: socket.socket) -> None:
    with socket.socket() as sock:
        sock.setblocking(False)
        assert sock.connect_ex(listener.getsockname()) in (0, errno.EINPROGRESS)
        queue.change(sock, WRITE, ADD | CLEAR)
        found = queue.event()
        assert not found.flags & EOF
        assert found.fflags == 0
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def test_a_refused_connection_is_an_end_with_its_error(queue: Queue) -> None:
    with socket.socket() as nobody, socket.socket() as sock:
        nobody.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        assert sock.connect_ex(nobody.getsockname()) in (errno.EINPROGRESS, errno.ECONNREFUSED)
        queue.change(sock, WRITE, ADD | CLEAR)
        found = queue.event()
        assert found.flags & EOF
        assert found.fflags == errno.ECONNREFUSED
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED


# -- descriptors that are closed ------------------------------------------------------------------------


def test_closing_a_descriptor_removes_its_events(queue: Queue, pair: Pair) -> None:
    near, far = pair
    queue.change(near, READ, ADD)
    far.send(b"x")
    assert queue.event().filter == READ
    near.close()
    assert queue.events() == []


def test_who_gets_the_number_next_inherits_no_events(queue: Queue, pair: Pair) -> None:
    near, _ = pair
    queue.change(near, READ, ADD | CLEAR)
    number = near.fileno()
    near.close()
    with using_number(number) as peer:
        peer.send(b"x")
        assert queue.events() == []
        with pytest.raises(FileNotFoundError):
            queue.change(number, READ, DELETE)
        queue.change(number, READ, ADD)
        assert queue.event().ident == number


def test_a_bad_descriptor(queue: Queue, pair: Pair) -> None:
    """EBADF, whatever is to be done with it."""
    near, _ = pair
    number = near.fileno()
    near.close()
    for flags in (ADD, DELETE, ENABLE):
        with pytest.raises(OSError, match="Bad file descriptor") as caught:
            queue.change(number, READ, flags)
        assert caught.value.errno == errno.EBADF


# -- EVFILT_USER ----------------------------------------------------------------------------------------

has_user_events = pytest.mark.skipif(USER is None, reason="this system's EVFILT_USER is not known")


@has_user_events
def test_a_user_event_is_triggered_by_the_user(queue: Queue) -> None:
    queue.change(1, USER, ADD | CLEAR)
    assert queue.events() == []
    queue.change(1, USER, 0, NOTE_TRIGGER)
    found = queue.event()
    assert (found.ident, found.filter) == (1, USER)
    assert queue.events() == [], "EV_CLEAR resets it"
    queue.change(1, USER, 0, NOTE_TRIGGER)
    queue.change(1, USER, 0, NOTE_TRIGGER)
    assert queue.event().ident == 1
    assert queue.events() == [], "twice is once"


@has_user_events
def test_a_user_event_without_clear_stays_triggered(queue: Queue) -> None:
    queue.change(1, USER, ADD)
    queue.change(1, USER, 0, NOTE_TRIGGER)
    assert queue.event().ident == 1
    assert queue.event().ident == 1


@has_user_events
def test_the_users_flags(queue: Queue) -> None:
    """The lower 24 bits of fflags are copied, joined or masked, and come back."""
    queue.change(1, USER, ADD | CLEAR, NOTE_FFCOPY | 0b0011)
    queue.change(1, USER, 0, NOTE_FFOR | 0b0100)
    queue.change(1, USER, 0, NOTE_FFAND | 0b0110)
    queue.change(1, USER, 0, NOTE_TRIGGER | 0b1000)  # NOTE_FFNOP: ignored
    assert queue.event().fflags & 0x00FFFFFF == 0b0110


@has_user_events
def test_a_user_event_wakes_another_thread(queue: Queue) -> None:
    queue.change(1, USER, ADD | CLEAR)
    found: list[Any] = []
    waiting = threading.Thread(target=lambda: found.append(queue.event()))
    waiting.start()
    queue.change(1, USER, 0, NOTE_TRIGGER)
    waiting.join(PATIENCE)
    assert found[0].ident == 1


@has_user_events
def test_a_user_event_that_is_not_there(queue: Queue) -> None:
    with pytest.raises(FileNotFoundError):
        queue.change(7, USER, 0, NOTE_TRIGGER)


# -- the double's own ways -------------------------------------------------------------------------------


@double_only
def test_acknowledged_output_is_a_change(queue: Queue, listener: socket.socket) -> None:
    """Every acknowledgement frees room, and FreeBSD's kernel notifies the write filter of each."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with socket.create_connection(listener.getsockname()) as near, listener.accept()[0] as far:
        near.send(bytes(65536))
        queue.change(near, WRITE, ADD | CLEAR)
        assert queue.event().filter == WRITE, "there is room all the while"
        assert queue.events() == []
        drain(far, 65536)
        assert queue.event().filter == WRITE
        assert queue.events() == []


@double_only
def test_the_end_of_our_own_direction_is_one_for_the_write_filter(queue: Queue, pair: Pair) -> None:
    near, _ = pair
    queue.change(near, WRITE, ADD)
    assert not queue.event().flags & EOF
    near.shutdown(socket.SHUT_WR)
    assert queue.event().flags & EOF


@double_only
def test_a_datagrams_error_is_no_end(queue: Queue) -> None:
    """It is to be heard of, once."""
    with (
        socket.socket(type=socket.SOCK_DGRAM) as nobody,
        socket.socket(type=socket.SOCK_DGRAM) as sock,
        socket.socket(type=socket.SOCK_DGRAM) as peer,
    ):
        nobody.bind(("127.0.0.1", 0))
        peer.bind(("127.0.0.1", 0))
        address = nobody.getsockname()
        nobody.close()
        sock.connect(address)
        queue.change(sock, READ, ADD | CLEAR)
        sock.send(b"to nobody")
        found = queue.event()
        assert not found.flags & EOF
        with pytest.raises(ConnectionRefusedError):
            sock.recv(1)
        peer.connect(sock.getsockname())
        sock.connect(peer.getsockname())
        peer.send(b"")
        assert queue.event().filter == READ, "an empty datagram is one"


@double_only
def test_what_is_no_socket_and_no_pipe(queue: Queue) -> None:
    with open(os.devnull, "rb") as other, open(__file__, "rb") as regular:
        for file in (other, regular):
            with pytest.raises(OSError, match="Invalid argument"):
                queue.change(file, READ, ADD)


@double_only
def test_a_file_that_lives_on_elsewhere_is_closed_here(queue: Queue, pair: Pair) -> None:
    """Events go with the descriptor, not with the file."""
    near, far = pair
    number = near.fileno()
    queue.change(near, READ, ADD)
    with near.dup():
        near.close()
        far.send(b"x")
        assert queue.events() == []
        with using_number(number) as peer:
            queue.change(number, READ, ADD)
            peer.send(b"y")
            assert queue.event().ident == number
