"""Splitting of text and Markdown into pieces of bounded size that know their lines.

A piece is one paragraph, list or fenced block, or several small ones of the same section. In Markdown it starts with
the headings above it, so that a piece read alone still says what it is about; the lines are those of its own text.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memos_sdk.errors import UsageError

MARKDOWN_SUFFIXES = frozenset({".md", ".markdown", ".mdown"})
_HEADING = re.compile(r"(#{1,6})\s+(.*?)\s*#*\s*$")
_FENCE = re.compile(r"\s{0,3}(`{3,}|~{3,})")


@dataclasses.dataclass(frozen=True)
class Piece:
    """A piece of a document.

    Attributes:
        text: The text; in Markdown with the headings above it as a first line.
        line_start: The first line, from 1.
        line_end: The last line.
    """

    text: str
    line_start: int
    line_end: int


@dataclasses.dataclass
class _Block:
    """Lines that belong together: a paragraph, a list, a fenced block."""

    lines: list[str]
    start: int
    headings: tuple[str, ...]

    @property
    def size(self) -> int:
        return sum(len(line.encode()) + 1 for line in self.lines)


def split(text: str, *, markdown: bool = False, max_bytes: int = 1200, min_bytes: int = 200) -> list[Piece]:
    """Splits a document.

    Args:
        text: The document.
        markdown: True keeps headings with their sections and fenced blocks whole.
        max_bytes: The most bytes (UTF-8) of a piece, headings not counted; a longer block is cut at lines, a longer
            line at words.
        min_bytes: Smaller blocks are joined with their neighbours of the same section, up to `max_bytes`.
    """
    pieces = []
    for group in _group(_cut(_blocks(text, markdown), max_bytes), max_bytes, min_bytes):
        body = "\n\n".join("\n".join(block.lines) for block in group).strip("\n")
        title = " > ".join(group[0].headings)
        last = group[-1]
        end = max(last.start + len(last.lines) - 1, group[0].start)
        pieces.append(Piece(f"{title}\n\n{body}" if title else body, group[0].start, end))
    return pieces


def read_pieces(path: str | Path, *, name: str | None = None, max_bytes: int = 1200) -> Iterator[dict[str, Any]]:
    """Yields the pieces of a text or Markdown file as memories to add, with file and lines as their provenance.

    Args:
        path: The file, UTF-8.
        name: What the provenance calls the file; None means the path.
        max_bytes: As in `split`.

    Raises:
        UsageError: The file cannot be read or is not text.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error.strerror}", reason="FILE_UNREADABLE", remedy="Check the path."
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path} is not UTF-8 text", reason="NOT_TEXT", remedy="Convert the file to UTF-8 text first."
        ) from error
    markdown = path.suffix.lower() in MARKDOWN_SUFFIXES
    digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
    for piece in split(text, markdown=markdown, max_bytes=max_bytes):
        yield {
            "text": piece.text,
            "media_type": "text/markdown" if markdown else "text/plain",
            "provenance": {
                "kind": "document",
                "source": name or path.as_posix(),
                "line_start": piece.line_start,
                "line_end": piece.line_end,
                "digest": digest,
            },
        }


def _blocks(text: str, markdown: bool) -> Iterator[_Block]:
    """Yields what blank lines part; in Markdown headings too, and fenced blocks are kept whole."""
    headings: list[tuple[int, str]] = []
    lines: list[str] = []
    start = 0
    fence = ""
    # Only these end a line for an editor; str.splitlines knows more of them and would shift the numbers.
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), 1):
        opening = _FENCE.match(line) if markdown else None
        if fence:
            lines.append(line)
            if opening and opening[1].startswith(fence) and line.strip() == opening[1]:
                fence = ""
            continue
        heading = _HEADING.match(line) if markdown else None
        if heading or not line.strip():
            if lines:
                yield _Block(lines, start, tuple(title for _, title in headings))
                lines = []
            if heading:
                level = len(heading[1])
                headings = [entry for entry in headings if entry[0] < level]
                if heading[2]:
                    headings.append((level, heading[2]))
            continue
        if not lines:
            start = number
        lines.append(line)
        if opening:
            fence = opening[1]
    if lines:
        yield _Block(lines, start, tuple(title for _, title in headings))


def _cut(blocks: Iterator[_Block], max_bytes: int) -> Iterator[_Block]:
    """Cuts blocks that are too long: between lines, and within a line that is too long itself."""
    for block in blocks:
        if block.size <= max_bytes:
            yield block
            continue
        lines: list[str] = []
        size = 0
        start = block.start
        for offset, line in enumerate(block.lines):
            for part in _cut_line(line, max_bytes):
                weight = len(part.encode()) + 1
                if lines and size + weight > max_bytes:
                    yield _Block(lines, start, block.headings)
                    lines, size = [], 0
                if not lines:
                    start = block.start + offset
                lines.append(part)
                size += weight
        yield _Block(lines, start, block.headings)


def _cut_line(line: str, max_bytes: int) -> Iterator[str]:
    """Cuts a line at spaces into parts below `max_bytes`; a word that is longer alone is cut anywhere."""
    while len(line.encode()) >= max_bytes:
        # As many characters as surely fit: `ignore` drops a character that the cut would split.
        head = line.encode()[: max_bytes - 1].decode(errors="ignore")
        at = head.rfind(" ")
        cut = at if at > len(head) // 2 else len(head)
        yield line[:cut].rstrip()
        line = line[cut:].lstrip()
    if line:
        yield line


def _group(blocks: Iterator[_Block], max_bytes: int, min_bytes: int) -> Iterator[list[_Block]]:
    """Joins small neighbours of one section."""
    group: list[_Block] = []
    size = 0
    for block in blocks:
        weight = block.size + 1
        joins = (
            group
            and block.headings == group[0].headings
            and size + weight <= max_bytes
            and min(size, weight) < min_bytes
        )
        if group and not joins:
            yield group
            group, size = [], 0
        group.append(block)
        size += weight
    if group:
        yield group
