"""Settings: precedence of file, environment and flags; what is refused, and how; and the choice of backends."""

from __future__ import annotations

from pathlib import Path

import pytest

from memos_server.configs.backends import installed_backends, load_backend
from memos_server.configs.errors import SetupError
from memos_server.configs.settings import Settings, default_data_folder, load, parse_listen


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("MEMOS_DATA", "MEMOS_LISTEN", "MEMOS_TOKEN", "MEMOS_TARGET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def refused(words: str, **arguments: object) -> None:
    with pytest.raises(SetupError) as caught:
        load(**arguments)  # type: ignore[arg-type]
    assert words in caught.value.message
    assert caught.value.remedy


def test_the_defaults_need_nothing(tmp_path: Path) -> None:
    settings = load()
    assert settings.data == tmp_path / "xdg" / "memos"
    assert settings.listen == "127.0.0.1:7600"
    assert settings.endpoint == ("127.0.0.1", 7600)
    assert not settings.insecure
    assert (settings.record.backend, settings.index.backend) == ("sqlite", "embedded")
    assert (settings.blobs.backend, settings.embedder.backend) == ("filesystem", "minilm")
    assert settings.embedding.default_model == "all-MiniLM-L6-v2"
    assert settings.limits.max_batch_memories == 1000
    assert settings.limits.request_id_retention_seconds == 604_800


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        tmp_path / "d" / "memos.toml",
        'listen = "127.0.0.1:1"\n[log]\nlevel = "debug"\nformat = "json"\n[limits]\nmax_top_k = 7\nmax_page_size = 8\n',
    )
    monkeypatch.setenv("MEMOS_LISTEN", "127.0.0.1:2")
    monkeypatch.setenv("MEMOS_LIMITS__MAX_TOP_K", "9")
    settings = load({"data": tmp_path / "d", "listen": None, "log": {"level": "error", "format": None}})
    assert settings.listen == "127.0.0.1:2"
    assert (settings.log.level, settings.log.format) == ("error", "json")
    assert (settings.limits.max_top_k, settings.limits.max_page_size) == (9, 8)
    assert load({"data": tmp_path / "d", "listen": "127.0.0.1:3"}).listen == "127.0.0.1:3"


def test_a_backend_keeps_its_name_when_only_its_config_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMOS_RECORD__CONFIG__CACHE_MB", "64")
    config = write(tmp_path / "m.toml", '[blobs.config]\nmax_blob_bytes = 5\n[index]\nbackend = "other"\n')
    settings = load(config=config)
    assert (settings.record.backend, settings.record.config) == ("sqlite", {"cache_mb": "64"})
    assert (settings.blobs.backend, settings.blobs.config) == ("filesystem", {"max_blob_bytes": 5})
    assert settings.index.backend == "other"


def test_the_data_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write(tmp_path / "m.toml", 'data = "/from/file"\n')
    assert load(config=config).data == Path("/from/file")
    assert load({"data": "/from/flag"}, config=config).data == Path("/from/flag")
    monkeypatch.setenv("MEMOS_DATA", "/from/environment")
    assert load(config=config).data == Path("/from/environment")
    assert load().data == Path("/from/environment")
    assert default_data_folder({"XDG_DATA_HOME": "relative"}) == Path.home() / ".local/share/memos"
    assert load({"data": "~/x"}).data == Path.home() / "x"


def test_unknown_keys_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused("tls.crt: there is no such setting", flags={"tls": {"crt": "x"}})
    refused("lisen: there is no such setting", config=write(tmp_path / "a.toml", 'lisen = "x"\n'))
    refused("limits.max: there is no such setting", config=write(tmp_path / "b.toml", "[limits]\nmax = 1\n"))
    monkeypatch.setenv("MEMOS_TSL__CERT", "x")
    refused("MEMOS_TSL__CERT names no setting")
    monkeypatch.delenv("MEMOS_TSL__CERT")
    monkeypatch.setenv("MEMOS_TLS__CRT", "x")
    refused("tls.crt: there is no such setting")


def test_variables_of_the_client_do_not_disturb_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMOS_TARGET", "example.org:7600")
    monkeypatch.setenv("MEMOS_TOKEN", "x")
    assert load().listen == "127.0.0.1:7600"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"listen": "7600"}, "listen: must be HOST:PORT"),
        ({"listen": "127.0.0.1:65536"}, "listen: must be HOST:PORT"),
        ({"limits": {"max_page_size": 1001}}, "limits.max_page_size: Input should be less than or equal to 1000"),
        ({"limits": {"request_id_retention_seconds": 60}}, "limits.request_id_retention_seconds: Input should be"),
        ({"tls": {"cert": "a.pem"}}, "tls: cert and key go together"),
        ({"tls": {"client_ca": "a.pem"}}, "tls: client_ca needs cert and key"),
        ({"log": {"level": "loud"}}, "log.level: Input should be 'debug'"),
    ],
)
def test_a_wrong_value_is_refused_by_name(flags: dict[str, object], words: str) -> None:
    refused(words, flags=flags)


def test_an_error_shows_no_value(tmp_path: Path) -> None:
    config = write(tmp_path / "m.toml", '[embedder]\nconfig = "hunter2"\n')
    with pytest.raises(SetupError) as caught:
        load(config=config)
    assert "hunter2" not in str(caught.value)


def test_a_wrong_file_is_refused(tmp_path: Path) -> None:
    refused("does not exist", config=tmp_path / "absent.toml")
    refused("is not TOML", config=write(tmp_path / "a.toml", "listen = "))
    bad = tmp_path / "b.toml"
    bad.write_bytes(b"\xff")
    refused("is not TOML", config=bad)
    write(tmp_path / "d" / "memos.toml", 'data = "/elsewhere"\n')
    refused("cannot name another one", flags={"data": tmp_path / "d"})


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:7600", "127.0.0.1", 7600),
        ("[::1]:0", "::1", 0),
        ("memory.example.org:443", "memory.example.org", 443),
    ],
)
def test_listen_addresses_are_taken_apart(text: str, host: str, port: int) -> None:
    assert parse_listen(text) == (host, port)


def test_settings_do_not_change_after_loading() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().listen = "x"  # type: ignore[misc]


def test_every_setting_is_in_the_configuration_guide() -> None:
    guide = (Path(__file__).parents[2] / "docs/guide/configuration.md").read_text(encoding="utf-8")
    for name, field in Settings.model_fields.items():
        section = getattr(field.annotation, "model_fields", None)
        for key in [f"{name}.{inner}" for inner in section] if section else [name]:
            assert f"`{key}`" in guide, key


def test_backends_are_found_by_entry_point(tmp_path: Path) -> None:
    assert "filesystem" in installed_backends("memos.blob_stores")
    store = load_backend("memos.blob_stores", "filesystem", str(tmp_path), max_blob_bytes=5)
    assert type(store).__name__ == "FilesystemBlobStore"


def test_an_unknown_backend_is_refused_with_those_that_are_installed() -> None:
    with pytest.raises(SetupError, match=r"no backend 'cloud' in memos\.blob_stores; installed: filesystem"):
        load_backend("memos.blob_stores", "cloud")
    with pytest.raises(SetupError, match="installed: none"):
        load_backend("memos.no_such_group", "x")


def test_a_backends_wrong_settings_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"refuses its settings \(colour\)"):
        load_backend("memos.blob_stores", "filesystem", str(tmp_path), colour="red")
