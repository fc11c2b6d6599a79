"""The data folder: permissions, one server at a time, formats, and where a server is found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from memos_server.configs.data_folder import THIS_SERVER, DataFolder
from memos_server.configs.errors import SetupError


def test_a_new_folder_is_the_owners_alone_and_has_its_parts(tmp_path: Path) -> None:
    with DataFolder(tmp_path / "deep" / "data") as folder:
        assert folder.path.stat().st_mode & 0o777 == 0o700
        assert (folder.path / "FORMAT").read_text(encoding="ascii") == f"1\n{THIS_SERVER}\n"
        assert (folder.path / "lock").stat().st_mode & 0o777 == 0o600
        for part in (folder.index, folder.blobs, folder.models, folder.path / "keys"):
            assert part.stat().st_mode & 0o777 == 0o700
        assert folder.record == folder.path / "record.sqlite"
        assert folder.token_key == folder.path / "keys" / "token.ed25519.pem"
        assert folder.admin_token == folder.path / "admin.token"


def test_a_second_server_is_refused_and_told_who_has_the_folder(tmp_path: Path) -> None:
    with DataFolder(tmp_path), pytest.raises(SetupError) as caught:
        DataFolder(tmp_path).open()
    assert caught.value.message == f"Another server (process {os.getpid()}) uses the data folder {tmp_path}."
    assert caught.value.remedy == "Stop that server, or name another folder with --data."
    DataFolder(tmp_path).open()


def test_a_killed_servers_lock_ends_with_it(tmp_path: Path) -> None:
    program = (
        "import sys, time; from memos_server.configs.data_folder import DataFolder;"
        "DataFolder(sys.argv[1]).open(); print('open', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "open\n"
        with pytest.raises(SetupError, match=f"process {server.pid}"):
            DataFolder(tmp_path).open()
        server.kill()
    with DataFolder(tmp_path):
        pass


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "FORMAT").write_text("2\n", encoding="ascii")
    with pytest.raises(SetupError, match=r"has format 2; this server, memos-mip .*, reads up to 1"):
        DataFolder(tmp_path).open()


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "1.5"])
def test_a_damaged_format_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "FORMAT").write_text(text, encoding="ascii")
    with pytest.raises(SetupError, match="holds no version number"):
        DataFolder(tmp_path).open()


def test_a_record_without_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "record.sqlite").touch()
    with pytest.raises(SetupError, match="no FORMAT file"):
        DataFolder(tmp_path).open()


def test_a_refused_folder_is_not_left_locked(tmp_path: Path) -> None:
    (tmp_path / "FORMAT").write_text("2\n", encoding="ascii")
    folder = DataFolder(tmp_path)
    with pytest.raises(SetupError):
        folder.open()
    (tmp_path / "FORMAT").write_text("1\n", encoding="ascii")
    with folder:
        pass


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SetupError, match="cannot be written"):
            DataFolder(path).open()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def read_only(path: object, flags: int, mode: int = 0o777) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(30, "Read-only file system")
        return real(path, flags, mode)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(SetupError, match="cannot be written: Read-only file system") as caught:
        DataFolder(tmp_path).open()
    assert "--data" in caught.value.remedy


def test_a_running_server_is_found_and_a_stopped_one_is_not(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    with folder:
        assert folder.read_server_info() is None
        folder.write_server_info("127.0.0.1:7600", tls=False)
        assert DataFolder(tmp_path).read_server_info() == ("127.0.0.1:7600", os.getpid(), False)
        assert json.loads(folder.server_info.read_text(encoding="utf-8")) == {
            "address": "127.0.0.1:7600",
            "pid": os.getpid(),
            "tls": False,
        }
        assert sorted(path.name for path in tmp_path.iterdir() if path.name.endswith(".tmp")) == []
    assert folder.read_server_info() is None
    assert not folder.server_info.exists()
    folder.close()


def test_a_damaged_server_file_is_as_good_as_none(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    for text in ("", "[]", "{}", '{"address": 1, "pid": "x", "tls": 0}'):
        folder.server_info.write_text(text, encoding="utf-8")
        assert folder.read_server_info() is None


def test_the_key_of_page_tokens_outlives_a_restart(tmp_path: Path) -> None:
    with DataFolder(tmp_path) as folder:
        key = folder.page_token_key()
        assert len(key) == 32
        assert folder.page_key.stat().st_mode & 0o777 == 0o600
    with DataFolder(tmp_path) as folder:
        assert folder.page_token_key() == key
        folder.page_key.write_bytes(b"short")
        with pytest.raises(SetupError, match="32 bytes"):
            folder.page_token_key()
