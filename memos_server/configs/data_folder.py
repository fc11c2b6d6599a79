"""The data folder: one place on disk that holds a server's record, index, blobs, keys and models.

Only one server works in it at a time (flock). Its format has one number, for everything in it that is not derived: the
layout, the keys, the blobs, and the record's schema, whose `user_version` is the same number. `FORMAT` states it, with
the server that wrote it, and keeps older servers out. What is derived has versions of its own: an index of another
version is made anew.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple

from memos_server import __version__
from memos_server.configs.errors import SetupError
from memos_server.configs.secret_files import create_secret, fsync_folder, read_secret, read_small, write_file

FORMAT_VERSION: Final = 1
"""The number of the format that this server writes. It reads this one and brings older ones up to date. Every migration
of the record raises it; a change of the layout alone is an empty migration."""

THIS_SERVER: Final = f"memos-mip {__version__}"
PAGE_KEY_BYTES: Final = 32
"""The size of the key that signs page tokens."""

BACKUP_MANIFEST: Final = "backup.json"
"""The file that makes a folder a backup: no server starts on one."""

_SQLITE_MAGIC: Final = b"SQLite format 3\0"


def refuse_newer(where: str, number: int, writer: str = "") -> None:
    """Refuses what a newer server wrote.

    Args:
        where: What is refused, such as `The data folder /var/lib/memos`.
        number: The number of its format.
        writer: The server that wrote it, as far as is known.

    Raises:
        SetupError: The number is above FORMAT_VERSION.
    """
    if number > FORMAT_VERSION:
        by = f", written by {writer}" if writer else ""
        raise SetupError(
            f"{where} has format {number}{by}; this server, {THIS_SERVER}, reads up to {FORMAT_VERSION}.",
            f"Start {writer or 'the newer server that wrote it'}, or restore a backup of before the upgrade into a new "
            "folder.",
        )


class Format(NamedTuple):
    """What `FORMAT` says.

    Attributes:
        number: The number of the folder's format.
        writer: The server that started last in it; empty when unknown.
    """

    number: int
    writer: str


class ServerInfo(NamedTuple):
    """Where the running server of a data folder is found.

    Attributes:
        address: `HOST:PORT`.
        pid: The server's process id.
        tls: True when it speaks TLS.
    """

    address: str
    pid: int
    tls: bool


class DataFolder:
    """A data folder and the paths in it. `open` claims it, `close` lets it go; it is a context manager of the two."""

    def __init__(self, path: Path | str, keys: Path | None = None) -> None:
        """Names the folder; nothing is touched before `open`.

        Args:
            path: The folder.
            keys: The folder of the keys that sign tokens, where several servers share one; None means the folder's own.
        """
        self.path = Path(path).expanduser().absolute()
        self._keys = self.path / "keys" if keys is None else keys.expanduser().absolute()
        self._lock: int | None = None

    @property
    def record(self) -> Path:
        """The record's SQLite file."""
        return self.path / "record.sqlite"

    @property
    def index(self) -> Path:
        """The folder of the search index."""
        return self.path / "index"

    @property
    def blobs(self) -> Path:
        """The folder of the blob store."""
        return self.path / "blobs"

    @property
    def models(self) -> Path:
        """The folder of weights that the user installed."""
        return self.path / "models"

    @property
    def token_key(self) -> Path:
        """The private key that signs tokens."""
        return self._keys / "token.ed25519.pem"

    @property
    def page_key(self) -> Path:
        """The key that signs page tokens."""
        return self._keys / "page-tokens.key"

    @property
    def admin_token(self) -> Path:
        """The local administrator's token, plain text."""
        return self.path / "admin.token"

    @property
    def server_info(self) -> Path:
        """Where the running server is found, JSON; present while it runs."""
        return self.path / "server.json"

    @property
    def config_file(self) -> Path:
        """The settings file that is read when no other is named."""
        return self.path / "memos.toml"

    def open(self) -> None:
        """Makes the folder where it is missing (0700), locks it and checks its format.

        Raises:
            SetupError: Another server uses it, it is not writable, or a newer version made it.
        """
        try:
            # Before anything is touched; and again under the lock, when nobody else can change it.
            self.check()
            self._make()
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._not_writable(error) from error
        try:
            self._claim(lock)
            if self.check() is None:
                self.write_format(FORMAT_VERSION, THIS_SERVER)
            for folder in (self.index, self.blobs, self.models, self._keys):
                folder.mkdir(mode=0o700, exist_ok=True)
            fsync_folder(self.path)
        except OSError as error:
            os.close(lock)
            raise self._not_writable(error) from error
        except BaseException:
            os.close(lock)
            raise
        self._lock = lock

    def _make(self) -> None:
        """Makes the folder where it is missing, durably: its entry lies in the folder above."""
        made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The nearest one always: a start that was cut off may have made the folder and no more.
        for folder in reversed(made or [self.path]):
            # A folder above that this user cannot read was made, and made durable, by somebody else.
            with suppress(PermissionError):
                fsync_folder(folder.parent)

    def _not_writable(self, error: OSError) -> SetupError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return SetupError(f"The disk of the data folder {self.path} is full.", "Free some space there.")
        return SetupError(
            f"The data folder {self.path} cannot be written: {error.strerror}.",
            "Make it writable by this user, or name another one with --data.",
        )

    def _claim(self, lock: int) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(lock, 32, 0).decode("ascii", errors="replace").strip()
            by = f" (process {holder})" if holder.isdecimal() else ""
            raise SetupError(
                f"Another server{by} uses the data folder {self.path}.",
                "Stop that server, or name another folder with --data.",
            ) from error
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode("ascii"), 0)

    def format(self) -> Format | None:
        """Returns what `FORMAT` says; None when there is no such file.

        Raises:
            SetupError: It holds no version number, or cannot be read.
        """
        path = self.path / "FORMAT"
        try:
            lines = read_small(path, 256).decode("ascii", errors="replace").splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise SetupError(f"{path} cannot be read: {error.strerror}.", "Make it readable by this user.") from error
        number = lines[0].strip() if lines else ""
        if not number.isdecimal() or int(number) < 1:
            raise SetupError(f"{path} holds no version number.", "Restore it from a backup of the folder.")
        writer = lines[1].strip() if len(lines) > 1 else ""
        return Format(int(number), writer if writer.isprintable() else "")

    def check(self) -> Format | None:
        """Returns what `FORMAT` says; None of a folder that is still to be made. Only reads.

        Raises:
            SetupError: It is no data folder, or a newer server's.
        """
        if (self.path / BACKUP_MANIFEST).exists():
            raise SetupError(
                f"{self.path} is a backup, not a data folder.",
                f"Make a data folder of it: memos restore {self.path} --data DIR.",
            )
        stated = self.format()
        where = f"The data folder {self.path}"
        if stated is not None:
            refuse_newer(where, stated.number, stated.writer)
        elif self.record.exists():
            raise SetupError(
                f"{where} holds a record but no FORMAT file.",
                "Restore FORMAT from the same backup as the rest of the folder.",
            )
        refuse_newer(f"The record of {where[0].lower()}{where[1:]}", self._record_number())
        return stated

    def _record_number(self) -> int:
        """Returns the number that the record's file states in its header; 0 when there is no such header."""
        try:
            header = read_small(self.record, 100)
        except OSError:
            # Whoever opens the record says what is wrong with it.
            return 0
        return int.from_bytes(header[60:64], "big") if header.startswith(_SQLITE_MAGIC) else 0

    def up_to_date(self) -> None:
        """States in `FORMAT` that everything is of this server's format, once the record is."""
        if self.format() != (FORMAT_VERSION, THIS_SERVER):
            self.write_format(FORMAT_VERSION, THIS_SERVER)

    def write_format(self, number: int, writer: str) -> None:
        """Writes `FORMAT`, durably."""
        write_file(self.path / "FORMAT", f"{number}\n{writer}\n".encode("ascii"))

    def close(self) -> None:
        """Removes `server.json` and unlocks the folder; a second call does nothing."""
        if self._lock is None:
            return
        self.remove_server_info()
        lock, self._lock = self._lock, None
        # A number that stays on a disk that takes no writes misleads nobody: the lock itself is the process's.
        with suppress(OSError):
            os.ftruncate(lock, 0)
        os.close(lock)

    def __enter__(self) -> DataFolder:
        """Opens the folder."""
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the folder."""
        self.close()

    def write_server_info(self, address: str, tls: bool) -> None:
        """Publishes where the server listens, for SDK and CLI on this machine.

        Args:
            address: `HOST:PORT`, the port as it was bound.
            tls: True when it speaks TLS.
        """
        text = json.dumps({"address": address, "pid": os.getpid(), "tls": tls})
        write_file(self.server_info, text.encode() + b"\n")

    def remove_server_info(self) -> None:
        """Removes what `write_server_info` wrote."""
        # On a disk that turned read-only it stays, and names a server that does not answer, as after a crash.
        with suppress(OSError):
            self.server_info.unlink(missing_ok=True)

    def read_server_info(self) -> ServerInfo | None:
        """Returns where the running server is found; None when none runs or the file is damaged."""
        try:
            value = json.loads(read_small(self.server_info))
            return ServerInfo(str(value["address"]), int(value["pid"]), bool(value["tls"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def index_version(self) -> str:
        """Returns the version of what the indexes hold; empty when there is none, or it cannot be read."""
        try:
            return read_small(self.index / "VERSION", 64).decode("ascii", "replace")
        except OSError:
            return ""

    def set_index_version(self, version: str) -> None:
        """Writes the version of what the indexes hold, durably."""
        try:
            self.index.mkdir(mode=0o700, exist_ok=True)
            write_file(self.index / "VERSION", version.encode("ascii"))
        except OSError as error:
            raise self._not_writable(error) from error

    def clear_index(self) -> None:
        """Removes whatever lies in the folder of the search index, which is derived.

        What another backend left there would keep the words of memories that are purged from now on.
        """
        try:
            for path in self.index.iterdir() if self.index.exists() else ():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        except OSError as error:
            raise self._not_writable(error) from error

    def page_token_key(self) -> bytes:
        """Returns the 32-byte key of page tokens, made at the first call.

        Raises:
            SetupError: The key's file is readable by others or has another size.
        """
        if not self.page_key.exists():
            create_secret(self.page_key, os.urandom(PAGE_KEY_BYTES))
        key = read_secret(self.page_key)
        if len(key) != PAGE_KEY_BYTES:
            raise SetupError(
                f"{self.page_key} does not hold {PAGE_KEY_BYTES} bytes.", "Remove the file; the server makes a new one."
            )
        return key
