"""Faults in what every server has: request ids, etags, pages, masks, limits, states, errors, purges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from conformance.mutants.faults import after, before, everywhere, memories_in, mutant, turned, use_case
from conformance.mutants.servers import Patches
from memos_server._pb.mip.v1.memory_service_pb2 import DeleteMemoriesRequest, PurgeMemoriesResponse
from memos_server.api import endpoints, page_tokens, status
from memos_server.api import server as api_server
from memos_server.errors import MipError
from memos_server.graph_dbs.base import RequestKey
from memos_server.mem_os import context, lifecycle, mutation, paging, render, sealing, updating
from memos_server.memories import rules, states


def _rpcs_with(field: str) -> list[str]:
    methods = [method for service in api_server.services() for method in service.methods]
    return [method.name for method in methods if field in method.input_type.fields_by_name]


def _without(field: str) -> Callable[[Any], None]:
    return lambda request: request.ClearField(field)


@mutant("request-id-ignored", "*request-ids/*")
def _request_id_ignored(patches: Patches) -> None:
    """A repeated call takes effect again."""
    for rpc in _rpcs_with("request_id"):
        before(patches, rpc, _without("request_id"))


@mutant("request-id-reused-with-another-body", "*request-ids/*")
def _request_id_reused(patches: Patches) -> None:
    """A request_id that was used with another request is answered with what the first call returned."""
    patches.set(mutation, "_digest", lambda salt, request: b"the same for all")


@mutant("request-id-of-one-scope", "*request-ids/*")
def _request_id_of_one_scope(patches: Patches) -> None:
    """A request_id is one for all methods and resources of a principal."""
    patches.set(mutation, "_key", lambda call, resource, id_: RequestKey(call.principal, "", "", id_.lower()))


@mutant("request-id-of-all-principals", "*request-ids/*", "*request-id*")
def _request_id_of_all(patches: Patches) -> None:
    """A request_id of one principal is taken for that of another."""
    patches.set(mutation, "_key", lambda call, resource, id_: RequestKey("", call.method, resource, id_.lower()))


@mutant(
    "request-id-forgotten-in-the-commit",
    "log/*",
    "kept-log/*",
    "commits*/*",
    "changes/*",
    "history/*",
    "*request-ids/*",
    "commits/*",
)
def _request_id_not_logged(patches: Patches) -> None:
    """Commits do not name the request_id of their call."""

    async def commit(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await original(*args, **{**kwargs, "request_id": ""})

    original = mutation.commit
    everywhere(patches, "commit", original, lambda *args, **kwargs: commit(original, *args, **kwargs))


@mutant("etag-ignored", "etags/*", "*etag*")
def _etag_ignored(patches: Patches) -> None:
    """A stale etag of a memory does not keep it from being changed."""
    everywhere(patches, "check_etag", updating.check_etag, lambda asked, version, name: None)


@mutant("etag-of-a-cube-ignored", "etags/*", "cube*/*", "*etag*")
def _cube_etag_ignored(patches: Patches) -> None:
    """A stale etag of a cube does not keep it from being changed or deleted."""
    before(patches, "UpdateCube", lambda request: request.cube.ClearField("etag"))
    before(patches, "DeleteCube", _without("etag"))


@mutant("etag-never-changes", "etags/*", "*etag*")
def _etag_constant(patches: Patches) -> None:
    """Every version has the same etag."""
    everywhere(patches, "etag_of", render.etag_of, lambda version: "0" * 32)


@mutant("etag-changes-by-itself", "etags/*", "*etag*")
def _etag_random(patches: Patches) -> None:
    """The same version has another etag each time it is read."""
    count = iter(range(10**9))
    everywhere(patches, "etag_of", render.etag_of, lambda version: f"{next(count):032x}")


@mutant("expected-revision-ignored", "etags/*", "*revision*", "log/*", "kept-log/*", "commits*/*", "changes/*")
def _expected_revision_ignored(patches: Patches) -> None:
    """A mutation takes effect whatever the cube's revision is."""
    for rpc in _rpcs_with("expected_revision"):
        if rpc != "VerifyCube":
            before(patches, rpc, _without("expected_revision"))


@mutant("page-token-reused-across-arguments", "*pages/*", "*page*")
def _page_token_unbound(patches: Patches) -> None:
    """A page token opens with another filter, another RPC and for another principal."""
    patches.set(page_tokens, "_bound", lambda principal, method, arguments: b"")


@mutant("page-token-of-another-principal", "*pages/*", "*page*")
def _page_token_of_another(patches: Patches) -> None:
    """A page token of one principal opens for another."""
    original = page_tokens._bound
    patches.set(page_tokens, "_bound", lambda principal, method, arguments: original("", method, arguments))


@mutant("page-token-malformed-is-the-first-page", "*pages/*", "*page*", "limits/*")
def _page_token_any(patches: Patches) -> None:
    """A token that was never given out begins from the start."""

    def decode(original: Callable[..., Any], self: Any, *args: Any) -> Any:
        try:
            return original(self, *args)
        except MipError:
            return {}

    original = page_tokens.PageTokens.decode
    patches.set(page_tokens.PageTokens, "decode", lambda self, *args: decode(original, self, *args))


@mutant("page-not-pinned", "*pages/*", "*page*")
def _page_not_pinned(patches: Patches) -> None:
    """Later pages of a listing are read at the present instead of the revision of the first."""

    def number(original: Callable[..., int], self: Any, token: str, key: str, default: int) -> int:
        return default if key == "revision" else original(self, token, key, default)

    original = paging.Pages.number
    patches.set(paging.Pages, "number", lambda self, *args: number(original, self, *args))


@mutant("page-loses-one", "*pages/*", "*page*", "memor*/*", "reading-memories/*", "filter*/*")
def _page_loses_one(patches: Patches) -> None:
    """The last memory of a page that has a next one is left out."""

    def shorten(response: Any) -> None:
        if response.next_page_token and response.memories:
            del response.memories[-1]

    after(patches, "ListMemories", shorten)


@mutant("page-size-ignored", "*pages/*", "*page*")
def _page_size_ignored(patches: Patches) -> None:
    """Every page has the default size."""
    for rpc in _rpcs_with("page_size"):
        before(patches, rpc, _without("page_size"))


@mutant("mask-ignored", "update-masks/*", "cube*/*")
def _mask_ignored(patches: Patches) -> None:
    """An update changes what is populated, whatever its mask says."""
    for rpc in ("UpdateMemory", "UpdateCube"):
        before(patches, rpc, _without("update_mask"))


@mutant("mask-with-an-unknown-path", "update-masks/*", "limits/*")
def _mask_unknown(patches: Patches) -> None:
    """Paths of a mask that cannot be updated are passed over."""

    def lenient(original: Callable[..., list[str]], memory: Any, mask: Any) -> list[str]:
        for path in list(mask.paths):
            try:
                original(memory, type(mask)(paths=[path]))
            except MipError:
                mask.paths.remove(path)
        return original(memory, mask) if mask.paths else []

    patches.wrap(updating, "mask_paths", lenient)


@mutant("mask-star-keeps-what-is-unset", "update-masks/*")
def _mask_star(patches: Patches) -> None:
    """The mask `*` changes what is populated alone."""

    def populated(original: Callable[..., list[str]], memory: Any, mask: Any) -> list[str]:
        return original(memory, type(mask)() if list(mask.paths) == ["*"] else mask)

    patches.wrap(updating, "mask_paths", populated)


@mutant("limits-unchecked", "settled*/*", "*limits/*", "*names/*", "*declarations/*")
def _limits_unchecked(patches: Patches) -> None:
    """No declared limit or grammar of a field is checked."""
    patches.set(endpoints, "validate", lambda request: None)


@mutant("vectors-unchecked", "values/*", "*vector*", "search*/*")
def _vectors_unchecked(patches: Patches) -> None:
    """A vector is taken as it comes, of whatever model, dimension and value."""
    import numpy as np

    from memos_server.mem_os import embedding

    def unchecked(vector: Any, settings: Any, path: str) -> Any:
        data = np.frombuffer(vector.data[: len(vector.data) // 4 * 4], dtype="<f4")
        return np.nan_to_num(np.resize(data, settings.embedding_dimension or len(data) or 1)).astype(np.float32)

    everywhere(patches, "checked", embedding.checked, unchecked)


@mutant("error-without-error-info", "errors/*", "etags/*", "tokens/*")
def _no_error_info(patches: Patches) -> None:
    """Errors carry no details."""
    patches.set(endpoints, "trailing_metadata", lambda error: ())


@mutant("error-of-another-domain", "errors/*")
def _another_domain(patches: Patches) -> None:
    """The domain of an ErrorInfo is not `mip`."""
    patches.set(status, "DOMAIN", "example.com")


@mutant("error-with-another-code", "errors/*", "etags/*", "names/*")
def _another_code(patches: Patches) -> None:
    """Every error has the status code INTERNAL."""
    import grpc

    patches.set(endpoints, "status_code", lambda error: grpc.StatusCode.INTERNAL)


@mutant("error-without-field-paths", "limits/*", "errors/*", "values/*", "names/*")
def _no_violations(patches: Patches) -> None:
    """Errors about fields do not name them."""

    def stripped(original: Callable[[BaseException], MipError], error: BaseException) -> MipError:
        known = original(error)
        known.violations = ()
        return known

    patches.wrap(endpoints, "from_exception", stripped)


@mutant(
    "error-without-metadata",
    "errors/*",
    "states/*",
    "updates-by-state/*",
    "purg*/*",
    "watch*/*",
    "filter*/*",
    "etags/*",
    "merging/*",
)
def _no_metadata(patches: Patches) -> None:
    """An ErrorInfo has no metadata."""

    def stripped(original: Callable[[BaseException], MipError], error: BaseException) -> MipError:
        known = original(error)
        known.metadata = {}
        return known

    patches.wrap(endpoints, "from_exception", stripped)


@mutant("version-of-another-protocol", "versions/*", "declarations/*")
def _another_version(patches: Patches) -> None:
    """GetCapabilities names a version that this text is not of."""

    def change(response: Any) -> None:
        response.protocol_version = "0.9"

    after(patches, "GetCapabilities", change)


@mutant("limits-not-declared", "versions/*", "declarations/*", "limits/*", "*capabilities*")
def _limits_not_declared(patches: Patches) -> None:
    """GetCapabilities declares no limits and no treatment of unknown fields."""

    def change(response: Any) -> None:
        response.ClearField("limits")
        response.ClearField("unknown_fields")

    after(patches, "GetCapabilities", change)


@mutant(
    "unknown-fields-dropped",
    "versions/*",
    "declarations/*",
    "*unknown*",
    "digests/*",
    "sealing/*",
    "commits*/*",
    "changes/*",
)
def _unknown_dropped(patches: Patches) -> None:
    """Fields of a content that the server does not know are dropped, though it declares to keep them."""
    before(patches, "AddMemories", lambda request: request.DiscardUnknownFields())


@mutant(
    "tags-as-they-come",
    "settled*/*",
    "memory-content/*",
    "update-masks/*",
    "memor*/*",
    "reading-memories/*",
    "values/*",
    "digests/*",
    "sealing/*",
    "commits*/*",
    "changes/*",
)
def _tags_unsorted(patches: Patches) -> None:
    """Tags and labels are stored unsorted, attributes not in canonical form, and repeats are kept."""
    patches.set(rules, "normalise", lambda memory, field: None)


@mutant("states-without-a-table", "states/*", "updates-by-state/*", "merging/*", "deleting/*", "deleted-cubes*/*")
def _states_free(patches: Patches) -> None:
    """Any state may follow any other but PURGED."""
    patches.set(states, "may_transition", lambda frm, to: True)


@mutant("merge-forgets-merged-into", "merging/*", "states/*", "updates-by-state/*", "rollback*/*")
def _merge_forgets(patches: Patches) -> None:
    """A merged memory does not say which one absorbed it."""

    def erase(response: Any) -> None:
        for memory in memories_in(response):
            memory.ClearField("merged_into")

    for rpc in ("GetMemory", "ListMemories", "BatchGetMemories", "ListMemoryRevisions"):
        after(patches, rpc, erase)


@mutant("merge-without-provenance", "merging/*")
def _merge_without_provenance(patches: Patches) -> None:
    """The absorbing memory does not say what it was made from."""
    from memos_server.mem_os import merging

    patches.set(merging, "_PROVENANCE", 0)


@mutant(
    "deleted-is-listed",
    "deleting/*",
    "deleted-cubes*/*",
    "memor*/*",
    "reading-memories/*",
    "states/*",
    "updates-by-state/*",
)
def _deleted_listed(patches: Patches) -> None:
    """Deleted memories are listed without being asked for."""

    def show(request: Any) -> None:
        request.show_deleted = True

    before(patches, "ListMemories", show)


@mutant("deleted-is-updated", "deleting/*", "deleted-cubes*/*", "states/*", "updates-by-state/*")
def _deleted_updated(patches: Patches) -> None:
    """A deleted memory can be updated."""
    everywhere(patches, "updatable", updating.updatable, lambda version, name: None)


@mutant("deleted-cube-answers", "deleting/*", "deleted-cubes*/*", "cube*/*")
def _deleted_cube_answers(patches: Patches) -> None:
    """A deleted cube and what is in it answer as if it were not deleted."""
    original = context.existing_cube

    async def existing(txn: Any, cube_id: str, *, deleted: bool = False) -> Any:
        return await original(txn, cube_id, deleted=True)

    everywhere(patches, "existing_cube", original, existing)


@mutant("purge-only-deletes", "purg*/*", "*purge*", "rollback*/*", "fork*/*")
def _purge_deletes(patches: Patches) -> None:
    """PurgeMemories deletes: what was to be erased can still be read."""

    async def purge(original: Callable[..., Any], mos: Any, call: Any, request: Any) -> Any:
        deleted = await lifecycle.delete_memories(
            mos, call, DeleteMemoriesRequest(parent=request.parent, names=request.names, cause=request.reason)
        )
        return PurgeMemoriesResponse(commit=deleted.commit)

    use_case(patches, "PurgeMemories", purge)


@mutant("purge-says-nothing-of-what-derives", "purg*/*", "fork*/*", "jobs/*", "*purge*")
def _purge_silent(patches: Patches) -> None:
    """A purge names neither what derives from the erased content nor the job that erases the bytes."""

    def erase(response: Any) -> None:
        response.ClearField("derived")
        response.ClearField("compaction_job")

    for rpc in ("PurgeMemories", "PurgeCube"):
        after(patches, rpc, erase)


@mutant("purged-cube-comes-back", "purg*/*", "cube*/*", "*purge*")
def _purged_cube_back(patches: Patches) -> None:
    """PurgeCube only deletes the cube."""
    from memos_server._pb.mip.v1.cube_service_pb2 import DeleteCubeRequest, PurgeCubeResponse

    async def purge(original: Callable[..., Any], mos: Any, call: Any, request: Any) -> Any:
        delete = api_server.USE_CASES["DeleteCube"]
        deleted = await delete(mos, call, DeleteCubeRequest(name=request.name))
        return PurgeCubeResponse(cube=deleted.cube, commit=deleted.commit)

    use_case(patches, "PurgeCube", purge)


@mutant("batch-loses-its-order", "memor*/*", "reading-memories/*", "*batch*")
def _batch_order(patches: Patches) -> None:
    """BatchGetMemories returns the memories in another order than they were named in."""
    turned(patches, "BatchGetMemories", "memories")


@mutant(
    "add-forgets-the-last",
    "memor*/*",
    "reading-memories/*",
    "log/*",
    "kept-log/*",
    "commits*/*",
    "changes/*",
    "*request-ids/*",
    "limits/*",
)
def _add_forgets(patches: Patches) -> None:
    """Of several memories in one request the last one is not stored."""

    def shorten(request: Any) -> None:
        if len(request.memories) > 1:
            del request.memories[-1]

    before(patches, "AddMemories", shorten)


@mutant("add-is-not-whole", "memor*/*", "reading-memories/*", "mutations/*", "*atomic*", "*whole*", "limits/*")
def _add_not_whole(patches: Patches) -> None:
    """A batch with a memory that is refused stores those before it."""

    async def one_by_one(original: Callable[..., Any], mos: Any, call: Any, request: Any) -> Any:
        try:
            return await original(mos, call, request)
        except MipError:
            for memory in request.memories:
                single = type(request)(parent=request.parent, memories=[memory])
                await original(mos, call, single)
            raise

    use_case(patches, "AddMemories", one_by_one)


@mutant("session-that-ended-goes-on", "sessions/*")
def _session_goes_on(patches: Patches) -> None:
    """A memory may name a session that has ended, or that does not exist."""

    async def unchecked(*args: Any, **kwargs: Any) -> None:
        return None

    everywhere(patches, "check_references", sealing.check_references, unchecked)


@mutant(
    "times-with-nanoseconds",
    "values/*",
    "digests/*",
    "sealing/*",
    "commits*/*",
    "changes/*",
    "log/*",
    "kept-log/*",
    "commits*/*",
    "changes/*",
    "memor*/*",
    "reading-memories/*",
)
def _nanoseconds(patches: Patches) -> None:
    """Times that the server makes have a finer part than microseconds."""

    def finer(response: Any) -> None:
        response.cube.create_time.nanos += 7

    after(patches, "GetCube", finer)
    after(patches, "CreateCube", finer)
