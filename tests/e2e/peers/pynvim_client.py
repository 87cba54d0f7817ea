"""Calls a node with pynvim's session, and prints what came of it as JSON: HOST PORT NAME."""

from __future__ import annotations

import json
import sys
from typing import Any

from pynvim.msgpack_rpc import tcp_session


class Refused(Exception):
    """An error response; holds what came in it."""


def main(host: str, port: str, name: str) -> None:
    session = tcp_session(host, int(port))  # says hello in Neovim's way: the method's name is bytes
    session.error_wrapper = Refused
    results: dict[str, Any] = {
        "add": session.request("calculator.add", 2, 3),
        "echo": session.request("calculator.echo", {"a": [1, -1, 2**40, 1.5, None, True, "ü" * 300]}),
        "bytes": session.request("calculator.echo", b"\x00\xff" * 50_000) == b"\x00\xff" * 50_000,
        "many": [session.request("calculator.add", i, 1) for i in range(100)],
    }
    for method in ("calculator.fail", "calculator.nothing", "calculator.count"):
        try:
            session.request(method)
        except Refused as error:
            results[method] = error.args[0]
    session.request("guestbook.sign", name, async_=True)
    results["signed"] = session.request("guestbook.signed", name)
    session.request("guestbook.tell", "news", 7)
    told = session.next_message()
    results["told"] = [told.type, told.name, told.args]
    results["asked"] = ask_back(session)
    session.close()
    print(json.dumps(results))


def ask_back(session: Any) -> Any:
    """Have the node call this side while it is being called."""
    answers = []

    def begin() -> None:
        answers.append(session.request("guestbook.ask", "double", 21))
        session.stop()

    def serve(method: str, params: list[Any]) -> Any:
        return params[0] * 2 if method == "double" else None

    session.run(serve, lambda method, params: None, begin)
    return answers[0]


main(*sys.argv[1:])
