"""`helianthus serve`: what it announces, where it looks, how it stops."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from commands import (
    ANYWHERE,
    DRIVERS,
    EXAMPLES,
    SERVICES,
    environment,
    helianthus,
    interrupt_until_it_ends,
    needs_signals,
    running,
    serving,
)
from processes import HERE, LISTENING, Node, helianthus_command

from helianthus import CallContext, Service, connect, connect_sync, method, run

STOPS = [signal.SIGTERM, signal.SIGINT]


# -- starting ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("driver", DRIVERS)
def test_it_says_what_it_serves_where_and_on_which_driver(driver: str) -> None:
    with serving(str(EXAMPLES / "node.toml"), "--driver", driver) as node:
        *said, last = node.running.lines
        assert driver in said[0]
        assert said[0].startswith("driver ")
        assert "serving calculator: add, add_async, count, divide, multiply, subtract, total" in said
        assert "serving strings: lowercase, reverse, uppercase" in said
        assert last == f"listening on {node.url}"
        with connect_sync(node.url) as client:
            assert client.call("calculator.add", 2, 3) == 5
            assert client.call("strings.reverse", "abc") == "cba"


def test_services_need_no_file() -> None:
    with serving("--service", SERVICES, "--service", "cli_services:probe") as node:
        assert _names(node) == ["node", "probe", "probe_object"]


def test_services_of_the_command_line_come_on_top_of_those_of_the_file() -> None:
    with serving(str(EXAMPLES / "node.toml"), "--service", SERVICES) as node:
        assert _names(node) == ["calculator", "node", "probe", "strings"]


@pytest.mark.parametrize("format_", ["toml", "json"])
def test_a_file_is_toml_or_json_and_its_modules_lie_beside_it(format_: str, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "greeter.py").write_text(
        "import helianthus\n\n\nclass Greeter(helianthus.Service):\n"
        "    @helianthus.method\n    def greet(self) -> str:\n        return 'hello'\n"
    )
    listen, services = [ANYWHERE, ANYWHERE], ["greeter:Greeter"]
    file = place / f"node.{format_}"
    if format_ == "json":
        file.write_text(json.dumps({"listen": listen, "services": services, "driver": "asyncio", "grace": 1}))
    else:
        file.write_text(f'listen = {listen}\nservices = {services}\ndriver = "asyncio"\ngrace = 1\n')
    with running("serve", f"place/{file.name}", cwd=tmp_path) as process:
        urls = [process.wait_for_line(LISTENING), process.wait_for_line(LISTENING)]
        assert process.lines[0].startswith("driver asyncio")
        for url in urls:
            with connect_sync(url) as client:
                assert client.call("greeter.greet") == "hello"


def test_the_command_line_beats_the_environment_and_that_the_file(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('driver = "no-such-driver"\n')
    more = [str(file), "--service", SERVICES]
    with serving(*more, HELIANTHUS_DRIVER="asyncio") as node:
        assert node.running.lines[0].startswith("driver asyncio")
    with serving(*more, "--driver", "uvloop", HELIANTHUS_DRIVER="no-such-driver") as node:
        assert node.running.lines[0].startswith("driver asyncio (uvloop)")


def _names(node: Node) -> list[str]:
    with connect_sync(node.url) as client:
        return [service["name"] for service in client.call("node.services")]


# -- what can be wrong -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        ("listn = []", ["unknown key 'listn'", "did you mean 'listen'", "driver, grace, listen, services"]),
        ("[server]\nlisten = []", ["unknown key 'server'", "driver, grace, listen, services"]),
        ("listen = 'tcp://127.0.0.1:0'", ["listen = 'tcp://127.0.0.1:0' is no list", "write it as ["]),
        ("listen = [7070]", ["listen[0] = 7070 is no URL", "tcp://host:port"]),
        ("listen = ['tcp://127.0.0.1:0', 'http://x']", ["listen[1]: 'http://x'", "tcp://host:port"]),
        ("listen = ['tcp://127.0.0.1:99999']", ["listen[0]", "99999", "bad port"]),
        ("services = 'a:B'", ["services = 'a:B' is no list"]),
        ("services = ['Probe']", ["services[0] = 'Probe' names no service", '"module:Class"']),
        ("services = ['../up:Probe']", ["services[0] = '../up:Probe' names no service"]),
        ("services = ['no_such_module:A']", ["services[0]", "no module no_such_module", "PYTHONPATH"]),
        ("services = ['os.nowhere:A']", ["there is no module os.nowhere"]),
        ("services = ['cli_services:Absent']", ["the module cli_services has no Absent"]),
        ("services = ['cli_services:not_a_service']", ["is no service", "helianthus.Service"]),
        ("services = ['cli_services:Unmade']", ["services[0]", "Unmade() failed", "'needed'"]),
        ("services = ['cli_services:Probe', 'cli_services:Twin']", ["two services are named 'probe'"]),
        ("services = ['faulty:A']", ["importing faulty failed: ZeroDivisionError", "faulty.py, line 1"]),
        ("services = ['wrong:A']", ["importing wrong failed: SyntaxError", "wrong.py, line 1"]),
        ("services = ['leaving:A']", ["importing leaving failed: SystemExit"]),
        ("services = ['needy:A']", ["importing needy failed: ModuleNotFoundError", "absent_thing"]),
        ("services = []", ["nothing to serve", "--service"]),
        ("", ["nothing to serve"]),
        ("driver = 7", ["driver = 7 is no driver's name"]),
        ("driver = 'steam'", ["driver", "'steam'", "known are auto, epoll"]),
        ("driver = 'sim'", ["driver: the sim driver knows simulated networks only"]),
        ("driver = 'iocp'", ["driver: ", "iocp"]),
        ("grace = 'long'", ["grace = 'long' is no number of seconds", "30.0"]),
        ("grace = true", ["grace = True is no number of seconds"]),
        ("grace = -1", ["grace = -1 is no number of seconds"]),
        ("grace = inf", ["grace = inf is no number of seconds"]),
        ("listen = [", ["is no valid TOML", "end of document"]),
    ],
)
def test_a_mistake_in_the_file_is_explained(content: str, fragments: list[str], tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(content)
    (tmp_path / "faulty.py").write_text("1 / 0\n")
    (tmp_path / "wrong.py").write_text("def\n")
    (tmp_path / "leaving.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "needy.py").write_text("import absent_thing\n")
    helianthus("serve", str(file)).failed(2, f"{file}: ", *fragments)


@pytest.mark.parametrize(
    ("name", "content", "fragments"),
    [
        ("node.json", b"{", ["is no valid JSON"]),
        ("node.json", b"[]", ["must hold an object"]),
        ("node.json", b"[" * 100_000, ["is no valid JSON"]),
        ("node.toml", b"\xff", ["is no valid TOML", "utf-8"]),
        ("node.yaml", b"", ["ends in .toml or .json"]),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    name: str, content: bytes, fragments: list[str], tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    helianthus("serve", name, cwd=tmp_path).failed(2, name, *fragments)


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["absent.toml"], ["absent.toml", "does not exist"]),
        ([], ["nothing to serve"]),
        (["--service", "Probe"], ["--service = 'Probe' names no service"]),
        (["--service", SERVICES, "--listen", "127.0.0.1:1"], ["--listen", "tcp://host:port"]),
        (["--service", SERVICES, "--grace", "soon"], ["--grace", "'soon'"]),
        (["--service", SERVICES, "--grace", "-1"], ["--grace", "0 or more"]),
        (["--service", SERVICES, "--grace", "nan"], ["--grace", "0 or more"]),
        (["--service", SERVICES, "--driver", "steam"], ["--driver", "'steam'", "known are auto, epoll"]),
        (["--service", SERVICES, "--driver", "sim"], ["--driver: the sim driver"]),
        (["--service", SERVICES, "--turbo"], ["--turbo"]),
    ],
)
def test_a_mistake_on_the_command_line_is_explained(arguments: list[str], fragments: list[str]) -> None:
    helianthus("serve", *arguments).failed(2, *fragments)


def test_a_wrong_environment_is_explained() -> None:
    done = helianthus("serve", "--service", SERVICES, HELIANTHUS_DRIVER="steam")
    done.failed(2, "HELIANTHUS_DRIVER is 'steam'")
    done = helianthus("serve", "--service", SERVICES, HELIANTHUS_DRIVER="sim")
    done.failed(2, "HELIANTHUS_DRIVER: the sim driver")


@pytest.mark.parametrize("driver", DRIVERS)
def test_an_address_in_use_is_named(driver: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        url = f"tcp://127.0.0.1:{other.getsockname()[1]}"
        done = helianthus("serve", "--service", SERVICES, "--listen", url, "--driver", driver)
    done.failed(1, f"{url} is in use already")
    assert "listening" not in done.out


def test_an_address_of_another_machine_is_named() -> None:
    done = helianthus("serve", "--service", SERVICES, "--listen", "tcp://192.0.2.1:7070")
    done.failed(1, "cannot listen at tcp://192.0.2.1:7070")


def test_a_peer_that_talks_nonsense_is_one_line_in_the_log() -> None:
    with serving("--service", SERVICES) as node:
        host, port = node.host_and_port
        with socket.create_connection((host, int(port))) as guest:
            guest.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert guest.recv(1) == b""
        node.running.wait_for_line("WARNING: 127.0.0.1:")
        node.running.stop()
    assert "Traceback" not in node.running.output


def test_a_method_that_fails_is_logged_with_its_traceback() -> None:
    with serving("--service", SERVICES) as node:
        helianthus("call", node.url, "probe.broken").failed(1, "UNKNOWN", "a fault of the service")
        node.running.wait_for_line("ERROR: probe.broken, called by 127.0.0.1:")
        node.running.wait_for_line("KeyError: 'a fault of the service'")


# -- stopping ------------------------------------------------------------------------------------------


class Gate(Service):
    """Keeps a call of ours in flight until the test opens it."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.released = asyncio.Event()

    @method
    async def open(self, context: CallContext) -> None:
        self.reached.set()
        await self.released.wait()


@needs_signals
@pytest.mark.parametrize("number", STOPS)
@pytest.mark.parametrize("driver", DRIVERS)
def test_what_is_in_flight_finishes_and_nobody_new_gets_in(driver: str, number: signal.Signals) -> None:
    async def story(node: Node) -> None:
        gate = Gate()
        async with connect(node.url, [gate]) as client:
            call = asyncio.create_task(client.call("probe.through_the_gate"))
            await gate.reached.wait()
            node.running.process.send_signal(number)
            await asyncio.to_thread(node.running.wait_for_line, "draining: 1 call in flight")
            await asyncio.wait_for(_until_refused(node), 30)
            assert not call.done()
            gate.released.set()
            assert await call == "through"

    with serving("--service", SERVICES, "--driver", driver) as node:
        run(story(node))
        assert node.running.wait() == 0
    assert node.running.lines[-1] == "stopped"


async def _until_refused(node: Node) -> None:
    host, port = node.host_and_port
    while True:
        try:
            reader, writer = await asyncio.open_connection(host, int(port))
            await reader.read()  # until it is let go of, for it came before the listener was closed
            writer.close()
        except ConnectionRefusedError:
            return
        except ConnectionResetError:
            continue  # it was waiting to be accepted when the listener was closed


@needs_signals
@pytest.mark.parametrize("driver", DRIVERS)
def test_an_idle_node_stops_without_waiting(driver: str) -> None:
    with serving("--service", SERVICES, "--driver", driver) as node, connect_sync(node.url) as client:
        client.call("probe.nothing")
        assert node.running.stop() == 0
    assert node.running.lines[-2:] == ["draining: 0 calls in flight, 30 s to finish", "stopped"]


@needs_signals
@pytest.mark.parametrize("driver", DRIVERS)
def test_what_does_not_finish_in_time_is_cancelled(driver: str) -> None:
    with (
        serving("--service", SERVICES, "--driver", driver, "--grace", "0.05") as node,
        running("call", node.url, "probe.wait") as call,
    ):
        node.running.wait_for_line("waiting")
        assert node.running.stop() == 0
        assert call.wait() == 1
        assert "the wait was cancelled" in node.running.lines
        assert "WARNING: calls that had not finished after 0.05 s were cancelled" in node.running.lines


@needs_signals
def test_a_method_that_cannot_be_cancelled_does_not_keep_the_node() -> None:
    with (
        serving("--service", SERVICES, "--grace", "0") as node,
        running("call", node.url, "probe.stubborn"),
    ):
        node.running.wait_for_line("waiting")
        assert node.running.stop() == 0
    assert node.running.lines[-1] == "WARNING: what had been cancelled did not end; it was left as it was"


@needs_signals
@pytest.mark.parametrize("first", STOPS)
@pytest.mark.parametrize("what", ["wait", "stubborn"])
@pytest.mark.parametrize("driver", DRIVERS)
def test_ctrl_c_while_it_stops_ends_it_at_once(driver: str, what: str, first: signal.Signals) -> None:
    with (
        serving("--service", SERVICES, "--driver", driver, "--grace", "1000") as node,
        running("call", node.url, f"probe.{what}"),
    ):
        node.running.wait_for_line("waiting")
        node.running.process.send_signal(first)
        node.running.wait_for_line("draining")
        node.running.process.send_signal(signal.SIGINT)
        assert node.running.wait() == 130
    assert "Traceback" not in node.running.output


@needs_signals
@pytest.mark.parametrize("driver", DRIVERS)
def test_ctrl_c_ends_a_method_that_blocks(driver: str) -> None:
    with (
        serving("--service", SERVICES, "--driver", driver) as node,
        running("call", node.url, "probe.block"),
    ):
        node.running.wait_for_line("blocking")
        code = interrupt_until_it_ends(node.running)
    assert code in (130, -signal.SIGINT)  # the latter where one more came while Python shut down
    assert "Traceback" not in node.running.output


@needs_signals
def test_a_second_sigterm_changes_nothing() -> None:
    async def story(node: Node) -> None:
        gate = Gate()
        async with connect(node.url, [gate]) as client:
            call = asyncio.create_task(client.call("probe.through_the_gate"))
            await gate.reached.wait()
            node.running.process.terminate()
            await asyncio.to_thread(node.running.wait_for_line, "draining")
            node.running.process.terminate()
            gate.released.set()
            assert await call == "through"

    with serving("--service", SERVICES) as node:
        run(story(node))
        assert node.running.wait() == 0


@needs_signals
def test_nobody_has_to_read_what_it_says() -> None:
    with subprocess.Popen(
        [*helianthus_command()[0], "serve", "--service", SERVICES, "--listen", ANYWHERE],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        cwd=HERE,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith(LISTENING):
            assert process.poll() is None
        process.stdout.close()
        process.terminate()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 0
