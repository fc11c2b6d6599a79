"""A disk that loses power: what was written and synced, in order, and the folder that is found afterwards.

The model is POSIX at its strictest. A file's bytes and size are durable after an fsync of the file, an entry of a
folder (creation, rename, removal) after an fsync of the folder; nothing else is. Of what was not synced, any part may
have reached the disk: single sectors of a write, single entries, in any order. A sync covers what happened before it
began. One that fails has lost what it was to write, and no later one writes it, as on Linux. Only a sector is written
as a whole, and bytes outside a write stay as they are (SQLite's powersafe overwrite).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

SECTOR: Final = 512
"""The bytes that a disk writes as a whole."""

ROOT: Final = 0
"""The number of the folder that everything lies in; it is durable."""


class Event(NamedTuple):
    """Something that happened to the disk, or (`note`) was known outside when it did.

    Attributes:
        kind: `entry` (a name in a folder), `gone`, `rename`, `write`, `truncate`, `sync`, `lost` (a sync of a file
            failed), `shm` or `note`.
        node: The number of the file or folder that it happened to.
        data: `entry`: (name, number, is a folder); `gone`: name; `rename`: (old name, new name, number); `write`:
            (offset, bytes); `truncate`: size; `sync` and `lost`: how many events had happened when it began; `shm`:
            (name, bytes) of SQLite's shared memory; `note`: anything.
    """

    kind: str
    node: int
    data: Any


@dataclass(slots=True)
class _Node:
    folder: bool
    entries: dict[str, int] = field(default_factory=dict)
    content: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, Event]] = field(default_factory=list)


Keep = Callable[[], bool]


def _change_entries(entries: dict[str, int], event: Event) -> None:
    if event.kind == "entry":
        entries[event.data[0]] = event.data[1]
    elif event.kind == "gone":
        entries.pop(event.data, None)
    else:
        old, new, number = event.data
        entries.pop(old, None)
        entries[new] = number


def _change_content(content: bytearray, event: Event, keep: Keep) -> None:
    if event.kind == "truncate":
        if keep():
            del content[event.data :]
            content.extend(bytes(event.data - len(content)))
        return
    offset, data = event.data
    at = 0
    while at < len(data):
        size = min(SECTOR - (offset + at) % SECTOR, len(data) - at)
        if keep():
            content.extend(bytes(max(0, offset + at - len(content))))
            content[offset + at : offset + at + size] = data[at : at + size]
        at += size


class Disk:
    """The state of a disk, brought forward event by event."""

    def __init__(self, events: list[Event]) -> None:
        """Begins before the first event, with an empty folder."""
        self._events = events
        self._nodes = {ROOT: _Node(folder=True)}
        self._shared: dict[str, list[bytes]] = {}
        self.position = 0
        self.notes: list[Any] = []

    def advance(self, position: int) -> None:
        """Lets the events before `position` happen."""
        for index in range(self.position, position):
            event = self._events[index]
            if event.kind == "note":
                self.notes.append(event.data)
            elif event.kind == "shm":
                self._shared.setdefault(event.data[0], []).append(event.data[1])
            elif event.kind == "sync":
                self._sync(self._nodes[event.node], event.data)
            elif event.kind == "lost":
                node = self._nodes[event.node]
                node.pending = [late for late in node.pending if late[0] >= event.data]
            else:
                if event.kind == "entry":
                    self._nodes.setdefault(event.data[1], _Node(folder=event.data[2]))
                self._nodes[event.node].pending.append((index, event))
        self.position = max(self.position, position)

    def _sync(self, node: _Node, before: int) -> None:
        late = []
        for index, event in node.pending:
            if index >= before:
                late.append((index, event))
            elif node.folder:
                _change_entries(node.entries, event)
            else:
                _change_content(node.content, event, lambda: True)
        node.pending = late

    def image(self, target: Path, keep: Keep) -> None:
        """Writes the folder that is found after the power went now.

        Args:
            target: The folder to make.
            keep: Asked for each sector and each entry that was not synced: whether it reached the disk.
        """
        self._write_folder(self._nodes[ROOT], target, keep)

    def _write_folder(self, node: _Node, target: Path, keep: Keep) -> None:
        target.mkdir(mode=0o700)
        entries = dict(node.entries)
        for _, event in node.pending:
            if keep():
                _change_entries(entries, event)
        for name, number in entries.items():
            found = self._nodes[number]
            if found.folder:
                self._write_folder(found, target / name, keep)
                continue
            content = bytearray(found.content)
            for _, event in found.pending:
                _change_content(content, event, keep)
            (target / name).write_bytes(content)
            (target / name).chmod(0o600)

    def shared_memory(self, target: Path, rng: random.Random) -> None:
        """Adds SQLite's shared memory to an image as any earlier moment left it, or as garbage, or not at all."""
        for name, moments in self._shared.items():
            if not (target / name).parent.is_dir():
                continue
            choice = rng.randrange(4)
            if choice == 0:
                (target / name).write_bytes(rng.randbytes(32768))
            elif choice > 1:
                (target / name).write_bytes(moments[-1] if choice == 2 else rng.choice(moments))

    def numbers(self) -> Iterable[int]:
        """Returns the numbers of all files and folders that there ever were."""
        return self._nodes

    def paths(self, root: str, number: int = ROOT) -> Iterator[tuple[str, int]]:
        """Yields the path and number of what is there, synced or not."""
        entries = dict(self._nodes[number].entries)
        for _, event in self._nodes[number].pending:
            _change_entries(entries, event)
        for name, inner in entries.items():
            yield f"{root}/{name}", inner
            if self._nodes[inner].folder:
                yield from self.paths(f"{root}/{name}", inner)
