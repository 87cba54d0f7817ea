"""Statistics of calls as Prometheus samples, made when they are scraped.

Counting a call in a labelled counter of the Prometheus client costs as much as decoding four
messages. So calls are counted in plain integers, which this collector reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ...protocols.rpc import CallStatistics, StatisticsTable, StatusCode

if TYPE_CHECKING:
    from .blocking import BlockingClient
    from .client import Client
    from .server import Server

BOUNDS = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
"""Upper bounds of the latency buckets, in seconds: Prometheus' own, and shorter ones."""


class RpcCollector(Collector):
    """Register it with a Prometheus registry: `REGISTRY.register(RpcCollector(servers=[server]))`.

    Names begin with `helianthus_server_` or `helianthus_client_`, and each sample has the label
    `method`. `node.stats` and the registry's thread may ask at the same time as calls are made: a
    scrape then sees some calls and not yet others.

    Args:
        servers: Whose served calls are told.
        clients: Whose own calls are told.
    """

    def __init__(
        self, servers: Iterable[Server] = (), clients: Iterable[Client | BlockingClient] = ()
    ) -> None:
        self._servers = list(servers)
        self._clients = list(clients)

    def collect(self) -> Iterator[Metric]:
        """The samples of now."""
        if self._servers:
            tables = [server.statistics().methods for server in self._servers]
            yield from _families("helianthus_server", _sum_of(tables))
        if self._clients:
            yield from _families("helianthus_client", _sum_of([c.statistics() for c in self._clients]))


def _sum_of(tables: Iterable[StatisticsTable]) -> dict[str, CallStatistics]:
    total = StatisticsTable()
    for table in tables:
        total.add(table)
    return total.by_method


def _families(prefix: str, methods: dict[str, CallStatistics]) -> list[Metric]:
    calls = CounterMetricFamily(f"{prefix}_calls", "Calls that have ended", labels=["method", "code"])
    seconds = HistogramMetricFamily(f"{prefix}_call_seconds", "How long calls took", labels=["method"])
    running = GaugeMetricFamily(f"{prefix}_calls_running", "Calls in flight", labels=["method"])
    notifications = CounterMetricFamily(
        f"{prefix}_notifications", "Calls that want no answer", labels=["method"]
    )
    received = CounterMetricFamily(f"{prefix}_received_bytes", "Encoded, of calls", labels=["method"])
    sent = CounterMetricFamily(f"{prefix}_sent_bytes", "Encoded, of calls", labels=["method"])
    retries = CounterMetricFamily(f"{prefix}_retries", "Attempts after the first", labels=["method"])
    for method, entry in sorted(methods.items()):
        for code, count in _by_code(entry).items():
            calls.add_metric([method, code], count)
        seconds.add_metric([method], _buckets(entry), entry.latency.total)
        running.add_metric([method], entry.running)
        notifications.add_metric([method], entry.notifications)
        received.add_metric([method], entry.bytes_in)
        sent.add_metric([method], entry.bytes_out)
        retries.add_metric([method], entry.retries)
    return [calls, seconds, running, notifications, received, sent, retries]


def _by_code(entry: CallStatistics) -> dict[str, int]:
    errors = {code.name: entry.errors[code] for code in sorted(entry.errors)}
    return {StatusCode.OK.name: entry.calls - entry.failed, **errors}


def _buckets(entry: CallStatistics) -> list[tuple[str, float]]:
    counts = entry.latency.counts_up_to(BOUNDS)
    return [*zip(map(str, BOUNDS), map(float, counts), strict=True), ("+Inf", float(entry.calls))]
