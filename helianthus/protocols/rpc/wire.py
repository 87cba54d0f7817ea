"""MessagePack-RPC messages and the extensions to them, as numbers; `encoder.py` has their bytes.

| type | message | |
|---|---|---|
| 0 | `[0, msgid, method, params]` or `[..., meta]` | request |
| 1 | `[1, msgid, error, result]` | response |
| 2 | `[2, method, params]` or `[..., meta]` | notification |
| 3 | `[3, msgid]` | cancel |
| 4 | `[4, msgid, item]` | stream item |
| 5 | `[5, msgid]` | the caller's half of a stream ends |
| 6 | `[6, msgid, n]` | credit for n more items |
| 7 | `[7, token, is_reply]` | ping |
| 8 | `[8, last_msgid, reason]` | goaway |

Types 0 to 2 are https://github.com/msgpack-rpc/msgpack-rpc/blob/master/spec.md. All else is sent
only to a peer that announced it with the notification `helianthus.hello`. Between two such peers
a message id names one call on the connection, whoever made it, because stream items travel both
ways: whoever opened the connection uses odd ids, the other side even ones.
"""

from __future__ import annotations

from ..errors import LocalProtocolError, RemoteProtocolError

REQUEST = 0
RESPONSE = 1
NOTIFICATION = 2
CANCEL = 3
ITEM = 4
END = 5
CREDIT = 6
PING = 7
GOAWAY = 8

MAX_MSGID = 0xFFFFFFFF
HELLO = "helianthus.hello"
VERSION = 1


class ExtensionsMissing(LocalProtocolError):
    """A call needs extensions that the peer has not announced, or not yet."""


class OversizedMessage(LocalProtocolError):
    """A message of ours is larger than the limit, and was not sent."""


def is_after(msgid: int, last: int) -> bool:
    """Whether an id was given out after another, in spite of the wrap at 32 bits (RFC 1982)."""
    return 0 < (msgid - last) % (MAX_MSGID + 1) <= MAX_MSGID // 2


_TLS_HINTS = {
    0x16: "; so begins TLS: serve a tls:// address, or have the peer connect to tcp://",
    0x15: "; so begins the answer of a TLS port: connect to tls://",
}
"""What to do about bytes with which a record of TLS begins (RFC 8446, 5.1), a handshake's and an alert's."""


def malformed(message: object) -> RemoteProtocolError:
    """The error for something that is no message; names its form, not its content."""
    if not isinstance(message, list):
        hint = _TLS_HINTS.get(message, "") if isinstance(message, int) else ""
        return RemoteProtocolError(f"a message must be an array, got {type(message).__name__}{hint}")
    if not message:
        return RemoteProtocolError("a message must not be an empty array")
    kinds = ", ".join(type(part).__name__ for part in message[1:6])
    kind = message[0] if isinstance(message[0], int) else type(message[0]).__name__
    return RemoteProtocolError(f"malformed message of type {kind}: {len(message)} elements ({kinds})")
