"""The `(mip.v1.auth)` option of an RPC, compiled: its permission, and every resource that a request names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.message import Message

from memos_server._pb.mip.v1 import options_pb2
from memos_server.configs.errors import SetupError
from memos_server.errors import invalid_field, option

_ON_RESOURCES = (options_pb2.PERMISSION_READ, options_pb2.PERMISSION_WRITE, options_pb2.PERMISSION_ADMIN)
_FIX = "Declare it in the proto and generate the code again; the server does not start without."


class Rule(NamedTuple):
    """What an RPC needs.

    Attributes:
        permission: The Permission number.
        paths: The request fields that name resources, as declared.
        resolve: Returns the names in a request, of all paths and all elements.
    """

    permission: int
    paths: tuple[str, ...]
    resolve: Callable[[Message], list[str]]


def level_of(method: MethodDescriptor) -> str | None:
    """Returns the level of the contract that an RPC belongs to, such as `core`; None when it declares none."""
    number: int = option(method.GetOptions(), options_pb2.level)
    return options_pb2.Level.Name(number).removeprefix("LEVEL_").lower() if number else None


def rule_of(method: MethodDescriptor) -> Rule:
    """Compiles the option of an RPC.

    Raises:
        SetupError: The RPC declares no permission or no level, or names a field that its request does not have.
    """
    if level_of(method) is None:
        raise SetupError(f"The RPC {method.full_name} declares no (mip.v1.level).", _FIX)
    auth: options_pb2.Auth = option(method.GetOptions(), options_pb2.auth)
    if auth.permission == options_pb2.PERMISSION_UNSPECIFIED:
        raise SetupError(f"The RPC {method.full_name} declares no (mip.v1.auth).", _FIX)
    paths = tuple(auth.resource_fields)
    if (auth.permission in _ON_RESOURCES) != bool(paths):
        raise SetupError(f"The RPC {method.full_name} declares a permission that does not go with its fields.", _FIX)
    for path in paths:
        _check_path(method.input_type, path, method.full_name)
    steps = [(path, path.split(".")) for path in paths]

    def resolve(request: Message) -> list[str]:
        found: list[str] = []
        for path, parts in steps:
            found += [name for name in _values([request], parts) if name]
            if not found:
                raise invalid_field(path.replace("[]", ""), "must be set", "FIELD_REQUIRED")
        return found

    return Rule(auth.permission, paths, resolve)


def _check_path(message: Descriptor, path: str, method: str) -> None:
    current: Descriptor | None = message
    for part in path.split("."):
        name = part.removesuffix("[]")
        field = current.fields_by_name.get(name) if current is not None else None
        if field is None or field.is_repeated != part.endswith("[]"):
            raise SetupError(f"The RPC {method} names the field {path}, which its request does not have.", _FIX)
        current = field.message_type


def _values(messages: Iterable[Any], parts: list[str]) -> Iterable[str]:
    for part in parts:
        if part.endswith("[]"):
            messages = [item for message in messages for item in getattr(message, part[:-2])]
        else:
            messages = [getattr(message, part) for message in messages]
    return messages
