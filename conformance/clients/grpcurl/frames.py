"""The streams of the core flow, as grpcurl reads and prints them: JSON objects, one after another.

Uses Python's standard library alone. Commands:

    frames.py watch FILE LAST CUBE      waits until FILE holds the commits 1 to LAST of a watch, whole and in order
    frames.py upload FILE CUBE SIZE     writes the frames of an upload of SIZE random bytes, and prints their digest
    frames.py download FILE DIGEST      checks that the frames of a download are a blob with that digest
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

FRAME_BYTES = 1_048_576
"""The most bytes of a data frame (MIP-STRM-021, MIP-STRM-030)."""

PATIENCE_SECONDS = 30
"""How long commits that are made already may take to arrive."""


def objects(text: str) -> list[dict[str, Any]]:
    """Returns the whole JSON objects at the beginning of a text; a last one may still be on its way."""
    decoder = json.JSONDecoder()
    found: list[dict[str, Any]] = []
    position = 0
    while True:
        while position < len(text) and text[position].isspace():
            position += 1
        try:
            value, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError:
            return found
        found.append(value)


def watched(frames: list[dict[str, Any]], cube: str) -> int:
    """Returns how many commits are whole; raises ValueError where the frames break the grammar of a watch."""
    whole = 0
    open_revision = 0
    for frame in frames:
        ((kind, body),) = frame.items()
        if kind == "commit" and not open_revision and int(body["revision"]) == whole + 1:
            open_revision = whole + 1
            if body["name"] != f"{cube}/commits/{open_revision}":
                raise ValueError(f"commit {open_revision} is named {body['name']}")
        elif kind == "end" and open_revision and int(body["revision"]) == open_revision:
            whole, open_revision = open_revision, 0
        elif not (kind == "changes" and open_revision) and not (kind == "heartbeat" and not open_revision):
            raise ValueError(f"a frame `{kind}` comes after {whole} whole commits")
    return whole


def watch(file: str, last: str, cube: str) -> None:
    """Waits until a file holds the commits up to a revision."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (whole := watched(objects(Path(file).read_text(encoding="utf-8")), cube)) < int(last):
        if time.monotonic() > deadline:
            raise ValueError(f"{whole} commits arrived within {PATIENCE_SECONDS} seconds, not {last}")
        time.sleep(0.05)


def upload(file: str, cube: str, size: str) -> None:
    """Writes the frames of an upload: a header, data in order, finish."""
    content = os.urandom(int(size))
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    frames: list[dict[str, Any]] = [{"header": {"parent": cube, "digest": digest, "size": len(content)}}]
    for offset in range(0, len(content), FRAME_BYTES):
        data = base64.b64encode(content[offset : offset + FRAME_BYTES]).decode("ascii")
        frames.append({"data": {"offset": offset, "data": data}})
    frames.append({"finish": True})
    Path(file).write_text("\n".join(map(json.dumps, frames)), encoding="utf-8")
    print(digest)


def download(file: str, digest: str) -> None:
    """Checks the frames of a download: a header, then data in order whose digest is the one asked for."""
    header, *rest = objects(Path(file).read_text(encoding="utf-8"))
    content = b""
    for frame in rest:
        data = base64.b64decode(frame["data"]["data"])
        if int(frame["data"].get("offset", 0)) != len(content) or len(data) > FRAME_BYTES:
            raise ValueError(f"a frame of {len(data)} bytes does not go on at byte {len(content)}")
        content += data
    if header["header"]["digest"] != digest or int(header["header"]["size"]) != len(content):
        raise ValueError(f"the header does not announce {len(content)} bytes with {digest}")
    if "sha256:" + hashlib.sha256(content).hexdigest() != digest:
        raise ValueError(f"the bytes do not have the digest {digest}")


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    try:
        {"watch": watch, "upload": upload, "download": download}[command](*arguments)
    except (ValueError, KeyError) as wrong:
        sys.exit(f"frames.py {command}: {wrong}")
