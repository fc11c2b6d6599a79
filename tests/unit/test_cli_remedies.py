"""What the command line says to do about an error."""

from __future__ import annotations

import re
import sys

import pytest
import typer

from memos_sdk._gen.reasons import REASONS
from memos_sdk.cli import main, remedies
from memos_sdk.errors import FailedPrecondition, NotFound


def test_the_remedies_are_those_of_reasons_that_exist() -> None:
    assert set(remedies._REMEDIES) <= set(REASONS)


def test_the_commands_that_remedies_name_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    named = {
        tuple(re.findall(r"[a-z]+", command))
        for text in remedies._REMEDIES.values()
        for command in re.findall(r"`memos ([a-z ]+)", text)
    }
    assert ("cube", "undelete") in named
    for words in sorted(named):
        monkeypatch.setattr(sys, "argv", ["memos", *words, "--help"])
        assert main.run() == 0, words


def test_a_remedy_names_commands_instead_of_calls() -> None:
    error = NotFound("cubes/nots does not exist.", reason="CUBE_NOT_FOUND")
    assert error.remedy == "Check the name with ListCubes, or create the cube first."
    assert remedies.remedy_of(error) == "See `memos cube list`, or create the cube with `memos cube create`."


def test_what_the_server_says_of_the_very_case_wins() -> None:
    error = NotFound("cubes/nots does not exist.", reason="CUBE_NOT_FOUND", remedy="It was moved to cubes/notes.")
    assert remedies.remedy_of(error) == "It was moved to cubes/notes."


def test_a_reason_without_words_of_its_own_keeps_those_of_the_protocol() -> None:
    error = FailedPrecondition("the session has ended", reason="SESSION_ENDED")
    assert remedies.remedy_of(error) == "Create a new session."


def test_facts_that_the_message_holds_are_not_said_again(capsys: pytest.CaptureFixture[str]) -> None:
    message = "to_revision 99 is above the current revision 4 of cubes/notes."
    facts = {"current_revision": "4", "digits": "9", "name": "cubes/notes", "etag": "ab12"}
    assert main.report(NotFound(message, reason="REVISION_NOT_FOUND", metadata=facts)) == 3
    assert capsys.readouterr().err == (
        f"error: REVISION_NOT_FOUND: {message}\n"
        "  digits: 9\n"
        "  etag: ab12\n"
        "remedy: Choose a revision between 1 and the cube's current one; `memos cube log CUBE` lists them.\n"
    )


def test_an_error_that_nobody_catches_ends_with_its_remedy() -> None:
    error = NotFound("cubes/nots does not exist.", reason="CUBE_NOT_FOUND")
    assert error.__notes__ == ["remedy: Check the name with ListCubes, or create the cube first."]
    assert str(error) == "CUBE_NOT_FOUND: cubes/nots does not exist."


def test_the_version_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from memos_sdk import __version__

    monkeypatch.setattr(sys, "argv", ["memos", "--version"])
    assert main.run() == 0
    assert capsys.readouterr().out == f"memos {__version__}\n"
    assert isinstance(main.build(), typer.Typer)
