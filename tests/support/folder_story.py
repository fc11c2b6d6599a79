"""What the folders of tests/data/folders hold: how a server is filled with all there is, and what it answers then.

`fill` makes what a new fixture holds; `answers` is what a server must say of a folder, now and after every upgrade.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import AsyncIterator
from typing import Any

from memos_server._pb.mip.v1 import access_pb2, common_pb2
from memos_server._pb.mip.v1.blob_service_pb2 import BlobData, BlobHeader, WriteBlobRequest
from memos_server._pb.mip.v1.memory_service_pb2 import SEARCH_MODE_LEXICAL, SEARCH_MODE_VECTOR
from tests.support.mip import Grant, Label, Memory, Mip, Provenance, Relation, Vector, text

ACTIVE, ARCHIVED, DELETED = 1, 3, 4
WEIGHTS = b"".join(hashlib.sha256(bytes([n])).digest() for n in range(64))
"""A blob of 2 KiB that does not compress."""
WORDS = ["tea", "lighthouse", "Ada", "PIN", "harbour", "adapter"]
REQUEST_ID = "0198c5a2-7f3e-7c41-9a52-3d1f0b6e8c77"


def vector(*numbers: float) -> Vector:
    """Returns a float32 vector of the model `toy`."""
    return Vector(model="toy", dtype=1, dimension=len(numbers), data=struct.pack(f"<{len(numbers)}f", *numbers))


def digest_of(data: bytes) -> str:
    """Returns a blob's digest."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def upload(mip: Mip, cube: str, data: bytes) -> str:
    """Uploads a blob and returns its digest."""
    frames = [
        WriteBlobRequest(header=BlobHeader(parent=cube, digest=digest_of(data), size=len(data))),
        WriteBlobRequest(data=BlobData(offset=0, data=data)),
        WriteBlobRequest(finish=True),
    ]
    await mip.upload("WriteBlob", frames)
    return digest_of(data)


async def fill(mip: Mip) -> None:
    """Makes cubes with every sort of commit, blobs, principals, grants and tokens."""
    await _notes(mip)
    await _models(mip)
    await mip.ForkCube(name="cubes/notes", cube_id="notes-copy", revision=4)
    await mip.CreateCube(cube_id="gone")
    await mip.AddMemories(parent="cubes/gone", memories=[text("soon deleted", name="cubes/gone/memories/g")])
    await mip.DeleteCube(name="cubes/gone")
    await mip.CreateCube(cube_id="erased")
    await mip.AddMemories(parent="cubes/erased", memories=[text("soon erased", name="cubes/erased/memories/e")])
    await mip.PurgeCube(name="cubes/erased", reason="not needed")
    await _access(mip)


async def _notes(mip: Mip) -> None:
    cube = "cubes/notes"
    names = {id_: f"{cube}/memories/{id_}" for id_ in ("a", "b", "c", "d", "e", "pin", "m", "secret")}
    await mip.CreateCube(
        cube_id="notes", cube={"display_name": "Notes", "embedding_model": "toy", "embedding_dimension": 2}
    )
    label = Label(key="project", value="x")
    batch = [
        text("Ada prefers tea.", name=names["a"], vectors=[vector(1, 0)], tags=["drink"], labels=[label]),
        text("The lighthouse stands north of the harbour.", name=names["b"], vectors=[vector(0, 1)], confidence=0.5),
        text("Ada likes green tea.", name=names["c"], vectors=[vector(0.9, 0.1)]),
        text("An old reef.", name=names["d"], attributes_json='{"depth":7}'),
        text("The PIN is 4417.", name=names["pin"]),
    ]
    await mip.AddMemories(parent=cube, memories=batch, request_id=REQUEST_ID, cause="a first batch")
    edges = [
        Relation(source=names["a"], target=names["c"], type="RELATES_TO", weight=0.5),
        Relation(source=names["b"], target=names["d"], type="PARENT_OF"),
    ]
    await mip.CreateRelations(parent=cube, relations=edges)
    await mip.UpdateMemory(memory=text("Ada prefers coffee.", name=names["a"], vectors=[vector(0.8, 0.2)]))
    await mip.TransitionMemories(parent=cube, names=[names["d"]], state=ARCHIVED)
    merged = text("Ada drinks coffee, and green tea.", name=names["m"])
    await mip.MergeMemories(parent=cube, sources=[names["a"], names["c"]], merged=merged)
    await mip.DeleteRelations(parent=cube, relations=edges[1:])
    await mip.CreateSession(parent=cube, session_id="talk", session={"participants": ["Ada"], "display_name": "a talk"})
    source = Provenance(kind="PROVENANCE_KIND_MEMORY", source=names["b"])
    derived = text("Ships see it.", name=names["e"], session=f"{cube}/sessions/talk", provenance=[source])
    await mip.AddMemories(parent=cube, memories=[derived])
    await mip.EndSession(name=f"{cube}/sessions/talk")
    await mip.DeleteMemories(parent=cube, names=[names["b"]])
    await mip.RollbackCube(name=cube, to_revision=5, cause="too much was merged")
    await mip.PurgeMemories(parent=cube, names=[names["pin"]], reason="PINs are not kept")
    hidden = text("Only for those who may.", name=names["secret"], sensitivity=common_pb2.SENSITIVITY_SECRET)
    await mip.AddMemories(parent=cube, memories=[hidden])
    await mip.UpdateCube(cube={"name": cube, "display_name": "Notes of Ada"})


async def _models(mip: Mip) -> None:
    cube = "cubes/models"
    await mip.CreateCube(cube_id="models")
    digest = await upload(mip, cube, WEIGHTS)
    blob = {"digest": digest, "size": len(WEIGHTS), "title": "adapter_model.safetensors"}
    state = {"digest": await upload(mip, cube, WEIGHTS[:512]), "size": 512}
    purged = {"digest": await upload(mip, cube, WEIGHTS[:100]), "size": 100}
    adapter = {"base_fingerprint": "base-1", "method": "lora", "blobs": [blob]}
    steering = {"model_fingerprint": "base-1", "blobs": [state]}
    steering["hidden_states"] = {"layer": 3, "rows": 2, "dimension": 4, "dtype": "float32"}
    memories = [
        Memory(name=f"{cube}/memories/adapter", parametric=adapter, tags=["adapter"]),
        Memory(name=f"{cube}/memories/steering", activation=steering),
        Memory(name=f"{cube}/memories/old", parametric={**adapter, "blobs": [purged]}),
    ]
    await mip.AddMemories(parent=cube, memories=memories)
    await mip.PurgeMemories(parent=cube, names=[f"{cube}/memories/old"], reason="a wrong adapter")


async def _access(mip: Mip) -> None:
    await mip.CreatePrincipal(principal_id="reader", principal={"display_name": "A reader"})
    await mip.CreatePrincipal(principal_id="former")
    for resource in ("cubes/notes", "cubes/models/memories/adapter"):
        grant = Grant(principal="principals/reader", resource=resource, role=access_pb2.ROLE_READER)
        grant.max_sensitivity = common_pb2.SENSITIVITY_INTERNAL
        await mip.SetGrant(grant=grant)
    issued = await mip.IssueToken(principal="principals/reader")
    await mip.RevokeToken(token_id=issued.token_id)
    await mip.DisablePrincipal(name="principals/former")


async def pages(mip: Mip, rpc: str, field: str, **request: Any) -> AsyncIterator[Any]:
    """Yields the items of all pages of a listing."""
    token = ""
    while True:
        page = await mip.call(rpc, page_token=token, page_size=1000, **request)
        for item in getattr(page, field):
            yield item
        token = page.next_page_token
        if not token:
            return


async def answers(mip: Mip) -> dict[str, Any]:
    """Returns what a server says of everything in its folder, as JSON values; the caller is the administrator."""
    cubes = {}
    async for cube in pages(mip, "ListCubes", "cubes", show_deleted=True):
        cubes[cube.name] = {
            "uid": cube.uid,
            "state": cube.state,
            "display_name": cube.display_name,
            **await _log(mip, cube.name),
            **(await _content(mip, cube.name) if cube.state == ACTIVE else {}),
        }
    grants = [
        [grant.principal, grant.resource, grant.role, grant.max_sensitivity]
        for resource in ("server", "cubes/notes", "cubes/models")
        async for grant in pages(mip, "ListGrants", "grants", resource=resource)
    ]
    principals = [
        [p.name, p.display_name, p.HasField("disable_time")] async for p in pages(mip, "ListPrincipals", "principals")
    ]
    return {"cubes": cubes, "grants": grants, "principals": principals}


async def _log(mip: Mip, cube: str) -> dict[str, Any]:
    verdict = await mip.VerifyCube(name=cube)
    commits = [
        [commit.revision, commit.digest.hex(), commit.cause]
        async for commit in pages(mip, "ListCommits", "commits", parent=cube)
    ]
    return {
        "verify": [verdict.valid, verdict.head_revision, verdict.head_digest.hex(), verdict.indexed_revision],
        "commits": commits,
    }


async def _content(mip: Mip, cube: str) -> dict[str, Any]:
    head = (await mip.GetCube(name=cube)).cube.revision
    past = {}
    for revision in range(1, head + 1):
        at = {"parent": cube, "as_of_revision": revision}
        past[str(revision)] = {
            "memories": [_memory(m) async for m in pages(mip, "ListMemories", "memories", show_deleted=True, **at)],
            "relations": [
                [_short(r.source), _short(r.target), r.type, r.weight]
                async for r in pages(mip, "ListRelations", "relations", **at)
            ],
        }
    sessions = [
        [_short(s.name), s.display_name, list(s.participants), s.HasField("end_time")]
        async for s in pages(mip, "ListSessions", "sessions", parent=cube)
    ]
    blobs = {}
    async for memory in pages(mip, "ListMemories", "memories", parent=cube):
        for blob in [*memory.parametric.blobs, *memory.activation.blobs]:
            frames = [frame.data.data async for frame in mip.ReadBlob(parent=cube, digest=blob.digest)]
            blobs[_short(memory.name)] = digest_of(b"".join(frames))
    return {"past": past, "sessions": sessions, "blobs": blobs, "hits": await _hits(mip, cube, head)}


async def _hits(mip: Mip, cube: str, head: int) -> dict[str, list[str]]:
    found = {}
    for revision in {min(2, head), head}:
        for word in WORDS:
            response = await mip.SearchMemories(
                cubes=[cube], query=word, mode=SEARCH_MODE_LEXICAL, as_of_revision=revision
            )
            assert not response.stale
            found[f"{word}@{revision}"] = [_short(hit.memory.name) for hit in response.hits]
        if cube.startswith("cubes/notes"):
            response = await mip.SearchMemories(
                cubes=[cube], vector=vector(0.1, 0.9), mode=SEARCH_MODE_VECTOR, as_of_revision=revision
            )
            found[f"north@{revision}"] = [_short(hit.memory.name) for hit in response.hits]
    return dict(sorted(found.items()))


def _memory(memory: Memory) -> list[Any]:
    """Returns what identifies a memory's version; the content by its digest, a text beside it in words."""
    content = Memory(
        parametric=memory.parametric if memory.HasField("parametric") else None,
        activation=memory.activation if memory.HasField("activation") else None,
        tags=memory.tags,
        labels=memory.labels,
        attributes_json=memory.attributes_json,
        provenance=memory.provenance,
        confidence=memory.confidence,
        session=memory.session,
    )
    digest = hashlib.sha256(content.SerializeToString(deterministic=True)).hexdigest()[:16]
    short = [_short(memory.name), memory.revision, memory.state, memory.plaintext.text, _short(memory.merged_into)]
    return [*short, memory.sensitivity, memory.etag, memory.commitment.hex()[:16], digest]


def _short(name: str) -> str:
    return name.rpartition("/")[2]
