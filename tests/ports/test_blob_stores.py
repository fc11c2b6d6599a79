"""The contract of blob stores, which every backend passes, and what is special to the file system."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from memos_server.blob_stores.base import BlobStore
from memos_server.blob_stores.filesystem import FilesystemBlobStore
from memos_server.errors import MipError
from tests.ports.plugged import plugged
from tests.support import engines

CUBE = "0198c5a2-7f3e-7c41-9a52-3d1f0b6e8c77"
OTHER = "0198c5a2-7f3e-7c41-9a52-3d1f0b6e8c78"
DATA = bytes(range(256)) * 8192  # 2 MiB
DIGEST = "sha256:" + hashlib.sha256(DATA).hexdigest()

Make = Callable[[], BlobStore]


@cache
def bucket_of(folder: Path) -> dict[str, Any]:
    """Returns the settings of a bucket that belongs to a test's folder."""
    return engines.clean_s3()


def s3(folder: Path) -> BlobStore:
    from memos_server.blob_stores.s3 import S3BlobStore

    return S3BlobStore(str(folder), max_blob_bytes=4 * 2**20, **bucket_of(folder))


BACKENDS: dict[str, Callable[[Path], BlobStore]] = {
    "filesystem": lambda folder: FilesystemBlobStore(str(folder), max_blob_bytes=4 * 2**20),
    "s3": s3,
    **plugged("memos.blob_stores"),
}
NAMES = [pytest.param(name, marks=[pytest.mark.engines] if name == "s3" else []) for name in sorted(BACKENDS)]


@pytest.fixture(params=NAMES)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    return lambda: BACKENDS[request.param](tmp_path)


@pytest.fixture
async def store(make: Make) -> AsyncIterator[BlobStore]:
    opened = make()
    await opened.open()
    yield opened
    await opened.close()


async def put(store: BlobStore, data: bytes, cube: str = CUBE) -> str:
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    for offset in range(0, len(data), 2**20):
        await store.append(cube, digest, offset, data[offset : offset + 2**20])
    await store.finish(cube, digest, len(data))
    return digest


async def get(store: BlobStore, digest: str, offset: int = 0, limit: int = 0, cube: str = CUBE) -> bytes:
    return b"".join([piece async for piece in store.read(cube, digest, offset, limit)])


async def test_what_was_uploaded_is_read_back(store: BlobStore) -> None:
    assert await put(store, DATA) == DIGEST
    assert await store.size(CUBE, DIGEST) == 2_097_152
    assert await get(store, DIGEST) == DATA
    assert [len(piece) async for piece in store.read(CUBE, DIGEST)] == [1_048_576, 1_048_576]


async def test_the_room_that_is_left_is_told_or_unknown(store: BlobStore) -> None:
    free = await store.free()
    assert free is None or 0 <= free < 2**63


async def test_an_empty_blob_is_a_blob(store: BlobStore) -> None:
    digest = await put(store, b"")
    assert await store.size(CUBE, digest) == 0
    assert await get(store, digest) == b""


@pytest.mark.parametrize(
    ("offset", "limit", "expected"),
    [(3, 5, DATA[3:8]), (2_097_150, 0, DATA[-2:]), (2_097_152, 0, b""), (9_999_999, 4, b""), (0, 1, DATA[:1])],
)
async def test_a_part_is_read(store: BlobStore, offset: int, limit: int, expected: bytes) -> None:
    await put(store, DATA)
    assert await get(store, DIGEST, offset, limit) == expected


async def test_an_upload_is_no_blob_before_it_is_finished(store: BlobStore) -> None:
    await store.append(CUBE, DIGEST, 0, DATA[:10])
    assert await store.size(CUBE, DIGEST) is None
    assert await store.upload_size(CUBE, DIGEST) == 10
    with pytest.raises(MipError, match="BLOB_NOT_FOUND"):
        await get(store, DIGEST)


async def test_an_upload_goes_on_after_a_restart(make: Make) -> None:
    first = make()
    await first.open()
    await first.append(CUBE, DIGEST, 0, DATA[:100_000])
    await first.close()
    second = make()
    await second.open()
    assert await second.upload_size(CUBE, DIGEST) == 100_000
    await second.append(CUBE, DIGEST, 100_000, DATA[100_000:])
    await second.finish(CUBE, DIGEST, len(DATA))
    assert await get(second, DIGEST) == DATA
    assert await second.upload_size(CUBE, DIGEST) == 0
    await second.close()


@pytest.mark.parametrize("offset", [0, 9, 11])
async def test_an_append_elsewhere_than_at_the_end_is_refused_and_names_the_end(store: BlobStore, offset: int) -> None:
    await store.append(CUBE, DIGEST, 0, DATA[:10])
    with pytest.raises(MipError, match="INVALID_STREAM") as caught:
        await store.append(CUBE, DIGEST, offset, b"x")
    assert caught.value.metadata == {"offset": "10"}
    assert await store.upload_size(CUBE, DIGEST) == 10


async def test_other_bytes_than_announced_are_dropped(store: BlobStore) -> None:
    await store.append(CUBE, DIGEST, 0, b"x" * len(DATA))
    with pytest.raises(MipError, match="DIGEST_MISMATCH"):
        await store.finish(CUBE, DIGEST, len(DATA))
    assert await store.upload_size(CUBE, DIGEST) == 0
    assert await store.size(CUBE, DIGEST) is None


async def test_more_bytes_than_announced_are_dropped(store: BlobStore) -> None:
    await store.append(CUBE, DIGEST, 0, DATA)
    with pytest.raises(MipError, match="DIGEST_MISMATCH"):
        await store.finish(CUBE, DIGEST, len(DATA) - 1)
    assert await store.upload_size(CUBE, DIGEST) == 0


async def test_a_short_upload_stays_and_can_go_on(store: BlobStore) -> None:
    with pytest.raises(MipError, match="UPLOAD_INCOMPLETE"):
        await store.finish(CUBE, DIGEST, len(DATA))
    await store.append(CUBE, DIGEST, 0, DATA[:-1])
    with pytest.raises(MipError, match="UPLOAD_INCOMPLETE"):
        await store.finish(CUBE, DIGEST, len(DATA))
    await store.append(CUBE, DIGEST, len(DATA) - 1, DATA[-1:])
    await store.finish(CUBE, DIGEST, len(DATA))
    assert await get(store, DIGEST) == DATA


async def test_finishing_twice_changes_nothing(store: BlobStore) -> None:
    await put(store, DATA)
    await store.finish(CUBE, DIGEST, len(DATA))
    assert await get(store, DIGEST) == DATA


async def test_cubes_do_not_share_blobs(store: BlobStore) -> None:
    await put(store, DATA)
    assert await store.size(OTHER, DIGEST) is None
    await put(store, DATA, OTHER)
    await store.drop_cube(CUBE)
    assert await store.size(CUBE, DIGEST) is None
    assert await get(store, DIGEST, cube=OTHER) == DATA


async def test_a_deleted_blob_is_gone_and_deleting_it_again_is_fine(store: BlobStore) -> None:
    await put(store, DATA)
    await store.delete(CUBE, DIGEST)
    await store.delete(CUBE, DIGEST)
    assert await store.size(CUBE, DIGEST) is None
    await put(store, DATA)
    assert await get(store, DIGEST) == DATA


async def test_an_upload_is_deleted_too(store: BlobStore) -> None:
    await store.append(CUBE, DIGEST, 0, DATA[:10])
    await store.delete(CUBE, DIGEST)
    assert await store.upload_size(CUBE, DIGEST) == 0


async def test_dropping_a_cube_without_blobs_is_fine(store: BlobStore) -> None:
    await store.drop_cube(OTHER)


async def test_of_concurrent_appends_at_one_offset_one_is_taken(store: BlobStore) -> None:
    results = await asyncio.gather(
        *(store.append(CUBE, DIGEST, 0, DATA[:1000]) for _ in range(8)), return_exceptions=True
    )
    refused = [result for result in results if result is not None]
    assert len(refused) == 7
    assert all(isinstance(error, MipError) and error.reason == "INVALID_STREAM" for error in refused)
    assert await store.upload_size(CUBE, DIGEST) == 1000


async def test_a_blob_beyond_the_limit_is_refused(store: BlobStore) -> None:
    await store.append(CUBE, DIGEST, 0, DATA)
    await store.append(CUBE, DIGEST, len(DATA), DATA)
    with pytest.raises(MipError, match="FIELD_TOO_LARGE"):
        await store.append(CUBE, DIGEST, 2 * len(DATA), b"x")
    assert await store.upload_size(CUBE, DIGEST) == 2 * len(DATA)


@pytest.mark.parametrize("digest", ["sha256:../../../../etc/passwd", "sha256:" + "A" * 64, "md5:x", ""])
async def test_what_is_no_digest_is_refused(store: BlobStore, digest: str) -> None:
    with pytest.raises(MipError, match="INVALID_FIELD"):
        await store.size(CUBE, digest)


@pytest.mark.parametrize("uid", ["..", "", "/etc", CUBE.upper()])
async def test_what_is_no_cube_uid_is_a_fault_of_the_caller(store: BlobStore, uid: str) -> None:
    with pytest.raises(ValueError, match="UUID"):
        await store.drop_cube(uid)


# The file system's own promises.


def blob_path(folder: Path) -> Path:
    digits = DIGEST.removeprefix("sha256:")
    return folder / "blobs" / CUBE / digits[:2] / digits


@pytest.fixture
async def files(tmp_path: Path) -> AsyncIterator[FilesystemBlobStore]:
    opened = FilesystemBlobStore(str(tmp_path))
    await opened.open()
    yield opened
    await opened.close()


async def test_the_file_is_synced_before_its_rename_and_the_folders_after(
    files: FilesystemBlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(descriptor: int) -> None:
        events.append("fsync " + os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"), tmp_path.resolve()))
        real_fsync(descriptor)

    def rename(source: Path, target: Path) -> None:
        events.append("rename")
        real_rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    await put(files, DATA)
    digits = DIGEST.removeprefix("sha256:")
    assert events == [
        f"fsync blobs/{CUBE}/{digits[:2]}/{digits}.part",
        "rename",
        f"fsync blobs/{CUBE}/{digits[:2]}",
        f"fsync blobs/{CUBE}",
        "fsync blobs",
    ]


async def test_a_damaged_blob_is_reported_at_the_end_of_a_whole_read(
    files: FilesystemBlobStore, tmp_path: Path
) -> None:
    await put(files, DATA)
    with blob_path(tmp_path).open("r+b") as file:
        file.write(b"\xff")
    with pytest.raises(MipError, match="DATA_CORRUPT"):
        await get(files, DIGEST)


async def test_a_link_in_place_of_a_blob_is_not_followed(files: FilesystemBlobStore, tmp_path: Path) -> None:
    await put(files, DATA)
    secret = tmp_path / "secret"
    secret.write_bytes(DATA)
    blob_path(tmp_path).unlink()
    blob_path(tmp_path).symlink_to(secret)
    assert await files.size(CUBE, DIGEST) is None
    with pytest.raises(MipError, match="BLOB_NOT_FOUND"):
        await get(files, DIGEST)


async def test_a_link_in_place_of_an_upload_is_not_written_through(files: FilesystemBlobStore, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"")
    part = blob_path(tmp_path).with_suffix(".part")
    part.parent.mkdir(parents=True)
    part.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        await files.append(CUBE, DIGEST, 0, DATA)
    assert victim.read_bytes() == b""


async def test_uploads_older_than_a_day_are_dropped_at_the_start(tmp_path: Path) -> None:
    first = FilesystemBlobStore(str(tmp_path))
    await first.open()
    await first.append(CUBE, DIGEST, 0, DATA[:10])
    await first.append(OTHER, DIGEST, 0, DATA[:10])
    await first.close()
    old = time.time() - 86_401
    os.utime(blob_path(tmp_path).with_suffix(".part"), (old, old))
    second = FilesystemBlobStore(str(tmp_path))
    await second.open()
    assert await second.upload_size(CUBE, DIGEST) == 0
    assert await second.upload_size(OTHER, DIGEST) == 10
    await second.close()


async def test_a_full_disk_keeps_the_upload_at_its_last_acknowledged_size(
    files: FilesystemBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await files.append(CUBE, DIGEST, 0, DATA[:10])
    real = os.pwrite

    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        if offset > 10:
            raise OSError(28, "No space left on device")
        return real(descriptor, data[:5], offset)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", pwrite)
        with pytest.raises(MipError, match="STORAGE_FULL"):
            await files.append(CUBE, DIGEST, 10, DATA[10:100])
    assert await files.upload_size(CUBE, DIGEST) == 10
    await files.append(CUBE, DIGEST, 10, DATA[10:])
    await files.finish(CUBE, DIGEST, len(DATA))
    assert await get(files, DIGEST) == DATA


async def test_a_cancelled_append_holds_its_upload_until_it_is_done(
    files: FilesystemBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite

    def slow(descriptor: int, data: bytes, offset: int) -> int:
        time.sleep(0.2)
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", slow)
    task = asyncio.create_task(files.append(CUBE, DIGEST, 0, DATA[:10]))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await files.upload_size(CUBE, DIGEST) == 10
    await files.append(CUBE, DIGEST, 10, DATA[10:])
    await files.finish(CUBE, DIGEST, len(DATA))


async def test_files_and_folders_are_the_owners_alone(files: FilesystemBlobStore, tmp_path: Path) -> None:
    await put(files, DATA)
    path = blob_path(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


async def test_the_bound_of_unfinished_uploads_is_told_and_kept(tmp_path: Path) -> None:
    store = FilesystemBlobStore(str(tmp_path), max_unfinished_bytes=15)
    assert store.max_unfinished_upload_bytes() == 15
    await store.open()
    await store.append(CUBE, DIGEST, 0, DATA[:10])
    with pytest.raises(MipError, match="QUOTA_EXCEEDED") as raised:
        await store.append(CUBE, DIGEST, 10, DATA[10:16])
    assert raised.value.metadata == {"quota": "unfinished_upload_bytes", "limit": "15"}
    assert raised.value.retry_after_s == 60
    await store.append(CUBE, DIGEST, 10, DATA[10:15])
    await store.append(OTHER, DIGEST, 0, DATA[:15])
    await store.close()


async def test_a_bound_of_zero_bounds_nothing_and_a_negative_one_is_refused(tmp_path: Path) -> None:
    store = FilesystemBlobStore(str(tmp_path), max_unfinished_bytes=0)
    assert store.max_unfinished_upload_bytes() == 0
    await store.open()
    await put(store, DATA)
    await store.close()
    with pytest.raises(ValueError, match="max_unfinished_bytes"):
        FilesystemBlobStore(str(tmp_path), max_unfinished_bytes=-1)
