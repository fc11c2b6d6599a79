"""Every store can be tried while it works, and says what is wrong once its folder is gone."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from memos_server.errors import MipError
from memos_server.telemetry.probing import try_folder
from tests.ports import records, test_blob_stores, test_vec_dbs


@pytest.mark.parametrize("name", records.NAMES)
async def test_a_record_is_tried_beside_its_work(name: str, tmp_path: Path) -> None:
    store = records.BACKENDS[name](tmp_path)
    await store.open()
    await records.create(store, "c", records.memory("m"))
    await store.probe()
    assert store.waiting_writes == 0
    await store.close()


def files(folder: Path) -> list[Path]:
    """Returns everything below a folder."""
    return sorted(folder.rglob("*"))


@pytest.mark.parametrize("name", test_blob_stores.NAMES)
async def test_a_blob_store_is_tried_and_leaves_nothing_behind(name: str, tmp_path: Path) -> None:
    store = test_blob_stores.BACKENDS[name](tmp_path)
    await store.open()
    before = files(tmp_path)
    await store.probe()
    assert files(tmp_path) == before
    await store.close()


@pytest.mark.parametrize("backend", test_vec_dbs.BACKENDS, ids=lambda each: each.name)
async def test_an_index_is_tried(backend: test_vec_dbs.Backend, tmp_path: Path) -> None:
    index = backend.make(str(tmp_path))
    await index.open()
    await index.probe()
    await index.close()


async def test_embedded_stores_say_that_their_folder_is_gone(tmp_path: Path) -> None:
    index, blobs = test_vec_dbs.EmbeddedIndex(str(tmp_path)), test_blob_stores.FilesystemBlobStore(str(tmp_path))
    for store, folder in ((index, "index"), (blobs, "blobs")):
        await store.open()
        shutil.rmtree(tmp_path / folder)
        with pytest.raises(MipError, match=rf"BACKEND_UNAVAILABLE: {tmp_path / folder} is gone; stop the server"):
            await store.probe()
        (tmp_path / folder).mkdir()
        await store.probe()
        await store.close()


def inside(folder: Path, script: str) -> str:
    """Runs Python where `folder` is a disk of its own, of 1 MiB; needs no root where users may make namespaces."""
    mount = f"mount -t tmpfs -o size=1m none '{folder}' && exec \"$0\" -c \"$1\" '{folder}'"
    unshared = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, sys.executable, script]
    try:
        done = subprocess.run(unshared, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        pytest.skip("not run: unshare is not installed")
    if done.returncode and "Traceback" not in done.stderr:
        pytest.skip("not run: this machine lets nobody mount a disk of his own")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_full_disk_and_a_read_only_one_are_told_apart(tmp_path: Path) -> None:
    script = """
import pathlib, subprocess, sys
from memos_server.errors import MipError
from memos_server.telemetry.probing import try_folder
folder = pathlib.Path(sys.argv[1])
def told():
    try:
        try_folder(folder)
    except MipError as error:
        return str(error).replace(str(folder), "DIR")
    return "works"
print(told())
filler = folder / "filler"
try:
    with filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
except OSError:
    print(told())
filler.unlink()
print(told())
subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
print(told())
"""
    assert inside(tmp_path, script).splitlines() == [
        "works",
        "STORAGE_FULL: the disk of DIR is full; free some space there",
        "works",
        "BACKEND_UNAVAILABLE: the disk of DIR is read-only; look for its errors in the system log",
    ]


def test_a_folder_takes_a_few_bytes_and_nothing_is_left(tmp_path: Path) -> None:
    try_folder(tmp_path)
    assert list(tmp_path.iterdir()) == []
