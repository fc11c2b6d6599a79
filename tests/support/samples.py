"""One valid request of every RPC, about one cube and what is in it: what the walks over all RPCs send and bend."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import uuid4

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from memos_server._pb.mip.v1 import access_pb2, common_pb2, memory_pb2
from tests.support.mip import METHODS, Cube, Grant, Memory, Mip, Provenance, Relation, Session, text

SECRET = common_pb2.SENSITIVITY_SECRET
BLOB = b"a tensor of no importance"
DIGEST = f"sha256:{hashlib.sha256(BLOB).hexdigest()}"
MEMORIES = ("m1", "m2", "m3")


@dataclass(frozen=True)
class Scene:
    """A cube with three memories, a session, a relation, a blob, a job and a grant; and names of what is in none."""

    cube: str
    job: str
    principal: str

    @property
    def memories(self) -> list[str]:
        """The names of the memories."""
        return [f"{self.cube}/memories/{id_}" for id_ in MEMORIES]

    @property
    def session(self) -> str:
        """The name of the session, which is open."""
        return f"{self.cube}/sessions/s"

    @property
    def relation(self) -> Relation:
        """The relation from the first memory to the second."""
        return Relation(source=self.memories[0], target=self.memories[1], type="RELATES_TO")

    def elsewhere(self, cube: str) -> Scene:
        """Returns the names of the same things in another cube."""
        return Scene(cube, self.job.replace(self.cube, cube), self.principal)


def activation(**fields: Any) -> Memory:
    """Returns a memory that names the blob."""
    shape = memory_pb2.HiddenStates(dtype="float32")
    blob = memory_pb2.BlobRef(digest=DIGEST, size=len(BLOB))
    return Memory(activation=memory_pb2.Activation(model_fingerprint="fp", hidden_states=shape, blobs=[blob]), **fields)


def derived(scene: Scene, words: str, **fields: Any) -> Memory:
    """Returns a memory that names a session and a source, as a request may."""
    source = Provenance(kind="PROVENANCE_KIND_MEMORY", source=scene.memories[0])
    return text(words, session=scene.session, provenance=[source], **fields)


def _new(rpc: str, **fields: Any) -> list[Message]:
    return [GetMessageClass(METHODS[rpc].input_type)(**fields)]


def _frames(rpc: str, *frames: dict[str, Any]) -> list[Message]:
    return [GetMessageClass(METHODS[rpc].input_type)(**fields) for fields in frames]


def _fresh(scene: Scene, *ids: str) -> list[Memory]:
    return [derived(scene, f"text of {id_}", name=f"{scene.cube}/memories/{id_}") for id_ in ids]


def _blob_frames(scene: Scene) -> list[Message]:
    header = {"parent": scene.cube, "digest": DIGEST, "size": len(BLOB)}
    return _frames("WriteBlob", {"header": header}, {"data": {"data": BLOB}}, {"finish": True})


def _bulk_frames(scene: Scene) -> list[Message]:
    batches = [{"batch": {"memories": _fresh(scene, *ids)}} for ids in (("k1", "k2", "k3"), ("k4",))]
    return _frames("BulkAddMemories", {"header": {"parent": scene.cube}}, *batches, {"finish": True})


_SAMPLES: dict[str, Callable[[Scene], list[Message] | dict[str, Any]]] = {
    "GetCapabilities": lambda s: {},
    "GetServerStats": lambda s: {},
    "CreateCube": lambda s: {"cube_id": f"{s.cube.removeprefix('cubes/')}-new", "cube": Cube(display_name="New")},
    "GetCube": lambda s: {"name": s.cube},
    "ListCubes": lambda s: {},
    "UpdateCube": lambda s: {"cube": Cube(name=s.cube, display_name="Other"), "update_mask": {"paths": ["*"]}},
    "DeleteCube": lambda s: {"name": s.cube},
    "UndeleteCube": lambda s: {"name": s.cube},
    "PurgeCube": lambda s: {"name": s.cube, "reason": "test"},
    "ForkCube": lambda s: {"name": s.cube, "cube_id": f"{s.cube.removeprefix('cubes/')}-fork"},
    "RollbackCube": lambda s: {"name": s.cube, "to_revision": 1},
    "ListCommits": lambda s: {"parent": s.cube},
    "GetCommit": lambda s: {"name": f"{s.cube}/commits/2"},
    "ListCommitChanges": lambda s: {"parent": f"{s.cube}/commits/2"},
    "WatchCube": lambda s: {"name": s.cube, "start_revision": 1},
    "VerifyCube": lambda s: {"name": s.cube},
    "AddMemories": lambda s: {"parent": s.cube, "memories": _fresh(s, "n1", "n2", "n3")},
    "BulkAddMemories": _bulk_frames,
    "GetMemory": lambda s: {"name": s.memories[0]},
    "BatchGetMemories": lambda s: {"parent": s.cube, "names": s.memories},
    "ListMemories": lambda s: {"parent": s.cube, "filter": f'provenance.source = "{s.memories[0]}"'},
    "UpdateMemory": lambda s: {"memory": derived(s, "changed", name=s.memories[1]), "update_mask": {"paths": ["*"]}},
    "TransitionMemories": lambda s: {
        "parent": s.cube, "names": s.memories, "state": memory_pb2.MEMORY_STATE_ARCHIVED
    },
    "MergeMemories": lambda s: {
        "parent": s.cube, "sources": s.memories[:2], "target": s.memories[2],
        "merged": derived(s, "merged", name=s.memories[2]),
    },
    "DeleteMemories": lambda s: {"parent": s.cube, "names": s.memories},
    "PurgeMemories": lambda s: {"parent": s.cube, "names": s.memories, "reason": "test"},
    "ListMemoryRevisions": lambda s: {"name": s.memories[0]},
    "SearchMemories": lambda s: {"cubes": [s.cube], "query": "text", "filter": f'session = "{s.session}"'},
    "CreateRelations": lambda s: {
        "parent": s.cube,
        "relations": [
            Relation(source=a, target=b, type="FOLLOWS") for a, b in zip(s.memories, _turned(s), strict=True)
        ],
    },
    "DeleteRelations": lambda s: {"parent": s.cube, "relations": [s.relation]},
    "ListRelations": lambda s: {"parent": s.cube, "memory": s.memories[0]},
    "Traverse": lambda s: {"parent": s.cube, "starts": s.memories},
    "CreateSession": lambda s: {"parent": s.cube, "session_id": "s2", "session": Session(display_name="Talk")},
    "GetSession": lambda s: {"name": s.session},
    "ListSessions": lambda s: {"parent": s.cube},
    "EndSession": lambda s: {"name": s.session},
    "CreatePrincipal": lambda s: {"principal_id": f"{s.principal.removeprefix('principals/')}-new"},
    "ListPrincipals": lambda s: {},
    "DisablePrincipal": lambda s: {"name": s.principal},
    "IssueToken": lambda s: {"principal": s.principal},
    "RevokeToken": lambda s: {"token_id": str(uuid4())},
    "SetGrant": lambda s: {
        "grant": Grant(principal=s.principal, resource=s.cube, role=access_pb2.ROLE_READER,
                       max_sensitivity=common_pb2.SENSITIVITY_INTERNAL)
    },
    "ListGrants": lambda s: {"resource": s.cube},
    "DeleteGrant": lambda s: {"principal": s.principal, "resource": s.memories[0]},
    "ListAuditEvents": lambda s: {"resource": s.cube},
    "FindMissingBlobs": lambda s: {"parent": s.cube, "digests": [DIGEST]},
    "WriteBlob": _blob_frames,
    "ReadBlob": lambda s: {"parent": s.cube, "digest": DIGEST},
    "QueryWrite": lambda s: {"parent": s.cube, "digest": DIGEST},
    "ListJobs": lambda s: {"parent": s.cube},
    "GetJob": lambda s: {"name": s.job},
    "WaitJob": lambda s: {"name": s.job},
    "CancelJob": lambda s: {"name": s.job},
}  # fmt: skip


def _turned(scene: Scene) -> list[str]:
    return [*scene.memories[1:], scene.memories[0]]


def frames_of(rpc: str, scene: Scene) -> list[Message]:
    """Returns the frames of a valid call of an RPC; one, where the request is no stream.

    Raises:
        KeyError: The RPC is new and wants a sample here.
    """
    made = _SAMPLES[rpc](scene)
    return _new(rpc, **made) if isinstance(made, dict) else made


async def build(admin: Mip, cube_id: str) -> Scene:
    """Makes a cube with everything that samples are about."""
    cube = (await admin.CreateCube(cube_id=cube_id)).cube.name
    await admin.CreateSession(parent=cube, session_id="s")
    scene = Scene(cube, "", f"principals/p-{cube_id}")
    named = [text(f"text of {name[-2:]}", name=name, session=scene.session) for name in scene.memories]
    await admin.AddMemories(parent=cube, memories=[*named, text("gone", name=f"{cube}/memories/gone")])
    await admin.CreateRelations(parent=cube, relations=[scene.relation])
    await admin.upload("WriteBlob", _blob_frames(scene))
    purged = await admin.PurgeMemories(parent=cube, names=[f"{cube}/memories/gone"], reason="test")
    await admin.CreatePrincipal(principal_id=f"p-{cube_id}")
    grant = Grant(principal=scene.principal, resource=scene.memories[0], role=access_pb2.ROLE_READER)
    await admin.SetGrant(grant=grant)
    return Scene(cube, purged.compaction_job, scene.principal)


class Place(NamedTuple):
    """Where a string stands in the frames of a call.

    Attributes:
        frame: The number of the frame.
        path: Field names, and positions in lists.
    """

    frame: int
    path: tuple[str | int, ...]

    @property
    def field(self) -> str:
        """The field as the contract writes it, such as `memories[].name`."""
        return "".join("[]" if isinstance(part, int) else f".{part}" for part in self.path).removeprefix(".")


def places(frames: list[Message], holding: str) -> list[Place]:
    """Returns every string of a call that holds a text, and was set: list elements one by one."""
    return [
        Place(number, path)
        for number, frame in enumerate(frames)
        for path, value in _strings(frame)
        if holding in value
    ]


def _strings(message: Message) -> list[tuple[tuple[str | int, ...], str]]:
    found: list[tuple[tuple[str | int, ...], str]] = []
    for field, value in message.ListFields():
        items = list(enumerate(value)) if field.is_repeated else [(None, value)]
        for index, item in items:
            here: tuple[str | int, ...] = (field.name,) if index is None else (field.name, index)
            if field.type == FieldDescriptor.TYPE_STRING:
                found.append((here, item))
            elif field.message_type is not None:
                found += [((*here, *path), inner) for path, inner in _strings(item)]
    return found


def bent(frames: list[Message], place: Place, old: str, new: str) -> list[Message]:
    """Returns the frames with a text replaced in one string."""
    copies = []
    for frame in frames:
        copy = type(frame)()
        copy.CopyFrom(frame)
        copies.append(copy)
    target: Any = copies[place.frame]
    for part in place.path[:-1]:
        target = target[part] if isinstance(part, int) else getattr(target, part)
    last = place.path[-1]
    if isinstance(last, int):
        target[last] = target[last].replace(old, new)
    else:
        setattr(target, last, getattr(target, last).replace(old, new))
    return copies
