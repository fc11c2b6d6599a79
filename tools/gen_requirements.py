"""Writes conformance/requirements/sentences.json: every numbered sentence of docs/spec/, and the comment of every RPC.

    python tools/gen_requirements.py [--check]

What is excluded, and which level a sentence belongs to, stands beside it in conformance/requirements/*.yaml.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from google.protobuf import descriptor_pb2

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "conformance/requirements/sentences.json"
_SENTENCE = re.compile(r"^- \[(MIP-[A-Z]+-\d+)\] (.*(?:\n  .*)*)", re.MULTILINE)
_KEYWORD = re.compile(r"\b(MUST|SHOULD|MAY)\b")
_LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")
_SERVICES, _METHODS = 6, 2


def keyword_of(sentence: str) -> str:
    """Returns the strongest of the words of RFC 2119; a numbered sentence without one binds as MUST does."""
    words = set(_KEYWORD.findall(sentence))
    return next((word for word in ("MUST", "SHOULD", "MAY") if word in words), "MUST")


def spec_sentences() -> dict[str, dict[str, str]]:
    """Returns the numbered sentences of docs/spec/ by id."""
    found: dict[str, dict[str, str]] = {}
    for page in sorted((ROOT / "docs/spec").glob("*.md")):
        for id_, text in _SENTENCE.findall(page.read_text(encoding="utf-8")):
            if id_ in found:
                raise SystemExit(f"{page.name}: {id_} is given twice")
            sentence = _LINK.sub(r"\1", " ".join(text.split()))
            found[id_] = {"keyword": keyword_of(sentence), "page": f"docs/spec/{page.name}", "sentence": sentence}
    return found


def rpc_comments() -> dict[str, dict[str, str]]:
    """Returns the comment of every RPC, as a requirement of its own: `RPC:{service}.{method}`."""
    found: dict[str, dict[str, str]] = {}
    for file in descriptor_pb2.FileDescriptorSet.FromString((ROOT / "protos/mip.protoset").read_bytes()).file:
        if file.package != "mip.v1":
            continue
        comments = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}
        for number, service in enumerate(file.service):
            for place, method in enumerate(service.method):
                text = " ".join(comments[_SERVICES, number, _METHODS, place].split())
                found[f"RPC:{service.name}.{method.name}"] = {
                    "keyword": "MUST",
                    "page": f"protos/{file.name}",
                    "sentence": text,
                }
    return found


def main() -> None:
    """Writes the file, or compares it."""
    text = json.dumps({**spec_sentences(), **rpc_comments()}, indent=1, ensure_ascii=False) + "\n"
    if "--check" in sys.argv:
        if not TARGET.exists() or TARGET.read_text(encoding="utf-8") != text:
            raise SystemExit(f"{TARGET.relative_to(ROOT)} is out of date: run tools/gen_requirements.py")
        return
    TARGET.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
