"""The nodes and relationships that a commit makes, as parameters of the statements that make them."""

from __future__ import annotations

from typing import Any, Final

from memos_server._pb.mip.v1.commit_pb2 import CommitHeader
from memos_server.graph_dbs.base import OPEN, CommitRow, Kind, NewContent, NewVersion
from memos_server.graph_dbs.neo4j.shapes import Held, first_handle

_ACTIVE: Final = 1
_ROW_BYTES: Final = 400
"""About what a row weighs beside its content."""


class Rows:
    """Rows for UNWIND, each with its weight in bytes."""

    __slots__ = ("rows", "weights")

    def __init__(self) -> None:
        """Begins empty."""
        self.rows: list[dict[str, Any]] = []
        self.weights: list[int] = []


class CommitBatch:
    """What a commit makes, numbered.

    Attributes:
        items: How many items of the cube have been numbered.
        versions: How many versions have been.
        new: Kind -> items to make with their first version.
        next: Kind -> next versions of items.
        blobs: Which version's content names which blob.
        related: Relations that are active now.
        unrelated: Handles of relations that are not any more.
        names: (kind, id) of the items that are made.
        settings: The handle of the settings' item, when the commit makes or changes it.
    """

    def __init__(self, cube: int, commit: CommitRow, items: int, versions: int) -> None:
        """Goes on numbering after `items` and `versions`."""
        self._base = first_handle(cube)
        self._cube = cube
        self._commit = commit
        self._first = self._base + versions + 1
        self.items = items
        self.versions = versions
        self.new: dict[Kind, Rows] = {}
        self.next: dict[Kind, Rows] = {}
        self.blobs: list[dict[str, Any]] = []
        self.related: list[dict[str, Any]] = []
        self.unrelated: list[int] = []
        self.names: set[tuple[int, str]] = set()
        self.settings: int | None = None

    def take(self, change: NewVersion) -> None:
        """Takes in a change."""
        self.versions += 1
        key = self._base + self.versions
        item = change.item
        if item is None:
            self.items += 1
            item = self._base + self.items
        version, weight = self._version(change, key, item)
        if change.item is None:
            rows = self.new.setdefault(change.kind, Rows())
            rows.rows.append({"item": self._item(change, item), "version": version})
            self.names.add((int(change.kind), change.id))
        else:
            rows = self.next.setdefault(change.kind, Rows())
            rows.rows.append({"item": item, "version": version})
        rows.weights.append(weight)
        if change.kind is Kind.CUBE:
            self.settings = item
        elif change.kind is Kind.RELATION:
            self._relate(change, item)

    def _item(self, change: NewVersion, item: int) -> dict[str, Any]:
        made = {
            "cube": self._cube,
            "kind": int(change.kind),
            "key": item,
            "id": change.id,
            "uid": change.uid.lower(),
            "create_time": self._commit.time,
        }
        if change.source:
            made["source"] = change.source.lower()
        if change.target:
            made["target"] = change.target.lower()
        if change.type:
            made["type"] = change.type
        return made

    def _version(self, change: NewVersion, key: int, item: int) -> tuple[dict[str, Any], int]:
        made: dict[str, Any] = {
            "key": key,
            "item": item,
            "from_revision": self._commit.revision,
            "to_revision": OPEN,
            "state": int(change.state),
            "sensitivity": int(change.sensitivity),
            "owner": change.owner,
            "time": self._commit.time,
            "change": change.change,
        }
        weight = _ROW_BYTES + len(change.change)
        # What is empty is left out: a property that is not there takes no room.
        if change.merged_into:
            made["merged_into"] = change.merged_into
        if change.weight:
            made["weight"] = float(change.weight)
        content = change.content
        if isinstance(content, NewContent):
            # The version that brings a content holds it, and its handle is the content's.
            made["content"] = key
            made["commitment"] = content.commitment
            made["salt"] = content.salt
            made["digest"] = content.digest
            made["payload"] = content.payload
            weight += len(content.payload)
            if content.vector is not None:
                made["vector"] = content.vector
                weight += len(content.vector)
            self.blobs.extend({"key": key, "digest": digest} for digest in dict.fromkeys(content.blobs))
        elif content is not None:
            made["content"] = content
        return made, weight

    def _relate(self, change: NewVersion, item: int) -> None:
        if change.state != _ACTIVE:
            self.unrelated.append(item)
            return
        self.related.append(
            {
                "key": item,
                "source": change.source.lower(),
                "target": change.target.lower(),
                "type": change.type,
                "weight": float(change.weight),
            }
        )

    def commit_node(self) -> dict[str, Any]:
        """Returns the properties of the commit's node."""
        commit = self._commit
        return {
            "cube": self._cube,
            "revision": commit.revision,
            "digest": commit.digest,
            "header": commit.header,
            "time": commit.time,
            "change_count": self.versions - (self._first - self._base - 1),
            "first_version": self._first,
        }

    def head(self, before: Held) -> dict[str, Any]:
        """Returns what the commit changes of the cube's node.

        Args:
            before: The cube before the commit.
        """
        commit = self._commit
        of_settings = before.settings if self.settings is None else commit.revision
        values: dict[str, Any] = {
            "head": [commit.revision, of_settings],
            "items": self.items,
            "versions": self.versions,
        }
        if commit.revision == 1:
            values["create_time"] = commit.time
            values["settings"] = self.settings
            heads = CommitHeader.FromString(commit.header).merged_heads
            if heads:
                values["forked_from"] = heads[0].cube_uid.lower()
        return values
