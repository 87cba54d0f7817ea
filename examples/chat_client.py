"""Client stub of the service chat, by `helianthus describe --python`."""

from __future__ import annotations

from typing import Any, ClassVar

from helianthus import CancelToken
from helianthus.stubs import BlockingServerStream, ServerStream

__all__ = ["BlockingChat", "Chat"]


class Chat:
    """Rooms, which come with their first member and go with their last.

    For `client.service(Chat)` of a `helianthus.connect` client.
    """

    name: ClassVar[str] = "chat"

    def join(
        self,
        room: str,
        name: str,
        *,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        meta: dict[str, Any] | None = None,
    ) -> ServerStream[dict[str, Any]]:
        """Enter a room, and hear what has happened there, and what happens, until you leave.

        Events are {"kind": "said", "name": ..., "text": ...}, {"kind": "joined" or "left", "name":
        ...}, and {"kind": "skipped", "count": ...} for those that had to give way.
        """
        raise NotImplementedError

    async def leave(
        self,
        room: str,
        *,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        meta: dict[str, Any] | None = None,
    ) -> None:
        """Leave a room; its stream ends."""
        raise NotImplementedError

    async def rooms(
        self,
        *,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        meta: dict[str, Any] | None = None,
    ) -> dict[str, int]:
        """How many are in each room."""
        raise NotImplementedError

    async def say(
        self,
        room: str,
        text: str,
        *,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        meta: dict[str, Any] | None = None,
    ) -> int:
        """Say something in a room that you have entered; returns how many are there to hear it."""
        raise NotImplementedError

    async def who(
        self,
        room: str,
        *,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        meta: dict[str, Any] | None = None,
    ) -> list[str]:
        """Who is in a room."""
        raise NotImplementedError


class BlockingChat:
    """Rooms, which come with their first member and go with their last.

    For `client.service(BlockingChat)` of a `helianthus.connect_sync` client.
    """

    name: ClassVar[str] = "chat"

    def join(
        self,
        room: str,
        name: str,
        *,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        meta: dict[str, Any] | None = None,
    ) -> BlockingServerStream[dict[str, Any]]:
        """Enter a room, and hear what has happened there, and what happens, until you leave.

        Events are {"kind": "said", "name": ..., "text": ...}, {"kind": "joined" or "left", "name":
        ...}, and {"kind": "skipped", "count": ...} for those that had to give way.
        """
        raise NotImplementedError

    def leave(
        self,
        room: str,
        *,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        meta: dict[str, Any] | None = None,
    ) -> None:
        """Leave a room; its stream ends."""
        raise NotImplementedError

    def rooms(
        self,
        *,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        meta: dict[str, Any] | None = None,
    ) -> dict[str, int]:
        """How many are in each room."""
        raise NotImplementedError

    def say(
        self,
        room: str,
        text: str,
        *,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        meta: dict[str, Any] | None = None,
    ) -> int:
        """Say something in a room that you have entered; returns how many are there to hear it."""
        raise NotImplementedError

    def who(
        self,
        room: str,
        *,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        meta: dict[str, Any] | None = None,
    ) -> list[str]:
        """Who is in a room."""
        raise NotImplementedError
