"""Makes conformance/vectors/*.json: bytes and digests that every implementation of MIP must agree on.

Written on purpose without the server's own functions: hashlib over the bytes that protobuf writes, with fixed salts,
uids and times. Run as a program it writes the files; test_spec_vectors.py compares them with what it would write.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from memos_server._pb.mip.v1 import commit_pb2, cube_pb2, memory_pb2, session_pb2

VECTORS = Path(__file__).resolve().parents[2] / "conformance" / "vectors"
CUBE_UID = "01890a5d-ac96-774b-bcce-b302099a8057"
MEMORY_UID = "01890a5d-ac96-7ab2-80e2-3c8a6e0d1f22"
REQUEST_ID = "4c0f6a3e-58a1-4a7e-9d0b-0a4d7b2f9c11"


def sha256(data: bytes) -> bytes:
    """Returns SHA-256 of the data."""
    return hashlib.sha256(data).digest()


def salt(number: int) -> bytes:
    """Returns a salt for examples: 32 equal bytes. A real one is random."""
    return bytes([number]) * 32


def sealed(message: Message) -> bytes:
    """Returns the message as a first accepting server might serialize it."""
    return message.SerializeToString(deterministic=True)


def content_examples() -> list[tuple[str, Message, bytes]]:
    """Returns (what it shows, content, salt)."""
    memory = memory_pb2.MemoryContent
    full = memory(
        plaintext=memory_pb2.Plaintext(text="The PIN is 4417.", media_type="text/plain", language="en", kind="fact"),
        tags=["bank", "work"],
        attributes_json='{"a":1,"b":[true,null]}',
        valid_from=Timestamp(seconds=1700000000),
        confidence=0.0,
        session="cubes/notes/sessions/s1",
    )
    full.labels.add(key="origin", value="phone")
    full.provenance.add(
        kind=memory_pb2.PROVENANCE_KIND_MESSAGE,
        source="message-7",
        speaker="Ada",
        time=Timestamp(seconds=1700000000, nanos=123456000),
    )
    kv_cache = memory_pb2.KvCache(token_count=2, token_ids=b"\x01\0\0\0\x02\0\0\0", block_size=2, dtype="float32")
    activation = memory(activation=memory_pb2.Activation(model_fingerprint="fp:example", kv_cache=kv_cache))
    blob = "sha256:" + sha256(b"tensor bytes").hex()
    activation.activation.blobs.add(digest=blob, size=12, media_type="application/vnd.mip.cube.kv.v1+safetensors")
    parametric = memory(parametric=memory_pb2.Parametric(base_fingerprint="fp:example", method="lora"))
    parametric.parametric.blobs.add(digest=blob, size=12, title="adapter_model.safetensors")
    return [
        ("a short text", memory(plaintext=memory_pb2.Plaintext(text="Ada prefers tea.")), salt(0x00)),
        ("every sort of field; confidence 0 is present, not absent", full, salt(0x11)),
        (
            "text outside ASCII, in UTF-8",
            memory(plaintext=memory_pb2.Plaintext(text="Zoë trinkt Tee 茶 🍵")),
            salt(0x22),
        ),
        ("an activation memory", activation, salt(0x33)),
        ("a parametric memory", parametric, salt(0x44)),
        (
            "an extension",
            memory(extension=memory_pb2.Extension(type="org.example.sketch", data=b"\x00\xff")),
            salt(0x55),
        ),
        ("content without a payload", memory(tags=["empty"]), salt(0x66)),
        (
            "a cube's settings",
            cube_pb2.CubeContent(display_name="Notes", embedding_model="all-MiniLM-L6-v2", embedding_dimension=384),
            salt(0x77),
        ),
        ("a session", session_pb2.SessionContent(display_name="Monday", participants=["Ada", "agent-1"]), salt(0x88)),
    ]


def contents() -> dict[str, Any]:
    """Returns contents.json: payloads with content digest, salt and commitment."""
    vectors = []
    for shows, message, its_salt in content_examples():
        payload = sealed(message)
        digest = sha256(payload)
        vectors.append(
            {
                "shows": shows,
                "message": message.DESCRIPTOR.full_name,
                "json": MessageToDict(message),
                "payload": payload.hex(),
                "content_digest": digest.hex(),
                "salt": its_salt.hex(),
                "commitment": sha256(its_salt + digest).hex(),
            }
        )
    # A field that this version of the protocol does not know is part of the payload and of its digest.
    unknown = bytes.fromhex(vectors[0]["payload"]) + b"\xaa\x01\x03new"
    digest = sha256(unknown)
    vectors.append(
        {
            "shows": "a field (21) that MIP 1.0-alpha does not know, kept byte for byte",
            "message": "mip.v1.MemoryContent",
            "json": vectors[0]["json"],
            "payload": unknown.hex(),
            "content_digest": digest.hex(),
            "salt": salt(0x99).hex(),
            "commitment": sha256(salt(0x99) + digest).hex(),
        }
    )
    return {"specification": "docs/spec/digests.md", "contents": vectors}


def commits() -> dict[str, Any]:
    """Returns commits.json: a log of three commits: the cube is made, two memories are added, one is purged."""
    change, active, purged = commit_pb2.Change, memory_pb2.MEMORY_STATE_ACTIVE, memory_pb2.MEMORY_STATE_PURGED
    examples = content_examples()
    commitments = [sha256(its_salt + sha256(sealed(message))) for _, message, its_salt in examples]
    tea, pin, cube = commitments[0], commitments[1], commitments[7]
    owner = "principals/local-admin"
    log = [
        (
            "create cube",
            "",
            [
                change(
                    kind=commit_pb2.CHANGE_KIND_CUBE_CREATED,
                    uid=CUBE_UID,
                    after_commitment=cube,
                    after_state=active,
                    owner=owner,
                )
            ],
        ),
        (
            "learned at breakfast",
            REQUEST_ID,
            [
                change(
                    kind=commit_pb2.CHANGE_KIND_MEMORY_ADDED,
                    name=name,
                    uid=uid,
                    after_commitment=after,
                    after_state=active,
                    sensitivity=sensitivity,
                    owner=owner,
                )
                for name, uid, after, sensitivity in (
                    ("memories/tea", MEMORY_UID, tea, 2),
                    ("memories/pin", MEMORY_UID[:-1] + "3", pin, 4),
                )
            ],
        ),
        (
            "asked for by its subject",
            "",
            [
                change(
                    kind=commit_pb2.CHANGE_KIND_MEMORY_PURGED,
                    name="memories/pin",
                    uid=MEMORY_UID[:-1] + "3",
                    before_commitment=pin,
                    before_state=active,
                    after_state=purged,
                    sensitivity=4,
                    owner=owner,
                )
            ],
        ),
    ]
    vectors = []
    parent = b""
    for revision, (cause, request_id, changes) in enumerate(log, start=1):
        sealed_changes = [sealed(item) for item in changes]
        changes_digest = sha256(b"".join(sha256(item) for item in sealed_changes))
        header = commit_pb2.CommitHeader(
            cube_uid=CUBE_UID,
            revision=revision,
            parent_digest=parent,
            principal=owner,
            cause=cause,
            create_time=Timestamp(seconds=1700000000 + revision, nanos=1000 * revision),
            request_id=request_id,
            change_count=len(changes),
            changes_digest=changes_digest,
        )
        parent = sha256(sealed(header))
        vectors.append(
            {
                "revision": revision,
                "header_json": MessageToDict(header),
                "changes": [
                    {"json": MessageToDict(item), "bytes": data.hex(), "digest": sha256(data).hex()}
                    for item, data in zip(changes, sealed_changes, strict=True)
                ],
                "changes_digest": changes_digest.hex(),
                "header": sealed(header).hex(),
                "commit_digest": parent.hex(),
            }
        )
    return {
        "specification": "docs/spec/digests.md",
        "no_changes_digest": sha256(b"").hex(),
        "commits": vectors,
    }


def files() -> dict[Path, str]:
    """Returns the text of each file."""
    values = {"contents.json": contents(), "commits.json": commits()}
    return {
        VECTORS / name: json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False) + "\n"
        for name, value in values.items()
    }


if __name__ == "__main__":
    VECTORS.mkdir(parents=True, exist_ok=True)
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
