"""The audit trail: every mutation of AccessService leaves an event, and nothing secret is in any."""

from __future__ import annotations

import asyncio
import errno

import pytest

from memos_server._pb.mip.v1 import options_pb2
from memos_server.api.accounts import RefusedCalls
from memos_server.errors import option
from tests.conftest import MakeWorld, World
from tests.support.mip import METHODS, Mip, RpcError, path_of
from tests.support.samples import Scene, build, frames_of

MUTATIONS = sorted(
    name
    for name, method in METHODS.items()
    if method.containing_service.name == "AccessService" and "request_id" in method.input_type.fields_by_name
)
ABOUT_CUBES = ("CreateCube", "DeleteCube", "UndeleteCube", "RollbackCube", "ForkCube", "PurgeCube", "PurgeMemories")


def test_every_mutation_of_access_service_is_known_by_its_request_id() -> None:
    reads = {"ListPrincipals", "ListGrants", "ListAuditEvents"}
    service = {name for name, method in METHODS.items() if method.containing_service.name == "AccessService"}
    assert set(MUTATIONS) == service - reads
    assert MUTATIONS == [
        "CreatePrincipal",
        "DeleteGrant",
        "DisablePrincipal",
        "IssueToken",
        "RevokeToken",
        "SetGrant",
    ]


def resource_of(rpc: str, scene: Scene) -> str:
    """Returns what the event of a call is about."""
    special = {
        "CreatePrincipal": f"{scene.principal}-new",
        "DeleteGrant": scene.memories[0],
        "DisablePrincipal": scene.principal,
        "IssueToken": scene.principal,
        "RevokeToken": "server",
        "CreateCube": f"{scene.cube}-new",
        "ForkCube": f"{scene.cube}-fork",
    }
    return special.get(rpc, scene.cube)


@pytest.mark.parametrize("rpc", [*MUTATIONS, *ABOUT_CUBES])
async def test_a_mutation_leaves_one_event_and_a_refused_or_repeated_one_none(world: World, rpc: str) -> None:
    admin = world.admin
    scene = await build(admin, "c")
    if rpc == "UndeleteCube":
        await admin.DeleteCube(name=scene.cube)
    (frame,) = frames_of(rpc, scene)
    if rpc != "IssueToken":
        frame.request_id = "01890a5d-ac96-774b-bcce-b302099a8057"  # type: ignore[attr-defined]
    earlier = (await admin.ListAuditEvents(resource="server", page_size=1000)).events
    nobody = world.caller("")
    stranger = await world.principal("stranger")
    made = {"CreatePrincipal", "IssueToken"}
    for caller in (nobody, stranger):
        with pytest.raises(RpcError):
            await caller.call(rpc, frame)
    response = await admin.call(rpc, frame)
    if rpc != "IssueToken":
        assert await admin.call(rpc, frame) == response
    events = (await admin.ListAuditEvents(resource="server", page_size=1000)).events
    new = [event for event in events if event.sequence > earlier[0].sequence]
    mine = [
        event
        for event in new
        if event.method == path_of(METHODS[rpc]) and event.outcome == "OK" and "stranger" not in event.resource
    ]
    assert [(event.principal, event.resource) for event in mine] == [
        ("principals/local-admin", resource_of(rpc, scene))
    ]
    if rpc not in made:
        # The refused calls stand there as counted samples, one for each kind.
        refused = [(e.principal, e.outcome, e.count) for e in new if e.outcome != "OK"]
        assert sorted(refused) == [
            ("", "UNAUTHENTICATED", 1),
            ("principals/stranger", "PERMISSION_DENIED", 1),
        ]
    if rpc in ABOUT_CUBES:
        assert mine[0].revision == response.commit.revision


async def test_no_event_holds_a_token_a_key_or_content(world: World) -> None:
    admin = world.admin
    scene = await build(admin, "c")
    issued = await admin.IssueToken(principal=scene.principal)
    secret = world.caller("a-token-that-nobody-issued")
    with pytest.raises(RpcError):
        await secret.ListCubes()
    await admin.PurgeMemories(parent=scene.cube, names=scene.memories[2:], reason="because of 4417")
    text = "\n".join(str(event) for event in (await admin.ListAuditEvents(resource="server", page_size=1000)).events)
    assert issued.token_id in text
    for forbidden in (issued.token, issued.token.split(".")[2], "a-token-that-nobody-issued", "text of m"):
        assert forbidden not in text


async def test_a_thousand_refused_calls_leave_one_row_for_each_kind(world: World) -> None:
    scene = await build(world.admin, "c")
    stranger = await world.principal("stranger")
    for _ in range(100):
        for rpc in ("GetCube", "ListMemories"):
            with pytest.raises(RpcError):
                await stranger.call(rpc, frames_of(rpc, scene)[0])
    events = (await world.admin.ListAuditEvents(resource="server", page_size=1000)).events
    refused = [event.method.rpartition("/")[2] for event in events if event.outcome == "PERMISSION_DENIED"]
    assert sorted(refused) == ["GetCube", "ListMemories"]


async def refused_by(stranger: Mip, scene: Scene, times: int) -> None:
    for _ in range(times):
        with pytest.raises(RpcError):
            await stranger.call("GetCube", frames_of("GetCube", scene)[0])


async def counts(admin: Mip) -> list[int]:
    """Returns the counts of the events about calls that lacked a permission, newest first."""
    events = (await admin.ListAuditEvents(resource="server", page_size=1000)).events
    return [event.count for event in events if event.outcome == "PERMISSION_DENIED"]


async def test_every_refused_call_is_counted_when_the_server_stops(world: World) -> None:
    scene = await build(world.admin, "c")
    await refused_by(await world.principal("stranger"), scene, 20)
    assert await counts(world.admin) == [1]
    await world.restart()
    assert await counts(world.admin) == [19, 1]


async def test_the_end_of_a_burst_is_recorded_without_another_call(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memos_server.api.accounts._EVERY_US", 1_000_000)
    monkeypatch.setattr("memos_server.main._RECORDING_S", 0.1)
    world = await make_world()
    admin = world.admin
    await refused_by(await world.principal("stranger"), await build(admin, "c"), 20)
    for _ in range(200):
        if sum(await counts(admin)) == 20:
            break
        await asyncio.sleep(0.05)
    assert sum(await counts(admin)) == 20
    assert len(await counts(admin)) < 20


async def test_what_could_not_be_recorded_is_recorded_later(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    store = world.server.mos.store
    refused = RefusedCalls(store)

    async def fail(_: object) -> None:
        raise OSError(errno.EIO, "the disk fails")

    with monkeypatch.context() as patch:
        patch.setattr(store, "write", fail)
        await refused.count("principals/x", "/mip.v1.CubeService/GetCube", "PERMISSION_DENIED")
    assert await counts(world.admin) == []
    await refused.count("principals/x", "/mip.v1.CubeService/GetCube", "PERMISSION_DENIED")
    await refused.write_due()
    assert await counts(world.admin) == []  # not before a minute is over
    await refused.write_all()
    await refused.write_all()
    assert await counts(world.admin) == [2]


async def test_no_rpc_changes_or_removes_an_event(world: World) -> None:
    scene = await build(world.admin, "c")
    await world.admin.ListAuditEvents(resource="server")
    before = list((await world.admin.ListAuditEvents(resource=scene.cube, page_size=1000)).events)
    await world.admin.RollbackCube(name=scene.cube, to_revision=1)
    await world.admin.PurgeCube(name=scene.cube, reason="test")
    after = list((await world.admin.ListAuditEvents(resource=scene.cube, page_size=1000)).events)
    assert after[-len(before) :] == before
    assert not [name for name in METHODS if "Audit" in name and name != "ListAuditEvents"]
    assert option(METHODS["ListAuditEvents"].GetOptions(), options_pb2.auth).permission == options_pb2.PERMISSION_ADMIN
