"""Splitting of documents into pieces that know their lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memos_sdk import UsageError
from memos_sdk.documents import Piece, read_pieces, split

LONG = "word " * 60


def test_paragraphs_become_pieces_with_their_lines() -> None:
    text = f"{LONG}\n\n{LONG}\nsecond line\n"
    assert split(text) == [Piece(LONG, 1, 1), Piece(f"{LONG}\nsecond line", 3, 4)]


def test_small_paragraphs_of_a_section_are_joined() -> None:
    assert split("one\n\ntwo\n\nthree\n") == [Piece("one\n\ntwo\n\nthree", 1, 5)]


def test_headings_stand_above_their_text_and_part_sections() -> None:
    text = "# Guide\n\nIntro.\n\n## Search\n\nFinds.\n\n# Other\nMore.\n"
    assert split(text, markdown=True) == [
        Piece("Guide\n\nIntro.", 3, 3),
        Piece("Guide > Search\n\nFinds.", 7, 7),
        Piece("Other\n\nMore.", 10, 10),
    ]


def test_a_fenced_block_is_kept_whole_and_its_hashes_are_no_headings() -> None:
    text = "# A\n\n```sh\n# a comment\n\nls\n```\n"
    assert split(text, markdown=True) == [Piece("A\n\n```sh\n# a comment\n\nls\n```", 3, 7)]


def test_a_long_block_is_cut_between_lines() -> None:
    text = "\n".join(["x" * 40] * 5)
    assert [(piece.line_start, piece.line_end) for piece in split(text, max_bytes=100)] == [(1, 2), (3, 4), (5, 5)]


def test_a_long_line_is_cut_between_words() -> None:
    pieces = split("alpha beta gamma delta", max_bytes=12)
    assert [piece.text for piece in pieces] == ["alpha beta", "gamma delta"]
    assert {(piece.line_start, piece.line_end) for piece in pieces} == {(1, 1)}


def test_no_text_makes_no_pieces() -> None:
    assert split("") == []
    assert split(" \n\n\t\n") == []


@given(st.text(alphabet=st.sampled_from("aä€😀 #`\n\r-"), max_size=400), st.booleans(), st.integers(8, 200))
def test_pieces_are_bounded_ordered_and_lose_no_words(text: str, markdown: bool, max_bytes: int) -> None:
    pieces = split(text, markdown=markdown, max_bytes=max_bytes, min_bytes=20)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    last = 1
    for piece in pieces:
        assert last <= piece.line_start <= piece.line_end <= len(lines)
        last = piece.line_start
        assert piece.text.strip()
    if not markdown:
        assert all(len(piece.text.encode()) <= max_bytes for piece in pieces)
        kept = "".join("".join(piece.text.split()) for piece in pieces)
        assert kept == "".join(text.split())


def test_a_file_becomes_memories_with_provenance(tmp_path: Path) -> None:
    path = tmp_path / "notes.md"
    path.write_text("# Tea\n\nAda drinks tea.\n")
    assert list(read_pieces(path, name="notes.md")) == [
        {
            "text": "Tea\n\nAda drinks tea.",
            "media_type": "text/markdown",
            "provenance": {
                "kind": "document",
                "source": "notes.md",
                "line_start": 3,
                "line_end": 3,
                "digest": "sha256:d3c4d99516e1d8361776031cb2611e14deee43ff26cd8e854ec47c9149267769",
            },
        }
    ]


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.txt"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError) as caught:
        list(read_pieces(path))
    assert caught.value.reason == "NOT_TEXT"
    with pytest.raises(UsageError) as caught:
        list(read_pieces(tmp_path / "none.txt"))
    assert caught.value.reason == "FILE_UNREADABLE"
