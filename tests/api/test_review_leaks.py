"""What a review found to leak: labels, grants, pages, etags and counts that told of hidden memories."""

from __future__ import annotations

import base64
import hashlib

import pytest

from memos_server._pb.mip.v1 import access_pb2, common_pb2
from tests.conftest import World
from tests.support.mip import Grant, Memory, Mip, Provenance, RpcError, text

READER, WRITER, ADMIN, CREATOR = (
    access_pb2.ROLE_READER,
    access_pb2.ROLE_WRITER,
    access_pb2.ROLE_ADMIN,
    access_pb2.ROLE_CREATOR,
)
INTERNAL, CONFIDENTIAL, SECRET = (
    common_pb2.SENSITIVITY_INTERNAL,
    common_pb2.SENSITIVITY_CONFIDENTIAL,
    common_pb2.SENSITIVITY_SECRET,
)


@pytest.fixture
async def cube(mip: Mip) -> str:
    """The name of a fresh cube."""
    return (await mip.CreateCube(cube_id="c")).cube.name


async def error_of(call: object) -> tuple[str, str, str]:
    """Returns code, reason and message of the error that a call ends with."""
    with pytest.raises(RpcError) as raised:
        await call  # type: ignore[misc]
    return raised.value.code, raised.value.reason, raised.value.message


async def test_nobody_labels_a_memory_above_its_own_level(world: World, cube: str) -> None:
    writer = await world.principal("w", (cube, WRITER, INTERNAL))
    mine = (await writer.AddMemories(parent=cube, memories=[text("mine")])).memories[0]
    before = (await world.admin.GetCube(name=cube)).cube.revision
    for call in (
        writer.AddMemories(parent=cube, memories=[text("too high", sensitivity=SECRET)]),
        writer.UpdateMemory(memory=Memory(name=mine.name, sensitivity=SECRET)),
        writer.MergeMemories(parent=cube, sources=[mine.name], merged=text("too high", sensitivity=CONFIDENTIAL)),
    ):
        assert (await error_of(call))[:2] == ("PERMISSION_DENIED", "PERMISSION_DENIED")
    assert (await world.admin.GetCube(name=cube)).cube.revision == before


async def test_a_guest_does_not_merge_a_shared_secret_into_what_it_could_not_read(world: World, cube: str) -> None:
    added = (await world.admin.AddMemories(parent=cube, memories=[text("secret", sensitivity=SECRET)])).memories[0]
    writer = await world.principal("w", (cube, WRITER, INTERNAL), (added.name, WRITER, SECRET))
    call = writer.MergeMemories(parent=cube, sources=[added.name], merged=text("mine"))
    assert (await error_of(call))[0] == "PERMISSION_DENIED"
    assert (await world.admin.GetMemory(name=added.name)).memory.state == 1


async def test_grants_on_a_hidden_and_on_an_absent_memory_answer_alike(world: World, cube: str) -> None:
    hidden, absent = f"{cube}/memories/hidden", f"{cube}/memories/absent"
    await world.admin.AddMemories(parent=cube, memories=[text("x", name=hidden, sensitivity=SECRET)])
    await world.principal("friend", (hidden, READER, SECRET))
    low = await world.principal("low", (cube, ADMIN, INTERNAL))
    answers = [
        [
            await error_of(low.ListGrants(resource=name)),
            await error_of(low.SetGrant(grant=Grant(principal="principals/low", resource=name, role=READER))),
            await error_of(low.DeleteGrant(principal="principals/friend", resource=name)),
            await error_of(low.ListAuditEvents(resource=name)),
        ]
        for name in (hidden, absent)
    ]
    assert [[(c, r, m.replace("hidden", "absent")) for c, r, m in answers[0]], answers[1]] == [answers[1]] * 2
    assert (await world.admin.ListGrants(resource=hidden)).grants


async def test_the_audit_trail_of_a_cube_names_no_hidden_memory_and_counts_none(world: World, cube: str) -> None:
    names = [f"{cube}/memories/{id_}" for id_ in ("open", "hidden", "erased", "gone")]
    labels = [INTERNAL, SECRET, SECRET, SECRET]
    batch = [text("x", name=name, sensitivity=label) for name, label in zip(names, labels, strict=True)]
    await world.admin.AddMemories(parent=cube, memories=batch)
    await world.principal("friend", (names[0], READER, SECRET), (names[1], READER, SECRET))
    await world.admin.PurgeMemories(parent=cube, names=names[2:], reason="asked")
    low = await world.principal("low", (cube, ADMIN, INTERNAL))
    events = (await low.ListAuditEvents(resource=cube)).events
    told = " ".join(f"{event.resource} {event.detail}" for event in events)
    assert "open" in told
    assert "hidden" not in told
    assert "2 memories" not in told
    paged, token = [], ""
    while True:
        page = await low.ListAuditEvents(resource=cube, page_size=1, page_token=token)
        assert len(page.events) == 1
        paged += page.events
        token = page.next_page_token
        if not token:
            break
    assert paged == list(events)
    assert "hidden" in " ".join(event.resource for event in (await world.admin.ListAuditEvents(resource=cube)).events)


async def test_provenance_names_no_hidden_memory_of_another_cube(world: World, cube: str) -> None:
    admin = world.admin
    other = (await admin.CreateCube(cube_id="other")).cube.name
    hidden, absent, open_ = (f"{other}/memories/{id_}" for id_ in ("hidden", "absent", "open"))
    batch = [text("x", name=hidden, sensitivity=SECRET), text("y", name=open_)]
    await admin.AddMemories(parent=other, memories=batch)
    sources = [Provenance(kind="PROVENANCE_KIND_MEMORY", source=name) for name in (hidden, absent, open_)]
    name = (await admin.AddMemories(parent=cube, memories=[text("z", provenance=sources)])).memories[0].name
    low = await world.principal("low", (cube, READER, SECRET), (other, READER, INTERNAL))
    assert [item.source for item in (await low.GetMemory(name=name)).memory.provenance] == [open_]


async def test_a_fork_does_not_tell_its_maker_of_hidden_sources(world: World, cube: str) -> None:
    admin = world.admin
    base, child = f"{cube}/memories/base", f"{cube}/memories/child"
    source = Provenance(kind="PROVENANCE_KIND_MEMORY", source=base)
    await admin.AddMemories(parent=cube, memories=[text("base", name=base)])
    await admin.AddMemories(parent=cube, memories=[text("child", name=child, provenance=[source])])
    await admin.UpdateMemory(memory=Memory(name=base, sensitivity=SECRET))
    low = await world.principal("low", (cube, READER, INTERNAL), ("server", CREATOR, INTERNAL))
    fork = (await low.ForkCube(name=cube, cube_id="f")).cube.name
    assert not (await low.GetMemory(name=f"{fork}/memories/child")).memory.provenance
    denied = await error_of(low.GetMemory(name=f"{fork}/memories/child", view=common_pb2.VIEW_SEALED))
    assert denied[0] == "PERMISSION_DENIED"


async def test_verification_counts_only_what_the_caller_sees(world: World, cube: str) -> None:
    batch = [text("x"), *(text(f"hidden {n}", sensitivity=SECRET) for n in range(7))]
    await world.admin.AddMemories(parent=cube, memories=batch)
    low = await world.principal("low", (cube, READER, INTERNAL))
    assert (await world.admin.VerifyCube(name=cube)).changes_checked == 9
    verdict = await low.VerifyCube(name=cube)
    assert (verdict.valid, verdict.commits_checked, verdict.changes_checked) == (True, 2, 2)


async def test_pages_of_changes_do_not_count_the_hidden_ones(world: World, cube: str) -> None:
    labels = [INTERNAL, SECRET, SECRET, INTERNAL, SECRET]
    batch = [text("x", name=f"{cube}/memories/{n}", sensitivity=label) for n, label in enumerate(labels)]
    await world.admin.AddMemories(parent=cube, memories=batch)
    low = await world.principal("low", (cube, READER, INTERNAL))
    pages, token = [], ""
    while True:
        page = await low.ListCommitChanges(parent=f"{cube}/commits/2", page_size=1, page_token=token)
        pages.append([change.name for change in page.changes])
        token = page.next_page_token
        if not token:
            break
    assert pages == [["memories/0"], ["memories/3"]]


async def test_pages_of_versions_do_not_count_the_hidden_ones(world: World, cube: str) -> None:
    admin = world.admin
    name = (await admin.AddMemories(parent=cube, memories=[text("v1")])).memories[0].name
    for words, label in (("v2", SECRET), ("v3", SECRET), ("v4", INTERNAL)):
        await admin.UpdateMemory(memory=text(words, name=name, sensitivity=label))
    low = await world.principal("low", (cube, READER, INTERNAL))
    pages, token = [], ""
    while True:
        page = await low.ListMemoryRevisions(name=name, page_size=1, page_token=token)
        pages.append([memory.plaintext.text for memory in page.memories])
        token = page.next_page_token
        if not token:
            break
    assert pages == [["v4"], ["v1"]]


async def test_a_page_token_does_not_tell_how_much_lies_between_two_pages(world: World, cube: str) -> None:
    labels = [INTERNAL, SECRET, SECRET, INTERNAL, INTERNAL]
    await world.admin.AddMemories(parent=cube, memories=[text("x", sensitivity=label) for label in labels])
    low = await world.principal("low", (cube, READER, INTERNAL))
    token = (await low.ListMemories(parent=cube, page_size=1)).next_page_token
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    assert b"after" not in raw
    assert b"revision" not in raw
    assert (await low.ListMemories(parent=cube, page_size=1, page_token=token)).memories


async def test_an_etag_does_not_confirm_a_guess_of_the_memory_that_absorbed_another(world: World, cube: str) -> None:
    names = [f"{cube}/memories/{id_}" for id_ in ("open", "boss")]
    batch = [text("x", name=names[0]), text("y", name=names[1], sensitivity=SECRET)]
    await world.admin.AddMemories(parent=cube, memories=batch)
    await world.admin.MergeMemories(parent=cube, sources=names[:1], target=names[1])
    low = await world.principal("low", (cube, READER, INTERNAL))
    memory = (await low.GetMemory(name=names[0])).memory
    assert memory.merged_into == ""
    parts = (memory.commitment.hex(), str(memory.state), str(memory.sensitivity), memory.owner, "memories/boss")
    assert memory.etag != hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


async def test_an_administrator_of_the_server_grants_no_more_than_it_has(world: World, cube: str) -> None:
    chief = await world.principal("chief", ("server", ADMIN, INTERNAL))
    for resource in (cube, "server"):
        grant = Grant(principal="principals/chief", resource=resource, role=ADMIN, max_sensitivity=SECRET)
        assert (await error_of(chief.SetGrant(grant=grant)))[0] == "PERMISSION_DENIED"


async def test_the_highest_of_several_grants_holds(world: World, cube: str) -> None:
    added = (await world.admin.AddMemories(parent=cube, memories=[text("deep", sensitivity=SECRET)])).memories[0]
    chief = await world.principal("chief", ("server", ADMIN, INTERNAL), (cube, READER, SECRET))
    assert (await chief.GetMemory(name=added.name)).memory.plaintext.text == "deep"
    other = await world.principal("other", ("server", ADMIN, INTERNAL), (added.name, READER, SECRET))
    assert (await other.GetMemory(name=added.name)).memory.plaintext.text == "deep"


async def test_an_administrator_of_one_memory_shares_it(world: World, cube: str) -> None:
    added = (await world.admin.AddMemories(parent=cube, memories=[text("shared")])).memories[0]
    await world.principal("friend")
    owner = await world.principal("owner", (added.name, ADMIN, INTERNAL))
    grant = Grant(principal="principals/friend", resource=added.name, role=READER, max_sensitivity=INTERNAL)
    assert (await owner.SetGrant(grant=grant)).grant.role == READER


async def test_a_guest_lists_its_memory_as_if_the_cube_held_nothing_else(world: World, cube: str) -> None:
    for _ in range(6):
        await world.admin.AddMemories(parent=cube, memories=[text("x") for _ in range(1000)])
    last = (await world.admin.AddMemories(parent=cube, memories=[text("shared")])).memories[0]
    guest = await world.principal("g", (last.name, READER, INTERNAL))
    page = await guest.ListMemories(parent=cube)
    assert ([memory.name for memory in page.memories], page.next_page_token) == ([last.name], "")
