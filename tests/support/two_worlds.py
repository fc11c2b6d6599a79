"""The same cube twice, with and without what is secret, and everything that one caller can ask of both.

Where the secret world makes a commit of hidden changes alone, the other makes an empty one (a rollback to its head):
that the head moves is what every reader of a cube sees.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from memos_server._pb.mip.v1 import access_pb2, common_pb2, memory_pb2
from memos_server._pb.mip.v1.blob_service_pb2 import BlobData, BlobHeader, WriteBlobRequest
from tests.support.mip import METHODS, Cube, Grant, Memory, Mip, Provenance, Relation, RpcError, Vector, text

INTERNAL, SECRET = common_pb2.SENSITIVITY_INTERNAL, common_pb2.SENSITIVITY_SECRET
CUBE = "cubes/c"
HIDDEN = ("hidden1", "risen", "hidden2", "hidden3")
OPEN = ("open1", "open2", "open3", "open4", "open5", "child", "dead")
BLOB = b"bytes that only a secret memory names"
DIGEST = f"sha256:{hashlib.sha256(BLOB).hexdigest()}"
DOOMED = b"bytes that only a purged secret memory named"


def name(id_: str) -> str:
    """Returns the name of a memory of the cube."""
    return f"{CUBE}/memories/{id_}"


def vector(*values: float) -> list[Vector]:
    """Returns a supplied vector."""
    data = np.array(values, "<f4").tobytes()
    return [Vector(model="test", dtype=memory_pb2.DTYPE_FLOAT32, dimension=4, data=data)]


def _tensor(id_: str, bytes_: bytes) -> Memory:
    blob = memory_pb2.BlobRef(digest=f"sha256:{hashlib.sha256(bytes_).hexdigest()}", size=len(bytes_))
    shape = memory_pb2.HiddenStates(dtype="float32")
    held = memory_pb2.Activation(model_fingerprint="fp", hidden_states=shape, blobs=[blob])
    return Memory(name=name(id_), activation=held, sensitivity=SECRET)


async def _upload(admin: Mip, bytes_: bytes) -> None:
    digest = f"sha256:{hashlib.sha256(bytes_).hexdigest()}"
    frames = [
        WriteBlobRequest(header=BlobHeader(parent=CUBE, digest=digest, size=len(bytes_))),
        WriteBlobRequest(data=BlobData(data=bytes_)),
        WriteBlobRequest(finish=True),
    ]
    await admin.upload("WriteBlob", frames)


def _add(*memories: Memory | None) -> dict[str, Any]:
    return {"parent": CUBE, "memories": [memory for memory in memories if memory is not None]}


async def tell(admin: Mip, *, secret: bool) -> None:
    """Makes the cube.

    Args:
        admin: The server's administrator.
        secret: True tells the secret too.
    """

    def only(memory: Memory) -> Memory | None:
        return memory if secret else None

    def edge(source: str, target: str, type_: str = "RELATES_TO") -> Relation:
        return Relation(source=name(source), target=name(target), type=type_)

    async def filler() -> None:
        head = (await admin.GetCube(name=CUBE)).cube.revision
        await admin.RollbackCube(name=CUBE, to_revision=head)

    await admin.CreateCube(cube_id="c", cube=Cube(embedding_model="test", embedding_dimension=4))
    await admin.CreateSession(parent=CUBE, session_id="s")
    await admin.AddMemories(
        **_add(
            text("tea at five with Ada", name=name("open1"), vectors=vector(1, 0, 0, 0)),
            only(
                text("tea with the spy Ada", name=name("hidden1"), sensitivity=SECRET, vectors=vector(0.9, 0.1, 0, 0))
            ),
            text("coffee at nine with Ada", name=name("open2"), vectors=vector(0, 1, 0, 0), tags=["drink"]),
            only(text("tea in the safe house of Bob", name=name("risen"), vectors=vector(0.8, 0, 0.2, 0))),
            text("the office of Bob opens at eight", name=name("open3"), vectors=vector(0, 0, 1, 0)),
            text("an old menu", name=name("dead"), vectors=vector(0, 0, 0, 1)),
        ),
        cause="first facts",
    )
    edges = [edge("open1", "open2"), edge("open2", "open3", "PARENT_OF")]
    if secret:
        edges += [edge("open1", "hidden1"), edge("hidden1", "open3"), edge("open2", "risen"), edge("risen", "open1")]
    await admin.CreateRelations(parent=CUBE, relations=edges)
    # It derives from what is secret later; to a caller that cannot see the source, the claim is not there.
    source = Provenance(kind="PROVENANCE_KIND_MEMORY", source=name("risen"), speaker="Zorro", revision=3)
    await admin.AddMemories(**_add(text("Bob has a house", name=name("child"), provenance=[source])))
    if secret:
        risen = Memory(name=name("risen"), sensitivity=SECRET)
        await admin.UpdateMemory(memory=risen, update_mask={"paths": ["sensitivity"]}, cause="now secret")
        await admin.UpdateMemory(memory=text("the spy drinks tea at dawn", name=name("hidden1")))
        await _upload(admin, DOOMED)
        await admin.AddMemories(**_add(_tensor("hidden2", DOOMED)), cause="a secret tensor")
    else:
        for _ in range(3):
            await filler()
    state = memory_pb2.MEMORY_STATE_ARCHIVED
    both = ["open3", *(["hidden2"] if secret else [])]
    await admin.TransitionMemories(parent=CUBE, names=[name(id_) for id_ in both], state=state)
    await admin.DeleteMemories(parent=CUBE, names=[name("dead"), *([name("hidden1")] if secret else [])])
    if secret:
        back = memory_pb2.MEMORY_STATE_ACTIVE
        await admin.TransitionMemories(parent=CUBE, names=[name("hidden1")], state=back)
        await admin.PurgeMemories(parent=CUBE, names=[name("hidden2")], reason="a secret reason")
        await _upload(admin, BLOB)
        await admin.AddMemories(**_add(_tensor("hidden3", BLOB)))
        await admin.CreatePrincipal(principal_id="eve")
        grant = Grant(
            principal="principals/eve", resource=name("hidden3"), role=access_pb2.ROLE_READER, max_sensitivity=SECRET
        )
        await admin.SetGrant(grant=grant)
    else:
        for _ in range(3):
            await filler()
        await admin.CreatePrincipal(principal_id="eve")
    tea = text("tea for two", name=name("open4"), session=f"{CUBE}/sessions/s", vectors=vector(0.7, 0.3, 0, 0))
    await admin.AddMemories(**_add(tea, text("a menu of teas", name=name("open5"))), cause="more facts")


@dataclass
class Probe:
    """A question to a server.

    Attributes:
        rpc: The RPC.
        fields: The request.
        pages: True walks through all pages.
    """

    rpc: str
    fields: dict[str, Any] = field(default_factory=dict)
    pages: bool = False

    def __str__(self) -> str:
        """Returns the question as one reads it in a failure."""
        return f"{self.rpc}({', '.join(f'{key}={value!r}' for key, value in self.fields.items())})"


FILTERS = (
    'state = "merged"',
    f'provenance.source = "{name("risen")}"',
    'provenance.speaker = "Zorro"',
    "provenance:*",
    "sensitivity = secret",
    'sensitivity > "internal"',
    'tags:"drink"',
    f'session = "{CUBE}/sessions/s"',
)
QUERIES = ("tea", "spy dawn safe", "Zorro", "Ada and Bob", "a menu", "house")


def reads(head: int) -> list[Probe]:
    """Returns every reading RPC, at every revision, about what is seen, hidden and absent alike."""
    ids = [*OPEN, *HIDDEN, "absent"]
    revisions = [0, *range(1, head + 1)]
    probes = [Probe("GetCube", {"name": CUBE}), Probe("ListCubes"), Probe("GetCapabilities")]
    for size in (0, 1, 3):
        sized = {"page_size": size}
        probes.append(Probe("ListCommits", {"parent": CUBE, **sized}, pages=True))
        probes.append(Probe("ListSessions", {"parent": CUBE, **sized}, pages=True))
        probes.append(Probe("ListJobs", {"parent": CUBE, **sized}, pages=True))
        probes += [
            Probe("ListCommitChanges", {"parent": f"{CUBE}/commits/{revision}", **sized}, pages=True)
            for revision in revisions
        ]
        probes += [
            Probe(rpc, {"parent": CUBE, "as_of_revision": revision, **sized, **extra}, pages=True)
            for revision in revisions
            for rpc, extra in (
                ("ListMemories", {}),
                ("ListMemories", {"show_deleted": True}),
                ("ListRelations", {}),
            )
        ]
        probes += [Probe("ListMemoryRevisions", {"name": name(id_), **sized}, pages=True) for id_ in ids]
    probes += [Probe("ListMemories", {"parent": CUBE, "filter": each, "page_size": 1}, pages=True) for each in FILTERS]
    for revision in revisions:
        probes.append(Probe("GetCommit", {"name": f"{CUBE}/commits/{revision}"}))
        at = {"as_of_revision": revision}
        probes += [Probe("GetMemory", {"name": name(id_), **at}) for id_ in ids]
        probes += [
            Probe("BatchGetMemories", {"parent": CUBE, "names": [name("open1"), name(id_)], **at})
            for id_ in ("open2", *HIDDEN, "absent")
        ]
        probes += [Probe("ListRelations", {"parent": CUBE, "memory": name(id_), **at}) for id_ in ids]
        probes += [
            Probe("Traverse", {"parent": CUBE, "starts": [name(start)], "max_depth": 5, "direction": direction, **at})
            for start in ("open1", "hidden1", "risen", "absent")
            for direction in (1, 2, 3)
        ]
        probes += [
            Probe("SearchMemories", {"cubes": [CUBE], "query": query, "mode": mode, "explain": True, **at})
            for query in (QUERIES if not revision else QUERIES[:2])
            for mode in (0, 3, 4)
        ]
        near = {"vector": vector(0.9, 0.1, 0, 0)[0], "mode": 2, "top_k": 3, "explain": True}
        probes.append(Probe("SearchMemories", {"cubes": [CUBE], **near, **at}))
    probes += [
        Probe("SearchMemories", {"cubes": [CUBE], "filter": each, "top_k": top_k})
        for each in FILTERS
        for top_k in (1, 10)
    ]
    probes += [Probe("GetMemory", {"name": name(id_), "include_vectors": True}) for id_ in ids]
    probes += [Probe("GetMemory", {"name": name(id_), "view": common_pb2.VIEW_SEALED}) for id_ in ids]
    probes += [Probe("Traverse", {"parent": CUBE, "starts": [name("open1")], "max_depth": 9, "limit": 2})]
    probes += [Probe("GetSession", {"name": f"{CUBE}/sessions/{id_}"}) for id_ in ("s", "none")]
    probes += [Probe("VerifyCube", {"name": CUBE}), Probe("VerifyCube", {"name": CUBE, "expected_revision": 3})]
    probes.append(Probe("WatchCube", {"name": CUBE, "start_revision": 1}))
    probes += [
        Probe(rpc, {"name": f"{CUBE}/jobs/compaction-{revision:012d}"})
        for revision in revisions
        for rpc in ("GetJob", "WaitJob")
    ]
    probes += [
        Probe("ReadBlob", {"parent": CUBE, "digest": DIGEST}),
        Probe("QueryWrite", {"parent": CUBE, "digest": DIGEST}),
    ]
    probes += [Probe("FindMissingBlobs", {"parent": CUBE, "digests": [DIGEST]})]
    return probes  # fmt: skip


def administration(head: int) -> list[Probe]:
    """Returns what administrators ask, of whom some see less than everything."""
    resources = [CUBE, *(name(id_) for id_ in ("open1", *HIDDEN, "absent"))]
    probes = [Probe(rpc, {"resource": each, "page_size": size}, pages=True)
              for rpc in ("ListGrants", "ListAuditEvents") for each in resources for size in (1, 100)]  # fmt: skip
    probes += [Probe("CancelJob", {"name": f"{CUBE}/jobs/compaction-{number:012d}"}) for number in range(1, head + 1)]
    return probes


def writes() -> list[Probe]:
    """Returns mutations, in the order in which they are tried: what they name may be hidden."""
    grant = {"role": access_pb2.ROLE_READER, "max_sensitivity": INTERNAL}
    mask = {"paths": ["plaintext.text"]}
    probes = []
    for id_ in ("open1", "hidden1", "risen", "hidden3", "hidden2", "absent"):
        one, other = name(id_), name("open5")
        state = memory_pb2.MEMORY_STATE_ARCHIVED
        probes += [
            Probe("UpdateMemory", {"memory": text("changed", name=one), "update_mask": mask, "cause": "why"}),
            Probe("UpdateMemory", {"memory": text("changed", name=one, etag="x" * 32), "update_mask": mask}),
            Probe("TransitionMemories", {"parent": CUBE, "names": [other, one], "state": state, "cause": "why"}),
            Probe("DeleteMemories", {"parent": CUBE, "names": [one], "etag": "x" * 32}),
            Probe("CreateRelations", {"parent": CUBE, "relations": [Relation(source=other, target=one, type="SEES")]}),
            Probe("CreateRelations", {"parent": CUBE, "relations": [Relation(source=one, target=other, type="SEES")]}),
            Probe("DeleteRelations", {"parent": CUBE, "relations": [Relation(source=other, target=one, type="SEES")]}),
            Probe("MergeMemories", {"parent": CUBE, "sources": [name("open4"), one], "merged": Memory(name=name("m"))}),
            Probe("SetGrant", {"grant": Grant(principal="principals/eve", resource=one, **grant)}),
            Probe("DeleteGrant", {"principal": "principals/eve", "resource": one}),
        ]
    source = Provenance(kind="PROVENANCE_KIND_MEMORY", source=name("hidden1"))
    session = f"{CUBE}/sessions/s"
    probes += [
        Probe("AddMemories", {"parent": CUBE, "memories": [text("heir", name=name("heir"), provenance=[source])]}),
        Probe("AddMemories", {"parent": CUBE, "memories": [_copy_of_tensor()]}),
        Probe("UpdateCube", {"cube": Cube(name=CUBE, display_name="Other"), "cause": "why"}),
        # What it deletes is related to what is hidden, whose relations go with it.
        Probe("DeleteMemories", {"parent": CUBE, "names": [name("open2")], "cause": "tidy"}),
        Probe("PurgeMemories", {"parent": CUBE, "names": [name("open2")], "reason": "tidy"}),
        Probe("ListJobs", {"parent": CUBE}),
        Probe("EndSession", {"name": session}),
        Probe("ForkCube", {"name": CUBE, "cube_id": "fork"}),
        Probe("RollbackCube", {"name": CUBE, "to_revision": 3, "cause": "back"}),
        Probe("ListMemories", {"parent": CUBE, "show_deleted": True}, pages=True),
        Probe("ListCommits", {"parent": CUBE}, pages=True),
        Probe("VerifyCube", {"name": CUBE}),
        Probe("DeleteCube", {"name": CUBE}),
        Probe("UndeleteCube", {"name": CUBE}),
        Probe("PurgeCube", {"name": CUBE, "reason": "over"}),
        Probe("ListJobs", {"parent": CUBE}),
        Probe("ListCommits", {"parent": CUBE}, pages=True),
    ]
    for probe in probes:
        if probe.rpc == "UpdateCube":
            probe.fields.pop("cause")
    return probes


def _copy_of_tensor() -> Memory:
    memory = _tensor("mine", BLOB)
    memory.sensitivity = INTERNAL
    return memory


async def ask(caller: Mip, probe: Probe, head: int) -> list[Any]:
    """Returns all answers to a question in a form in which only what matters differs."""
    return [answer async for answer in _answers(caller, probe, head)]


async def _answers(caller: Mip, probe: Probe, head: int) -> AsyncIterator[Any]:
    token = ""
    try:
        if METHODS[probe.rpc].server_streaming:
            async for frame in caller.stream(probe.rpc, **probe.fields):
                yield plain(frame)
                if probe.rpc == "WatchCube" and frame.end.revision == head:
                    return
            return
        while True:
            fields = {**probe.fields, "page_token": token} if token else probe.fields
            response = await caller.call(probe.rpc, **fields)
            yield plain(response)
            token = response.next_page_token if probe.pages else ""
            if not token:
                return
    except RpcError as error:
        metadata = {key: value for key, value in error.metadata.items() if key != "etag"}
        yield error.code, error.reason, error.message, metadata, error.fields


_VARIES = frozenset(
    {
        *("uid", "cubeUid", "createTime", "updateTime", "endTime", "time", "etag", "headDigest", "digest"),
        *("parentDigest", "changesDigest", "commitment", "beforeCommitment", "afterCommitment", "salt"),
        *("sequence", "requestId", "audience"),
    }
)
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")


def plain(message: Message) -> Any:
    """Returns a message as JSON without what is random or a moment: ids, times, digests; page tokens as whether."""
    return _plain(MessageToDict(message))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {key: _plain(item) for key, item in value.items() if key not in _VARIES}
        if "nextPageToken" in kept:
            kept["nextPageToken"] = True
        # A commit with hidden changes says why it was made to its maker alone (docs/spec/access.md, MIP-ACCS-026).
        if kept.get("principal") != "principals/low":
            kept.pop("cause", None)
        return kept
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return _UUID.sub("*", value) if isinstance(value, str) else value


def without(answers: Sequence[Any], key: str, dropped: set[str]) -> list[Any]:
    """Returns answers without the events of some methods, whichever pages they stood on."""
    events = [event for page in answers if isinstance(page, dict) for event in page.get("events", [])]
    return [event for event in events if event[key].rpartition("/")[2] not in dropped]


def difference(found: Any, expected: Any, path: str = "") -> str:
    """Returns where two answers part first, or an empty text."""
    if type(found) is not type(expected):
        return f"{path}: {found!r} instead of {expected!r}"
    if isinstance(found, dict):
        parts = [(found.get(key), expected.get(key), f"{path}.{key}") for key in sorted({*found, *expected})]
    elif isinstance(found, list | tuple):
        if len(found) != len(expected):
            return f"{path}: {len(found)} items instead of {len(expected)}: {found!r:.400} and {expected!r:.400}"
        parts = [
            (one, other, f"{path}[{number}]") for number, (one, other) in enumerate(zip(found, expected, strict=True))
        ]
    else:
        return "" if found == expected else f"{path}: {found!r} instead of {expected!r}"
    return next((text for text in (difference(*part) for part in parts) if text), "")
