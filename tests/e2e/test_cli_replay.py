"""`helianthus replay`: a connection that was recorded is done again."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest
from commands import DRIVERS, EXAMPLES, SERVICES, helianthus, serving


def only(directory: Path, pattern: str = "*.recording") -> Path:
    (path,) = directory.glob(pattern)
    return path


@pytest.mark.parametrize("driver", DRIVERS)
def test_both_ends_of_a_call_on_every_driver(driver: str, tmp_path: Path) -> None:
    client, server = tmp_path / "client", tmp_path / "server"
    node = str(EXAMPLES / "node.toml")
    with serving(node, HELIANTHUS_RECORD=str(server), HELIANTHUS_DRIVER=driver) as running:
        variables = {"HELIANTHUS_RECORD": str(client), "HELIANTHUS_DRIVER": driver}
        assert helianthus("call", running.url, "calculator.add", "2", "3", **variables).succeeded() == ["5"]
    header, *events, summary = helianthus("replay", str(only(client))).succeeded()
    assert f"connection to {running.url}" in header
    assert events[0].split()[1].startswith("HelloReceived(")
    assert "ResponseReceived(" in events[-1]
    assert "result=5" in events[-1]
    assert summary.endswith("the same as recorded")
    header, *events, summary = helianthus("replay", str(only(server))).succeeded()
    assert "RpcSession, connection from 127.0.0.1:" in header
    assert any("method='calculator.add', params=[2, 3]" in event for event in events)
    assert summary.endswith("the same as recorded")


def test_a_server_that_is_killed_leaves_what_came_last(tmp_path: Path) -> None:
    with serving("--service", SERVICES, HELIANTHUS_RECORD=str(tmp_path)) as node:
        assert helianthus("call", node.url, "probe.nothing").succeeded() == ["null"]
        node.running.process.kill()
        node.running.wait()
    out = helianthus("replay", "--all", str(only(tmp_path))).succeeded()
    assert any("<- " in line and "probe.nothing" in line for line in out)
    assert any("respond(" in line and ", None)" in line for line in out)
    assert any("-> " in line for line in out)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no mode bits")
def test_only_the_owner_can_read_a_recording(tmp_path: Path) -> None:
    with serving("--service", SERVICES, HELIANTHUS_RECORD=str(tmp_path)) as node:
        helianthus("call", node.url, "probe.nothing").succeeded()
    assert stat.S_IMODE(os.stat(only(tmp_path)).st_mode) == 0o600


def test_several_recordings(tmp_path: Path) -> None:
    with serving("--service", SERVICES, HELIANTHUS_RECORD=str(tmp_path)) as node:
        for _ in range(2):
            helianthus("call", node.url, "probe.nothing").succeeded()
    paths = sorted(map(str, tmp_path.iterdir()))
    assert len(paths) == 2
    out = helianthus("replay", *paths).succeeded()
    assert len([line for line in out if line.endswith("the same as recorded")]) == 2


def test_a_recording_that_was_cut_off_says_so(tmp_path: Path) -> None:
    with serving("--service", SERVICES, HELIANTHUS_RECORD=str(tmp_path)) as node:
        helianthus("call", node.url, "probe.nothing").succeeded()
    path = only(tmp_path)
    path.write_bytes(path.read_bytes()[:-3])
    assert (
        "# the recording stops there: the file ends in the middle of a record"
        in helianthus("replay", str(path)).out
    )


def test_a_difference_is_shown(tmp_path: Path) -> None:
    with serving("--service", SERVICES, HELIANTHUS_RECORD=str(tmp_path)) as node:
        helianthus("call", node.url, "probe.nothing").succeeded()
    path = only(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"method='probe.nothing'", b"method='probe.anybody'"))
    done = helianthus("replay", str(path))
    done.failed(1, "step ", "take_events() gave", "recorded: ", "probe.anybody", "now: ", "probe.nothing")
    assert "not the same as recorded" in done.out


def test_a_directory_that_cannot_be_says_where_it_was_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = helianthus(
        "call", "tcp://127.0.0.1:1", "a.b", HELIANTHUS_RECORD=str(tmp_path / "file" / "directory")
    )
    done.failed(1, "HELIANTHUS_RECORD names", "where no recording can be made")


def test_what_is_no_recording_says_so(tmp_path: Path) -> None:
    path = tmp_path / "x.recording"
    path.write_text("hello")
    helianthus("replay", str(path)).failed(1, f"{path}: this is no recording")
    helianthus("replay", str(tmp_path / "missing")).failed(2, "No such file")
