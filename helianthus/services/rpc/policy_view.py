"""A client seen through one policy; it owns nothing."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ..cancel import CancelToken
from .before_call import join_params
from .call_policy import CallPolicy
from .proxy import ServiceProxy, proxy_of
from .stream import StreamCall

if TYPE_CHECKING:
    from .blocking import BlockingClient
    from .blocking_stream import BlockingStream
    from .client import Client

T = TypeVar("T")


class PolicyView:
    """A `Client` whose calls all follow one policy; what it has besides is asked of the client."""

    def __init__(self, client: Client, policy: CallPolicy) -> None:
        self._client = client
        self._policy = policy

    def call(
        self,
        method: str,
        /,
        *params: Any,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        meta: dict[str, Any] | None = None,
        **keywords: Any,
    ) -> Coroutine[Any, Any, Any]:
        """As `Client.call`."""
        given = join_params(method, params, keywords)
        return self._client.call_by(self._policy, method, given, timeout, cancel, meta)

    async def notify(
        self,
        method: str,
        /,
        *params: Any,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        meta: dict[str, Any] | None = None,
        **keywords: Any,
    ) -> None:
        """As `Client.notify`."""
        given = join_params(method, params, keywords)
        await self._client.notify_by(self._policy, method, given, timeout, cancel, meta)

    def stream(
        self,
        method: str,
        /,
        *params: Any,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        meta: dict[str, Any] | None = None,
        **keywords: Any,
    ) -> StreamCall:
        """As `Client.stream`."""
        given = join_params(method, params, keywords)
        return self._client.stream_by(self._policy, method, given, timeout, cancel, meta)

    @overload
    def service(self, service: str) -> ServiceProxy: ...
    @overload
    def service(self, service: type[T]) -> T: ...
    def service(self, service: str | type[T]) -> ServiceProxy | T:
        """As `Client.service`."""
        return proxy_of(self, service)  # type: ignore[no-any-return]  # it stands in for what is declared


class BlockingPolicyView:
    """A `BlockingClient` whose calls all follow one policy."""

    def __init__(self, client: BlockingClient, policy: CallPolicy) -> None:
        self._client = client
        self._policy = policy

    def call(
        self,
        method: str,
        /,
        *params: Any,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        meta: dict[str, Any] | None = None,
        **keywords: Any,
    ) -> Any:
        """As `BlockingClient.call`."""
        given = join_params(method, params, keywords)
        return self._client.call_by(self._policy, method, given, timeout, cancel, meta)

    def notify(
        self,
        method: str,
        /,
        *params: Any,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        meta: dict[str, Any] | None = None,
        **keywords: Any,
    ) -> None:
        """As `BlockingClient.notify`."""
        given = join_params(method, params, keywords)
        self._client.notify_by(self._policy, method, given, timeout, cancel, meta)

    def stream(
        self,
        method: str,
        /,
        *params: Any,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        meta: dict[str, Any] | None = None,
        **keywords: Any,
    ) -> BlockingStream:
        """As `BlockingClient.stream`."""
        given = join_params(method, params, keywords)
        return self._client.stream_by(self._policy, method, given, timeout, cancel, meta)

    @overload
    def service(self, service: str) -> ServiceProxy: ...
    @overload
    def service(self, service: type[T]) -> T: ...
    def service(self, service: str | type[T]) -> ServiceProxy | T:
        """As `BlockingClient.service`."""
        return proxy_of(self, service)  # type: ignore[no-any-return]  # it stands in for what is declared
