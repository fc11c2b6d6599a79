"""What all models share: a read-only view of one of the protocol's messages."""

from __future__ import annotations

import enum
from typing import Any, ClassVar, Generic, TypeVar, cast

from google.protobuf.message import Message

from memos_sdk._core.convert import generated, to_wire
from memos_sdk._core.json_form import to_json

WireT = TypeVar("WireT", bound=Message)
MessageT = TypeVar("MessageT")


class View(Generic[WireT, MessageT]):
    """A read-only view of a message; equal when the messages are.

    What it shows is read from the wire's message, when it is asked for. `message` is the generated one.
    """

    __slots__ = ("_generated", "_wire")
    _type: ClassVar[type[Message]]
    _shown: ClassVar[tuple[str, ...]] = ()
    _beside: ClassVar[tuple[str, ...]] = ()
    """What a model has beside its message."""

    def __init__(self, message: WireT | MessageT) -> None:
        """Wraps a message of the wire, without copying it, or a generated one."""
        self._wire = cast(WireT, to_wire(message, self._type))
        self._generated: MessageT | None = None

    @property
    def message(self) -> MessageT:
        """The protocol's message, as a dataclass; made when it is first asked for. Changing it changes nothing else."""
        if self._generated is None:
            self._generated = generated(self._wire)
        return self._generated

    def to_dict(self) -> dict[str, Any]:
        """Returns the message as JSON values: fields as in the protos, digests in hexadecimal, times in RFC 3339."""
        return to_json(self._wire)

    def __eq__(self, other: object) -> bool:
        """Compares the messages."""
        return isinstance(other, View) and type(other) is type(self) and bool(self._wire == other._wire)

    def __hash__(self) -> int:
        """Hashes the message's bytes."""
        return hash(self._wire.SerializeToString(deterministic=True))

    def __reduce__(self) -> tuple[Any, ...]:
        """Lets models be copied and pickled: as the message's bytes, and what stands beside it."""
        beside = {name: getattr(self, name) for name in self._beside}
        return _restored, (type(self), self._wire.SerializeToString(), beside)

    def __repr__(self) -> str:
        """Shows the fields that matter most."""
        shown = ", ".join(f"{name}={_shown(getattr(self, name))}" for name in self._shown)
        return f"<{type(self).__name__} {shown}>"


def _restored(cls: type[View[Any, Any]], data: bytes, beside: dict[str, Any]) -> View[Any, Any]:
    """Makes a model again of what `__reduce__` gave."""
    return cls(cls._type.FromString(data), **beside)


def _shown(value: object) -> str:
    """Returns what `repr` says, and of a member of an enumeration its name alone."""
    return str(value.name) if isinstance(value, enum.Enum) else repr(value)
