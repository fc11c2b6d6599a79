"""The memory type of tasks: what is to be done, until when, and how far it is.

The payload is an Extension of the type `org.example.task`, whose data is a JSON object in UTF-8:

    {"title": "Renew the passport", "due": "2026-12-24", "status": "open", "notes": "Photos are in the desk."}
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from typing import Final

from memos_server.errors import invalid_field
from memos_server.memories.base import BlobRef, Extension, Memory
from memos_server.memories.uniting import united

TYPE: Final = "org.example.task"
STATUSES: Final = ("open", "done", "dropped")
MAX_TITLE: Final = 200
"""The most characters of a title."""
MAX_DATA_BYTES: Final = 65_536
"""The most bytes of a payload; a merge keeps to it as well."""

_FIELDS: Final = ("title", "due", "status", "notes")
_TOO_LARGE: Final = "FIELD_TOO_LARGE"


class TaskType:
    """The payload `extension` of the type `org.example.task`."""

    payload = "extension"
    extension_type = TYPE

    def validate(self, memory: Memory, field: str) -> None:
        """Checks the JSON object: its fields, their types, the date and the status.

        Raises:
            MipError: FIELD_TOO_LARGE, INVALID_JSON, FIELD_REQUIRED or INVALID_FIELD.
        """
        _parsed(memory.extension.data, f"{field}.extension.data")

    def text(self, memory: Memory) -> str:
        """Returns title, date and notes in words; a task's status says nothing of what it is about.

        Raises:
            MipError: The data is no task.
        """
        task = _parsed(memory.extension.data, "memory.extension.data")
        due = f" (due {task['due']})" if "due" in task else ""
        return "\n".join(part for part in (task["title"] + due, task.get("notes", "")) if part)

    def blobs(self, memory: Memory) -> Sequence[BlobRef]:
        """Returns none: a task names no files."""
        del memory
        return ()

    def merge(self, memories: Sequence[Memory]) -> Memory:
        """Returns one task for several: the first title, the earliest date, all notes, and open if any of them is.

        Other titles become notes, so that no words are lost. Tasks that are not open leave no date in one that is.

        Raises:
            MipError: FIELD_REQUIRED when one of the memories is no task; FIELD_TOO_LARGE when the notes are too long.
        """
        if not all(memory.extension.type == TYPE for memory in memories):
            raise invalid_field("merged", "must be set: only tasks merge with tasks by themselves", "FIELD_REQUIRED")
        tasks = [_parsed(memory.extension.data, "sources") for memory in memories]
        status = next(one for one in STATUSES if any(task["status"] == one for task in tasks))
        notes = [words for task in tasks for words in (task["title"], task.get("notes", ""))]
        one = {"title": tasks[0]["title"], "status": status}
        dates = [task["due"] for task in tasks if task["status"] == status and "due" in task]
        if dates:
            one["due"] = min(dates)
        kept = [words for words in dict.fromkeys(notes) if words and words != one["title"]]
        if kept:
            one["notes"] = "\n".join(kept)
        data = json.dumps(one, ensure_ascii=False, sort_keys=True).encode()
        if len(data) > MAX_DATA_BYTES:
            raise invalid_field("sources", f"have {len(data)} bytes together; at most {MAX_DATA_BYTES} fit", _TOO_LARGE)
        merged = united(memories)
        merged.extension.CopyFrom(Extension(type=TYPE, data=data))
        merged.extension.text = self.text(merged)
        return merged


def _parsed(data: bytes, field: str) -> dict[str, str]:
    """Returns a task, checked.

    Args:
        data: The bytes as they came.
        field: Their path in the request.

    Raises:
        MipError: See TaskType.validate. The messages never repeat what the data holds.
    """
    if len(data) > MAX_DATA_BYTES:
        raise invalid_field(field, f"has {len(data)} bytes; at most {MAX_DATA_BYTES} are permitted", _TOO_LARGE)
    try:
        task = json.loads(data.decode("utf-8"), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise invalid_field(field, "must be a JSON object in UTF-8 that repeats no key", "INVALID_JSON") from error
    if not isinstance(task, dict):
        raise invalid_field(field, "must be a JSON object", "INVALID_JSON")
    for name, value in task.items():
        if name not in _FIELDS:
            raise invalid_field(field, f"holds an unknown field; known are {', '.join(_FIELDS)}")
        if not isinstance(value, str):
            raise invalid_field(f"{field}.{name}", "must be a string")
    _check(task, field)
    return task


def _check(task: dict[str, str], field: str) -> None:
    title = task.get("title", "")
    if not title.strip():
        raise invalid_field(f"{field}.title", "must hold more than white space", "FIELD_REQUIRED")
    if len(title) > MAX_TITLE:
        raise invalid_field(f"{field}.title", f"has {len(title)} characters; at most {MAX_TITLE} are permitted")
    if task.get("status") not in STATUSES:
        raise invalid_field(f"{field}.status", f"must be one of {', '.join(STATUSES)}")
    if "due" in task and not _is_date(task["due"]):
        raise invalid_field(f"{field}.due", "must be a date such as 2026-11-21")
    for name in ("title", "notes"):
        # JSON can write half of a character ("\\ud800"), which no text in UTF-8 can hold.
        if not _is_text(task.get(name, "")):
            raise invalid_field(f"{field}.{name}", "must be well-formed Unicode")


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _is_text(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found
