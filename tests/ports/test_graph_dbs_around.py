"""The contract of record stores: erasure, blobs, forks, request ids, access, the audit trail and jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memos_server._pb.mip.v1.commit_pb2 import Head
from memos_server.graph_dbs.base import (
    AuditRow,
    JobRow,
    Kind,
    PrincipalAccess,
    Reader,
    RecordStore,
    RequestKey,
    RequestRow,
    Version,
    Writer,
)
from tests.ports.records import (
    ACTIVE,
    BACKENDS,
    NAMES,
    PURGED,
    append,
    change,
    commit,
    commitment,
    create,
    following,
    memories,
    memory,
    relation,
    uid,
)

ANN, BOB = "principals/ann", "principals/bob"


@pytest.fixture(params=NAMES)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RecordStore]:
    opened = BACKENDS[request.param](tmp_path)
    await opened.open()
    yield opened
    await opened.close()


async def do(store: RecordStore, work: Callable[[Writer], Awaitable[Any]]) -> Any:
    """Runs one write."""
    return await store.write(work)


async def purge(store: RecordStore, cube_id: str, *ids: str) -> int:
    """Makes memories PURGED and erases them; returns the commit's revision."""

    async def work(txn: Writer) -> int:
        cube = await txn.lock_cube(cube_id)
        assert cube is not None
        found = await txn.versions(cube.key, Kind.MEMORY, ids)
        versions = [following(found[id_], state=PURGED, erased=True) for id_ in ids]
        revision = await append(txn, cube_id, versions)
        await txn.erase(cube.key, [version.item for version in found.values()])
        return revision

    return await store.write(work)


# Erasure


async def test_erased_content_is_gone_from_every_read_and_its_commitment_stays(store: RecordStore) -> None:
    vector = b"\x00\x00\x80?"
    key = await create(store, "c", memory("a", "PIN is 4417", vector=vector), memory("b", "stays", vector=vector))
    await change(store, "c", Kind.MEMORY, ["a"], words="PIN is 4418")
    before = await store.read(lambda txn: txn.history(key, Kind.MEMORY, "a", 99, 9))
    contents = [version.content or 0 for version in before]
    assert await purge(store, "c", "a") == 3

    async def everything(txn: Reader) -> list[Version]:
        found = [*await txn.history(key, Kind.MEMORY, "a", 99, 9)]
        for revision in (1, 2, 3, None):
            found += (await txn.versions(key, Kind.MEMORY, ["a"], revision)).values()
            found += (await txn.versions_by_uid(key, [uid("a")], revision)).values()
            found += [row for row in await txn.list_versions(key, Kind.MEMORY, 0, 9, revision) if row.id == "a"]
        for revision in (1, 2, 3):
            rows = await txn.changes(key, revision, -1, 9, with_content=True)
            found += [row.version for row in rows if row.version.id == "a"]
        return found

    versions = await store.read(everything)
    assert len(versions) == 3 + 4 * 3 + 3
    assert {(version.payload, version.salt) for version in versions} == {(b"", b"")}
    assert {version.current_state for version in versions} == {PURGED}
    assert {version.from_revision: version.commitment for version in versions} == {
        1: commitment("PIN is 4417"),
        2: commitment("PIN is 4418"),
        3: b"",
    }
    assert await store.read(lambda txn: txn.vectors(contents)) == {}
    assert await memories(store, key, 1) == {"a": (ACTIVE, ""), "b": (ACTIVE, "stays")}
    (b,) = (await store.read(lambda txn: txn.versions(key, Kind.MEMORY, ["b"]))).values()
    assert await store.read(lambda txn: txn.vectors([b.content or 0])) == {b.content: vector}


async def test_erasure_empties_the_digests_of_the_requests_that_wrote_the_content(store: RecordStore) -> None:
    key = await create(store, "c", memory("b"))
    other = await create(store, "other")

    def at(request_id: str) -> RequestKey:
        return RequestKey(ANN, "AddMemories", "cubes/c", request_id)

    async def add(txn: Writer) -> None:
        for id_ in ("a", "d"):
            revision = await append(txn, "c", [memory(id_)])
            row = RequestRow(b"salt", b"digest", f"cubes/c/memories/{id_}", revision, 7, key)
            await txn.put_request(at(id_), row)
        await txn.put_request(at("x"), RequestRow(b"salt", b"digest", "cubes/other", 2, 7, other))

    await do(store, add)
    await change(store, "c", Kind.MEMORY, ["a"], words="changed")
    await purge(store, "c", "a")
    rows = [await store.read(lambda txn, i=i: txn.request(at(i))) for i in ("a", "d", "x")]  # type: ignore[misc]
    assert [(row.salt, row.digest, row.result, row.revision, row.time, row.cube) for row in rows if row] == [
        (b"", b"", "cubes/c/memories/a", 2, 7, key),
        (b"salt", b"digest", "cubes/c/memories/d", 3, 7, key),
        (b"salt", b"digest", "cubes/other", 2, 7, other),
    ]


async def test_erasing_in_a_fork_leaves_the_source(store: RecordStore) -> None:
    source = await create(store, "c", memory("a", "one"))
    fork = await create(store, "f", memory("a", "one"), heads=[Head(cube_uid=uid("cubes/c"), revision=1)])
    await purge(store, "f", "a")
    assert await memories(store, source) == {"a": (ACTIVE, "one")}
    assert await memories(store, fork) == {"a": (PURGED, "")}


# Blobs


async def blobs(store: RecordStore, key: int) -> Mapping[str, int]:
    asked = ["sha256:one", "sha256:two", "sha256:none"]
    return await store.read(lambda txn: txn.blobs(key, asked))


async def test_a_cube_holds_the_blobs_that_it_was_given(store: RecordStore) -> None:
    key, other = await create(store, "c"), await create(store, "other")

    async def work(txn: Writer) -> None:
        await txn.put_blob(key, "sha256:two", 2, 7)
        await txn.put_blob(key, "sha256:one", 1, 7)

    await do(store, work)
    assert await blobs(store, key) == {"sha256:one": 1, "sha256:two": 2}
    assert await blobs(store, other) == {}
    assert list(await store.read(lambda txn: txn.cube_blobs(key, "", 9))) == [("sha256:one", 1), ("sha256:two", 2)]
    assert list(await store.read(lambda txn: txn.cube_blobs(key, "", 1))) == [("sha256:one", 1)]
    assert list(await store.read(lambda txn: txn.cube_blobs(key, "sha256:one", 9))) == [("sha256:two", 2)]


async def test_the_users_of_a_blob_are_the_versions_whose_content_names_it(store: RecordStore) -> None:
    key = await create(store, "c", memory("a", blobs=("sha256:one", "sha256:one", "sha256:two")), memory("b"))
    await change(store, "c", Kind.MEMORY, ["a"], state=3)
    await change(store, "c", Kind.MEMORY, ["a"], words="names none")
    users = await store.read(lambda txn: txn.blob_users(key, "sha256:one"))
    assert sorted((user.id, user.from_revision) for user in users) == [("a", 1), ("a", 2)]
    assert {(user.payload, user.salt) for user in users} == {(b"", b"")}
    assert await store.read(lambda txn: txn.blob_users(key, "sha256:none")) == []


async def test_erasure_dooms_the_blobs_that_nothing_else_names(store: RecordStore) -> None:
    one, two = "sha256:one", "sha256:two"
    key = await create(store, "c", memory("a", blobs=(one, two)), memory("b", blobs=(two,)))
    other = await create(store, "other", memory("a", blobs=(one,)))

    async def put(txn: Writer) -> None:
        for cube in (key, other):
            await txn.put_blob(cube, one, 1, 7)
            await txn.put_blob(cube, two, 2, 7)

    await do(store, put)
    await purge(store, "c", "a")
    assert await blobs(store, key) == {two: 2}
    assert await blobs(store, other) == {one: 1, two: 2}
    assert await store.read(lambda txn: txn.doomed_blobs(key)) == [one]
    assert list(await store.read(lambda txn: txn.cube_blobs(key, "", 9))) == [(two, 2)]
    assert await store.read(lambda txn: txn.blob_users(key, one)) == []
    await purge(store, "c", "b")
    assert sorted(await store.read(lambda txn: txn.doomed_blobs(key))) == [one, two]


async def test_a_blob_of_a_past_version_is_not_doomed_by_another_memorys_erasure(store: RecordStore) -> None:
    digest = "sha256:one"
    key = await create(store, "c", memory("a", blobs=(digest,)), memory("b", blobs=(digest,)))
    await do(store, lambda txn: txn.put_blob(key, digest, 1, 7))
    await change(store, "c", Kind.MEMORY, ["b"], words="no blob any more")
    await purge(store, "c", "a")
    assert await blobs(store, key) == {digest: 1}


async def test_a_blob_is_forgotten_only_when_it_is_doomed(store: RecordStore) -> None:
    key = await create(store, "c")
    digest = "sha256:one"
    await do(store, lambda txn: txn.put_blob(key, digest, 1, 7))
    await do(store, lambda txn: txn.delete_blob(key, digest))
    assert await blobs(store, key) == {digest: 1}
    await do(store, lambda txn: txn.doom_blob(key, digest))
    assert await blobs(store, key) == {}
    assert await store.read(lambda txn: txn.doomed_blobs(key)) == [digest]
    await do(store, lambda txn: txn.delete_blob(key, digest))
    assert await store.read(lambda txn: txn.doomed_blobs(key)) == []


async def test_a_blob_that_comes_again_is_doomed_no_more(store: RecordStore) -> None:
    key = await create(store, "c")
    await do(store, lambda txn: txn.put_blob(key, "sha256:one", 1, 7))
    await do(store, lambda txn: txn.doom_blob(key, "sha256:one"))
    await do(store, lambda txn: txn.put_blob(key, "sha256:one", 1, 8))
    await do(store, lambda txn: txn.delete_blob(key, "sha256:one"))
    assert await blobs(store, key) == {"sha256:one": 1}


# Forks


async def test_forks_are_the_cubes_whose_first_commit_took_in_the_log(store: RecordStore) -> None:
    await create(store, "c", memory("a"))
    await create(store, "plain")
    head = Head(cube_uid=uid("cubes/c"), revision=1, digest=b"d" * 32)
    for fork in ("z", "b"):
        await create(store, fork, heads=[head])
    await create(store, "of-z", heads=[Head(cube_uid=uid("cubes/z"), revision=1)])
    assert await store.read(lambda txn: txn.forks_of(uid("cubes/c"))) == ["cubes/z", "cubes/b"]
    assert await store.read(lambda txn: txn.forks_of(uid("cubes/z"))) == ["cubes/of-z"]
    assert await store.read(lambda txn: txn.forks_of(uid("cubes/plain"))) == []


async def test_a_later_commit_that_takes_in_a_head_makes_no_fork(store: RecordStore) -> None:
    await create(store, "c")
    await create(store, "d")

    async def work(txn: Writer) -> int:
        return await append(txn, "d", [memory("a")], heads=[Head(cube_uid=uid("cubes/c"), revision=1)])

    await do(store, work)
    assert await store.read(lambda txn: txn.forks_of(uid("cubes/c"))) == []


# Request ids


async def test_a_request_id_is_scoped_to_principal_method_and_resource(store: RecordStore) -> None:
    key = RequestKey(ANN, "AddMemories", "cubes/c", "0198c5a2-7f3e-7c41-9a52-3d1f0b6e8c77")
    row = RequestRow(b"s", b"d", "cubes/c/memories/a", 2, 7, 1)
    await do(store, lambda txn: txn.put_request(key, row))
    assert await store.read(lambda txn: txn.request(key)) == row
    for other in (
        replace(key, principal=BOB),
        replace(key, method="UpdateMemory"),
        replace(key, resource="cubes/d"),
        replace(key, request_id="0198c5a2-7f3e-7c41-9a52-3d1f0b6e8c78"),
    ):
        assert await store.read(lambda txn, o=other: txn.request(o)) is None  # type: ignore[misc]


async def test_a_request_id_is_recorded_with_its_effect_or_not_at_all(store: RecordStore) -> None:
    await create(store, "c")
    key = RequestKey(ANN, "AddMemories", "cubes/c", "r")

    async def work(txn: Writer) -> None:
        await txn.put_request(key, RequestRow(b"s", b"d", "x", 2, 7))
        await append(txn, "c", [memory("a"), memory("a")])

    with pytest.raises(KeyError):
        await do(store, work)
    assert await store.read(lambda txn: txn.request(key)) is None


async def test_old_request_ids_are_forgotten(store: RecordStore) -> None:
    def key(number: int) -> RequestKey:
        return RequestKey(ANN, "m", "r", str(number))

    async def work(txn: Writer) -> None:
        for number in range(5):
            await txn.put_request(key(number), RequestRow(b"s", b"d", "x", 0, number * 10))

    await do(store, work)
    assert await do(store, lambda txn: txn.forget_requests(20)) == 2
    kept = [await store.read(lambda txn, n=n: txn.request(key(n))) for n in range(5)]  # type: ignore[misc]
    assert [row is not None for row in kept] == [False, False, True, True, True]
    assert await do(store, lambda txn: txn.forget_requests(20)) == 0


# Access


async def test_principals_are_listed_in_order_and_keep_their_first_disabling(store: RecordStore) -> None:
    for number, id_ in enumerate(("zoe", "ann", "bob")):
        await do(store, lambda txn, i=id_, n=number: txn.put_principal(i, f"{i}!", n))  # type: ignore[misc]
    with pytest.raises(KeyError) as raised:
        await do(store, lambda txn: txn.put_principal("ann", "another", 9))
    assert raised.value.args == ("principals/ann",)
    await do(store, lambda txn: txn.disable_principal("ann", 50))
    await do(store, lambda txn: txn.disable_principal("ann", 60))
    first = await store.read(lambda txn: txn.principals(0, 2))
    second = await store.read(lambda txn: txn.principals(first[-1].key, 2))
    assert [(row.id, row.display_name, row.created, row.disabled) for row in [*first, *second]] == [
        ("zoe", "zoe!", 0, 0),
        ("ann", "ann!", 1, 50),
        ("bob", "bob!", 2, 0),
    ]
    assert await store.read(lambda txn: txn.principal("ann")) == first[1]
    assert await store.read(lambda txn: txn.principal("none")) is None


async def test_access_is_all_that_decides_what_a_principal_may_do(store: RecordStore) -> None:
    await do(store, lambda txn: txn.put_principal("ann", "", 1))
    await do(store, lambda txn: txn.put_grant(ANN, "cubes/a", 2, 3, 1))
    await do(store, lambda txn: txn.put_grant(ANN, "cubes/a/memories/m", 1, 4, 1))
    await do(store, lambda txn: txn.put_grant(BOB, "cubes/a", 3, 4, 1))
    grants = {"cubes/a": (2, 3), "cubes/a/memories/m": (1, 4)}
    assert await store.read(lambda txn: txn.access(ANN)) == PrincipalAccess(ANN, True, False, grants)
    await do(store, lambda txn: txn.disable_principal("ann", 9))
    assert await store.read(lambda txn: txn.access(ANN)) == PrincipalAccess(ANN, True, True, grants)
    assert await store.read(lambda txn: txn.access("principals/no")) == PrincipalAccess("principals/no", False, False)


async def test_a_grant_is_set_again_and_deleted(store: RecordStore) -> None:
    await do(store, lambda txn: txn.put_grant(ANN, "cubes/a", 1, 2, 10))
    first = await store.read(lambda txn: txn.grant(ANN, "cubes/a"))
    await do(store, lambda txn: txn.put_grant(ANN, "cubes/a", 3, 4, 20))
    again = await store.read(lambda txn: txn.grant(ANN, "cubes/a"))
    assert first is not None
    assert again is not None
    assert (again.key, again.role, again.max_sensitivity, again.updated) == (first.key, 3, 4, 20)
    assert await do(store, lambda txn: txn.delete_grant(ANN, "cubes/a"))
    assert not await do(store, lambda txn: txn.delete_grant(ANN, "cubes/a"))
    assert await store.read(lambda txn: txn.grant(ANN, "cubes/a")) is None


async def test_grants_on_a_resource_include_those_below_it_and_no_neighbour(store: RecordStore) -> None:
    resources = [
        "cubes/ab", "cubes/a/memories/x", "cubes/a", "cubes/a-b", "cubes/a.b", "cubes/a0", "cubes/A", "server",
        "cubes/a/memories/y", "cubes/a_", "cubes/a%", "cubes",
    ]  # fmt: skip
    for number, resource in enumerate(resources):
        await do(store, lambda txn, r=resource, n=number: txn.put_grant(ANN, r, 1, 2, n))  # type: ignore[misc]
    await do(store, lambda txn: txn.put_grant(BOB, "cubes/a", 1, 2, 99))

    async def on(resource: str, after: int = 0, limit: int = 99) -> list[tuple[str, str, int]]:
        rows = await store.read(lambda txn: txn.grants_on(resource, after, limit))
        return [(row.principal, row.resource, row.key) for row in rows]

    found = await on("cubes/a")
    assert [row[:2] for row in found] == [
        (ANN, "cubes/a/memories/x"),
        (ANN, "cubes/a"),
        (ANN, "cubes/a/memories/y"),
        (BOB, "cubes/a"),
    ]
    assert await on("cubes/a", 0, 3) == found[:3]
    assert await on("cubes/a", found[2][2], 3) == found[3:]
    assert [row[1] for row in await on("cubes/a_")] == ["cubes/a_"]
    assert [row[1] for row in await on("cubes/a%")] == ["cubes/a%"]
    assert [row[1] for row in await on("server")] == ["server"]


async def test_a_revoked_token_keeps_its_first_time(store: RecordStore) -> None:
    assert await store.read(lambda txn: txn.token_revoked("t")) == 0
    assert await do(store, lambda txn: txn.revoke_token("t", 10)) == 10
    assert await do(store, lambda txn: txn.revoke_token("t", 20)) == 10
    assert await store.read(lambda txn: txn.token_revoked("t")) == 10
    assert await store.read(lambda txn: txn.token_revoked("T")) == 0
    for credentials, revoked in (["t"], True), (["u", "t"], True), (["u", "T"], False), ([], False):
        access = await store.read(lambda txn, ids=tuple(credentials): txn.access(ANN, ids))
        assert access.revoked is revoked


async def test_the_access_generation_changes_with_every_change_of_access_and_with_nothing_else(
    store: RecordStore,
) -> None:
    if store.access_generation is None:
        return  # a store that others write promises nothing to remember
    await create(store, "c")
    seen = [store.access_generation]
    changes: list[Callable[[Writer], Awaitable[Any]]] = [
        lambda txn: txn.put_principal("ann", "", 1),
        lambda txn: txn.put_grant(ANN, "cubes/c", 1, 2, 1),
        lambda txn: txn.put_grant(ANN, "cubes/c", 2, 2, 1),
        lambda txn: txn.delete_grant(ANN, "cubes/c"),
        lambda txn: txn.revoke_token("t", 1),
        lambda txn: txn.disable_principal("ann", 1),
    ]
    for work in changes:
        await do(store, work)
        seen.append(store.access_generation)
    assert len(set(seen)) == 7
    await commit(store, "c", memory("a"))
    await do(store, lambda txn: txn.put_audit(AuditRow(1, ANN, "m", "cubes/c", "OK")))

    async def failing(txn: Writer) -> None:
        await txn.put_principal("bob", "", 1)
        raise ValueError

    with pytest.raises(ValueError):
        await do(store, failing)
    assert store.access_generation == seen[-1]


# The audit trail


async def test_audit_events_are_numbered_and_read_newest_first(store: RecordStore) -> None:
    event = AuditRow(5, ANN, "PurgeMemories", "cubes/a", "OK", "purged 1 memories", 1, 3)
    resources = ["cubes/a", "cubes/ab", "cubes/a/memories/m", "", "principals/bob", "cubes/a-b"]
    for resource in resources:
        await do(store, lambda txn, r=resource: txn.put_audit(replace(event, resource=r)))  # type: ignore[misc]
    rows = await store.read(lambda txn: txn.audit_events("", 2**62, 99))
    assert [row.resource for row in rows] == resources[::-1]
    numbers = [row.sequence for row in rows]
    assert numbers == sorted(set(numbers), reverse=True)
    assert replace(rows[-1], sequence=0) == event
    of_a = await store.read(lambda txn: txn.audit_events("cubes/a", 2**62, 99))
    assert [row.resource for row in of_a] == ["cubes/a/memories/m", "cubes/a"]
    assert list(await store.read(lambda txn: txn.audit_events("", numbers[2], 2))) == list(rows[3:5])
    assert list(await store.read(lambda txn: txn.audit_events("cubes/a", of_a[0].sequence, 9))) == list(of_a[1:])


# Jobs

PENDING, RUNNING, SUCCEEDED, FAILED, CANCELLED = 1, 2, 3, 4, 5


def job(id_: str, state: int = PENDING, created: int = 1, lease_until: int = 0, cube_id: str = "c") -> JobRow:
    """Returns a job."""
    return JobRow(cube_id, id_, "compaction", state, ANN, created, created, lease_until=lease_until)


async def test_a_job_is_stored_and_changed(store: RecordStore) -> None:
    full = JobRow("c", "j", "compaction", RUNNING, ANN, 1, 2, 3, 4, "INTERNAL", "broken", "server-1", 99)
    await do(store, lambda txn: txn.put_job(full))
    assert await store.read(lambda txn: txn.job("c", "j")) == full
    changed = replace(full, state=SUCCEEDED, done=4, updated=5, lease_owner="", lease_until=0)
    await do(store, lambda txn: txn.put_job(changed))
    assert await store.read(lambda txn: txn.job("c", "j")) == changed
    assert await store.read(lambda txn: txn.job("c", "k")) is None
    assert await store.read(lambda txn: txn.job("d", "j")) is None
    assert list(await store.read(lambda txn: txn.jobs("c", "", 9))) == [changed]


async def test_jobs_of_a_cube_are_listed_newest_first_in_pages(store: RecordStore) -> None:
    for number in range(5):
        await do(store, lambda txn, n=number: txn.put_job(job(f"j{n}", created=n)))  # type: ignore[misc]
    await do(store, lambda txn: txn.put_job(job("j9", cube_id="other")))

    async def page(before: str, limit: int) -> list[str]:
        return [row.id for row in await store.read(lambda txn: txn.jobs("c", before, limit))]

    assert await page("", 3) == ["j4", "j3", "j2"]
    assert await page("j2", 3) == ["j1", "j0"]


async def test_unfinished_jobs_are_those_that_nobody_runs(store: RecordStore) -> None:
    rows = [
        job("young", created=30),
        job("old", created=10),
        job("held", RUNNING, 5, lease_until=101),
        job("lost", RUNNING, 20, lease_until=99),
        job("over", SUCCEEDED, 1),
        job("failed", FAILED, 2),
        job("cancelled", CANCELLED, 3),
        job("elsewhere", created=15, cube_id="other"),
    ]
    for row in rows:
        await do(store, lambda txn, r=row: txn.put_job(r))  # type: ignore[misc]
    found = await store.read(lambda txn: txn.unfinished_jobs(100, 99))
    assert [row.id for row in found] == ["old", "elsewhere", "lost", "young"]
    assert [row.id for row in await store.read(lambda txn: txn.unfinished_jobs(100, 2))] == ["old", "elsewhere"]


async def test_a_job_is_written_with_its_cause_or_not_at_all(store: RecordStore) -> None:
    async def failing(txn: Writer) -> None:
        await txn.put_job(job("j"))
        raise ValueError

    with pytest.raises(ValueError):
        await do(store, failing)
    assert await store.read(lambda txn: txn.job("c", "j")) is None


async def test_erasing_a_relation_leaves_it_listed_as_ended(store: RecordStore) -> None:
    key = await create(store, "c", memory("a"), memory("b"), relation("a", "b"))
    await change(store, "c", Kind.RELATION, ["a-b"], state=4)
    await purge(store, "c", "a")
    (edge,) = await store.read(lambda txn: txn.list_versions(key, Kind.RELATION, 0, 9))
    assert (edge.state, edge.source, edge.target) == (4, uid("a"), uid("b"))


# What a hand in the files would leave


async def test_a_cube_that_only_the_port_has_written_has_no_misfits(store: RecordStore) -> None:
    one = "sha256:one"
    key = await create(store, "c", memory("a", vector=b"\0" * 8, blobs=(one,)), memory("b"), relation("a", "b"))
    await do(store, lambda txn: txn.put_blob(key, one, 1, 7))
    await do(store, lambda txn: txn.put_blob_proof(key, one, ANN))
    await change(store, "c", Kind.MEMORY, ["a", "b"], words="other words")
    await change(store, "c", Kind.RELATION, ["a-b"], weight=2.0)
    await purge(store, "c", "b")
    assert list(await store.read(lambda txn: txn.misfits(key, 9))) == []
    assert list(await store.check()) == []


async def test_a_blob_that_is_named_and_not_held_is_a_misfit(store: RecordStore) -> None:
    key = await create(store, "c", memory("a", blobs=("sha256:one",)), memory("b", blobs=("sha256:two",)))
    await do(store, lambda txn: txn.put_blob(key, "sha256:two", 2, 7))
    found = await store.read(lambda txn: txn.misfits(key, 9))
    assert [(misfit.sort, misfit.name) for misfit in found] == [("blob", "blobs/sha256:one")]
    await do(store, lambda txn: txn.doom_blob(key, "sha256:two"))
    found = await store.read(lambda txn: txn.misfits(key, 9))
    assert [misfit.name for misfit in found] == ["blobs/sha256:one", "blobs/sha256:two"]
    assert len(await store.read(lambda txn: txn.misfits(key, 1))) == 1


async def test_a_content_knows_the_blobs_that_it_names(store: RecordStore) -> None:
    key = await create(store, "c", memory("a", blobs=("sha256:one", "sha256:two")), memory("b"))

    async def work(txn: Reader) -> list[set[str]]:
        found = await txn.versions(key, Kind.MEMORY, ["a", "b"])
        contents = [found[id_].content or -1 for id_ in "ab"]
        named = await txn.content_blobs(contents)
        return [set(named.get(content, ())) for content in contents]

    assert await store.read(work) == [{"sha256:one", "sha256:two"}, set()]
