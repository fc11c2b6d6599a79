"""Columns of items, versions and contents in Cypher, and the rows of the port that are made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from memos_server.errors import MipError
from memos_server.graph_dbs.base import OPEN, Clearance, CubeRow, Kind, Version

KIND_LABELS: Final[Mapping[Kind, str]] = {
    Kind.CUBE: "Settings",
    Kind.MEMORY: "Memory",
    Kind.RELATION: "Relation",
    Kind.SESSION: "Session",
}
"""The label that an item of a kind has beside `Item`."""
KEY_BITS: Final = 36
"""Handles of a cube's items and versions are its key shifted by this, and a number that counts up."""
_KINDS: Final = {kind.value: kind for kind in Kind}

# The version of item `i` at the pinned head, or at a revision before it: the newest that is not after it. `cv` is the
# version at the pinned head, `c` the version that brought the content of `v`, which is often `v` itself.
_NEWEST = """CALL (i) {{ MATCH ({name}:Version) USING INDEX {name}:Version(item, from_revision)
    WHERE {name}.item = i.key AND {name}.from_revision <= {at}
    RETURN {name} ORDER BY {name}.item DESC, {name}.from_revision DESC LIMIT 1 }}"""
CURRENT: Final = _NEWEST.format(name="cv", at="$pin")
"""Finds `cv`, the current version of `i`."""
NOW: Final = _NEWEST.format(name="v", at="$pin") + " WITH *, v AS cv"
"""Finds `v` and `cv` of `i` at present."""
AT: Final = _NEWEST.format(name="v", at="$revision") + " " + CURRENT
"""Finds `v` of `i` at a revision."""
CONTENT: Final = "OPTIONAL MATCH (c:Version {key: v.content})"
"""Finds the content of `v`."""

_ITEM = """i.key, i.kind, i.id, i.uid, v.from_revision, v.to_revision, v.state, v.sensitivity, v.owner, v.merged_into,
    v.time, i.create_time, cv.state, cv.sensitivity, cv.from_revision, v.content, i.source, i.target, i.type, v.weight,
    c.commitment"""
WHOLE: Final = f"{_ITEM}, c.salt, c.payload, c.erased"
"""The columns of a version with content."""
BARE: Final = f"{_ITEM}, null AS no_salt, null AS no_payload, 0 AS not_erased"
"""The columns of a version without it."""
COLUMNS: Final = 24
"""How many columns a version has."""

CUBE: Final = (
    """u.key, u.id, u.uid, u.owner, u.head, u.create_time, u.forked_from, u.items, u.versions, m.digest, m.time"""
)
"""The columns of a cube before those of its settings."""
CUBE_COLUMNS: Final = 11
HEAD: Final = """WITH u, u.head AS head
    OPTIONAL MATCH (m:Commit {cube: u.key, revision: head[0]})
    OPTIONAL MATCH (i:Settings {key: u.settings})
    OPTIONAL MATCH (v:Version {item: i.key, from_revision: head[1]})
    OPTIONAL MATCH (c:Version {key: v.content})
    WITH u, m, i, v, v AS cv, c"""
"""From cube `u` to its head and its settings. `head` is one property, [revision, revision of the settings], so that the
two are never seen half changed."""


class PurgedMeanwhileError(Exception):
    """What is to be read at a revision was erased by a later one, so that the snapshot cannot be held."""


class OvertakenError(Exception):
    """A unit of work is to change a cube that it has read without its lock, and that has changed since."""


def overtaken() -> MipError:
    """Returns the error of work whose snapshot could not be held, however often it was begun anew."""
    return MipError("BACKEND_UNAVAILABLE", "what is read was changed meanwhile; try again", retry_after_s=0.1)


def to_version(row: Sequence[Any], pin: int) -> Version:
    """Builds a Version from the columns of WHOLE or BARE.

    Args:
        row: The columns.
        pin: The head of the snapshot: what was ended or erased after it is shown as it was.

    Raises:
        PurgedMeanwhileError: The content was erased after the pinned head.
    """
    content, commitment, salt, payload, erased = row[15], row[20], row[21], row[22], row[23]
    if content is not None and salt is None and erased != 0 and (erased is None or erased > pin):
        raise PurgedMeanwhileError
    return Version(
        row[0],
        _KINDS[row[1]],
        row[2],
        row[3],
        row[4],
        row[5] if row[5] <= pin else OPEN,
        row[6],
        row[7],
        row[8],
        row[9] or "",
        row[10],
        row[11],
        row[12],
        row[13],
        row[14],
        content,
        commitment or b"",
        salt or b"",
        payload or b"",
        row[16] or "",
        row[17] or "",
        row[18] or "",
        row[19] or 0.0,
    )


class Held:
    """A cube as a unit of work sees it.

    Attributes:
        key: The cube's key.
        row: The cube; None while it has no commit, and after one that changed its settings.
        revision: The head that every read of the unit is answered at.
        items: How many items have been numbered.
        versions: How many versions have been numbered.
        settings: The revision of the settings' version.
    """

    __slots__ = ("items", "key", "revision", "row", "settings", "versions")

    def __init__(self, key: int, row: CubeRow | None, revision: int, settings: int, items: int, versions: int) -> None:
        """Takes what was read."""
        self.key = key
        self.row = row
        self.revision = revision
        self.settings = settings
        self.items = items
        self.versions = versions


def to_held(row: Sequence[Any]) -> Held | None:
    """Builds a cube from the columns of CUBE and WHOLE; None when a commit is being applied that made some of it.

    Raises:
        MipError: DATA_CORRUPT.
        PurgedMeanwhileError: The settings were erased meanwhile.
    """
    key, id_, uid, owner, head, create_time, forked_from, items, versions, digest, time = row[:CUBE_COLUMNS]
    settings = row[CUBE_COLUMNS:]
    if head is None or digest is None or settings[0] is None or settings[4] is None:
        return None
    if [type(value) for value in (uid, owner, create_time, digest, time)] != [str, str, int, bytes, int]:
        raise damaged(f"cubes/{id_}")
    try:
        revision, of_settings = head
        row_ = CubeRow(
            key, id_, uid, owner, revision, digest, time, create_time, to_version(settings, revision), forked_from or ""
        )
    except (TypeError, ValueError, KeyError) as error:
        raise damaged(f"cubes/{id_}") from error
    return Held(key, row_, revision, of_settings, items, versions)


def damaged(name: str) -> MipError:
    """Returns the error of a record that has lost nodes or holds values of another type."""
    return MipError(
        "DATA_CORRUPT",
        f"the record of {name} has lost nodes or holds values of another type, as only a hand in the database makes it;"
        " restore the database from a backup",
    )


def cube_of(handle: int) -> int:
    """Returns the key of the cube whose item or version a handle is."""
    return handle >> KEY_BITS


def first_handle(cube: int) -> int:
    """Returns the handle below all items and versions of a cube."""
    return cube << KEY_BITS


def seen(label: str, item: str) -> str:
    """Returns the Cypher of whether an item is seen; its parameters are those of `seen_parameters`.

    Args:
        label: The Cypher of the item's label; constant text.
        item: The variable of its node; constant text.
    """
    return f"({label} <= $level OR {label} <= coalesce($granted[{item}.id], 0))"


def seen_parameters(clearance: Clearance) -> dict[str, Any]:
    """Returns the parameters of `seen`."""
    return {"level": clearance.level, "granted": dict(clearance.granted)}
