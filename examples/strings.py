"""A second service for the same node; see node.toml."""

from __future__ import annotations

from helianthus import Service, method


class Strings(Service):
    """Changes to texts."""

    @method
    def reverse(self, text: str) -> str:
        """Turn a text round."""
        return text[::-1]

    @method
    def uppercase(self, text: str) -> str:
        """Write a text in capitals."""
        return text.upper()

    @method
    def lowercase(self, text: str) -> str:
        """Write a text in small letters."""
        return text.lower()
