"""Helianthus' RPC as its users write it: a service, a server, a client, on any driver."""

from __future__ import annotations

import argparse
from functools import partial

import helianthus
from benchmarks.contestants.rpc.load import Load, Outcome, parse_role, report, run
from benchmarks.contestants.serving import LOOPBACK, announce


class Calculator(helianthus.Service):
    @helianthus.method
    def add(self, a: float, b: float) -> float:
        return a + b


async def serve() -> None:
    server = helianthus.Server([Calculator()])
    await server.listen(f"tcp://{LOOPBACK}:0")
    announce(LOOPBACK, server.addresses[0].port)
    await server.serve_forever()


async def load_server(host: str, port: int, load: Load) -> Outcome:
    async with helianthus.connect(f"tcp://{host}:{port}") as client:
        return await run(partial(client.call, "calculator.add"), load)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--driver", required=True)
    role = parse_role(parser)
    driver = role.options.driver
    if role.load is None:
        helianthus.run(serve(), driver=driver)
    else:
        report(helianthus.run(load_server(role.host, role.port, role.load), driver=driver))


if __name__ == "__main__":
    main()
