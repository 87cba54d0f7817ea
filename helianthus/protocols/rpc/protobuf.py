"""Protocol Buffers messages as values: their full name and their bytes.

The package `protobuf` is never imported for a value that is no message: one of ours can only be a
message where the package is loaded already, and one of the peer's says that it is one.
"""

from __future__ import annotations

import sys
from typing import Any, TypeGuard

_MODULE = "google.protobuf.message"


def is_message(value: object) -> bool:
    """Whether a value is a Protocol Buffers message."""
    module = sys.modules.get(_MODULE)
    return module is not None and isinstance(value, module.Message)


def is_message_class(annotation: object) -> TypeGuard[type[Any]]:
    """Whether an annotation is the class of a message."""
    module = sys.modules.get(_MODULE)
    return (
        module is not None
        and isinstance(annotation, type)
        and issubclass(annotation, module.Message)
        and getattr(annotation, "DESCRIPTOR", None) is not None
    )


def write_message(message: Any) -> tuple[str, bytes]:
    """A message's full name and bytes; the same message gives the same bytes.

    Raises:
        ValueError: A field that is required is missing.
    """
    name: str = message.DESCRIPTOR.full_name
    try:
        return name, message.SerializeToString(deterministic=True)
    except Exception as error:  # EncodeError is a plain Exception
        raise ValueError(f"the message {name} cannot be written: {error}") from error


def read_message(name: str, data: bytes, cls: type[Any] | None) -> Any:
    """Read a message.

    Args:
        name: Its full name.
        data: Its bytes.
        cls: Its class, where that is known; else the one that generated code has brought.

    Raises:
        ModuleNotFoundError: The package is missing; the error names the extra that brings it.
        Exception: The type is unknown, or the bytes are no such message.
    """
    if cls is None:
        cls = _loaded_class(name)
    message = cls()
    if message.MergeFromString(data) != len(data):
        raise ValueError(f"something follows the message {name}")
    if not message.IsInitialized():
        missing = ", ".join(message.FindInitializationErrors())
        raise ValueError(f"the message {name} lacks what it requires: {missing}")
    return message


def _loaded_class(name: str) -> type[Any]:
    try:
        from google.protobuf import descriptor_pool, message_factory
    except ImportError:
        raise ModuleNotFoundError(
            f"the message {name} needs the package protobuf: pip install 'helianthus[protobuf]'",
            name="google.protobuf",
        ) from None
    try:
        descriptor = descriptor_pool.Default().FindMessageTypeByName(name)
    except KeyError:
        raise ValueError(f"no message type {name} is loaded: import its generated module") from None
    cls: type[Any] = message_factory.GetMessageClass(descriptor)
    return cls
