"""SQLite's own file operations, watched: a VFS in front of the default one, put there through ctypes.

It needs neither a compiler nor root, but an SQLite whose functions can be called: one that Python links dynamically.
Everything but what changes files goes straight to SQLite's code.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int64, c_void_p
from typing import Any, Final, Protocol

SQLITE_OK: Final = 0
_FULL: Final = 13
_READ_ONLY: Final = 8
_CANTOPEN: Final = 14
_IO_ERRORS: Final = {"write": 778, "sync": 1034, "truncate": 1546, "delete": 2570}
_SYNC_WAL_FOLDER: Final = "openDirectory"

_OPEN = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)
_DELETE = CFUNCTYPE(c_int, c_void_p, c_char_p, c_int)
_CLOSE = CFUNCTYPE(c_int, c_void_p)
_WRITE = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_TRUNCATE = CFUNCTYPE(c_int, c_void_p, c_int64)
_SYNC = CFUNCTYPE(c_int, c_void_p, c_int)
_SET_CALL = CFUNCTYPE(c_int, c_void_p, c_char_p, c_void_p)
_GET_CALL = CFUNCTYPE(c_void_p, c_void_p, c_char_p)
_OPEN_FOLDER = CFUNCTYPE(c_int, c_char_p, POINTER(c_int))


class _Vfs(Structure):
    _fields_ = [
        ("iVersion", c_int),
        ("szOsFile", c_int),
        ("mxPathname", c_int),
        ("pNext", c_void_p),
        ("zName", c_char_p),
        ("pAppData", c_void_p),
        ("xOpen", c_void_p),
        ("xDelete", c_void_p),
        *((name, c_void_p) for name in ("xAccess", "xFullPathname", "xDlOpen", "xDlError", "xDlSym", "xDlClose")),
        *((name, c_void_p) for name in ("xRandomness", "xSleep", "xCurrentTime", "xGetLastError", "xCurrentTimeInt64")),
        *((name, c_void_p) for name in ("xSetSystemCall", "xGetSystemCall", "xNextSystemCall")),
    ]


class _Methods(Structure):
    _fields_ = [
        ("iVersion", c_int),
        *((name, c_void_p) for name in ("xClose", "xRead", "xWrite", "xTruncate", "xSync", "xFileSize", "xLock")),
        *((name, c_void_p) for name in ("xUnlock", "xCheckReservedLock", "xFileControl", "xSectorSize")),
        *((name, c_void_p) for name in ("xDeviceCharacteristics", "xShmMap", "xShmLock", "xShmBarrier")),
        *((name, c_void_p) for name in ("xShmUnmap", "xFetch", "xUnfetch")),
    ]


class Watcher(Protocol):
    """Hears of every change before and after it happens."""

    def fault(self, operation: str, path: str) -> int:
        """Returns the errno that an operation (`open`, `write`, `sync` …) shall fail with, or 0."""

    def opened(self, path: str) -> None:
        """A file was opened, and made if it was not there."""

    def wrote(self, path: str, offset: int, data: bytes) -> None:
        """Bytes were written."""

    def truncated(self, path: str, size: int) -> None:
        """A file has another size."""

    def begins(self) -> int:
        """Returns the number of events, for a sync that begins now."""

    def synced(self, path: str, before: int) -> None:
        """A file or folder was synced."""

    def removed(self, path: str) -> None:
        """A file was removed."""


def _sqlite() -> ctypes.CDLL:
    """Returns the SQLite that Python's sqlite3 calls.

    Raises:
        AttributeError: Its functions cannot be reached.
    """
    module = importlib.import_module("_sqlite3")
    library = ctypes.CDLL(getattr(module, "__file__", None))
    library.sqlite3_vfs_find.restype = POINTER(_Vfs)
    library.sqlite3_vfs_find.argtypes = [c_char_p]
    library.sqlite3_vfs_register.argtypes = [POINTER(_Vfs), c_int]
    library.sqlite3_vfs_unregister.argtypes = [POINTER(_Vfs)]
    return library


def not_run() -> str:
    """Returns why SQLite's file operations cannot be watched here; empty when they can."""
    try:
        found = _sqlite().sqlite3_vfs_find(None).contents
    except (AttributeError, OSError):
        return "this Python's SQLite is linked statically and shows no functions"
    return "" if found.zName == b"unix" and found.iVersion >= 3 else "SQLite's default VFS is not the one of Unix"


class _Shim:
    """The callbacks; whoever holds it keeps them alive."""

    def __init__(self, library: ctypes.CDLL, watcher: Watcher) -> None:
        self._library = library
        self._watcher = watcher
        self._below = library.sqlite3_vfs_find(None)
        self._paths: dict[int, str] = {}
        self._tables: dict[int, _Methods] = {}
        self._real: dict[int, _Methods] = {}
        self._local = threading.local()
        below = self._below.contents
        self._real_open = _OPEN(below.xOpen)
        self._real_delete = _DELETE(below.xDelete)
        self._get_call = _GET_CALL(below.xGetSystemCall)
        self._set_call = _SET_CALL(below.xSetSystemCall)
        vfs = ctypes.cast(self._below, c_void_p)
        self._real_open_folder = _OPEN_FOLDER(self._get_call(vfs, _SYNC_WAL_FOLDER.encode()))
        self._callbacks: list[Any] = [
            _OPEN(self._guard(self._open)),
            _DELETE(self._guard(self._delete)),
            _CLOSE(self._guard(self._close)),
            _WRITE(self._guard(self._write)),
            _TRUNCATE(self._guard(self._truncate)),
            _SYNC(self._guard(self._sync)),
            _OPEN_FOLDER(self._guard(self._open_folder)),
        ]
        self._vfs = _Vfs.from_buffer_copy(below)
        self._vfs.zName = b"watched"
        self._vfs.xOpen, self._vfs.xDelete = (ctypes.cast(call, c_void_p).value for call in self._callbacks[:2])
        self.errors: list[BaseException] = []

    def install(self) -> None:
        """Makes it the VFS of every database that is opened from now on."""
        self._library.sqlite3_vfs_register(ctypes.byref(self._vfs), 1)
        below = ctypes.cast(self._below, c_void_p)
        self._set_call(below, _SYNC_WAL_FOLDER.encode(), ctypes.cast(self._callbacks[6], c_void_p))

    def remove(self) -> None:
        """Puts the default VFS back; databases that are open go on with this one."""
        below = ctypes.cast(self._below, c_void_p)
        self._set_call(below, _SYNC_WAL_FOLDER.encode(), ctypes.cast(self._real_open_folder, c_void_p))
        self._library.sqlite3_vfs_register(self._below, 1)
        self._library.sqlite3_vfs_unregister(ctypes.byref(self._vfs))

    def _guard(self, call: Callable[..., int]) -> Callable[..., int]:
        """Returns a callback that notes an exception, which C could not pass on, and fails."""

        def guarded(*arguments: Any) -> int:
            try:
                return call(*arguments)
            except BaseException as error:
                self.errors.append(error)
                return _IO_ERRORS["write"]

        return guarded

    def _refused(self, operation: str, path: str) -> int:
        number = self._watcher.fault(operation, path)
        if not number:
            return SQLITE_OK
        if operation == "open":
            return _CANTOPEN
        if number == errno.ENOSPC:
            return _FULL
        return _READ_ONLY if number == errno.EROFS else _IO_ERRORS[operation]

    def _open(self, vfs: int, name: int | None, file: int, flags: int, out: int | None) -> int:
        path = os.fsdecode(ctypes.string_at(name)) if name else ""
        if path and not os.path.exists(path) and (refused := self._refused("open", path)):
            # SQLite closes a file only when its methods are set.
            c_void_p.from_address(file).value = None
            return refused
        status = self._real_open(ctypes.cast(self._below, c_void_p), name, file, flags, out)
        methods = c_void_p.from_address(file).value
        if status == SQLITE_OK and path and methods:
            self._paths[file] = path
            c_void_p.from_address(file).value = ctypes.addressof(self._table(methods))
            self._watcher.opened(path)
        return int(status)

    def _table(self, address: int) -> _Methods:
        """Returns a copy of a table of methods whose writing ones are watched."""
        if address not in self._tables:
            real = _Methods.from_address(address)
            table = _Methods.from_buffer_copy(real)
            names = ("xClose", "xWrite", "xTruncate", "xSync")
            for name, call in zip(names, self._callbacks[2:6], strict=True):
                setattr(table, name, ctypes.cast(call, c_void_p).value)
            self._tables[address] = table
            self._real[ctypes.addressof(table)] = real
        return self._tables[address]

    def _of(self, file: int, name: str, kind: Any) -> Any:
        return kind(getattr(self._real[c_void_p.from_address(file).value or 0], name))

    def _close(self, file: int) -> int:
        close = self._of(file, "xClose", _CLOSE)
        del self._paths[file]
        return int(close(file))

    def _write(self, file: int, data: int, size: int, offset: int) -> int:
        path = self._paths[file]
        if refused := self._refused("write", path):
            return refused
        status = int(self._of(file, "xWrite", _WRITE)(file, data, size, offset))
        if status == SQLITE_OK:
            self._watcher.wrote(path, offset, ctypes.string_at(data, size))
        return status

    def _truncate(self, file: int, size: int) -> int:
        path = self._paths[file]
        if refused := self._refused("truncate", path):
            return refused
        status = int(self._of(file, "xTruncate", _TRUNCATE)(file, size))
        if status == SQLITE_OK:
            self._watcher.truncated(path, size)
        return status

    def _sync(self, file: int, flags: int) -> int:
        path = self._paths[file]
        before = self._watcher.begins()
        if refused := self._refused("sync", path):
            return refused
        self._local.folders = []
        status = int(self._of(file, "xSync", _SYNC)(file, flags))
        if status == SQLITE_OK:
            self._watcher.synced(path, before)
            for folder in self._local.folders:
                self._watcher.synced(folder, before)
        return status

    def _delete(self, vfs: int, name: bytes, sync_folder: int) -> int:
        path = os.fsdecode(name)
        if refused := self._refused("delete", path):
            return refused
        there = os.path.exists(path)
        self._local.folders = []
        status = int(self._real_delete(ctypes.cast(self._below, c_void_p), name, sync_folder))
        if status == SQLITE_OK and there:
            self._watcher.removed(path)
            for folder in self._local.folders:
                self._watcher.synced(folder, self._watcher.begins())
        return status

    def _open_folder(self, name: bytes, descriptor: Any) -> int:
        # SQLite opens the folder of a file for nothing but to sync it.
        status = int(self._real_open_folder(name, descriptor))
        self._local.folders = [*getattr(self._local, "folders", []), os.path.dirname(os.fsdecode(name))]
        return status


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Watches the databases that are opened in the block, until they are closed."""
    shim = _Shim(_sqlite(), watcher)
    shim.install()
    try:
        yield
    finally:
        shim.remove()
        _kept.append(shim)
    if shim.errors:
        raise shim.errors[0]


_kept: list[_Shim] = []
"""Databases that were opened through a shim call it until they are closed, so none is ever freed."""
