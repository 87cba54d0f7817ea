"""What a server knows of the calls that it has served."""

from __future__ import annotations

from typing import Any

import attrs

from ...protocols.rpc import StatisticsTable


@attrs.define
class PeerStatistics:
    """One connection.

    Attributes:
        address: Of the peer, as `host:port`.
        methods: What the peer has called, by method.
    """

    address: str
    methods: StatisticsTable


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
            "peers": [{"address": peer.address, "methods": peer.methods.summary()} for peer in self.peers],
        }
