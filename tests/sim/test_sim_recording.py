"""Connections under faults are recorded, and each does the same when it is replayed."""

from __future__ import annotations

from pathlib import Path

import pytest
from rpc_swarm import run_world

from helianthus.protocols.recording import Replay

WORLDS = 3


@pytest.mark.parametrize("seed", range(WORLDS))
def test_whatever_happens_a_replay_does_the_same(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unrecorded, _ = run_world(seed)
    monkeypatch.setenv("HELIANTHUS_RECORD", str(tmp_path))
    assert run_world(seed)[0] == unrecorded, "being recorded changed what happened"
    recordings = sorted(tmp_path.iterdir())
    events = 0
    methods = set()
    for path in recordings:
        with path.open("rb") as file:
            for step in Replay(file).steps():
                assert not step.differs, f"{path.name}, step {step.number}: {step}"
                events += len(step.events)
                methods.add(step.method)
    assert len(recordings) > 10
    assert events > 500
    assert {"receive_data", "receive_eof", "connection_lost", "handle_timeout", "call", "respond"} <= methods
