"""The transition tables are what the machines do, and what the documentation draws."""

from __future__ import annotations

import ast
import enum
import importlib
import importlib.util
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rpc_pair import Talk, pack

import helianthus.protocols
from helianthus.protocols.machine import Closing
from helianthus.protocols.rpc import SESSION_TRANSITIONS, RpcSession, SessionInput, SessionState

OPEN, DRAINING, ENDED = SessionState.OPEN, SessionState.DRAINING, SessionState.ENDED

Table = dict[tuple[enum.Enum, enum.Enum], enum.Enum]
Act = Callable[[Talk], None]


def tables() -> dict[str, Table]:
    """Every transition table of the protocols, by the name of the enum of its states."""
    package = helianthus.protocols
    found: dict[str, Table] = {}
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            if name == "TRANSITIONS" or name.endswith("_TRANSITIONS"):
                state, _ = next(iter(value))
                found[type(state).__name__] = value
    return found


TABLES = tables()

every_table = pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())


def test_the_tables_are_found() -> None:
    assert {"SessionState", "FramingState"} <= set(TABLES)


@every_table
def test_every_state_can_be_reached_and_some_cannot_be_left(table: Table) -> None:
    states = list(type(next(iter(table))[0]))
    reached = {states[0]}
    while more := {end for (start, _), end in table.items() if start in reached} - reached:
        reached |= more
    assert reached == set(states)
    assert set(states) - {start for start, _ in table}, "a machine must come to an end"


@every_table
def test_every_input_moves_something_and_none_leads_nowhere(table: Table) -> None:
    inputs = list(type(next(iter(table))[1]))
    assert {cause for _, cause in table} == set(inputs)
    assert all(start is not end for (start, _), end in table.items())


# -- the session against its table -------------------------------------------------------------------


class Watched(RpcSession):
    """A session that remembers each state that it enters."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.path: list[SessionState] = []
        super().__init__(*args, **options)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "state" and value is not getattr(self, "state", None):
            self.path.append(value)
        super().__setattr__(name, value)


def watched(state: SessionState, *, busy: bool) -> tuple[Talk, Watched]:
    """A session in this state, with a call and a request in flight or without."""
    talk = Talk()
    session = Watched(talk.now, initiator=True)
    session.receive_data(pack([2, "helianthus.hello", [{"version": 1, "credit": 9}]]), talk.now)
    talk.session = session
    if busy or state is DRAINING:
        talk.hear([0, 2, "m", []])
        talk.sent_call()
    if state is DRAINING:
        session.goaway("restart")
    elif state is ENDED:
        session.close()
    talk.said()
    talk.events()
    assert session.state is state
    session.path.clear()
    return talk, session


def answer_everything(talk: Talk) -> None:
    talk.hear([1, 1, None, None])
    if talk.session.awaits_answer(2):
        talk.session.respond(2, None)


INPUTS: dict[SessionInput, list[Act]] = {
    SessionInput.GOAWAY: [lambda talk: talk.session.goaway("again"), lambda talk: talk.hear([8, 1, "bye"])],
    SessionInput.EOF: [Talk.end],
    SessionInput.IDLE: [answer_everything],
    SessionInput.CLOSE: [lambda talk: talk.session.close()],
    SessionInput.FAULT: [lambda talk: talk.hear([9]), lambda talk: talk.hear_bytes(b"\xc1")],
    SessionInput.LOSS: [Talk.lose, lambda talk: talk.lose(OSError("cable pulled"))],
}


@pytest.mark.parametrize("busy", [True, False])
@pytest.mark.parametrize("cause", SessionInput, ids=lambda cause: cause.name)
@pytest.mark.parametrize("state", SessionState, ids=lambda state: state.name)
def test_every_input_in_every_state_does_what_the_table_says(
    state: SessionState, cause: SessionInput, busy: bool
) -> None:
    """Where nothing is in flight, whatever begins to drain has finished draining."""
    for act in INPUTS[cause]:
        talk, session = watched(state, busy=busy)
        act(talk)
        expected: list[SessionState] = []
        after = SESSION_TRANSITIONS.get((state, cause), state)
        if after is not state:
            expected.append(after)
        if after is DRAINING and not session.pending_calls and not session.pending_requests:
            expected.append(SESSION_TRANSITIONS[DRAINING, SessionInput.IDLE])
        assert session.path == expected
        assert (session.state is ENDED) == (session.closing is not Closing.OPEN)


def test_the_inputs_are_all_that_moves_a_session() -> None:
    assert set(INPUTS) == set(SessionInput)
    talk, session = watched(OPEN, busy=True)
    talk.hear([2, "n", []], [7, 1, False], [3, 2], [0, 4, "m", [], {"stream": 3, "timeout": 10}], [4, 4, 1])
    session.call("m", [], talk.now, timeout=1.0)
    session.ping(1)
    session.send_item(4, 1)
    session.respond(4, None)
    session.cancel(1)
    talk.wait(10.0)
    assert session.path == []


def test_the_state_is_assigned_in_one_place() -> None:
    """Where the table is looked up, besides the beginning."""
    package = Path(helianthus.protocols.__file__).parent / "rpc"
    places = [
        ast.unparse(node.value)
        for path in sorted(package.glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "self.state"
    ]
    assert places == [
        "SessionState.OPEN",
        "SESSION_TRANSITIONS.get((self.state, cause), self.state)",
    ]


# -- the documentation -------------------------------------------------------------------------------


def test_the_documentation_draws_every_table(tmp_path: Path) -> None:
    source = Path(__file__).parents[2] / "docs" / "generated.py"
    spec = importlib.util.spec_from_file_location("docs_generated", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.write_all(tmp_path)
    drawn = [path.read_text(encoding="utf-8") for path in sorted(tmp_path.iterdir())]
    for table in TABLES.values():
        state, cause = next(iter(table))
        names = [str(member.value) for member in (*type(state), *type(cause))]
        assert any(all(name in text for name in names) for text in drawn), names
