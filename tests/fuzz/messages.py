"""Random requests from the descriptors, and bytes that no client of ours would send."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from memos_server._pb.mip.v1 import options_pb2
from memos_server._pb.mip.v1.blob_service_pb2 import BlobData, BlobHeader, WriteBlobRequest
from memos_server.errors import option

_INTEGERS = (0, 1, 2, 3, 5, 10, 100, 1000, 1001, -1, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63), 2**64 - 1)
_BITS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_DOUBLES = (0.0, 0.5, 1.0, 1.0, -0.0, 1.5, -1.0, 1e-310, 1e308, 3e38, float("nan"), float("inf"), float("-inf"))
_TEXTS = (
    "",
    " ",
    "x",
    "Ana prefers tea.",
    "\0",
    "\x1b[31m",
    "é",
    "e\u0301" * 40,
    "\u202e\u2066",
    "\U0001f469\u200d\U0001f4bb",
    "\U0010ffff",
    "..",
    "../../etc/passwd",
    "*",
    "'; DROP TABLE items; --",
    "cubes/",
    "cubes/*",
    "x" * 129,
    "x" * 5000,
    "0" * 400,
)
_JSON = (
    "{}",
    '{"a":1}',
    "[]",
    "null",
    '{"a":1,"a":2}',
    '{"a":1e999}',
    '{"a":NaN}',
    '{"a":' + "[" * 40 + "]" * 40 + "}",
    '{"n":123456789012345678901234567890}',
    '{"a":"\\ud800"}',
    '{"' + "k" * 300 + '":{"a":[1,true,null,"x"]}}',
    "{",
    '"' + "\\" * 99,
    "9" * 5000,
)
_FILTERS = (
    "",
    "state = ACTIVE",
    'tags:"a" AND NOT text:"b"',
    "revision > 1",
    "attributes.a.b >= 1e300",
    "create_time > 0001-01-01",
    "create_time < 9999-12-31T23:59:59.999999999-23:59",
    "((((",
    "tags:*",
    "state = " + "X" * 200,
)
_MASKS = ("text", "plaintext.text", "plaintext", "tags", "labels", "state", "*", "", "memory.", "uid", "a.b.c", "name")


class Pool:
    """What exists on the server under attack, so that random requests get beyond the first check."""

    def __init__(self) -> None:
        """Knows nothing yet."""
        self.cubes: list[dict[int, list[str]]] = []

    def add(self, names: dict[int, list[str]]) -> None:
        """Adds a cube's names, by Format; the newest five cubes are drawn."""
        self.cubes = [*self.cubes[-4:], names]


class Draw:
    """The choices of one request: its names come from one cube, and one value in so many is wrong."""

    def __init__(self, rng: random.Random, pool: Pool) -> None:
        """Draws with `rng`; half of the requests are well-formed but for odd values."""
        self.rng = rng
        self.wrong = rng.choice((0.0, 0.0, 0.02, 0.1, 0.3))
        self.names = pool.cubes[-1] if rng.random() < 0.7 else rng.choice(pool.cubes)
        self.density = rng.choice((0.1, 0.3, 0.7))

    def message(self, descriptor: Descriptor, depth: int = 0) -> Message:
        """Returns a random message."""
        made: Any = GetMessageClass(descriptor)()
        picked = {oneof.name: self.rng.choice(oneof.fields).name for oneof in descriptor.oneofs}
        if "plaintext" in descriptor.fields_by_name and self.rng.random() < 0.7:
            picked["payload"] = "plaintext"
        for field in descriptor.fields:
            oneof = field.containing_oneof
            if oneof is not None and picked[oneof.name] != field.name:
                continue
            limit = option(field.GetOptions(), options_pb2.limit)
            needed = limit.required or oneof is not None or field.name in ("memory", "memories", "cube", "grant")
            likely = 1 - self.wrong / 5 if needed else self.density if depth < 3 else 0.1
            if field.name in ("etag", "expected_revision", "page_token", "as_of_revision", "uid", "revision"):
                likely = self.wrong
            if self.rng.random() > likely:
                continue
            if field.is_repeated:
                size = self._size(nested=depth > 0 and field.message_type is not None)
                getattr(made, field.name).extend(self._value(field, limit, depth) for _ in range(size))
            elif field.message_type is not None:
                getattr(made, field.name).CopyFrom(self._value(field, limit, depth))
            else:
                setattr(made, field.name, self._value(field, limit, depth))
        return made  # type: ignore[no-any-return]

    def _size(self, *, nested: bool) -> int:
        if self.rng.random() >= self.wrong / 3:
            return self.rng.choice((1, 1, 1, 2, 3))
        return self.rng.choice((0, 20)) if nested else self.rng.choice((0, 65, 101, 1001))

    def _value(self, field: FieldDescriptor, limit: Any, depth: int) -> Any:
        if field.message_type is not None:
            return self._special(field.message_type) or self.message(field.message_type, depth + 1)
        kind, rng = field.cpp_type, self.rng
        if kind == FieldDescriptor.CPPTYPE_STRING:
            if field.type == FieldDescriptor.TYPE_BYTES:
                return rng.randbytes(rng.choice((0, 1, 4, 8, 16, 300)))
            return self._text(field, limit)
        if kind == FieldDescriptor.CPPTYPE_BOOL:
            return rng.random() < 0.5
        if kind == FieldDescriptor.CPPTYPE_ENUM:
            assert field.enum_type is not None
            known = list(field.enum_type.values_by_number)
            return rng.choice(known) if rng.random() >= self.wrong else rng.choice((-1, 99, 2**31 - 1))
        if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
            return rng.choice(_DOUBLES if rng.random() < self.wrong else _DOUBLES[:4])
        low, high = _BITS[kind]
        value = rng.choice(_INTEGERS if rng.random() < self.wrong * 2 else _INTEGERS[:7])
        return max(low, min(high, value))

    def _special(self, descriptor: Descriptor) -> Message | None:
        made: Any = GetMessageClass(descriptor)()
        rng, odd = self.rng, self.rng.random() < self.wrong
        if descriptor.full_name == "google.protobuf.Timestamp":
            made.seconds = rng.choice((-62_135_596_801, 253_402_300_800, 2**63 - 1, -(2**63)) if odd else (0, 1, 10**9))
            made.nanos = rng.choice((1_000_000_000, -1, 2**31 - 1) if odd else (0, 1, 999_999_999))
        elif descriptor.full_name == "google.protobuf.Duration":
            # Short, because what a caller may wait for is waited for.
            made.seconds = rng.choice((-1, -(2**63)) if odd else (0,))
            made.nanos = rng.choice((-1, -(2**31)) if odd else (0, 1, 10_000_000))
        elif descriptor.full_name == "google.protobuf.FieldMask":
            made.paths.extend(rng.choice(_MASKS) for _ in range(40 if odd else rng.choice((1, 1, 2))))
        else:
            return None
        return made  # type: ignore[no-any-return]

    def _text(self, field: FieldDescriptor, limit: Any) -> str:
        rng = self.rng
        if rng.random() < self.wrong:
            return rng.choice(_TEXTS)
        if field.name == "filter":
            return rng.choice(_FILTERS)
        if field.name == "page_token":
            return rng.choice(("AAAA", "=" * 8, "A" * 5000, "\u00e9"))
        if field.name == "text":
            return rng.choice([text for text in _TEXTS if text.strip()])
        if limit.format == options_pb2.FORMAT_JSON:
            return rng.choice(_JSON[:2] if rng.random() >= self.wrong else _JSON)
        if limit.format == options_pb2.FORMAT_UUID:
            digits = rng.randbytes(16).hex()
            return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
        if limit.format == options_pb2.FORMAT_ID:
            return f"id{rng.randrange(10**12)}"
        if limit.format == options_pb2.FORMAT_LABEL_KEY:
            return rng.choice(("a", "a.b/c", "team", "A" * 128))
        if limit.format == options_pb2.FORMAT_MEMORY_NAME and field.name == "name" and rng.random() < 0.3:
            return f"{self.names[options_pb2.FORMAT_CUBE_NAME][0]}/memories/m{rng.randrange(10**12)}"
        if known := self.names.get(limit.format):
            return rng.choice(known)
        small = [text for text in _TEXTS if len(text) <= 12]
        return rng.choice(small) if rng.random() < 0.5 else "a"


def message(rng: random.Random, descriptor: Descriptor, pool: Pool) -> Message:
    """Returns a random message: all of it as the contract wants it, or some of it not."""
    return Draw(rng, pool).message(descriptor)


def mutated(rng: random.Random, body: bytes) -> bytes:
    """Returns bytes that differ from a message in a few places, or are none at all."""
    data = bytearray(body)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(8):
            case 0 if data:
                data[at % len(data)] ^= 1 << rng.randrange(8)
            case 1:
                del data[at:]
            case 2:
                data[at:at] = data[at : at + 40] * rng.choice((1, 2, 50))
            case 3:
                data[at:at] = rng.randbytes(rng.choice((1, 4, 30)))
            case 4:
                # A length of almost 2^64 or 2^32, where a length may stand.
                data[at:at] = b"\xff" * rng.choice((4, 9)) + rng.choice((b"\x01", b"\x0f", b"\x7f"))
            case 5:
                data += b"\x0b" * rng.choice((1, 90, 300))  # groups that begin and never end
            case 6:
                data += bytes(((rng.randrange(1, 16) << 3) | 2, 2, 0xC3, 0x28))  # a text that is no UTF-8
            case _:
                data[at : at + 8] = b""
    return bytes(data[: 2**20])


def frames(rng: random.Random, descriptor: Descriptor, pool: Pool) -> Sequence[bytes]:
    """Returns a random upload: a header, data and a finish as they should come, or any frames in any order."""
    draw = Draw(rng, pool)
    if rng.random() < 0.3:
        made = [draw.message(descriptor).SerializeToString() for _ in range(rng.choice((0, 1, 2, 3, 5)))]
        return [mutated(rng, frame) if rng.random() < 0.2 else frame for frame in made]
    data = rng.randbytes(rng.choice((0, 1, 1000, 70_000)))
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    if rng.random() < 0.2:
        digest = rng.choice(draw.names[options_pb2.FORMAT_BLOB_DIGEST])
    parent = draw.names[options_pb2.FORMAT_CUBE_NAME][0]
    size = len(data) if rng.random() < 0.8 else rng.choice(_INTEGERS[:9])
    sent: list[Any] = [WriteBlobRequest(header=BlobHeader(parent=parent, digest=digest, size=size))]
    at = 0
    while at < len(data):
        piece = data[at : at + rng.choice((1, 999, 40_000))]
        offset = at if rng.random() < 0.95 else rng.choice(_INTEGERS[:9])
        sent.append(WriteBlobRequest(data=BlobData(offset=offset, data=piece)))
        at += len(piece)
    sent.append(WriteBlobRequest(finish=rng.random() < 0.9))
    if rng.random() < 0.2:
        rng.shuffle(sent)
    if rng.random() < 0.2:
        del sent[rng.randrange(len(sent)) :]
    return [frame.SerializeToString() for frame in sent]
