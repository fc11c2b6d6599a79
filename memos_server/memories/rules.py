"""What every memory's content keeps to whatever its payload is, and the canonical form in which it is sealed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.unknown_fields import UnknownFieldSet
from numpy.typing import NDArray

from memos_server import json_text
from memos_server._pb.mip.v1.common_pb2 import Label
from memos_server._pb.mip.v1.memory_pb2 import DTYPE_FLOAT16, DTYPE_FLOAT32, DTYPE_UNSPECIFIED, Memory, Vector
from memos_server.errors import invalid_field
from memos_server.memories.wire_fields import wire_fields

MAX_DIMENSION: Final = 8192
"""The most elements of a vector (Vector.dimension)."""
MAX_ATTRIBUTES_BYTES: Final = 65_536
"""The most bytes of attributes_json, in its canonical form too, which may be longer than what came."""

_RESERVED: Final = range(32, 64)
"""The field numbers around a memory's content, which MemoryContent reserves."""
_DTYPES: Final[Mapping[int, np.dtype[np.float32] | np.dtype[np.float16]]] = {
    DTYPE_UNSPECIFIED: np.dtype("<f4"),
    DTYPE_FLOAT32: np.dtype("<f4"),
    DTYPE_FLOAT16: np.dtype("<f2"),
}


def normalise(memory: Memory, field: str) -> None:
    """Checks a memory's content and brings it into canonical form, in place, before it is sealed.

    Tags are trimmed, sorted and freed of repeats, labels sorted, attributes_json is brought into RFC 8785 form. Unknown
    fields stay as they came, but for those with the numbers of what stands around the content, which are ignored.

    Args:
        memory: The memory, its payload checked by its type.
        field: The path of the memory in the request, such as `memories[3]`.

    Raises:
        MipError: INVALID_FIELD, INVALID_JSON or FIELD_TOO_LARGE, with the field at fault.
    """
    _drop_reserved(memory)
    if memory.tags:
        memory.tags[:] = _canonical_tags(memory.tags, f"{field}.tags")
    if memory.labels:
        labels = sorted_labels(memory.labels, f"{field}.labels")
        memory.ClearField("labels")
        memory.labels.extend(labels)
    if memory.attributes_json:
        memory.attributes_json = _canonical_object(memory.attributes_json, f"{field}.attributes_json")
    if memory.HasField("confidence") and not 0 <= memory.confidence <= 1:  # NaN compares false and is refused too
        raise invalid_field(f"{field}.confidence", "must lie between 0 and 1")
    bounded = memory.HasField("valid_from") and memory.HasField("valid_until")
    if bounded and _instant(memory.valid_from) > _instant(memory.valid_until):
        raise invalid_field(f"{field}.valid_until", "must not lie before valid_from")
    for number, item in enumerate(memory.provenance):
        if item.line_end and item.line_start > item.line_end:
            raise invalid_field(f"{field}.provenance[{number}].line_end", "must not lie before line_start")


def sorted_labels(labels: Iterable[Label], field: str) -> list[Label]:
    """Returns labels sorted by key, bytewise.

    Args:
        labels: The labels as they came.
        field: The path of the labels in the request, such as `cube.labels`.

    Raises:
        MipError: INVALID_FIELD when a key occurs twice.
    """
    given = list(labels)
    seen: set[str] = set()
    for number, label in enumerate(given):
        if label.key in seen:
            raise invalid_field(f"{field}[{number}].key", "repeats the key of another label")
        seen.add(label.key)
    return sorted(given, key=lambda label: label.key)  # code point order is the byte order of UTF-8


def decode_vector(vector: Vector, field: str, dimension: int | None) -> NDArray[np.float32]:
    """Returns a caller's vector, L2-normalised.

    Args:
        vector: Little-endian float32 or float16 elements, as they came.
        field: The path of the vector in the request, such as `memories[3].vectors[0]`.
        dimension: The dimension that it must have; None accepts any.

    Returns:
        float32 of shape (vector.dimension,), of length 1.

    Raises:
        MipError: INVALID_VECTOR for an unknown dtype, a dimension outside 1 to 8,192, another number of bytes than
            dtype and dimension say, an element that is not finite, or zeros only; DIMENSION_MISMATCH when the dimension
            is not the one it must have.
    """
    dtype = _DTYPES.get(vector.dtype)
    if dtype is None:
        raise invalid_field(f"{field}.dtype", "must be DTYPE_FLOAT32 or DTYPE_FLOAT16", "INVALID_VECTOR")
    if not 1 <= vector.dimension <= MAX_DIMENSION:
        raise invalid_field(f"{field}.dimension", f"must lie between 1 and {MAX_DIMENSION}", "INVALID_VECTOR")
    expected = vector.dimension * dtype.itemsize
    if len(vector.data) != expected:
        raise invalid_field(
            f"{field}.data", f"has {len(vector.data)} bytes; dimension and dtype make {expected}", "INVALID_VECTOR"
        )
    if dimension is not None and vector.dimension != dimension:
        error = invalid_field(
            f"{field}.dimension", f"is {vector.dimension}; the model's is {dimension}", "DIMENSION_MISMATCH"
        )
        error.metadata["dimension"] = str(dimension)
        raise error
    given: NDArray[np.floating[Any]] = np.frombuffer(vector.data, dtype)
    # In float64 the squares of the largest and the smallest float32 neither overflow nor vanish: the length is finite
    # when all elements are.
    with np.errstate(invalid="ignore"):  # a signalling NaN
        elements = given.astype(np.float64)
    norm = math.sqrt(float(elements @ elements))
    if not math.isfinite(norm):
        raise invalid_field(f"{field}.data", "holds an element that is not a finite number", "INVALID_VECTOR")
    if norm == 0:
        raise invalid_field(f"{field}.data", "holds zeros only, which have no direction", "INVALID_VECTOR")
    unit: NDArray[np.float32] = (elements / norm).astype(np.float32)
    return unit


def _drop_reserved(memory: Memory) -> None:
    """Takes out unknown fields that would stand around the content, and keeps those of the content as they came."""
    unknown_fields: Any = UnknownFieldSet(memory)  # a sequence, which the stubs do not know
    if not any(unknown.field_number in _RESERVED for unknown in unknown_fields):
        return
    raw = memory.SerializeToString(deterministic=True)
    known = Memory.DESCRIPTOR.fields_by_number
    kept = bytearray()
    for number, begin, end in wire_fields(raw):
        if number in known or number not in _RESERVED:
            kept += raw[begin:end]
    memory.ParseFromString(bytes(kept))


def _canonical_tags(tags: Iterable[str], field: str) -> list[str]:
    trimmed = [tag.strip() for tag in tags]
    for number, tag in enumerate(trimmed):
        if not tag:
            raise invalid_field(f"{field}[{number}]", "must hold more than white space")
    return sorted(set(trimmed))  # code point order is the byte order of UTF-8


def _canonical_object(text: str, field: str) -> str:
    try:
        value = json_text.parse(text)
        if not isinstance(value, dict):
            raise invalid_field(field, "must be a JSON object", "INVALID_JSON")
        canonical = json_text.canonical(value)
    except json_text.JsonTextError as error:
        raise invalid_field(field, str(error), "INVALID_JSON") from error
    size = len(canonical.encode())
    if size > MAX_ATTRIBUTES_BYTES:
        raise invalid_field(
            field, f"has {size} bytes in RFC 8785 form; at most {MAX_ATTRIBUTES_BYTES} are permitted", "FIELD_TOO_LARGE"
        )
    return canonical


def _instant(time: Timestamp) -> tuple[int, int]:
    return time.seconds, time.nanos
