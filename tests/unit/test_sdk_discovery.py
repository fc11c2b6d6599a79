"""How the SDK finds address, token and TLS, and what it refuses to send where."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memos_sdk import TLS, Client, UsageError
from memos_sdk._core.discovery import default_data_folder, is_loopback, normalize_target, resolve


def local_server(folder: Path, address: str = "127.0.0.1:7611", *, tls: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "server.json").write_text(json.dumps({"address": address, "pid": 1, "tls": tls}))
    (folder / "admin.token").write_text("local-token\n")
    return folder


def test_a_running_local_server_is_found_with_its_token(tmp_path: Path) -> None:
    local_server(tmp_path / "memos")
    found = resolve(environment={"XDG_DATA_HOME": str(tmp_path)})
    assert (found.target, found.token, found.tls) == ("127.0.0.1:7611", "local-token", None)


def test_without_anything_the_default_address_is_taken(tmp_path: Path) -> None:
    found = resolve(environment={"MEMOS_DATA": str(tmp_path / "none")})
    assert (found.target, found.token) == ("127.0.0.1:7600", None)


def test_the_environment_comes_before_the_data_folder(tmp_path: Path) -> None:
    local_server(tmp_path)
    environment = {"MEMOS_DATA": str(tmp_path), "MEMOS_TARGET": "127.0.0.1:7700", "MEMOS_TOKEN": "mine"}
    found = resolve(environment=environment)
    assert (found.target, found.token) == ("127.0.0.1:7700", "mine")


def test_arguments_come_before_the_environment(tmp_path: Path) -> None:
    environment = {"MEMOS_TARGET": "127.0.0.1:7700", "MEMOS_TOKEN": "mine"}
    found = resolve("127.0.0.1:7800", token="given", environment=environment)
    assert (found.target, found.token) == ("127.0.0.1:7800", "given")


def test_a_named_folder_comes_before_the_environment(tmp_path: Path) -> None:
    local_server(tmp_path)
    found = resolve(data=tmp_path, environment={"MEMOS_TARGET": "127.0.0.1:7700", "MEMOS_TOKEN": "mine"})
    assert (found.target, found.token) == ("127.0.0.1:7611", "local-token")


def test_the_local_token_is_never_sent_to_another_machine(tmp_path: Path) -> None:
    local_server(tmp_path)
    found = resolve("memory.example.com:7600", tls=True, environment={"MEMOS_DATA": str(tmp_path)})
    assert found.token is None


def test_an_empty_token_means_none(tmp_path: Path) -> None:
    local_server(tmp_path)
    assert resolve(token="", environment={"MEMOS_DATA": str(tmp_path)}).token is None


def test_a_token_is_not_sent_in_plaintext_to_another_machine() -> None:
    with pytest.raises(UsageError) as caught:
        resolve("10.0.0.7:7600", token="secret", environment={})
    assert caught.value.reason == "INSECURE_CHANNEL"
    assert "secret" not in caught.value.diagnostics()
    assert resolve("10.0.0.7:7600", token="secret", insecure=True, environment={}).token == "secret"
    assert resolve("10.0.0.7:7600", token="secret", tls=True, environment={}).tls == TLS()


def test_a_local_server_with_tls_is_spoken_to_with_its_own_authority(tmp_path: Path) -> None:
    local_server(tmp_path, tls=True)
    (tmp_path / "tls").mkdir()
    (tmp_path / "tls" / "ca.pem").write_text("a certificate")
    assert resolve(environment={"MEMOS_DATA": str(tmp_path)}).tls == TLS(ca=tmp_path / "tls" / "ca.pem")


def test_naming_an_authority_in_the_environment_turns_tls_on() -> None:
    assert resolve("h:1", environment={"MEMOS_TLS_CA": "/ca.pem"}).tls == TLS(ca="/ca.pem")
    assert resolve("h:1", tls=False, environment={"MEMOS_TLS_CA": "/ca.pem"}).tls is None


def test_a_damaged_server_file_counts_as_no_server(tmp_path: Path) -> None:
    (tmp_path / "server.json").write_text("{not json")
    assert resolve(environment={"MEMOS_DATA": str(tmp_path)}).target == "127.0.0.1:7600"


def test_a_token_that_could_break_a_header_is_refused() -> None:
    with pytest.raises(UsageError):
        resolve("127.0.0.1:1", token="a\r\nb: c", environment={})


def test_the_token_is_not_shown_by_repr() -> None:
    assert "secret" not in repr(resolve("127.0.0.1:1", token="secret", environment={}))
    assert repr(Client("127.0.0.1:1", token="secret")) == "<Client 127.0.0.1:1>"


def test_a_certificate_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with Client("127.0.0.1:1", tls=TLS(ca=tmp_path / "none.pem")) as client, pytest.raises(UsageError) as caught:
        client.capabilities()
    assert caught.value.reason == "TLS_FILE_UNREADABLE"


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ("localhost", "localhost:7600"),
        ("example.com:1", "example.com:1"),
        ("::1", "[::1]:7600"),
        ("[::1]:9", "[::1]:9"),
        ("[::1]", "[::1]:7600"),
        ("unix:/run/mip.sock", "unix:/run/mip.sock"),
        (" 127.0.0.1:7600 ", "127.0.0.1:7600"),
        ("10.0.0.1, 10.0.0.2:9", "10.0.0.1:7600,10.0.0.2:9"),
        ("::1,::2", "[::1]:7600,[::2]:7600"),
    ],
)
def test_an_address_is_completed(given_: str, expected: str) -> None:
    assert normalize_target(given_) == expected


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "http://x:1",
        "x:y",
        "x:0",
        "x:65536",
        ":1",
        "a b:1",
        "x/y:1",
        "x:٣",
        "10.0.0.1,x:1",
        "10.0.0.1,::1",
        "10.0.0.1,",
    ],
)
def test_what_is_no_address_is_refused(wrong: str) -> None:
    with pytest.raises(UsageError) as caught:
        normalize_target(wrong)
    assert caught.value.reason == "INVALID_TARGET"


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_a_usage_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert normalize_target(text)


@pytest.mark.parametrize(
    "target", ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "unix:/x", "127.0.0.1:1,127.0.0.2:1"]
)
def test_loopback_addresses_are_known(target: str) -> None:
    assert is_loopback(target)


@pytest.mark.parametrize(
    "target",
    ["10.0.0.1:1", "localhost.example.com:1", "[fe80::1]:1", "0.0.0.0:1", "127.0.0.1.x:1", "127.0.0.1:1,10.0.0.1:1"],
)
def test_other_addresses_are_not_loopback(target: str) -> None:
    assert not is_loopback(target)


def test_the_data_folder_follows_the_environment() -> None:
    assert default_data_folder({"MEMOS_DATA": "/a", "XDG_DATA_HOME": "/b"}) == Path("/a")
    assert default_data_folder({"XDG_DATA_HOME": "/b"}) == Path("/b/memos")
    assert default_data_folder({}) == Path("~/.local/share/memos").expanduser()
