"""The weights are found without importing their package, and are used only when their bytes are the pinned ones."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from memos_server.embedders import weights
from memos_server.embedders.base import EmbedderUnavailableError
from memos_server.embedders.weights import PinnedFile, find_weights, installed_folder, verify


def pinned(name: str, data: bytes) -> PinnedFile:
    """Returns the pin of some bytes."""
    return PinnedFile(name, len(data), hashlib.sha256(data).hexdigest())


SMALL = (pinned("model.safetensors", b"the weights"), pinned("tokenizer.json", b"{}"))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pins two small files instead of 90 MB."""
    monkeypatch.setattr(weights, "PINNED", SMALL)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: None) -> Path:
    """A package that carries the small files and cannot be imported, as the real one without torch."""
    module = tmp_path / "site" / weights.MODULE
    (module / "model").mkdir(parents=True)
    (module / "__init__.py").write_text("raise ImportError('imported')")
    (module / "model" / "model.safetensors").write_bytes(b"the weights")
    (module / "model" / "tokenizer.json").write_bytes(b"{}")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
    return module / "model"


def test_the_pins_are_those_of_the_model() -> None:
    assert {pin.name: pin.sha256 for pin in weights.PINNED} == {
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    }


def test_the_package_is_found_without_being_imported(package: Path, tmp_path: Path) -> None:
    assert find_weights(tmp_path / "data") == package


def test_the_data_folder_comes_before_the_package(package: Path, tmp_path: Path) -> None:
    folder = installed_folder(tmp_path / "data")
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"the weights")
    (folder / "tokenizer.json").write_bytes(b"{}")
    assert find_weights(tmp_path / "data") == tmp_path / "data" / "models" / "minilm" == folder


def test_damaged_weights_in_the_data_folder_are_reported_and_not_passed_over(package: Path, tmp_path: Path) -> None:
    folder = installed_folder(tmp_path / "data")
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"the weightS")
    (folder / "tokenizer.json").write_bytes(b"{}")
    with pytest.raises(
        EmbedderUnavailableError, match=r"model.safetensors has another SHA-256.*memos models add minilm"
    ):
        find_weights(tmp_path / "data")


def test_another_tokenizer_is_refused(package: Path, tmp_path: Path) -> None:
    (package / "tokenizer.json").write_bytes(b"[]")
    with pytest.raises(EmbedderUnavailableError, match=r"tokenizer.json has another SHA-256"):
        find_weights(tmp_path / "data")


@pytest.mark.usefixtures("small")
def test_without_weights_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(EmbedderUnavailableError, match="not installed; run `memos models add minilm` and restart"):
        find_weights(tmp_path)


def test_a_file_of_another_size_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abcd")
    with pytest.raises(EmbedderUnavailableError, match="has 4 bytes instead of 3"):
        verify(tmp_path / "file", pinned("file", b"abc"))


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmbedderUnavailableError, match="cannot be read: No such file"):
        verify(tmp_path / "file", pinned("file", b"abc"))
