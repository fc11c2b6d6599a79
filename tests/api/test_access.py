"""Who may do what: tokens, roles, sensitivity, and that nothing hidden leaves a trace."""

from __future__ import annotations

import asyncio
import base64
import json

import jwt
import pytest

from memos_server._pb.mip.v1 import access_pb2, common_pb2
from memos_server._pb.mip.v1.memory_service_pb2 import SEARCH_MODE_LEXICAL
from tests.conftest import World
from tests.support.mip import METHODS, Grant, Memory, Mip, Provenance, Relation, RpcError, text

READER, WRITER, ADMIN, CREATOR = (
    access_pb2.ROLE_READER,
    access_pb2.ROLE_WRITER,
    access_pb2.ROLE_ADMIN,
    access_pb2.ROLE_CREATOR,
)
INTERNAL, SECRET = common_pb2.SENSITIVITY_INTERNAL, common_pb2.SENSITIVITY_SECRET


@pytest.fixture
async def cube(mip: Mip) -> str:
    """The name of a fresh cube."""
    return (await mip.CreateCube(cube_id="c")).cube.name


async def test_every_rpc_but_the_open_one_wants_a_token(world: World) -> None:
    nobody = world.caller("")
    assert (await nobody.GetCapabilities()).protocol_version == "1.0-alpha"
    for name, method in METHODS.items():
        if name == "GetCapabilities" or method.client_streaming:
            continue
        with pytest.raises(RpcError) as raised:
            await (anext(nobody.stream(name)) if method.server_streaming else nobody.call(name))
        assert (raised.value.code, raised.value.reason) == ("UNAUTHENTICATED", "UNAUTHENTICATED"), name


async def test_forged_expired_and_foreign_tokens_are_refused(world: World) -> None:
    good = (world.data / "admin.token").read_text().strip()
    header, payload, signature = good.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    cases = {
        f"{header}.{payload}.{signature[:-4]}AAAA": "TOKEN_INVALID",
        f"{none}.{payload}.": "TOKEN_INVALID",
        jwt.encode(claims, "a" * 32, algorithm="HS256"): "TOKEN_INVALID",
        "garbage": "TOKEN_INVALID",
        "x" * 5_000: "TOKEN_INVALID",
    }
    for token, reason in cases.items():
        with pytest.raises(RpcError) as raised:
            await world.caller(token).ListCubes()
        assert (raised.value.code, raised.value.reason) == ("UNAUTHENTICATED", reason)
    signer = world.server.mos.issuer
    expired = signer.issue("principals/local-admin", 1, now=1_700_000_000).token
    with pytest.raises(RpcError) as raised:
        await world.caller(expired).ListCubes()
    assert raised.value.reason == "TOKEN_EXPIRED"


async def test_a_revoked_token_and_a_disabled_principal_are_refused_from_the_next_call(world: World) -> None:
    admin = world.admin
    await admin.CreatePrincipal(principal_id="ann")
    first = await admin.IssueToken(principal="principals/ann")
    second = await admin.IssueToken(principal="principals/ann")
    one, two = world.caller(first.token), world.caller(second.token)
    await one.ListCubes()
    await admin.RevokeToken(token_id=first.token_id)
    with pytest.raises(RpcError) as raised:
        await one.ListCubes()
    assert raised.value.reason == "TOKEN_REVOKED"
    await two.ListCubes()
    await admin.DisablePrincipal(name="principals/ann")
    with pytest.raises(RpcError) as raised:
        await two.ListCubes()
    assert raised.value.reason == "TOKEN_REVOKED"


async def test_roles_permit_reading_then_writing_then_administering(world: World, cube: str) -> None:
    reader = await world.principal("r", (cube, READER, INTERNAL))
    writer = await world.principal("w", (cube, WRITER, INTERNAL))
    admin = await world.principal("a", (cube, ADMIN, INTERNAL))
    memory = (await writer.AddMemories(parent=cube, memories=[text("one")])).memories[0]
    assert memory.owner == "principals/w"
    assert (await reader.GetMemory(name=memory.name)).memory.plaintext.text == "one"
    refused = [
        (reader, "AddMemories", {"parent": cube, "memories": [text("two")]}),
        (reader, "DeleteMemories", {"parent": cube, "names": [memory.name]}),
        (writer, "PurgeMemories", {"parent": cube, "names": [memory.name], "reason": "test"}),
        (writer, "RollbackCube", {"name": cube, "to_revision": 1}),
        (writer, "SetGrant", {"grant": Grant(principal="principals/w", resource=cube, role=ADMIN)}),
        (admin, "CreatePrincipal", {"principal_id": "x"}),
        (admin, "CreateCube", {"cube_id": "x"}),
        (admin, "ForkCube", {"name": cube, "cube_id": "x"}),
    ]
    for caller, name, fields in refused:
        with pytest.raises(RpcError) as raised:
            await caller.call(name, **fields)
        assert (raised.value.code, raised.value.reason) == ("PERMISSION_DENIED", "PERMISSION_DENIED"), name
    await admin.RollbackCube(name=cube, to_revision=1)


async def test_without_a_grant_an_existing_and_an_absent_cube_answer_alike(world: World, cube: str) -> None:
    stranger = await world.principal("s")
    answers = []
    for name in (cube, "cubes/none"):
        for call in (
            stranger.GetCube(name=name),
            stranger.AddMemories(parent=name, memories=[text("x")]),
            stranger.SearchMemories(cubes=[name], query="x"),
            stranger.VerifyCube(name=name),
        ):
            with pytest.raises(RpcError) as raised:
                await call
            answers.append((raised.value.code, raised.value.reason, raised.value.message.replace(name, "N")))
    assert answers[:4] == answers[4:]
    assert not (await stranger.ListCubes()).cubes


async def test_every_resource_field_is_checked_first_and_last(world: World, cube: str) -> None:
    admin = world.admin
    other = (await admin.CreateCube(cube_id="other")).cube.name
    mine = (await admin.AddMemories(parent=cube, memories=[text("mine")])).memories[0].name
    theirs = (await admin.AddMemories(parent=other, memories=[text("theirs")])).memories[0].name
    caller = await world.principal("m", (cube, ADMIN, SECRET))
    attempts = [
        ("SearchMemories", {"cubes": [other, cube], "query": "x"}),
        ("SearchMemories", {"cubes": [cube, other], "query": "x"}),
        ("BatchGetMemories", {"parent": cube, "names": [theirs, mine]}),
        ("BatchGetMemories", {"parent": cube, "names": [mine, theirs]}),
        ("DeleteMemories", {"parent": cube, "names": [mine, theirs]}),
        ("MergeMemories", {"parent": cube, "sources": [mine], "target": theirs}),
        ("CreateRelations", {"parent": cube, "relations": [Relation(source=mine, target=theirs, type="X")]}),
        ("CreateRelations", {"parent": cube, "relations": [Relation(source=theirs, target=mine, type="X")]}),
        ("ListRelations", {"parent": cube, "memory": theirs}),
        ("Traverse", {"parent": cube, "starts": [mine, theirs]}),
        ("UpdateMemory", {"memory": text("x", name=theirs)}),
    ]
    for name, fields in attempts:
        with pytest.raises(RpcError) as raised:
            await caller.call(name, **fields)
        assert raised.value.code == "PERMISSION_DENIED", (name, fields)
    assert (await admin.GetMemory(name=theirs)).memory.plaintext.text == "theirs"


async def test_a_secret_memory_leaves_no_trace_for_a_low_reader(world: World, cube: str) -> None:
    admin = world.admin
    batch = [
        text("tea at five", name=f"{cube}/memories/open"),
        text("tea with the spy", name=f"{cube}/memories/hidden", sensitivity=SECRET),
    ]
    await admin.AddMemories(parent=cube, memories=batch, cause="tea with the spy")
    hidden = f"{cube}/memories/hidden"
    edge = Relation(source=f"{cube}/memories/open", target=hidden, type="RELATES_TO")
    await admin.CreateRelations(parent=cube, relations=[edge])
    low = await world.principal("low", (cube, READER, INTERNAL))
    with pytest.raises(RpcError) as hidden_error:
        await low.GetMemory(name=hidden)
    with pytest.raises(RpcError) as absent_error:
        await low.GetMemory(name=f"{cube}/memories/absent")
    assert (hidden_error.value.code, hidden_error.value.reason) == (absent_error.value.code, absent_error.value.reason)
    assert len((await low.ListMemories(parent=cube)).memories) == 1
    assert not (await low.ListRelations(parent=cube)).relations
    assert len((await low.Traverse(parent=cube, starts=[f"{cube}/memories/open"])).visits) == 1
    commit = (await low.GetCommit(name=f"{cube}/commits/2")).commit
    assert (commit.change_count, commit.cause) == (1, "")
    assert [change.name for change in (await low.ListCommitChanges(parent=commit.name)).changes] == ["memories/open"]
    assert (await low.GetCommit(name=f"{cube}/commits/3")).commit.change_count == 0
    found = await low.SearchMemories(cubes=[cube], query="tea spy", mode=SEARCH_MODE_LEXICAL, explain=True)
    assert [hit.memory.name for hit in found.hits] == [f"{cube}/memories/open"]
    # The score is that of a cube in which the hidden memory does not exist.
    twin = (await admin.CreateCube(cube_id="twin")).cube.name
    await admin.AddMemories(parent=twin, memories=[text("tea at five")])
    alone = await admin.SearchMemories(cubes=[twin], query="tea spy", mode=SEARCH_MODE_LEXICAL, explain=True)
    assert found.hits[0].explanation == alone.hits[0].explanation


async def test_a_label_that_rises_hides_the_past_too(world: World, cube: str) -> None:
    admin = world.admin
    memory = (await admin.AddMemories(parent=cube, memories=[text("the code is 4417")])).memories[0]
    low = await world.principal("low", (cube, READER, INTERNAL))
    assert (await low.GetMemory(name=memory.name)).memory.plaintext.text == "the code is 4417"
    await admin.UpdateMemory(
        memory=Memory(name=memory.name, sensitivity=SECRET), update_mask={"paths": ["sensitivity"]}
    )
    for fields in ({"name": memory.name}, {"name": memory.name, "as_of_revision": 2}):
        with pytest.raises(RpcError) as raised:
            await low.GetMemory(**fields)
        assert raised.value.reason == "MEMORY_NOT_FOUND"
    assert not (await low.SearchMemories(cubes=[cube], query="code", as_of_revision=2)).hits
    assert not (await low.ListMemories(parent=cube, as_of_revision=2)).memories


async def test_what_derives_from_a_secret_is_secret_and_does_not_name_it_to_others(world: World, cube: str) -> None:
    admin = world.admin
    secret = (await admin.AddMemories(parent=cube, memories=[text("secret", sensitivity=SECRET)])).memories[0]
    source = Provenance(kind="PROVENANCE_KIND_MEMORY", source=secret.name)
    derived = (await admin.AddMemories(parent=cube, memories=[text("derived", provenance=[source])])).memories[0]
    assert derived.sensitivity == SECRET
    later = (await admin.AddMemories(parent=cube, memories=[text("base")])).memories[0]
    source = Provenance(kind="PROVENANCE_KIND_MEMORY", source=later.name)
    child = (await admin.AddMemories(parent=cube, memories=[text("child", provenance=[source])])).memories[0]
    await admin.UpdateMemory(memory=Memory(name=later.name, sensitivity=SECRET), update_mask={"paths": ["sensitivity"]})
    low = await world.principal("low", (cube, READER, INTERNAL))
    assert not (await low.GetMemory(name=child.name)).memory.provenance
    assert not (await low.ListMemories(parent=cube, filter=f'provenance.source = "{later.name}"')).memories
    assert not (await low.SearchMemories(cubes=[cube], filter=f'provenance.source = "{later.name}"')).hits
    with pytest.raises(RpcError) as raised:
        await low.GetMemory(name=child.name, view=common_pb2.VIEW_SEALED)
    assert raised.value.code == "PERMISSION_DENIED"


async def test_a_grant_on_one_memory_shows_that_memory_alone(world: World, cube: str) -> None:
    admin = world.admin
    added = (await admin.AddMemories(parent=cube, memories=[text("shared"), text("private")])).memories
    guest = await world.principal("g", (added[0].name, WRITER, INTERNAL))
    assert [m.plaintext.text for m in (await guest.ListMemories(parent=cube)).memories] == ["shared"]
    found = await guest.SearchMemories(cubes=[cube], query="shared private")
    assert [hit.memory.plaintext.text for hit in found.hits] == ["shared"]
    await guest.UpdateMemory(memory=text("shared, changed", name=added[0].name))
    await guest.DeleteMemories(parent=cube, names=[added[0].name])
    for name, fields in (
        ("AddMemories", {"parent": cube, "memories": [text("x")]}),
        ("ListCommits", {"parent": cube}),
        ("VerifyCube", {"name": cube}),
        ("DeleteMemories", {"parent": cube, "names": [added[1].name]}),
    ):
        with pytest.raises(RpcError) as raised:
            await guest.call(name, **fields)
        assert raised.value.code == "PERMISSION_DENIED", name


async def test_an_administrator_cannot_grant_more_than_it_has(world: World, cube: str) -> None:
    low = await world.principal("low", (cube, ADMIN, INTERNAL))
    with pytest.raises(RpcError) as raised:
        await low.SetGrant(grant=Grant(principal="principals/low", resource=cube, role=ADMIN, max_sensitivity=SECRET))
    assert raised.value.code == "PERMISSION_DENIED"


async def test_the_last_administrator_stays(world: World) -> None:
    admin = world.admin
    for call in (
        admin.DisablePrincipal(name="principals/local-admin"),
        admin.DeleteGrant(principal="principals/local-admin", resource="server"),
    ):
        with pytest.raises(RpcError) as raised:
            await call
        assert (raised.value.code, raised.value.reason) == ("FAILED_PRECONDITION", "LAST_ADMIN")


async def test_the_audit_trail_tells_who_did_what_and_samples_refused_calls(world: World, cube: str) -> None:
    admin = world.admin
    await world.principal("ann", (cube, READER, INTERNAL))
    nobody = world.caller("")
    for _ in range(50):
        with pytest.raises(RpcError):
            await nobody.ListCubes()
    await admin.RollbackCube(name=cube, to_revision=1)
    events = (await admin.ListAuditEvents(resource="server")).events
    did = [(event.principal, event.method.rpartition("/")[2], event.resource) for event in events]
    assert ("principals/local-admin", "SetGrant", cube) in did
    assert ("principals/local-admin", "IssueToken", "principals/ann") in did
    assert [event.outcome for event in events].count("UNAUTHENTICATED") == 1
    of_cube = (await admin.ListAuditEvents(resource=cube)).events
    assert [event.method.rpartition("/")[2] for event in of_cube] == ["RollbackCube", "SetGrant", "CreateCube"]
    assert of_cube[0].revision == 2


async def test_a_lost_grant_ends_an_open_stream(world: World, cube: str) -> None:
    reader = await world.principal("r", (cube, READER, INTERNAL))

    async def watch() -> None:
        async for _ in reader.WatchCube(name=cube, start_revision=1):
            pass

    task = asyncio.create_task(watch())
    await asyncio.sleep(0.2)
    await world.admin.DeleteGrant(principal="principals/r", resource=cube)
    with pytest.raises(RpcError) as raised:
        await asyncio.wait_for(task, 5)
    assert raised.value.code == "PERMISSION_DENIED"
