"""A line server on plain sockets: it answers each line of each client in capitals.

    python examples/line_server.py
    nc 127.0.0.1 7000

A client that says nothing for a while is let go, and so are all of them at the end: one token cancels
whatever their connections are doing, and the answers that are on their way are still sent.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib

import helianthus
from helianthus.errors import LimitExceeded, TransportError
from helianthus.sockets import (
    CancelToken,
    IncompleteRead,
    OperationCancelled,
    OperationTimedOut,
    TcpSocket,
    cancel_scope,
    listen,
)

LONGEST_LINE = 1000
"""Bytes; who sends more without a line break is told so."""


async def serve(sock: TcpSocket, patience: float) -> None:
    async with sock:
        try:
            while True:
                line = await sock.recv_until(b"\n", limit=LONGEST_LINE, timeout=patience)
                await sock.send_all(line.upper(), timeout=patience)
        except IncompleteRead:
            pass  # the client has said everything
        except LimitExceeded:
            await sock.send_all(b"a line has at most %d bytes\n" % LONGEST_LINE)
        except OperationTimedOut:
            await sock.send_all(b"you are very quiet; goodbye\n")
        except (OperationCancelled, TransportError) as reason:
            print(f"{sock.peer_address}: {reason}", flush=True)


async def main(url: str, patience: float, seconds: float) -> None:
    end = CancelToken()
    async with await listen(url) as listener, asyncio.TaskGroup() as connections:
        print(f"listening on {listener.address}", flush=True)
        with cancel_scope(cancel=end):  # the tasks that are made in it are in it, too
            asyncio.get_running_loop().call_later(seconds or 1e9, end.cancel, "the server ends")
            with contextlib.suppress(OperationCancelled):
                async for sock in listener:
                    connections.create_task(serve(sock, patience))
    print("the end")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Answers lines in capitals.")
    parser.add_argument("--listen", default="tcp://127.0.0.1:7000", help="default: %(default)s")
    parser.add_argument("--patience", type=float, default=60, help="seconds; default: %(default)s")
    parser.add_argument("--seconds", type=float, default=0, help="end then; 0 goes on until Ctrl-C")
    parser.add_argument("--driver", help="such as epoll or asyncio; by default the fastest")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        helianthus.run(main(options.listen, options.patience, options.seconds), driver=options.driver)
