"""Settings from a file and the environment: understood, or refused with what is wrong and what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import strategies as st

from memos_server.configs import settings
from memos_server.configs.errors import SetupError
from tests.fuzz.corpus import EFFORTS, fuzz, kept

KEYS = [f"{name}" for name in settings.Settings.model_fields if name != "data"]
VALUES = st.one_of(
    st.sampled_from(
        [
            "true",
            "1",
            "-1",
            "0",
            "1e999",
            "nan",
            "inf",
            '""',
            '"x"',
            "[]",
            "{}",
            "{a=1}",
            "[[[[]]]]",
            "9" * 400,
            '"\\u0000"',
        ]
    ),
    st.integers().map(str),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
)


def read(text: bytes, file: Path) -> None:
    """Reads settings from a file with this content."""
    file.write_bytes(text)
    try:
        settings.load({"data": file.parent / "data"}, file)
    except SetupError as error:
        refused(error)


def refused(error: SetupError) -> None:
    assert error.message, "the error says nothing"
    assert error.remedy, "the error says nothing to do"


@kept("settings")
def test_a_kept_file_is_understood_or_refused(file: Path, tmp_path: Path) -> None:
    read(file.read_bytes(), tmp_path / "memos.toml")


@EFFORTS
def test_any_file_is_understood_or_refused(tmp_path: Path, effort: int) -> None:
    line = st.builds("{} = {}".format, st.sampled_from(KEYS) | st.text(max_size=5), VALUES)
    section = st.builds("[{}]".format, st.sampled_from(KEYS) | st.sampled_from(["a.b", "quotas.principals.x", "["]))
    texts = st.lists(line | section, max_size=8).map("\n".join).map(lambda text: text.encode("utf-8", "replace"))
    fuzz(60 * effort, lambda text: read(text, tmp_path / "memos.toml"), texts | st.binary(max_size=60))


@EFFORTS
def test_any_environment_is_understood_or_refused(tmp_path: Path, effort: int) -> None:
    names = st.one_of(
        st.sampled_from(KEYS).map(lambda key: f"MEMOS_{key.upper()}"),
        st.builds(
            "MEMOS_{}__{}".format, st.sampled_from(KEYS).map(str.upper), st.sampled_from(["X", "CONFIG", "", "__"])
        ),
        st.just("MEMOS_"),
    )

    def attempt(environment: dict[str, str]) -> None:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setitem(os.environ, name, value)
            try:
                settings.load({"data": tmp_path})
            except SetupError as error:
                refused(error)

    fuzz(60 * effort, attempt, st.dictionaries(names, VALUES, max_size=4))


@pytest.mark.parametrize("what", ["folder", "pipe", "device"])
def test_a_settings_file_that_is_no_file_is_refused_at_once(tmp_path: Path, what: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    file = data / "memos.toml"
    if what == "folder":
        file.mkdir()
    elif what == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to("/dev/zero")
    for flags, config in (({"data": data}, None), ({"data": data}, file)):
        try:
            settings.load(flags, config)
        except SetupError as error:
            refused(error)


def test_a_settings_file_without_an_end_is_not_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "memos.toml"
    file.write_text("[log]\n")
    os.truncate(file, 2**40)
    with pytest.raises(SetupError, match="larger than"):
        settings.load({"data": tmp_path}, file)
