"""State records in files: a cube as its server sent it, byte for byte, for anybody to verify without a server.

The form is that of conformance/vectors/cubes/*.json: one JSON object, bytes in hexadecimal.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mip_conformance.verifying import Content, Record, sha256

_MOST_BYTES = 512 * 2**20


class RecordError(Exception):
    """A file that is no record of a cube; the text says why."""


def as_json(record: Record, server: str) -> str:
    """Returns a record as the text of a file.

    Args:
        record: The record.
        server: Which software it was read from, for people.
    """
    content: dict[str, Any] = {
        "specification": "docs/spec/digests.md",
        "server": server,
        "cube_uid": record.uid,
        "head": {"revision": record.head_revision, "digest": record.head_digest.hex()},
        "commits": [
            {"digest": sha256(header).hex(), "header": header.hex(), "changes": [change.hex() for change in changes]}
            for header, changes in zip(record.headers, record.changes, strict=True)
        ],
        "contents": [
            {"uid": uid, "name": item.name, "payload": item.payload.hex(), "salt": item.salt.hex()}
            for uid, item in record.contents.items()
        ],
    }
    return json.dumps(content, indent=1) + "\n"


def read(path: Path) -> Record:
    """Returns the record of a file.

    Raises:
        RecordError: It cannot be read, or is none.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise RecordError(f"{path} is larger than {_MOST_BYTES} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
        return Record(
            uid=content["cube_uid"],
            head_revision=content["head"]["revision"],
            head_digest=bytes.fromhex(content["head"]["digest"]),
            headers=[bytes.fromhex(commit["header"]) for commit in content["commits"]],
            changes=[[bytes.fromhex(change) for change in commit["changes"]] for commit in content["commits"]],
            contents={
                item["uid"]: Content(item["name"], bytes.fromhex(item["payload"]), bytes.fromhex(item["salt"]))
                for item in content["contents"]
            },
        )
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{path} is no record of a cube: {error}") from None
