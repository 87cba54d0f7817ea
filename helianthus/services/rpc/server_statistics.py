"""What a server knows of the calls that it has served."""

from __future__ import annotations

from typing import Any

import attrs

from ...drivers.link_statistics import LinkStatistics
from ...protocols.rpc import StatisticsTable


@attrs.define
class PeerStatistics:
    """One connection.

    Attributes:
        address: Of the peer, as `host:port`.
        methods: What the peer has called, by method.
        transport: Bytes, stalls and dropped messages of its connection.
    """

    address: str
    methods: StatisticsTable
    transport: LinkStatistics = attrs.Factory(LinkStatistics)

    def summary(self) -> dict[str, Any]:
        """The same in plain values."""
        transport = attrs.asdict(self.transport)
        del transport["links"]
        return {"address": self.address, "methods": self.methods.summary(), "transport": transport}


@attrs.define
class ServerStatistics:
    """All connections, those that have ended included.

    Attributes:
        methods: What was called, by method; names that are no method share the entry "".
        peers: Those that are connected, oldest first.
    """

    methods: StatisticsTable
    peers: list[PeerStatistics]

    def summary(self) -> dict[str, Any]:
        """The same in plain values, as `node.stats` gives them."""
        return {
            "methods": self.methods.summary(),
            "peers": [peer.summary() for peer in self.peers],
        }
