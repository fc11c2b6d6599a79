"""`memos heads`: what the command line has seen of logs, and how it lets go of it."""

from __future__ import annotations

from pathlib import Path

from memos_sdk import Head, HeadStore
from tests.unit.fake_mip import CUBE_UID, FakeMip, digest_of
from tests.unit.test_cli_commands import Memos, fake, memos

__all__ = ["fake", "memos"]

OTHER = "0198c5a2-7f3e-7c41-9a52-3d1f0b6e8c99"


def heads(tmp_path: Path) -> Path:
    """Returns the file of heads, which the fixture put below this folder, with heads of two cubes in it."""
    path = tmp_path / "state" / "memos" / "heads.json"
    store = HeadStore(path)
    store.observe(CUBE_UID, 9, digest_of(9), digest_of(8))
    store.observe(OTHER, 2, digest_of(2), digest_of(1))
    return path


def test_heads_are_listed_without_a_server(fake: FakeMip, memos: Memos, tmp_path: Path) -> None:
    assert memos("heads", "list").err == "no heads\n"
    heads(tmp_path)
    shown = memos("heads", "list")
    assert [line.split()[:2] for line in shown.out.splitlines()[1:]] == sorted([[CUBE_UID, "9"], [OTHER, "2"]])
    assert {entry["cube_uid"]: entry["revision"] for entry in memos("heads", "list", "--json").json} == {
        CUBE_UID: 9,
        OTHER: 2,
    }
    assert not fake.calls


def test_a_head_is_forgotten_by_the_cubes_name_or_by_its_uid(fake: FakeMip, memos: Memos, tmp_path: Path) -> None:
    path = heads(tmp_path)
    asked = memos("heads", "forget", "notes")
    assert (asked.status, "CONFIRMATION_REQUIRED" in asked.err) == (2, True)
    assert memos("heads", "forget", "notes", "--yes").out == "the head of notes is forgotten\n"
    assert HeadStore(path).known() == {OTHER: Head(2, digest_of(2))}
    calls = len(fake.calls)
    assert memos("heads", "forget", OTHER, "--yes", "--json").json == {"forgotten": [OTHER]}
    assert len(fake.calls) == calls
    assert HeadStore(path).known() == {}
    absent = memos("heads", "forget", "notes", "--yes")
    assert (absent.status, "no head of notes is remembered" in absent.err) == (3, True)


def test_all_heads_are_forgotten_also_where_the_file_is_damaged(memos: Memos, tmp_path: Path) -> None:
    path = heads(tmp_path)
    path.write_text("{")
    assert "HEADS_UNREADABLE" in memos("heads", "list").err
    assert memos("heads", "forget", "--all", "--yes").out == "all heads are forgotten\n"
    assert HeadStore(path).known() == {}


def test_forgetting_names_cubes_or_all_of_them(memos: Memos) -> None:
    for arguments in ((), ("notes", "--all")):
        refused = memos("heads", "forget", *arguments, "--yes")
        assert (refused.status, "INVALID_ARGUMENT" in refused.err) == (2, True)
