"""Every column of every table edited by hand: VerifyCube names what the cube's truth rests on, and never fails.

The walk is generated from the schema: a table or column without a verdict fails the test. A verdict says which kind of
finding names the edit, or why the column is out of the chain's reach and who looks after it.
"""

from __future__ import annotations

import hashlib
import random
import sqlite3
import struct
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from memos_server._pb.mip.v1.blob_service_pb2 import BlobData, BlobHeader, WriteBlobRequest
from memos_server.graph_dbs.sqlite.schema import migrate
from tests.conftest import MakeWorld, World
from tests.support.mip import Label, Memory, Mip, Relation, RpcError, Vector, text

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Found:
    """The edit is named by a finding of one of these kinds, on the row's resource or on what holds it."""

    kinds: frozenset[str]


@dataclass(frozen=True)
class Doctor:
    """No reader of the cube comes across the row: the doctor names it, by these words."""

    words: str


@dataclass(frozen=True)
class Outside:
    """No log can vouch for it; why, and what does instead."""

    why: str


Verdict = Found | Doctor | Outside


def found(*kinds: str) -> Found:
    """Returns a verdict by kinds of findings."""
    return Found(frozenset(kinds))


ACCESS = Outside("principals, grants and tokens are outside cube revisions, so that no rollback or fork restores them")
AUDIT = Outside("the audit trail stands beside the logs; what changed a cube is in the cube's log as well")
REPLAY = Outside("a request_id is remembered for some days; it decides how a repeated call is answered, not what is so")
JOBS = Outside("a job is work to do, not truth: what it did is checked where it did it")

COLUMNS: Mapping[str, Mapping[str, Verdict]] = {
    "cubes": {
        "key": found("chain"),
        "id": Outside("a log reads the same under another id; a head known elsewhere is known by the cube's uid"),
        "uid": found("chain"),
        "owner": found("state", "chain"),
        "revision": found("head", "chain"),
        "head_digest": found("head", "chain"),
        "head_time": found("head", "chain"),
        "create_time": found("state", "chain"),
        "settings": found("chain"),
        "forked_from": found("state", "chain"),
    },
    "commits": {
        "cube": found("chain", "head"),
        "revision": found("chain", "head"),
        "digest": found("chain"),
        "header": found("chain"),
        "time": found("chain"),
        "first_version": found("chain", "state"),
        "change_count": found("chain", "state"),
    },
    "items": {
        "cube": found("state", "relation", "chain"),
        "kind": found("state", "relation", "chain"),
        "key": found("state", "relation", "chain"),
        "id": found("state", "relation", "chain"),
        "uid": found("state", "relation", "chain"),
        "create_time": found("state", "relation", "chain"),
        "version": found("state", "relation", "chain"),
        "source": found("state", "relation", "chain"),
        "target": found("state", "relation", "chain"),
        "type": found("state", "relation", "chain"),
    },
    "versions": {
        "key": found("state", "chain"),
        "cube": found("state", "chain"),
        "kind": found("state", "chain"),
        "item": found("state", "chain", "content"),
        "from_revision": found("state", "relation"),
        "to_revision": found("state"),
        "state": found("state", "relation"),
        "sensitivity": found("state", "relation"),
        "owner": found("state", "relation"),
        "merged_into": found("state", "relation"),
        "content": found("state", "content"),
        "weight": found("state", "relation"),
        "time": found("state", "relation"),
        "change": found("chain", "state"),
    },
    "contents": {
        "key": found("content", "state"),
        "item": found("content"),
        "commitment": found("state", "content"),
        "salt": found("content"),
        "digest": found("content"),
        "payload": found("content"),
    },
    "vectors": {"content": found("index", "content"), "data": found("content", "index")},
    "blobs": {
        "cube": found("blob"),
        "digest": found("blob"),
        "size": found("blob"),
        "time": Outside("when a blob was uploaded is told to nobody and decides nothing; of another type it is named"),
        "doomed": found("blob"),
    },
    "content_blobs": {"cube": found("blob"), "digest": found("blob"), "content": found("blob")},
    "blob_proofs": {
        "cube": Doctor("proofs of no blob"),
        "digest": Doctor("proofs of no blob"),
        "principal": Outside("who has shown to have a blob's bytes is access, like a grant"),
    },
    "requests": dict.fromkeys(
        ("principal", "method", "resource", "request_id", "salt", "digest", "result", "revision", "cube", "time"),
        REPLAY,
    ),
    "principals": dict.fromkeys(("key", "id", "display_name", "created", "disabled"), ACCESS),
    "revoked_tokens": dict.fromkeys(("id", "time"), ACCESS),
    "grants": dict.fromkeys(("key", "principal", "resource", "role", "max_sensitivity", "updated"), ACCESS),
    "audit_events": dict.fromkeys(
        ("sequence", "time", "principal", "method", "resource", "outcome", "detail", "count", "revision"), AUDIT
    ),
    "jobs": dict.fromkeys(
        (
            *("cube", "id", "kind", "state", "principal", "created", "updated", "done", "total"),
            *("error_reason", "error_message", "lease_owner", "lease_until"),
        ),
        JOBS,
    ),
}
DELETED: Mapping[str, Verdict] = {
    "cubes": Doctor("commits of no cube"),
    "commits": found("chain", "head"),
    "items": found("state", "chain"),
    "versions": found("chain", "state"),
    "contents": found("content"),
    "vectors": found("index"),
    "blobs": found("blob"),
    "content_blobs": found("blob"),
    "blob_proofs": Outside("who has shown to have a blob's bytes is access, like a grant"),
    "requests": REPLAY,
    "principals": ACCESS,
    "revoked_tokens": ACCESS,
    "grants": ACCESS,
    "audit_events": AUDIT,
    "jobs": JOBS,
}
INSERTED: Mapping[str, Verdict] = DELETED | {
    "cubes": Doctor("cubes without settings"),
    "contents": Doctor("contents of no version"),
    "vectors": Doctor("vectors of no content"),
    "versions": found("state"),
    "blobs": found("blob"),
}
UNIQUE = {"cubes": ("id", "uid"), "items": ("id", "uid"), "versions": ("from_revision",)}
"""Columns besides the primary key that an inserted copy of a row must change."""
UPLOADED = b"0123456789abcdef" * 4096


def digest_of(data: bytes) -> str:
    """Returns a blob's name."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def upload(mip: Mip, cube: str, data: bytes) -> None:
    """Uploads a blob."""
    header = BlobHeader(parent=cube, digest=digest_of(data), size=len(data))
    frames = [
        WriteBlobRequest(header=header),
        WriteBlobRequest(data=BlobData(data=data)),
        WriteBlobRequest(finish=True),
    ]
    await mip.upload("WriteBlob", frames)


async def history(world: World) -> None:
    """Makes a cube `c` with everything in it that a cube can have, a fork `f` of it, and a cube `d` beside them."""
    mip = world.admin
    settings = {"embedding_model": "m", "embedding_dimension": 4, "display_name": "the first name"}
    cube = (await mip.CreateCube(cube_id="c", cube=settings)).cube.name
    other = (await mip.CreateCube(cube_id="d", cube=settings)).cube.name
    await mip.AddMemories(parent=other, memories=[text("of another cube", vectors=[vector(9)])])
    await mip.CreateSession(parent=cube, session_id="s", session={"display_name": "talk"})
    named = {id_: f"{cube}/memories/{id_}" for id_ in "abcdefg"}
    await upload(mip, cube, UPLOADED)
    adapter = {"base_fingerprint": "x", "method": "lora", "blobs": [{"digest": digest_of(UPLOADED), "size": 65536}]}
    memories = [
        text(f"memory {id_}", name=name, vectors=[vector(number)], tags=[id_], session=f"{cube}/sessions/s")
        for number, (id_, name) in enumerate(named.items(), start=1)
    ]
    await mip.AddMemories(parent=cube, memories=memories, request_id="0198c5a2-7f3e-7c41-9a52-3d1f0b6e8c77")
    await mip.AddMemories(parent=cube, memories=[Memory(parametric=adapter, name=f"{cube}/memories/h", sensitivity=3)])
    await mip.UpdateMemory(memory=text("memory a, changed", name=named["a"], labels=[Label(key="k", value="v")]))
    edges = [
        Relation(source=named["a"], target=named["b"], type="PARENT_OF", weight=1.0),
        Relation(source=named["b"], target=named["c"], type="RELATES_TO", weight=0.5),
    ]
    await mip.CreateRelations(parent=cube, relations=edges)
    await mip.MergeMemories(parent=cube, sources=[named["d"]], target=named["e"])
    await mip.TransitionMemories(parent=cube, names=[named["f"]], state="MEMORY_STATE_ARCHIVED")
    await mip.DeleteRelations(parent=cube, relations=edges[1:])
    await mip.UpdateCube(cube={"name": cube, "display_name": "the second name"})
    await mip.PurgeMemories(parent=cube, names=[named["g"]], reason="asked for")
    await mip.EndSession(name=f"{cube}/sessions/s")
    await mip.RollbackCube(name=cube, to_revision=8)
    await mip.ForkCube(name=cube, cube_id="f")
    await world.principal("ann", (cube, 2, 3))
    await mip.RevokeToken(token_id="0198c5a2-7f3e-7c41-9a52-3d1f0b6e8c78")


def vector(number: int) -> Vector:
    """Returns a vector of four dimensions."""
    return Vector(dtype=1, dimension=4, data=struct.pack("<4f", 1.0, number / 10, 0.0, 0.5))


class Hand:
    """A hand in the record's file, beside the server that uses it.

    Its connection has read the schema without NOT NULL, so that it can do what only an edit of the file's bytes could.
    """

    def __init__(self, path: Path) -> None:
        """Opens the file."""
        with closing(sqlite3.connect(path, isolation_level=None)) as schema:
            schema.execute("PRAGMA writable_schema = ON")
            before = schema.execute("SELECT rowid, sql FROM sqlite_master WHERE type = 'table'").fetchall()
            schema.execute("UPDATE sqlite_master SET sql = replace(sql, ' NOT NULL', '') WHERE type = 'table'")
            self.db = sqlite3.connect(path, isolation_level=None)
            self.db.execute("PRAGMA synchronous = OFF")
            self.tables = [name for (name,) in self.db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            schema.executemany("UPDATE sqlite_master SET sql = ? WHERE rowid = ?", [(sql, id_) for id_, sql in before])
        self.tables.remove("sqlite_sequence")
        self.info = {table: self.db.execute(f"PRAGMA table_info({table})").fetchall() for table in self.tables}

    def columns(self, table: str) -> list[str]:
        """Returns the names of a table's columns."""
        return [row[1] for row in self.info[table]]

    def type_of(self, table: str, column: str) -> str:
        """Returns the declared type of a column."""
        return next(row[2] for row in self.info[table] if row[1] == column)

    def keys(self, table: str) -> list[str]:
        """Returns the columns of a table's primary key."""
        return [row[1] for row in self.info[table] if row[5]]

    def rows(self, table: str) -> list[Row]:
        """Returns a table's rows in the order of its key."""
        return self.db.execute(f"SELECT * FROM {table} ORDER BY {','.join(self.keys(table))}").fetchall()

    @contextmanager
    def edited(self, table: str, rows: Sequence[Row]) -> Iterator[bool]:
        """Lets a table have other rows for a while; False when they are the same again: SQLite numbers a NULL key.

        Raises:
            sqlite3.IntegrityError: The table cannot have such rows.
        """
        before = self.rows(table)
        self._put(table, rows)
        try:
            yield self.rows(table) != before
        finally:
            self._put(table, before)

    def _put(self, table: str, rows: Sequence[Row]) -> None:
        marks = ",".join("?" * len(self.columns(table)))
        self.db.execute("BEGIN IMMEDIATE")
        try:
            self.db.execute(f"DELETE FROM {table}")
            self.db.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")


def other_values(type_: str, value: Any) -> Iterator[Any]:
    """Yields values that somebody may put in a value's place."""
    yield None
    if type_ == "INTEGER":
        number = value if isinstance(value, int) else 0
        yield from (number + 1, number - 1, 0, 1, 2, -(2**40), 2**62 - 1, "x", b"\x01")
    elif type_ == "REAL":
        yield from (1.5, 0.0, -1.0, "x", b"\x01")
    elif type_ == "TEXT":
        yield from ("", "principals/mallory", f"{value}x", b"\x01\x02", 17)
    else:
        data = value if isinstance(value, bytes) else b"\0" * 16
        if data:
            yield from (bytes([data[0] ^ 1]) + data[1:], data[:-1] + bytes([data[-1] ^ 0x80]), data[:-1], b"")
        yield from (data + b"\0", "x", 3)


def edits(hand: Hand, table: str, column: str) -> Iterator[tuple[str, int, list[Row]]]:
    """Yields (what is done, the place of the row, all rows afterwards) for each edit of a column."""
    rows = hand.rows(table)
    place = hand.columns(table).index(column)
    for number, row in enumerate(rows):
        for value in other_values(hand.type_of(table, column), row[place]):
            if value != row[place]:
                changed = (*row[:place], value, *row[place + 1 :])
                yield f"{row[place]!r:.40} -> {value!r:.40}", number, [*rows[:number], changed, *rows[number + 1 :]]
        for following in range(number + 1, len(rows)):
            theirs = rows[following]
            # Two cubes hold the same blob: swapped, their rows differ in the time of the upload alone.
            if theirs[place] != row[place] and (table, column) != ("blobs", "cube"):
                swapped = list(rows)
                swapped[number] = (*row[:place], theirs[place], *row[place + 1 :])
                swapped[following] = (*theirs[:place], row[place], *theirs[place + 1 :])
                yield f"swapped with row {following}", number, swapped
                break


class Judge:
    """Asks a server about edits, and says where its answer is not the verdict."""

    def __init__(self, world: World, hand: Hand) -> None:
        """Uses a server whose record a hand is in."""
        self.world, self.hand, self.mip = world, hand, world.admin
        self.wrong: list[str] = []
        self.asked = 0

    async def verify(self) -> list[tuple[str, str]]:
        """Returns (kind, resource) of all findings on the cubes."""
        verdicts = [await self.mip.VerifyCube(name=f"cubes/{id_}") for id_ in "cf"]
        return [(finding.kind, finding.resource) for verdict in verdicts for finding in verdict.findings]

    async def judge(self, table: str, what: str, row: Row, rows: Sequence[Row], verdict: Verdict) -> bool:
        """Makes an edit, looks what is found, and takes the edit back; False when the table does not take it."""
        names = self.names_of(table, row)
        if names is not None and len(rows) > len(self.hand.rows(table)):
            names += self.names_of(table, rows[-1]) or []
        if names is None or sorted(map(repr, rows)) == sorted(map(repr, self.hand.rows(table))):
            return False
        self.asked += 1
        try:
            with self.hand.edited(table, rows) as changed:
                if not changed:
                    return False
                if isinstance(verdict, Doctor):
                    words = await self.world.server.mos.store.check()
                    if not any(verdict.words in line for line in words):
                        self.wrong.append(f"{table}: {what}: the doctor says {words}")
                    return True
                got = await self.verify()
        except sqlite3.IntegrityError:
            return False
        except RpcError as error:
            # A cube that has another id is not found under its own; any other failure is one.
            if (table, error.reason, type(verdict)) != ("cubes", "CUBE_NOT_FOUND", Outside):
                self.wrong.append(f"{table}: {what}: {error}")
            return True
        if isinstance(verdict, Found) and not any(kind in verdict.kinds and name in names for kind, name in got):
            self.wrong.append(f"{table}{names}: {what}: {got}, not one of {sorted(verdict.kinds)}")
        return True

    def names_of(self, table: str, row: Row) -> list[str] | None:
        """Returns what a finding on a row may be on; None for a row of a cube that is not looked at."""
        value = dict(zip(self.hand.columns(table), row, strict=True))
        db = self.hand.db
        if table == "cubes":
            ids = [value["id"]]
        elif "cube" in value:
            ids = [id_ for (id_,) in db.execute("SELECT id FROM cubes WHERE key = ?", (value["cube"],))]
        elif table in ("contents", "vectors"):
            content = value["key"] if table == "contents" else value["content"]
            query = """SELECT u.id, i.kind, i.id FROM contents c JOIN versions v ON v.item = c.item JOIN items i
                ON i.cube = v.cube AND i.key = v.item JOIN cubes u ON u.key = i.cube WHERE c.key = ? LIMIT 1"""
            return [name_of(*found) for found in db.execute(query, (content,)) if found[0] in "cf"] or None
        else:
            return []
        if not ids or ids[0] not in ("c", "f"):
            return [] if table == "jobs" else None
        cube = f"cubes/{ids[0]}"
        if table == "cubes":
            return [cube, *(f"{cube}/commits/{revision}" for revision in range(1, 30))]
        if table == "commits":
            return [cube, *(f"{cube}/commits/{value['revision'] + step}" for step in (0, 1))]
        if table == "items":
            return [name_of(ids[0], value["kind"], value["id"])]
        if table == "versions":
            query = "SELECT kind, id FROM items WHERE cube = ? AND key = ?"
            items = [name_of(ids[0], *item) for item in db.execute(query, (value["cube"], value["item"]))]
            return [*items, f"{cube}/commits/{value['from_revision']}"]
        if table in ("blobs", "content_blobs", "blob_proofs"):
            return [f"{cube}/memories/h", f"{cube}/blobs/{value['digest']}"]
        return []


def name_of(cube: str, kind: int, id_: str) -> str:
    """Returns a resource's name."""
    return f"cubes/{cube}" + ("", "/memories/", "/relations/", "/sessions/")[kind] + id_


@pytest.fixture
async def judge(make_world: MakeWorld) -> AsyncIterator[Judge]:
    """A server with a rich cube, and a hand in its record."""
    world = await make_world()
    await history(world)
    hand = Hand(world.data / "record.sqlite")
    made = Judge(world, hand)
    assert await made.verify() == []
    assert list(await world.server.mos.store.check()) == []
    yield made
    hand.db.close()


async def walk(judge: Judge, most: int | None) -> None:
    """Makes the edits of every column, all of them or a sample of so many, and fails where a verdict is another."""
    hand = judge.hand
    for table, columns in COLUMNS.items():
        for column, verdict in columns.items():
            before = hand.rows(table)
            possible = [
                edit for edit in edits(hand, table, column) if judge.names_of(table, before[edit[1]]) is not None
            ]
            chance = random.Random(f"{table}.{column}")
            chosen = possible if most is None else chance.sample(possible, min(most, len(possible)))
            taken = [
                await judge.judge(table, f"{column}: {what}", before[row], rows, verdict) for what, row, rows in chosen
            ]
            assert any(taken), f"{table}.{column} was not edited"
    assert not judge.wrong, f"{len(judge.wrong)} of {judge.asked}:\n" + "\n".join(judge.wrong)


def test_every_table_and_column_has_a_verdict(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "record.sqlite")) as record:
        migrate(record)
        names = [name for (name,) in record.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        names.remove("sqlite_sequence")
        schema = {name: [row[1] for row in record.execute(f"PRAGMA table_info({name})")] for name in names}
    assert schema == {table: list(columns) for table, columns in COLUMNS.items()}
    assert set(schema) == set(DELETED) == set(INSERTED)


async def test_an_edit_of_any_column_is_named_or_out_of_reach(judge: Judge) -> None:
    await walk(judge, 6)


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_every_edit_of_every_row_and_column_is_named_or_out_of_reach(judge: Judge) -> None:
    await walk(judge, None)


async def test_a_deleted_or_inserted_row_of_any_table_is_named_or_out_of_reach(judge: Judge) -> None:
    hand = judge.hand
    for table in COLUMNS:
        rows = hand.rows(table)
        for number, row in enumerate(rows):
            await judge.judge(table, "deleted", row, [*rows[:number], *rows[number + 1 :]], DELETED[table])
            columns = hand.columns(table)
            key = hand.keys(table)[-1]
            copy = dict(zip(columns, row, strict=True))
            for column in (key, *UNIQUE.get(table, ())):
                copy[column] = another(copy[column])
            await judge.judge(table, "inserted", row, [*rows, tuple(copy.values())], INSERTED[table])
    assert not judge.wrong, "\n".join(judge.wrong)


def another(value: Any) -> Any:
    """Returns another value of the same sort that no row has."""
    if isinstance(value, bytes):
        return bytes([value[0] ^ 0x55]) + value[1:]
    return value + 1_000_000 if isinstance(value, int) else f"{value}-copy"
