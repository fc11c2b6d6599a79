"""What all models share: a read-only view of one of the protocol's messages."""

from __future__ import annotations

import enum
from typing import Any, ClassVar, Generic, TypeVar

import betterproto2

from memos_sdk._core.json_form import to_json

MessageT = TypeVar("MessageT", bound=betterproto2.Message)


class View(Generic[MessageT]):
    """A read-only view of a message; equal when the messages are."""

    __slots__ = ("_message",)
    _shown: ClassVar[tuple[str, ...]] = ()

    def __init__(self, message: MessageT) -> None:
        """Wraps a message, without copying it."""
        self._message = message

    @property
    def message(self) -> MessageT:
        """The protocol's message."""
        return self._message

    def to_dict(self) -> dict[str, Any]:
        """Returns the message as JSON values: fields as in the protos, digests in hexadecimal, times in RFC 3339."""
        return to_json(self._message)

    def __eq__(self, other: object) -> bool:
        """Compares the messages."""
        return isinstance(other, View) and type(other) is type(self) and bool(self._message == other._message)

    def __hash__(self) -> int:
        """Hashes the message's bytes."""
        return hash(bytes(self._message))

    def __repr__(self) -> str:
        """Shows the fields that matter most."""
        shown = ", ".join(f"{name}={_shown(getattr(self, name))}" for name in self._shown)
        return f"<{type(self).__name__} {shown}>"


def _shown(value: object) -> str:
    """Returns what `repr` says, and of a member of an enumeration its name alone."""
    return str(value.name) if isinstance(value, enum.Enum) else repr(value)
