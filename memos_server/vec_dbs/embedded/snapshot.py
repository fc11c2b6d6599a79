"""What a cube's index looks like on disk, and how it is written and read back.

A folder holds `manifest.json`, one file with all columns and postings, and one file per chunk of vectors. The manifest
names the files with their sizes and CRC-32s and where each array lies; it carries a CRC-32 of itself. A snapshot is
written beside the old one, synced, and becomes the snapshot when the manifest is renamed into place; only then are the
files that it does not name removed. Chunks of vectors that did not change keep their file. Nothing is unpickled.
"""

from __future__ import annotations

import errno
import io
import json
import os
import secrets
import shutil
import stat
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memos_server.configs.secret_files import fsync_folder
from memos_server.vec_dbs.embedded.columns import CHUNK_ROWS, Column, VectorRows
from memos_server.vec_dbs.embedded.cube_index import CubeIndex
from memos_server.vec_dbs.embedded.postings import Postings, Segment, Vocabulary

FORMAT = 1
"""The version of the format; a snapshot of any other is dropped and the index rebuilt from the log."""

MANIFEST = "manifest.json"
MANIFEST_MAX = 16 << 20
MAX_DIMENSION = 1 << 16
"""The largest dimension of a vector that is read back: memory is reserved by it before a file is."""

ALIGNMENT = 64
DTYPES = frozenset({"<i4", "<i8", "<u2", "<f8", "|b1", "|u1", "|S36"})
DAMAGE = (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError)
"""What parsing a damaged file can raise."""


class SnapshotDamagedError(Exception):
    """A snapshot cannot be used: damaged, cut off, or of another format version."""


@dataclass(slots=True)
class Saved:
    """What lies on disk of a cube.

    Attributes:
        chunks: chunk number -> (stamp of the chunk when it was written, rows, file entry).
    """

    chunks: dict[int, tuple[int, int, dict[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Capture:
    """An index at one moment: arrays that no later batch changes, save for an erasure."""

    header: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    texts: dict[str, list[str | None]]
    keys: list[bytes | None]
    chunks: list[tuple[int, NDArray[np.float32]]]


def capture(cube: CubeIndex) -> Capture:
    """Returns the cube's index as it is, copying only what later batches overwrite. Nothing may change it meanwhile."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, column in cube.versions.columns().items():
        arrays[f"versions.{name}"] = column.values
    arrays["versions.until"] = arrays["versions.until"].copy()
    arrays["contents.length"] = cube.contents.length.values
    arrays["contents.has_vector"] = cube.contents.has_vector.values
    numbers = sorted(cube.contents.numbers)
    for place, name in enumerate(numbers):
        arrays[f"numbers.{place}"] = cube.contents.numbers[name].values
    arrays["items.uid"] = cube.items.uid.values
    arrays["items.newest"] = cube.items.newest.values.copy()
    arrays["items.label"] = cube.items.label.values.copy()
    kinds = {"terms": cube.terms, "facets": cube.facets, "entities": cube.entities}
    for kind, postings in kinds.items():
        for place, segment in enumerate(postings.segments):
            arrays[f"{kind}.{place}.ids"] = segment.ids
            arrays[f"{kind}.{place}.starts"] = segment.starts
            arrays[f"{kind}.{place}.ordinals"] = segment.ordinals
            arrays[f"{kind}.{place}.counts"] = segment.counts
    size = len(cube.contents.keys)
    return Capture(
        header={
            "format": FORMAT,
            "revision": cube.revision,
            "dimension": cube.vectors.dimension,
            "numbers": numbers,
            "segments": {kind: len(postings.segments) for kind, postings in kinds.items()},
        },
        arrays=arrays,
        texts={kind: list(postings.vocabulary.names) for kind, postings in kinds.items()},
        keys=list(cube.contents.keys),
        chunks=[
            (stamp, chunk[: min(CHUNK_ROWS, size - number * CHUNK_ROWS)])
            for number, (stamp, chunk) in enumerate(zip(cube.vectors.stamps, cube.vectors.chunks, strict=True))
        ],
    )


def write(folder: Path, taken: Capture, saved: Saved) -> Saved:
    """Writes a snapshot and removes the one before it.

    Args:
        folder: The cube's folder; made when absent.
        taken: What to write.
        saved: What lies there now.

    Returns:
        What lies there then.

    Raises:
        OSError: It could not be written; the snapshot before it is still there.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    tag = secrets.token_hex(8)
    arrays = dict(taken.arrays)
    for kind, names in taken.texts.items():
        arrays[f"{kind}.names"], arrays[f"{kind}.lengths"] = _pack_texts(names)
    arrays["contents.keys"], arrays["contents.key_lengths"] = _pack_keys(taken.keys)
    table, data = _layout(arrays)
    chunks: dict[int, tuple[int, int, dict[str, Any]]] = {}
    for number, (stamp, rows) in enumerate(taken.chunks):
        before = saved.chunks.get(number)
        if before is not None and before[:2] == (stamp, len(rows)):
            chunks[number] = before
        else:
            chunks[number] = (stamp, len(rows), _write_file(folder, f"vectors-{number}-{tag}.bin", [_raw(rows)]))
    body = {
        **taken.header,
        "arrays": table,
        "data": _write_file(folder, f"data-{tag}.bin", data),
        "vectors": [chunks[number][2] for number in range(len(chunks))],
    }
    text = _canonical(body)
    manifest = _canonical({"body": body, "crc32": zlib.crc32(text)})
    _write_file(folder, f"manifest-{tag}.tmp", [manifest])
    os.replace(folder / f"manifest-{tag}.tmp", folder / MANIFEST)
    fsync_folder(folder)
    files = {MANIFEST, body["data"]["name"], *(chunk[2]["name"] for chunk in chunks.values())}
    _remove_others(folder, files)
    return Saved(chunks)


def read(folder: Path) -> tuple[CubeIndex, Saved] | None:
    """Returns the index that a folder holds; None when it holds none. Removes what an unfinished write left there.

    Raises:
        SnapshotDamagedError: It holds one that cannot be used.
    """
    try:
        with _open(folder / MANIFEST) as file:
            manifest = file.read(MANIFEST_MAX + 1)
        if len(manifest) > MANIFEST_MAX:
            raise SnapshotDamagedError("the manifest is too large")
    except FileNotFoundError:
        erase(folder)
        return None
    try:
        outer = json.loads(manifest)
        body = outer["body"]
        if zlib.crc32(_canonical(body)) != outer["crc32"]:
            raise SnapshotDamagedError("the manifest does not match its checksum")
        if body["format"] != FORMAT:
            raise SnapshotDamagedError(f"format {body['format']} is not {FORMAT}")
        data = _read_file(folder, body["data"])
        arrays = {name: _section(data, entry) for name, entry in body["arrays"].items()}
        cube = _build(body, arrays)
        saved = Saved()
        _read_vectors(folder, body["vectors"], cube, saved)
    except FileNotFoundError as error:
        raise SnapshotDamagedError(f"the file {Path(error.filename).name} is missing") from error
    except DAMAGE as error:
        raise SnapshotDamagedError(f"{type(error).__name__}: {error}") from error
    _remove_others(folder, {MANIFEST, body["data"]["name"], *(entry["name"] for entry in body["vectors"])})
    return cube, saved


def erase(folder: Path) -> None:
    """Removes a cube's folder; the manifest first, so that what a crash leaves behind is no snapshot."""
    if folder.exists():
        _remove(folder / MANIFEST)
        shutil.rmtree(folder)
        fsync_folder(folder.parent)


def _build(body: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> CubeIndex:
    cube = CubeIndex()
    cube.revision = int(body["revision"])
    cube.vectors = VectorRows(int(body["dimension"]))
    for name, column in cube.versions.columns().items():
        setattr(cube.versions, name, Column(column.values.dtype, arrays[f"versions.{name}"]))
    contents, items = cube.contents, cube.items
    contents.keys = _unpack_keys(arrays["contents.keys"], arrays["contents.key_lengths"])
    contents.ordinals = {key: number for number, key in enumerate(contents.keys) if key is not None}
    contents.length = Column(np.int32, arrays["contents.length"])
    contents.has_vector = Column(np.bool_, arrays["contents.has_vector"])
    for place, name in enumerate(body["numbers"]):
        contents.numbers[name] = Column(np.float64, arrays[f"numbers.{place}"])
    items.uid = Column(items.uid.values.dtype, arrays["items.uid"])
    items.newest = Column(np.int32, arrays["items.newest"])
    items.label = Column(np.int32, arrays["items.label"])
    uids: list[bytes] = items.uid.values.tolist()
    items.ordinals = {uid.decode(): number for number, uid in enumerate(uids)}
    for kind in ("terms", "facets", "entities"):
        # Copies, so that nothing holds the file's bytes: what is erased later must not linger there.
        names = _unpack_texts(arrays[f"{kind}.names"], arrays[f"{kind}.lengths"])
        segments = [
            Segment(*(arrays[f"{kind}.{place}.{part}"].copy() for part in ("ids", "starts", "ordinals", "counts")))
            for place in range(body["segments"][kind])
        ]
        setattr(cube, kind, Postings(Vocabulary(names), segments))
    _check_sizes(cube)
    return cube


def _check_sizes(cube: CubeIndex) -> None:
    """Raises when arrays that belong together differ in length or an ordinal is out of range."""
    sizes = {len(column) for column in cube.versions.columns().values()}
    contents = {len(cube.contents.keys), len(cube.contents.length), len(cube.contents.has_vector)}
    contents |= {len(column) for column in cube.contents.numbers.values()}
    items = {len(cube.items.uid), len(cube.items.newest), len(cube.items.label), len(cube.items.ordinals)}
    if len(sizes) != 1 or len(contents) != 1 or len(items) != 1:
        raise SnapshotDamagedError("columns differ in length")
    bounds = [(cube.versions.item.values, items.pop()), (cube.versions.content.values, max(contents))]
    for postings in (cube.terms, cube.facets, cube.entities):
        for segment in postings.segments:
            bounds += [(segment.ordinals, max(contents)), (segment.ids, len(postings.vocabulary.names))]
            if len(segment.counts) != len(segment.ordinals) or len(segment.starts) != len(segment.ids) + 1:
                raise SnapshotDamagedError("postings differ in length")
    if any(len(values) and (int(values.max()) >= bound or int(values.min()) < -1) for values, bound in bounds):
        raise SnapshotDamagedError("an ordinal is out of range")


def _read_vectors(folder: Path, entries: list[dict[str, Any]], cube: CubeIndex, saved: Saved) -> None:
    dimension, size = cube.vectors.dimension, len(cube.contents.keys)
    if not 0 <= dimension <= MAX_DIMENSION:
        raise SnapshotDamagedError("no model has such a dimension")
    for number, entry in enumerate(entries):
        rows = min(CHUNK_ROWS, size - number * CHUNK_ROWS)
        if rows <= 0 or entry["size"] != rows * dimension * 4:
            raise SnapshotDamagedError("a file of vectors does not have the right size")
        chunk = np.zeros((CHUNK_ROWS, dimension), dtype=np.float32)
        _read_file(folder, entry, into=chunk[:rows])
        cube.vectors.chunks.append(chunk)
        cube.vectors.stamps.append(0)
        saved.chunks[number] = (0, rows, entry)
    embedded = np.flatnonzero(cube.contents.has_vector.values)
    if len(embedded) and int(embedded[-1]) >= len(entries) * CHUNK_ROWS:
        raise SnapshotDamagedError("vectors are missing")


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _raw(array: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).view(np.uint8).reshape(-1).data


def _layout(arrays: Mapping[str, NDArray[Any]]) -> tuple[dict[str, list[Any]], list[memoryview | bytes]]:
    """Returns name -> [dtype, length, offset], and the pieces of the file in which the arrays lie aligned."""
    table: dict[str, list[Any]] = {}
    pieces: list[memoryview | bytes] = []
    offset = 0
    for name, array in arrays.items():
        table[name] = [array.dtype.newbyteorder("<").str, len(array), offset]
        padding = -array.nbytes % ALIGNMENT
        pieces += [_raw(array.astype(array.dtype.newbyteorder("<"), copy=False)), bytes(padding)]
        offset += array.nbytes + padding
    return table, pieces


def _section(data: NDArray[np.uint8], entry: list[Any]) -> NDArray[Any]:
    dtype, length, offset = entry
    if dtype not in DTYPES or length < 0 or offset < 0 or offset + length * np.dtype(dtype).itemsize > len(data):
        raise SnapshotDamagedError("an array lies outside its file")
    return np.frombuffer(data, dtype=dtype, count=length, offset=offset)


def _pack_texts(names: list[str | None]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    blob = "".join(name for name in names if name is not None).encode("utf-8", "surrogatepass")
    lengths = np.fromiter((-1 if name is None else len(name) for name in names), dtype=np.int32, count=len(names))
    return np.frombuffer(blob, dtype=np.uint8), lengths


def _unpack_texts(blob: NDArray[np.uint8], lengths: NDArray[np.int32]) -> list[str | None]:
    text = blob.tobytes().decode("utf-8", "surrogatepass")
    ends: list[int] = np.maximum(lengths, 0).cumsum(dtype=np.int64).tolist()
    if (ends[-1] if ends else 0) != len(text):
        raise SnapshotDamagedError("a vocabulary has the wrong length")
    sizes: list[int] = lengths.tolist()
    return [None if size < 0 else text[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def _pack_keys(keys: list[bytes | None]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    blob = b"".join(key for key in keys if key is not None)
    lengths = np.fromiter((-1 if key is None else len(key) for key in keys), dtype=np.int32, count=len(keys))
    return np.frombuffer(blob, dtype=np.uint8), lengths


def _unpack_keys(blob: NDArray[np.uint8], lengths: NDArray[np.int32]) -> list[bytes | None]:
    raw = blob.tobytes()
    ends: list[int] = np.maximum(lengths, 0).cumsum(dtype=np.int64).tolist()
    if (ends[-1] if ends else 0) != len(raw):
        raise SnapshotDamagedError("the keys have the wrong length")
    sizes: list[int] = lengths.tolist()
    return [None if size < 0 else raw[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def _write_file(folder: Path, name: str, pieces: Iterable[memoryview | bytes]) -> dict[str, Any]:
    """Writes a file that only its owner can read, syncs it and returns its entry for the manifest."""
    crc = size = 0
    descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb", buffering=0) as file:
        for piece in pieces:
            rest = memoryview(piece)
            crc = zlib.crc32(rest, crc)
            size += len(rest)
            while len(rest):
                rest = rest[file.write(rest) :]
        os.fsync(descriptor)
    return {"name": name, "size": size, "crc32": crc}


def _read_file(folder: Path, entry: Mapping[str, Any], into: NDArray[np.float32] | None = None) -> NDArray[np.uint8]:
    """Returns the bytes of a file, read into an array when one of its size is given."""
    name, size = str(entry["name"]), int(entry["size"])
    if os.sep in name or name.startswith("."):
        raise SnapshotDamagedError("a file lies outside the folder")
    with _open(folder / name) as file:
        if os.fstat(file.fileno()).st_size != size:
            raise SnapshotDamagedError(f"{name} is cut off or has grown")
        buffer = np.empty(size, dtype=np.uint8) if into is None else into.reshape(-1).view(np.uint8)
        rest = buffer.data
        while len(rest):
            count = file.readinto(rest)
            if not count:
                raise SnapshotDamagedError(f"{name} is cut off")
            rest = rest[count:]
    if zlib.crc32(buffer.data) != entry["crc32"]:
        raise SnapshotDamagedError(f"{name} does not match its checksum")
    return buffer


def _open(path: Path) -> io.FileIO:
    """Opens a file to read. What is none is damage: nothing is followed elsewhere, waited for or read without an end.

    Raises:
        FileNotFoundError: There is nothing.
        SnapshotDamagedError: It is a folder, a link, a pipe or a device.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise SnapshotDamagedError(f"{path.name} is not a regular file") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise SnapshotDamagedError(f"{path.name} is not a regular file")
    return io.FileIO(descriptor, "rb")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _remove_others(folder: Path, keep: set[str]) -> None:
    others = [path for path in folder.iterdir() if path.name not in keep]
    for path in others:
        _remove(path)
    if others:
        fsync_folder(folder)
