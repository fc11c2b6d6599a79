"""The memories of a cube: add, read, change, remove."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from memos_sdk import _stubs
from memos_sdk._async.caller import BULK_TIMEOUT, LONG_TIMEOUT
from memos_sdk._async.cube_base import AsyncCubeBase
from memos_sdk._async.transport import each, sleep
from memos_sdk._core.build import (
    MemoryLike,
    NameLike,
    as_of_revision,
    memory_name,
    new_memory,
    update,
)
from memos_sdk._core.bulk import COMMIT_MEMORIES, END, BulkFrames, Ids, Names, part_request_id
from memos_sdk._core.convert import enum_number
from memos_sdk._core.unset import UNSET, Unset
from memos_sdk._gen import wire
from memos_sdk.errors import MipError, UsageError
from memos_sdk.models import AddSummary, Commit, Memory, Mutation, SealedMemory, Session

if TYPE_CHECKING:
    from memos_sdk._gen.mip import v1 as mip

_SEALED: Any = enum_number("View", "sealed", "view")
# Within the class `list` is the method.
_Commits: TypeAlias = list[Commit]
_Names: TypeAlias = list[str]


class AsyncCubeMemories(AsyncCubeBase):
    """Adds, reads, changes and removes memories."""

    async def add(
        self,
        memory: MemoryLike,
        *,
        id: str | None = None,
        tags: Iterable[str] = (),
        labels: Mapping[str, str] | None = None,
        attributes: Mapping[str, Any] | None = None,
        provenance: Any = None,
        session: Session | str | None = None,
        kind: str | None = None,
        media_type: str | None = None,
        language: str | None = None,
        valid_from: datetime.datetime | None = None,
        valid_until: datetime.datetime | None = None,
        confidence: float | None = None,
        sensitivity: mip.Sensitivity | str | None = None,
        owner: str | None = None,
        vectors: Iterable[mip.Vector] = (),
        cause: str = "",
        expected_revision: int = 0,
        request_id: str = "",
        timeout: float | None = None,
    ) -> Memory:
        """Adds one memory, in one commit. When it returns, the memory is on disk and found by search.

        Args:
            memory: The text; or a mapping with `text` and the fields below; or a Memory, whose content is copied.
            id: The id; None lets the server choose one.
            tags: Words to find the memory by.
            labels: Keys with values.
            attributes: Anything that JSON can say.
            provenance: Where it comes from: one or several mappings with `kind` (`document`, `message`, `memory`,
                `tool`, `import`), `source`, `speaker`, `time`, `line_start`, `line_end`; or mip Provenance messages.
            session: The session that it was made in.
            kind: What sort of memory, such as `fact`, `preference`, `event`.
            media_type: The text's media type.
            language: The text's language, BCP 47.
            valid_from: From when on the fact holds, with a time zone.
            valid_until: Until when the fact holds, with a time zone.
            confidence: How sure the source is, 0 to 1.
            sensitivity: `public`, `internal` (the default), `confidential` or `secret`.
            owner: The principal that owns it; None means you.
            vectors: Your own embeddings.
            cause: Why; it stands in the log.
            expected_revision: The revision that the cube must have; 0 skips the check.
            request_id: A UUID that makes repeating safe; one is made when empty.
            timeout: Seconds.

        Returns:
            The memory as stored, with its name, etag and revision.
        """
        message = new_memory(
            self.name,
            memory,
            id=id,
            tags=tags,
            labels=labels,
            attributes=attributes,
            provenance=provenance,
            session=session,
            kind=kind,
            media_type=media_type,
            language=language,
            valid_from=valid_from,
            valid_until=valid_until,
            confidence=confidence,
            sensitivity=sensitivity,
            owner=owner,
            vectors=vectors,
        )
        request = _stubs.ADD_MEMORIES(
            parent=self.name,
            memories=[message],
            cause=cause,
            expected_revision=expected_revision,
            request_id=request_id,
        )
        response = await self._caller.call(_stubs.ADD_MEMORIES, request, timeout)
        stored = response.memories[0] if response.memories else wire.Memory()
        return Memory(stored, commit=_commit(response), index_pending=response.index_pending)

    async def add_many(
        self,
        memories: Iterable[MemoryLike] | AsyncIterable[MemoryLike],
        *,
        cause: str = "",
        commit_size: int = COMMIT_MEMORIES,
        progress: Callable[[int], object] | None = None,
        expected_revision: int = 0,
        request_id: str = "",
        timeout: float | None = None,
    ) -> AddSummary:
        """Adds any number of memories in one commit, all of them or none, read and sent one after the other.

        Above `commit_size` memories or 400 MB it makes several commits. When one of these fails, those before it are
        stored; the error's metadata says how many memories that are (`added`). A connection that breaks is mended:
        what was sent is kept, beyond 8 MB in a temporary file, and sent again.

        Args:
            memories: What `add` takes.
            cause: Why; it stands in the log.
            commit_size: The most memories of one commit; servers of default settings take 100,000.
            progress: Called with the number of memories sent so far, each time that some were.
            expected_revision: The revision that the cube must have before the first commit; 0 skips the check.
            request_id: A UUID that makes repeating safe, also in another process with the same memories; one is made
                when empty.
            timeout: Seconds of each commit; None means an hour.
        """
        source: AsyncIterator[Any] = aiter(each(memories))
        ids = Ids(request_id)
        taken: _Names = []
        commits: _Commits = []
        added = 0
        pending = False
        try:
            first = await anext(source, END)
            while first is not END:
                bulk = BulkFrames(
                    self.name,
                    cause,
                    0 if commits else expected_revision,
                    part_request_id(request_id, len(commits)),
                    commit_size,
                )
                with contextlib.closing(bulk):
                    response = await self._send(bulk, first, source, ids, taken, progress, timeout)
                commits.append(_commit(response))
                pending |= response.index_pending
                added = len(taken)
                first = await anext(source, END) if bulk.full else END
        except MipError as error:
            error.metadata["added"] = str(added)
            raise
        return AddSummary(added, tuple(commits), Names(self.name, taken), pending)

    async def _send(
        self,
        bulk: BulkFrames,
        first: Any,
        source: AsyncIterator[Any],
        ids: Ids,
        taken: _Names,
        progress: Callable[[int], object] | None,
        timeout: float | None,
    ) -> wire.BulkAddMemoriesResponse:
        """Makes one commit of memories, and repeats what was sent after a break."""

        def take(value: MemoryLike) -> bytes | None:
            message = new_memory(self.name, value)
            message.name = message.name or f"{self.name}/memories/{ids.next()}"
            frame = bulk.take(message)
            taken.append(message.name.rpartition("/")[2])
            return frame

        async def frames() -> AsyncIterator[bytes]:
            for frame in bulk.made():
                yield frame
            while not bulk.closed:
                value: Any = END if bulk.full else await anext(source, END)
                if value is not END:
                    made = take(value)
                    if made is not None:
                        yield made
                        if progress is not None:
                            progress(len(taken) - 1)
                    continue
                for frame in bulk.finish():
                    yield frame
                if progress is not None:
                    progress(len(taken))

        take(first)
        method = _stubs.BULK_ADD_MEMORIES
        attempts = self._caller.attempts(method, timeout, at_least=BULK_TIMEOUT)
        while True:
            try:
                return await self._caller.upload(method, frames(), attempts.next_timeout())
            except MipError as error:
                delay = attempts.delay_after(error)
                if delay is None:
                    raise
                await sleep(delay)

    async def get(
        self,
        memory: NameLike,
        *,
        as_of: int | None = None,
        include_vectors: bool = False,
        timeout: float | None = None,
    ) -> Memory:
        """Returns a memory in any state.

        Args:
            memory: The memory.
            as_of: The revision of the cube to read it at.
            include_vectors: True adds the stored embeddings.
            timeout: Seconds.

        Raises:
            NotFound: There is no such memory, at that revision.
        """
        request = _stubs.GET_MEMORY(
            name=memory_name(self.name, memory), as_of_revision=as_of_revision(as_of), include_vectors=include_vectors
        )
        response = await self._caller.call(_stubs.GET_MEMORY, request, timeout)
        return Memory(response.memory)

    async def sealed(self, memory: NameLike, *, as_of: int | None = None, timeout: float | None = None) -> SealedMemory:
        """Returns the exact bytes of a memory's content, to check them against the log yourself."""
        request = _stubs.GET_MEMORY(
            name=memory_name(self.name, memory),
            as_of_revision=as_of_revision(as_of),
            view=_SEALED,
        )
        response = await self._caller.call(_stubs.GET_MEMORY, request, timeout)
        return SealedMemory(response.sealed)

    async def batch_get(
        self, memories: Iterable[NameLike], *, as_of: int | None = None, timeout: float | None = None
    ) -> Sequence[Memory]:
        """Returns several memories, up to 1,000, in the order of their names.

        Raises:
            NotFound: One of them does not exist; the error names it.
        """
        request = _stubs.BATCH_GET_MEMORIES(
            parent=self.name, names=self._names(tuple(memories)), as_of_revision=as_of_revision(as_of)
        )
        response = await self._caller.call(_stubs.BATCH_GET_MEMORIES, request, timeout)
        return [Memory(message) for message in response.memories]

    async def list(
        self,
        filter: str = "",
        *,
        as_of: int | None = None,
        show_deleted: bool = False,
        page_size: int = 0,
        timeout: float | None = None,
    ) -> AsyncIterator[Memory]:
        """Yields the memories of the cube in the order of their addition.

        Args:
            filter: A filter, such as `tags:"work"`.
            as_of: The revision to read at. All pages of a listing are read at the revision of the first.
            show_deleted: True includes deleted and purged memories.
            page_size: How many one call fetches; 0 lets the server choose.
            timeout: Seconds of each call.
        """
        request = _stubs.LIST_MEMORIES(
            parent=self.name,
            filter=filter,
            as_of_revision=as_of_revision(as_of),
            show_deleted=show_deleted,
            page_size=page_size,
        )
        async for message in self._caller.pages(_stubs.LIST_MEMORIES, request, "memories", timeout):
            yield Memory(message)

    async def history(
        self, memory: NameLike, *, page_size: int = 0, timeout: float | None = None
    ) -> AsyncIterator[Memory]:
        """Yields the versions of a memory, newest first; `revision` tells them apart."""
        request = _stubs.LIST_MEMORY_REVISIONS(name=memory_name(self.name, memory), page_size=page_size)
        async for message in self._caller.pages(_stubs.LIST_MEMORY_REVISIONS, request, "memories", timeout):
            yield Memory(message)

    async def update(
        self,
        memory: NameLike,
        text: str | Unset = UNSET,
        *,
        tags: Iterable[str] | Unset | None = UNSET,
        labels: Mapping[str, str] | Unset | None = UNSET,
        attributes: Mapping[str, Any] | Unset | None = UNSET,
        provenance: Any = UNSET,
        session: Session | str | Unset | None = UNSET,
        kind: str | Unset = UNSET,
        media_type: str | Unset = UNSET,
        language: str | Unset = UNSET,
        valid_from: datetime.datetime | Unset | None = UNSET,
        valid_until: datetime.datetime | Unset | None = UNSET,
        confidence: float | Unset | None = UNSET,
        sensitivity: mip.Sensitivity | str | Unset = UNSET,
        owner: str | Unset = UNSET,
        vectors: Iterable[mip.Vector] | Unset | None = UNSET,
        etag: str = "",
        cause: str = "",
        expected_revision: int = 0,
        request_id: str = "",
        timeout: float | None = None,
    ) -> Memory:
        """Replaces fields of a memory, as a new version of it. What is not given stays; None clears a field.

        Args:
            memory: The memory.
            text: The new text.
            tags: The new tags, all of them.
            labels: The new labels, all of them.
            attributes: The new attributes, all of them.
            provenance: The new provenance, as in `add`.
            session: The session.
            kind: The sort of memory.
            media_type: The text's media type.
            language: The text's language.
            valid_from: From when on the fact holds.
            valid_until: Until when the fact holds.
            confidence: How sure the source is.
            sensitivity: The sensitivity.
            owner: The owner.
            vectors: Your own embeddings.
            etag: The version that you have seen; the update is refused when the memory is another by now.
            cause: Why; it stands in the log.
            expected_revision: The revision that the cube must have; 0 skips the check.
            request_id: A UUID that makes repeating safe; one is made when empty.
            timeout: Seconds.

        Raises:
            Aborted: The etag or the expected revision is stale.
            UsageError: Nothing is to be changed.
        """
        fields = {
            "text": text,
            "tags": tags,
            "labels": labels,
            "attributes": attributes,
            "provenance": provenance,
            "session": session,
            "kind": kind,
            "media_type": media_type,
            "language": language,
            "valid_from": valid_from,
            "valid_until": valid_until,
            "confidence": confidence,
            "sensitivity": sensitivity,
            "owner": owner,
            "vectors": vectors,
        }
        message, mask = update(self.name, memory, etag, fields)
        request = _stubs.UPDATE_MEMORY(
            memory=message, update_mask=mask, cause=cause, expected_revision=expected_revision, request_id=request_id
        )
        response = await self._caller.call(_stubs.UPDATE_MEMORY, request, timeout)
        return Memory(response.memory, commit=_commit(response), index_pending=response.index_pending)

    async def transition(
        self,
        *memories: NameLike,
        state: mip.MemoryState | str,
        cause: str = "",
        expected_revision: int = 0,
        request_id: str = "",
        timeout: float | None = None,
    ) -> Mutation:
        """Moves memories to a state: `active`, `archived` or `deleted`, in one commit.

        Raises:
            FailedPrecondition: A memory's state does not permit it.
        """
        request = _stubs.TRANSITION_MEMORIES(
            parent=self.name,
            names=self._names(memories),
            state=enum_number("MemoryState", state, "memory state"),
            cause=cause,
            expected_revision=expected_revision,
            request_id=request_id,
        )
        response = await self._caller.call(_stubs.TRANSITION_MEMORIES, request, timeout)
        moved = tuple(Memory(message) for message in response.memories)
        return Mutation(_commit(response), memories=moved, index_pending=response.index_pending)

    async def archive(
        self,
        *memories: NameLike,
        cause: str = "",
        expected_revision: int = 0,
        request_id: str = "",
        timeout: float | None = None,
    ) -> Mutation:
        """Archives memories: search finds them only where a filter asks for archived ones."""
        return await self.transition(
            *memories,
            state="archived",
            cause=cause,
            expected_revision=expected_revision,
            request_id=request_id,
            timeout=timeout,
        )

    async def restore(
        self,
        *memories: NameLike,
        cause: str = "",
        expected_revision: int = 0,
        request_id: str = "",
        timeout: float | None = None,
    ) -> Mutation:
        """Makes archived, merged or deleted memories active again."""
        return await self.transition(
            *memories,
            state="active",
            cause=cause,
            expected_revision=expected_revision,
            request_id=request_id,
            timeout=timeout,
        )

    async def merge(
        self,
        sources: Sequence[NameLike],
        *,
        into: NameLike | None = None,
        merged: MemoryLike | None = None,
        cause: str = "",
        expected_revision: int = 0,
        request_id: str = "",
        timeout: float | None = None,
    ) -> Memory:
        """Lets one memory absorb others, which become MERGED and keep naming it.

        Args:
            sources: The memories to absorb.
            into: The existing memory that absorbs them; None makes a new one of `merged`.
            merged: The content of the new memory, or the new content of `into`, as in `add`.
            cause: Why; it stands in the log.
            expected_revision: The revision that the cube must have; 0 skips the check.
            request_id: A UUID that makes repeating safe; one is made when empty.
            timeout: Seconds.

        Returns:
            The absorbing memory.
        """
        if into is None and merged is None:
            raise UsageError("nothing absorbs the memories", reason="FIELD_REQUIRED", remedy="Pass into or merged.")
        request = _stubs.MERGE_MEMORIES(
            parent=self.name,
            sources=self._names(tuple(sources)),
            target="" if into is None else memory_name(self.name, into),
            merged=None if merged is None else new_memory(self.name, merged),
            cause=cause,
            expected_revision=expected_revision,
            request_id=request_id,
        )
        response = await self._caller.call(_stubs.MERGE_MEMORIES, request, timeout)
        return Memory(response.memory, commit=_commit(response), index_pending=response.index_pending)

    async def delete(
        self,
        *memories: NameLike,
        etag: str = "",
        cause: str = "",
        expected_revision: int = 0,
        request_id: str = "",
        timeout: float | None = None,
    ) -> Mutation:
        """Marks memories deleted, in one commit; `restore` brings them back."""
        request = _stubs.DELETE_MEMORIES(
            parent=self.name,
            names=self._names(memories),
            etag=etag,
            cause=cause,
            expected_revision=expected_revision,
            request_id=request_id,
        )
        response = await self._caller.call(_stubs.DELETE_MEMORIES, request, timeout)
        return Mutation(_commit(response), index_pending=response.index_pending)

    async def purge(
        self,
        *memories: NameLike,
        reason: str,
        expected_revision: int = 0,
        request_id: str = "",
        timeout: float | None = None,
    ) -> Mutation:
        """Erases all versions of memories for good, and their relations.

        Args:
            *memories: The memories.
            reason: Why; it stands in the log and cannot be erased, so it must not repeat the content.
            expected_revision: The revision that the cube must have; 0 skips the check.
            request_id: A UUID that makes repeating safe; one is made when empty.
            timeout: Seconds.

        Returns:
            The commit, and in `derived` what is known to derive from the erased content and stays.
        """
        request = _stubs.PURGE_MEMORIES(
            parent=self.name,
            names=self._names(memories),
            reason=reason,
            expected_revision=expected_revision,
            request_id=request_id,
        )
        response = await self._caller.call(_stubs.PURGE_MEMORIES, request, timeout, at_least=LONG_TIMEOUT)
        return Mutation(
            _commit(response),
            index_pending=response.index_pending,
            derived=tuple(response.derived),
            compaction_job=response.compaction_job,
        )


def _commit(response: Any) -> Commit:
    return Commit(response.commit)
