"""Records what the server does to its files: SQLite's operations (vfs.py) and those that Python code asks of `os`."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.durability import vfs
from tests.durability.disk import ROOT, Disk, Event

Fault = Callable[[str, str], int]
"""Returns for an operation (`open`, `write`, `sync`, `truncate`, `delete`, `rename`, `mkdir`) and a path below the root
the errno that it fails with; 0 lets it happen."""


class Recorder:
    """Knows every change below a folder, in order.

    Attributes:
        events: What happened.
        fault: Which operations fail; None of them at first.
    """

    def __init__(self, root: Path) -> None:
        """Records below `root`, an empty folder."""
        self.root = os.path.realpath(root)
        self.events: list[Event] = []
        self.fault_of: Fault = lambda operation, path: 0
        self._lock = threading.RLock()
        self._nodes = {self.root: ROOT}
        self._numbers = {os.stat(self.root).st_ino: ROOT}
        self._contents: dict[int, bytearray] = {}
        self._last = ROOT

    @classmethod
    def after_kill(cls, root: Path, events: list[Event]) -> Recorder:
        """Returns a recorder that goes on where a process was killed: its files lie in `root` as it left them, and what
        it had not synced is still not synced."""
        disk = Disk(events)
        disk.advance(len(events))
        disk.image(root, lambda: True)
        recorder = cls(root)
        recorder.events = list(events)
        for path, number in disk.paths(recorder.root):
            recorder._nodes[path] = number
            recorder._numbers[os.lstat(path).st_ino] = number
            recorder._contents[number] = bytearray(b"" if os.path.isdir(path) else Path(path).read_bytes())
        recorder._last = max(disk.numbers())
        return recorder

    def note(self, data: Any) -> None:
        """Records something that is known outside, such as an acknowledgement."""
        with self._lock:
            self.events.append(Event("note", ROOT, data))

    def covers(self, path: str) -> bool:
        """Returns whether a path lies below the folder."""
        return path.startswith(self.root + os.sep)

    # What a Watcher hears; paths outside the folder are of no interest.

    def fault(self, operation: str, path: str) -> int:
        """See Watcher."""
        if not self.covers(path):
            return 0
        number = self.fault_of(operation, os.path.relpath(path, self.root))
        if number and operation == "sync" and not os.path.isdir(path):
            with self._lock:
                self.events.append(Event("lost", self._nodes[path], len(self.events)))
        return number

    def begins(self) -> int:
        """See Watcher."""
        return len(self.events)

    def opened(self, path: str, *, folder: bool = False) -> None:
        """See Watcher."""
        with self._lock:
            if not self.covers(path) or path in self._nodes:
                return
            parent, name = os.path.split(path)
            # Another thread may have made the folder and not said so yet.
            self.opened(parent, folder=True)
            self._last += 1
            self._nodes[path] = self._last
            self._contents[self._last] = bytearray()
            self._numbers[os.lstat(path).st_ino] = self._last
            self.events.append(Event("entry", self._nodes[parent], (name, self._last, folder)))

    def wrote(self, path: str, offset: int, data: bytes) -> None:
        """See Watcher."""
        with self._lock:
            if path in self._nodes:
                self._wrote(self._nodes[path], offset, data)

    def _wrote(self, node: int, offset: int, data: bytes) -> None:
        content = self._contents[node]
        content.extend(bytes(max(0, offset + len(data) - len(content))))
        content[offset : offset + len(data)] = data
        self.events.append(Event("write", node, (offset, bytes(data))))

    def truncated(self, path: str, size: int) -> None:
        """See Watcher."""
        with self._lock:
            if path in self._nodes:
                self._truncated(self._nodes[path], size)

    def _truncated(self, node: int, size: int) -> None:
        content = self._contents[node]
        if size != len(content):
            del content[size:]
            content.extend(bytes(size - len(content)))
            self.events.append(Event("truncate", node, size))

    def synced(self, path: str, before: int) -> None:
        """See Watcher."""
        with self._lock:
            if path not in self._nodes:
                return
            self.events.append(Event("sync", self._nodes[path], before))
            shared = path.removesuffix("-wal") + "-shm"
            if path.endswith("-wal") and os.path.exists(shared):
                with _real["open"](shared, "rb") as file:
                    self.events.append(Event("shm", ROOT, (os.path.relpath(shared, self.root), file.read())))

    def removed(self, path: str) -> None:
        """See Watcher."""
        with self._lock:
            if self._nodes.pop(path, None) is not None:
                parent, name = os.path.split(path)
                self.events.append(Event("gone", self._nodes[parent], name))

    def renamed(self, old: str, new: str) -> None:
        """A file has another name in its folder."""
        with self._lock:
            if not self.covers(old):
                return
            assert os.path.dirname(old) == os.path.dirname(new), "only renames within a folder are modelled"
            number = self._nodes[new] = self._nodes.pop(old)
            names = os.path.basename(old), os.path.basename(new)
            self.events.append(Event("rename", self._nodes[os.path.dirname(old)], (*names, number)))

    def node_of(self, descriptor: int) -> int | None:
        """Returns the number of an open file or folder below the root."""
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            return None
        number = self._numbers.get(status.st_ino)
        return number if number in self._nodes.values() else None

    def path_of(self, node: int) -> str:
        """Returns where a file or folder lies."""
        return next(path for path, number in self._nodes.items() if number == node)

    def sampled(self, path: str) -> None:
        """Records what was written to a file through a buffer that hides its writes."""
        with self._lock:
            if path not in self._nodes or os.path.isdir(path):
                return
            node = self._nodes[path]
            with _real["open"](path, "rb") as file:
                content = file.read()
            if content != self._contents[node]:
                self._truncated(node, len(content))
                self._wrote(node, 0, content)

    def check(self, target: Path) -> None:
        """Checks that the record is complete: played back as a whole it gives the folder, byte for byte."""
        disk = Disk(self.events)
        disk.advance(len(self.events))
        disk.image(target, lambda: True)
        assert _files(target) == _files(Path(self.root))


def _files(root: Path) -> dict[str, bytes | None]:
    """Returns relative path -> bytes, None for a folder. SQLite rebuilds its shared memory, which is no part of it."""
    found = {str(path.relative_to(root)): None if path.is_dir() else path.read_bytes() for path in root.rglob("*")}
    return {name: content for name, content in found.items() if not name.endswith("-shm")}


_real: dict[str, Any] = {"open": open}


def _fail(number: int, path: str) -> None:
    if number:
        raise OSError(number, os.strerror(number), path)


@contextmanager
def recording(recorder: Recorder) -> Iterator[Recorder]:
    """Records, and applies faults, in this process until the block ends."""
    patch = pytest.MonkeyPatch()
    names = ("open", "write", "pwrite", "ftruncate", "fsync", "rename", "unlink", "rmdir", "mkdir")
    real: dict[str, Callable[..., Any]] = {name: getattr(os, name) for name in names}

    def full(path: Any, dir_fd: int | None = None) -> str:
        text = os.fsdecode(path)
        if dir_fd is not None and not os.path.isabs(text):
            node = recorder.node_of(dir_fd)
            text = os.path.join(recorder.path_of(node), text) if node is not None else ""
        return os.path.abspath(text) if text else ""

    def open_(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        name = full(path, dir_fd)
        if not recorder.covers(name):
            return int(real["open"](path, flags, mode, dir_fd=dir_fd))
        if flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
            _fail(recorder.fault("open", name), name)
        descriptor = int(real["open"](path, flags, mode, dir_fd=dir_fd))
        if flags & os.O_CREAT:
            recorder.opened(name)
        if flags & os.O_TRUNC:
            recorder.truncated(name, 0)
        return descriptor

    def written(descriptor: int, offset: int, data: bytes) -> None:
        node = recorder.node_of(descriptor)
        if node is not None:
            with recorder._lock:
                recorder._wrote(node, offset, bytes(data))

    def fault(operation: str, descriptor: int) -> None:
        node = recorder.node_of(descriptor)
        if node is not None:
            path = recorder.path_of(node)
            _fail(recorder.fault(operation, path), path)

    def write(descriptor: int, data: bytes) -> int:
        fault("write", descriptor)
        node = recorder.node_of(descriptor)
        offset = os.lseek(descriptor, 0, os.SEEK_CUR) if node is not None else 0
        size = int(real["write"](descriptor, data))
        written(descriptor, offset, bytes(data)[:size])
        return size

    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        fault("write", descriptor)
        size = int(real["pwrite"](descriptor, data, offset))
        written(descriptor, offset, bytes(data)[:size])
        return size

    def ftruncate(descriptor: int, size: int) -> None:
        fault("truncate", descriptor)
        real["ftruncate"](descriptor, size)
        node = recorder.node_of(descriptor)
        if node is not None:
            recorder.truncated(recorder.path_of(node), size)

    def fsync(descriptor: int) -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        node = recorder.node_of(number)
        if node is None:
            real["fsync"](number)
            return
        path = recorder.path_of(node)
        recorder.sampled(path)
        before = recorder.begins()
        _fail(recorder.fault("sync", path), path)
        real["fsync"](number)
        recorder.synced(path, before)

    def rename(old: Any, new: Any, **options: Any) -> None:
        source, target = full(old), full(new)
        _fail(recorder.fault("rename", target), target)
        recorder.sampled(source)
        real["rename"](old, new, **options)
        recorder.renamed(source, target)

    def unlink(path: Any, *, dir_fd: int | None = None) -> None:
        name = full(path, dir_fd)
        _fail(recorder.fault("delete", name), name)
        real["unlink"](path, dir_fd=dir_fd)
        recorder.removed(name)

    def rmdir(path: Any, *, dir_fd: int | None = None) -> None:
        name = full(path, dir_fd)
        real["rmdir"](path, dir_fd=dir_fd)
        recorder.removed(name)

    def mkdir(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        name = full(path, dir_fd)
        if not os.path.exists(name):
            _fail(recorder.fault("mkdir", name), name)
        real["mkdir"](path, mode, dir_fd=dir_fd)
        recorder.opened(name, folder=True)

    replaced: dict[str, Callable[..., Any]] = {"open": open_, "write": write, "pwrite": pwrite, "ftruncate": ftruncate}
    replaced |= {"mkdir": mkdir, "rmdir": rmdir}
    replaced |= dict.fromkeys(("fsync", "fdatasync"), fsync)
    replaced |= dict.fromkeys(("rename", "replace"), rename) | dict.fromkeys(("unlink", "remove"), unlink)
    for name, function in replaced.items():
        patch.setattr(os, name, function)
    try:
        with vfs.watched(recorder):
            yield recorder
    finally:
        patch.undo()


def full_disk(operation: str, path: str) -> int:
    """The fault of a disk without space: what needs new blocks fails; removing and syncing goes on."""
    del path
    return errno.ENOSPC if operation in ("open", "write", "mkdir", "rename") else 0
