"""What a record store needs besides its port so that a record can move into another store (`memos migrate`).

The logs of the cubes move through the port itself. What lies beside them, in tables of rows that no log describes,
moves as *loose rows*: tuples of plain values that mean the same in every store, so cubes are named by their ids. A
store without this serves as any other; it only cannot be moved from or to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, Protocol, runtime_checkable

from memos_server.configs.errors import SetupError
from memos_server.graph_dbs.base import ChangeRow, Reader, RecordStore

LooseRow = tuple[str | int | bytes, ...]
"""The values of a row in the order of its table's columns; the first ones are its key."""

LooseKey = tuple[str | int | bytes, ...]
"""The values of a row's key."""


class Table(StrEnum):
    """Where loose rows lie."""

    REQUESTS = "requests"
    REVOKED_TOKENS = "revoked_tokens"
    GRANTS = "grants"
    AUDIT_EVENTS = "audit_events"
    JOBS = "jobs"
    BLOBS = "blobs"
    BLOB_PROOFS = "blob_proofs"


class Columns(NamedTuple):
    """The columns of a table.

    Attributes:
        key: Those that tell its rows apart, and in whose order they are listed.
        rest: The others.
    """

    key: tuple[str, ...]
    rest: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        """All columns, in order."""
        return self.key + self.rest


COLUMNS: Final[Mapping[Table, Columns]] = MappingProxyType(
    {
        # `cube` is the id of the cube that the call changed, empty for none.
        Table.REQUESTS: Columns(
            ("principal", "method", "resource", "request_id"), ("salt", "digest", "result", "revision", "cube", "time")
        ),
        Table.REVOKED_TOKENS: Columns(("id",), ("time",)),
        # `place` grows with every new grant; only read, as grants are written through the port.
        Table.GRANTS: Columns(("place",), ("principal", "resource", "role", "max_sensitivity", "updated")),
        Table.AUDIT_EVENTS: Columns(
            ("sequence",), ("time", "principal", "method", "resource", "outcome", "detail", "count", "revision")
        ),
        Table.JOBS: Columns(
            ("cube", "id"),
            (
                "kind",
                "state",
                "principal",
                "created",
                "updated",
                "done",
                "total",
                "error_reason",
                "error_message",
                "lease_owner",
                "lease_until",
            ),
        ),
        # `doomed` is 0, 1 once no content names it, 2 while its bytes are being erased.
        Table.BLOBS: Columns(("cube", "digest"), ("size", "time", "doomed")),
        Table.BLOB_PROOFS: Columns(("cube", "digest", "principal"), ()),
    }
)
"""Table -> its columns. Times are microseconds since the epoch."""


def key_of(table: Table, row: LooseRow) -> LooseKey:
    """Returns the key of a row."""
    return row[: len(COLUMNS[table].key)]


def before_all(table: Table) -> LooseKey:
    """Returns a key that comes before all keys of a table."""
    numbered = table in (Table.GRANTS, Table.AUDIT_EVENTS)
    return (0,) if numbered else ("",) * len(COLUMNS[table].key)


@dataclass(frozen=True, slots=True)
class Mark:
    """What a record notes of a move.

    Attributes:
        role: `source` of a move under way, `target` of one, or `moved`: it is over, and the record is the other one.
        id: Of the move, the same on both sides.
        other: The other side, in words without secrets.
        time: When the mark was made, RFC 3339.
    """

    role: Literal["source", "target", "moved"]
    id: str
    other: str
    time: str

    def text(self) -> str:
        """Returns the mark as a store keeps it."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, text: str) -> Mark | None:
        """Reads a mark; None for no text.

        Raises:
            SetupError: It is no mark of this or an earlier version.
        """
        if not text:
            return None
        try:
            found = json.loads(text)
            mark = cls(found["role"], str(found["id"]), str(found["other"]), str(found["time"]))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise _unreadable() from error
        if mark.role not in ("source", "target", "moved"):
            raise _unreadable()
        return mark


def _unreadable() -> SetupError:
    return SetupError(
        "The record has a mark of a migration that this server does not understand.",
        "Use the version of the server that migrated it, or remove the mark with `memos migrate --undo`.",
    )


@runtime_checkable
class MovingStore(RecordStore, Protocol):
    """A record store that a record can be moved from and to.

    Each call is a transaction of its own: loose rows move while nobody writes, or are compared once more then.
    """

    async def open_beside(self) -> None:
        """Opens the store to read it while a server goes on using it; changes nothing but, later, the mark.

        Raises:
            SetupError: Its schema is not this version's.
            MipError: As `open`.
        """

    async def mark(self) -> str:
        """Returns the mark that the record has; empty for none."""

    async def set_mark(self, text: str) -> None:
        """Gives the record a mark, durably; an empty one takes it away."""

    async def changes_of(self, txn: Reader, cube: int, low: int, high: int) -> Mapping[int, Sequence[ChangeRow]]:
        """Returns revision -> changes, with content, of the commits with low <= revision <= high, which are few changes
        together: at once, where each call is a way over the network.

        Args:
            txn: A snapshot of this store.
            cube: The cube's key.
            low: The first revision.
            high: The last revision.
        """

    async def loose_rows(self, table: Table, after: LooseKey, limit: int) -> Sequence[LooseRow]:
        """Returns rows of a table with a key above `after`, in the store's own order of keys."""

    async def loose_rows_of(self, table: Table, keys: Sequence[LooseKey]) -> Sequence[LooseRow]:
        """Returns those rows of a table that have one of the keys, in any order."""

    async def put_loose_rows(self, table: Table, rows: Sequence[LooseRow]) -> None:
        """Stores rows, new or changed, of any table but the grants; cubes that they name exist."""

    async def drop_loose_rows(self, table: Table, keys: Sequence[LooseKey]) -> None:
        """Removes rows of any table but the grants; those that are absent are fine."""


async def refuse_marked(store: RecordStore) -> None:
    """Refuses to serve a record that has moved away, or that is still being filled by a migration.

    Raises:
        SetupError: It is one of the two; the message says where it went or what to do.
    """
    if not isinstance(store, MovingStore):
        return
    mark = Mark.of(await store.mark())
    if mark is None or mark.role == "source":
        return
    if mark.role == "moved":
        raise SetupError(
            f"This record has moved to {mark.other} ({mark.time}); what is written there now is not here.",
            "Start the server with the settings of the new record. To go on with this one as it was then, and without "
            "what has been written there since: memos migrate --undo.",
        )
    raise SetupError(
        f"This record is being filled by a migration from {mark.other} ({mark.time}), which is not finished.",
        "Run the same `memos migrate` again, with --finish once the old server is stopped.",
    )
