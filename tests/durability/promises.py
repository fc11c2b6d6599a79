"""What a server promised by an answer, and whether it holds after the server ended in whatever way.

`write` is the load: callers that add batches, change memories, upload blobs and name them, purge, revoke tokens, and
note every answer. `broken` asks a server on the same folder, or on what is left of it, for all of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from memos_server._pb.mip.v1.blob_service_pb2 import BlobData, BlobHeader, WriteBlobRequest
from tests.support.mip import Memory, Mip, RpcError, text

CUBE: Final = "cubes/c"
BATCH: Final = 3
_PURGED: Final = 5
_ASKED: Final = 4
"""How many of the promised memories are searched for."""

Note = Callable[[tuple[str, Any]], None]


@dataclass(slots=True)
class Promised:
    """What answers have promised.

    Attributes:
        memories: name -> (text, revision).
        head: The newest commit of the cube that an answer has shown: revision and digest.
        blobs: digest -> size.
        purging: Memories whose purge was asked for.
        purged: Memories whose purge was answered.
        revoked: Tokens that are revoked.
        asked: Additions that were asked for and not answered, by request_id.
        sent: Blobs whose upload was begun and not answered, digest -> bytes.
    """

    memories: dict[str, tuple[str, int]] = field(default_factory=dict)
    head: tuple[int, bytes] = (0, b"")
    blobs: dict[str, int] = field(default_factory=dict)
    purging: set[str] = field(default_factory=set)
    purged: set[str] = field(default_factory=set)
    revoked: set[str] = field(default_factory=set)
    asked: dict[str, list[Memory]] = field(default_factory=dict)
    sent: dict[str, bytes] = field(default_factory=dict)

    def add(self, notes: Iterable[tuple[str, Any]]) -> Promised:
        """Adds what was noted, in order."""
        for kind, data in notes:
            if kind == "memories":
                for name, words, revision in data:
                    if revision >= self.memories.get(name, ("", 0))[1]:
                        self.memories[name] = words, revision
            elif kind == "head":
                self.head = max(self.head, data)
            elif kind == "blob":
                self.blobs[data[0]] = data[1]
                self.sent.pop(data[0], None)
            elif kind in ("asked", "sent"):
                getattr(self, kind)[data[0]] = data[1]
            elif kind == "answered":
                self.asked.pop(data, None)
            else:
                getattr(self, kind).add(data)
        return self


def _frames(data: bytes, digest: str, stored: int) -> list[WriteBlobRequest]:
    """Returns the frames of an upload of which some bytes are stored already, in two pieces."""
    half = (stored + len(data)) // 2
    return [
        WriteBlobRequest(header=BlobHeader(parent=CUBE, digest=digest, size=len(data), offset=stored)),
        WriteBlobRequest(data=BlobData(offset=stored, data=data[stored:half])),
        WriteBlobRequest(data=BlobData(offset=half, data=data[half:])),
        WriteBlobRequest(finish=True),
    ]


async def begin(mip: Mip, note: Note) -> None:
    """Makes the cube, or finds it made."""
    try:
        commit = (await mip.CreateCube(cube_id="c")).commit
        note(("head", (commit.revision, commit.digest)))
    except RpcError as error:
        if error.reason != "ALREADY_EXISTS":
            raise


async def write(mip: Mip, writer: str, note: Note, rng: random.Random, stop: asyncio.Event) -> None:
    """Writes until told to stop, or until the server dies; notes every answer."""
    number = 0
    while not stop.is_set():
        number += 1
        label = f"{writer}{number}{rng.getrandbits(48):012x}"
        filler = "tide " * rng.choice((0, 0, 30, 800))
        words = [f"{label} part {part} {filler}".rstrip() for part in range(BATCH)]
        request_id = str(uuid.UUID(int=rng.getrandbits(128), version=4))
        name = await add(mip, request_id, [text(line, tags=[f"batch-{label}"]) for line in words], note)
        if number % 3 == 0:
            changed = await mip.UpdateMemory(memory=text(f"{label} changed", name=name, tags=[f"batch-{label}"]))
            note(("memories", [(name, f"{label} changed", changed.memory.revision)]))
            note(("head", (changed.commit.revision, changed.commit.digest)))
        if number % 2 == 0:
            await _adapter(mip, note, rng)
        if number % 7 == 0:
            await _purge_one(mip, label, note)
        if number % 5 == 0:
            issued = await mip.IssueToken(principal="principals/local-admin")
            await mip.RevokeToken(token_id=issued.token_id)
            note(("revoked", issued.token))


async def add(mip: Mip, request_id: str, memories: list[Memory], note: Note) -> str:
    """Adds memories, perhaps not for the first time; returns the first one's name."""
    note(("asked", (request_id, memories)))
    added = await mip.AddMemories(parent=CUBE, memories=memories, request_id=request_id)
    _note_added(note, added)
    note(("answered", request_id))
    return str(added.memories[0].name)


async def upload(mip: Mip, data: bytes, note: Note) -> str:
    """Uploads a blob, perhaps not for the first time; returns its digest."""
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    note(("sent", (digest, data)))
    for attempt in range(5):
        known = await mip.QueryWrite(parent=CUBE, digest=digest)
        try:
            await mip.upload("WriteBlob", _frames(data, digest, 0 if known.complete else known.committed_size))
            break
        except RpcError as error:
            # Another caller sends the same bytes, and came first with some of them.
            if error.reason != "INVALID_STREAM" or attempt == 4:
                raise
    note(("blob", (digest, len(data))))
    return digest


def _note_added(note: Note, added: Any) -> None:
    note(("memories", [(memory.name, memory.plaintext.text, memory.revision) for memory in added.memories]))
    note(("head", (added.commit.revision, added.commit.digest)))


async def _adapter(mip: Mip, note: Note, rng: random.Random) -> None:
    """Uploads a blob and adds a memory that names it."""
    data = rng.randbytes(rng.choice((100, 5000, 20000)))
    digest = await upload(mip, data, note)
    blob = {"digest": digest, "size": len(data)}
    memory = Memory(parametric={"base_fingerprint": "m", "method": "lora", "blobs": [blob]})
    _note_added(note, await mip.AddMemories(parent=CUBE, memories=[memory]))


async def _purge_one(mip: Mip, label: str, note: Note) -> None:
    added = await mip.AddMemories(parent=CUBE, memories=[text(f"{label} to be purged")])
    _note_added(note, added)
    name = added.memories[0].name
    note(("purging", name))
    purged = await mip.PurgeMemories(parent=CUBE, names=[name], reason="asked")
    note(("purged", name))
    note(("head", (purged.commit.revision, purged.commit.digest)))


async def broken(mip: Mip, promised: Promised, rng: random.Random, address: str) -> list[str]:
    """Returns what does not hold, one sentence each; nothing when all does.

    Args:
        mip: A caller with a token from before.
        promised: What answers promised.
        rng: Chooses what is searched for.
        address: Where the server listens, for callers with revoked tokens.
    """
    try:
        return await _broken(mip, promised, rng, address)
    except RpcError as error:
        return [f"a call fails: {error}"]


async def _broken(mip: Mip, promised: Promised, rng: random.Random, address: str) -> list[str]:
    if not promised.head[0]:
        # The cube may have been made, or not: nobody was told.
        return []
    found = await _all(mip)
    wrong = [*_wrong_memories(found, promised), *_halves(found)]
    revision, digest = promised.head
    verdict = await mip.VerifyCube(name=CUBE, expected_revision=revision, expected_head_digest=digest)
    wrong += [f"verify: {finding.kind} {finding.resource}: {finding.message}" for finding in verdict.findings]
    if verdict.indexed_revision != verdict.head_revision:
        wrong.append(f"the index is at {verdict.indexed_revision}, the head at {verdict.head_revision}")
    wrong += await _unfindable(mip, found, promised, rng)
    named = {blob.digest: blob.size for memory in found.values() for blob in memory.parametric.blobs}
    for digest_of, size in {**named, **promised.blobs}.items():
        wrong += await _wrong_blob(mip, digest_of, size)
    for name in promised.purged:
        if (await mip.GetMemory(name=name)).memory.state != _PURGED:
            wrong.append(f"{name} was purged and is there")
    return wrong + await _accepted(promised.revoked, address)


async def _all(mip: Mip) -> dict[str, Memory]:
    found: dict[str, Memory] = {}
    token = ""
    while True:
        page = await mip.ListMemories(parent=CUBE, page_size=1000, page_token=token)
        found.update((memory.name, memory) for memory in page.memories)
        token = page.next_page_token
        if not token:
            return found


def _wrong_memories(found: dict[str, Memory], promised: Promised) -> list[str]:
    wrong = []
    for name, (words, revision) in promised.memories.items():
        if name in promised.purging:
            continue
        if name not in found:
            wrong.append(f"{name} was acknowledged at revision {revision} and is lost")
        # A later change that was cut off before its answer may have happened as well.
        elif found[name].plaintext.text != words and found[name].revision <= revision:
            wrong.append(f"{name} was acknowledged at revision {revision} with another text")
    return wrong


def _halves(found: dict[str, Memory]) -> list[str]:
    sizes = Counter(tag for memory in found.values() for tag in memory.tags)
    return [f"{tag} is stored in part: {size} of {BATCH}" for tag, size in sizes.items() if size != BATCH]


async def _unfindable(mip: Mip, found: dict[str, Memory], promised: Promised, rng: random.Random) -> list[str]:
    names = [name for name, (words, _) in promised.memories.items() if words and name in found]
    wrong = []
    for name in rng.sample(names, min(_ASKED, len(names))):
        label = found[name].plaintext.text.split()[0]
        hits = (await mip.SearchMemories(cubes=[CUBE], query=label, top_k=10)).hits
        if name not in [hit.memory.name for hit in hits]:
            wrong.append(f"search does not find {name}")
    return wrong


async def _wrong_blob(mip: Mip, digest: str, size: int) -> list[str]:
    try:
        pieces = [frame.data.data async for frame in mip.ReadBlob(parent=CUBE, digest=digest)]
    except RpcError as error:
        return [f"the blob {digest} cannot be read: {error}"]
    data = b"".join(pieces)
    if len(data) != size or f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
        return [f"the blob {digest} has other bytes"]
    return []


async def _accepted(tokens: Iterable[str], address: str) -> list[str]:
    wrong = []
    for token in tokens:
        caller = Mip(address, token)
        try:
            await caller.GetCube(name=CUBE)
            wrong.append("a revoked token is accepted")
        except RpcError as error:
            if error.reason != "TOKEN_REVOKED":
                wrong.append(f"a revoked token is answered with {error}")
        finally:
            await caller.close()
    return wrong
