"""Every limit that the contract declares (`(mip.v1.limit)`), and for each a request that violates or just keeps it.

The requests name resources that do not exist: limits are checked before anything is looked up (MIP-ERRS-009), so that
what a server answers tells of the limit alone.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, TypeAlias

from google.protobuf.descriptor import FieldDescriptor as _Kinds

from mip_conformance.contract import Rpc, enum_name, option, rpcs

# Python's own descriptors and those in C are different classes to a type checker.
Descriptor: TypeAlias = Any
FieldDescriptor: TypeAlias = Any

_TEXT, _BYTES = _Kinds.TYPE_STRING, _Kinds.TYPE_BYTES

REASONS = {
    "FORMAT_UUID": "INVALID_FIELD",
    "FORMAT_BLOB_DIGEST": "INVALID_FIELD",
    "FORMAT_RELATION_TYPE": "INVALID_FIELD",
    "FORMAT_LABEL_KEY": "INVALID_FIELD",
    "FORMAT_JSON": "INVALID_JSON",
}
"""The reason of what does not follow a format (docs/spec/names.md); all others are names."""

_OUTPUT_ONLY = {
    "Memory": ("uid", "merged_into", "commitment"),
    "Cube": ("uid", "owner", "head_digest"),
    "Session": ("name", "uid", "owner"),
    "Relation": ("name", "uid"),
    "Principal": ("name",),
}
"""Fields that a server ignores in requests (MIP-CONV-006), their limits with them."""


class Limit(NamedTuple):
    """One bound of one field of a request.

    Attributes:
        rpc: The RPC, as cases call it.
        path: The field that BadRequest names where the bound is violated, such as `memories[0].tags[0]`.
        kind: `missing`, `too-long`, `too-many`, `malformed` or `negative`; `longest` and `most` are kept bounds.
        reasons: What the answer may give as its reason; empty for a kept bound.
        bytes: About how many bytes the request has.
        steps: The names of the fields that lead to it.
    """

    rpc: str
    path: str
    kind: str
    reasons: tuple[str, ...]
    bytes: int
    steps: tuple[str, ...]

    def described(self) -> dict[str, Any]:
        """Returns what expressions see as an element of `limits`."""
        rpc = rpcs()[self.rpc]
        return {
            "rpc": self.rpc,
            "service": rpc.service,
            "level": rpc.level,
            "client_streaming": rpc.client_streaming,
            "frame": _frame(rpc, self.steps),
            "path": self.path,
            "kind": self.kind,
            "reasons": list(self.reasons),
            "bytes": self.bytes,
            "steps": list(self.steps),
        }


def _frame(rpc: Rpc, steps: Sequence[str]) -> int:
    """Returns in which frame of a client's stream a field stands, from 0."""
    return [field.name for field in rpc.request.DESCRIPTOR.fields].index(steps[0]) if rpc.client_streaming else 0


class _Bound(NamedTuple):
    """What the contract declares of a field."""

    max_bytes: int
    max_items: int
    format: str
    required: bool
    non_negative: bool


def _bound(field: FieldDescriptor) -> _Bound:
    limit = option(field, "FieldOptions", "limit")
    return _Bound(
        limit.max_bytes, limit.max_items, enum_name("Format", limit.format), limit.required, limit.non_negative
    )


def _fields(descriptor: Descriptor) -> Iterator[FieldDescriptor]:
    hidden = _OUTPUT_ONLY.get(descriptor.name, ())
    yield from (field for field in descriptor.fields if field.name not in hidden)


def _is_ours(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.full_name.startswith("mip.v1.")


@cache
def limits() -> tuple[Limit, ...]:
    """Returns every bound of every field of every request, in the order of the contract."""
    return tuple(
        limit
        for rpc in rpcs().values()
        for path, steps, field in _walk(rpc.request.DESCRIPTOR, "", ())
        for limit in _of_field(rpc, path, steps, field)
    )


def _walk(
    descriptor: Descriptor, path: str, steps: tuple[str, ...]
) -> Iterator[tuple[str, tuple[str, ...], FieldDescriptor]]:
    for field in _fields(descriptor):
        here = f"{path}.{field.name}".lstrip(".")
        yield here, (*steps, field.name), field
        if _is_ours(field):
            assert field.message_type is not None
            yield from _walk(field.message_type, f"{here}[0]" if field.is_repeated else here, (*steps, field.name))


def _of_field(rpc: Rpc, path: str, steps: tuple[str, ...], field: FieldDescriptor) -> Iterator[Limit]:
    bound = _bound(field)
    element = f"{path}[0]" if field.is_repeated else path
    wrong_format = REASONS.get(bound.format, "INVALID_NAME")
    formatted = bound.format != "FORMAT_UNSPECIFIED"
    # No name of its grammar is as long as its limit: such a value is malformed and too long at once.
    stretches = not formatted or bound.format == "FORMAT_JSON"
    if bound.required:
        yield Limit(rpc.rpc, path, "missing", ("FIELD_REQUIRED",), 1024, steps)
    if bound.max_bytes:
        size = 1024 + bound.max_bytes
        reasons = ("FIELD_TOO_LARGE",) if stretches else ("FIELD_TOO_LARGE", wrong_format)
        yield Limit(rpc.rpc, element, "too-long", reasons, size, steps)
        if stretches:
            yield Limit(rpc.rpc, element, "longest", (), size, steps)
    if bound.max_items:
        size = 1024 + 100 * bound.max_items
        yield Limit(rpc.rpc, path, "too-many", ("TOO_MANY_ITEMS",), size, steps)
        yield Limit(rpc.rpc, path, "most", (), size, steps)
    if formatted:
        yield Limit(rpc.rpc, element, "malformed", (wrong_format,), 1024, steps)
    if bound.non_negative:
        yield Limit(rpc.rpc, element, "negative", ("INVALID_FIELD",), 1024, steps)


# Requests.


def _example(bound: _Bound, number: int, cube: str) -> str:
    """Returns a text of a format; others for other numbers."""
    return {
        "FORMAT_UNSPECIFIED": f"x{number}",
        "FORMAT_ID": f"mipconf-absent-{number}",
        "FORMAT_CUBE_NAME": f"{cube}-{number}" if number else cube,
        "FORMAT_MEMORY_NAME": f"{cube}/memories/m{number}",
        "FORMAT_SESSION_NAME": f"{cube}/sessions/s{number}",
        "FORMAT_JOB_NAME": f"{cube}/jobs/j{number}",
        "FORMAT_COMMIT_NAME": f"{cube}/commits/{number + 1}",
        "FORMAT_PRINCIPAL_NAME": f"principals/mipconf-absent-{number}",
        "FORMAT_GRANT_RESOURCE": cube,
        "FORMAT_UUID": f"00000000-0000-4000-8000-{number:012x}",
        "FORMAT_BLOB_DIGEST": f"sha256:{number:064x}",
        "FORMAT_RELATION_TYPE": f"X{number}",
        "FORMAT_LABEL_KEY": f"k{number}",
        "FORMAT_JSON": "{}",
    }[bound.format]


def _valid(descriptor: Descriptor, cube: str, number: int = 0) -> dict[str, Any]:
    """Returns a message with what it requires."""
    found: dict[str, Any] = {}
    for field in _fields(descriptor):
        if _bound(field).required:
            one = _value(field, cube, number)
            found[field.name] = [one] if field.is_repeated else one
    if descriptor.name == "Memory":
        found["plaintext"] = {"text": "tea"}
    return found


def _value(field: FieldDescriptor, cube: str, number: int = 0) -> Any:
    if field.message_type is not None:
        return _valid(field.message_type, cube, number)
    if field.enum_type is not None:
        return field.enum_type.values[1].name
    if field.type == _TEXT:
        return _example(_bound(field), number, cube)
    return base64.b64encode(b"x").decode() if field.type == _BYTES else True if field.type == field.TYPE_BOOL else 1


def _stretched(field: FieldDescriptor, size: int) -> str:
    """Returns a value of a field with so many bytes."""
    if field.type == _BYTES:
        return base64.b64encode(bytes(size)).decode()
    if _bound(field).format == "FORMAT_JSON":
        return '{"a":"' + "x" * (size - 8) + '"}'
    return "x" * size


def _bad(kind: str, field: FieldDescriptor, cube: str) -> Any:
    """Returns the value that a field gets; None to leave it away."""
    bound = _bound(field)
    if kind == "missing":
        return None
    if kind in ("too-many", "most"):
        count = bound.max_items + (kind == "too-many")
        return [_value(field, cube, number) for number in range(count)]
    makers: dict[str, Callable[[], Any]] = {
        "too-long": lambda: _stretched(field, bound.max_bytes + 1),
        "longest": lambda: _stretched(field, bound.max_bytes),
        "malformed": lambda: "?",
        "negative": lambda: -1,
    }
    one = makers[kind]()
    return [one] if field.is_repeated else one


def _place(message: dict[str, Any], descriptor: Descriptor, steps: Sequence[str], kind: str, cube: str) -> None:
    field = descriptor.fields_by_name[steps[0]]
    if field.containing_oneof is not None:
        for other in field.containing_oneof.fields:
            if other.name != field.name:
                message.pop(other.name, None)
    if len(steps) > 1:
        assert field.message_type is not None
        if field.name not in message:
            one = _valid(field.message_type, cube)
            message[field.name] = [one] if field.is_repeated else one
        inner = message[field.name][0] if field.is_repeated else message[field.name]
        _place(inner, field.message_type, steps[1:], kind, cube)
        return
    value = _bad(kind, field, cube)
    if value is None:
        message.pop(field.name, None)
    else:
        message[field.name] = value


def _name_resources(rpc: Rpc, message: dict[str, Any], cube: str) -> None:
    """Sets the names that the permission is checked on, where nothing says that they are required."""
    for path in rpc.resource_fields:
        if "[]" in path:
            continue
        descriptor: Descriptor = rpc.request.DESCRIPTOR
        inner = message
        *parents, last = path.split(".")
        for parent in parents:
            inner = inner.setdefault(parent, {})
            descriptor = descriptor.fields_by_name[parent].message_type
        inner.setdefault(last, _value(descriptor.fields_by_name[last], cube))


def violating(limit: Mapping[str, Any], cube: str) -> dict[str, Any]:
    """Returns the request of an element of `limits`, `{frames}` for a client's stream.

    Args:
        limit: The element.
        cube: The cube that it names.
    """
    rpc = rpcs()[limit["rpc"]]
    descriptor, steps, kind = rpc.request.DESCRIPTOR, limit["steps"], limit["kind"]
    if not rpc.client_streaming:
        request = _valid(descriptor, cube)
        _name_resources(rpc, request, cube)
        _place(request, descriptor, steps, kind, cube)
        return request
    frames = [{field.name: _value(field, cube)} for field in descriptor.fields]
    _place(frames[int(limit["frame"])], descriptor, steps, kind, cube)
    return {"frames": frames}
