"""Calling services from plain code: each call returns when its answer is there.

    helianthus serve examples/node.toml
    python examples/client_sync.py

There is no thread behind it, and no event loop: it can be used wherever blocking is fine.
"""

from __future__ import annotations

import sys

import helianthus


def main(url: str) -> None:
    with helianthus.connect_sync(url) as client:
        # By full name, or through an object that stands for the service.
        print("2 + 3 =", client.call("calculator.add", 2, 3, timeout=5))
        calculator = client.service("calculator")
        print("7 / 2 =", calculator.divide(a=7, b=2))

        try:
            calculator.divide(1, 0)
        except helianthus.RpcError as error:
            print("1 / 0:", error)

        for number in client.stream("calculator.count", 3):
            print("counting:", number)

        with client.stream("calculator.total") as total:
            for number in (1.5, 2.5, 3.5):
                total.send(number)
            print("1.5 + 2.5 + 3.5 =", total.result())


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:7070")
