"""SearchMemories: candidates from the index, fused by weighted scores, confirmed by the record.

Each channel's scores are scaled over the whole request (lexical by its best score, vector between the best and the
weakest candidate) and summed with weights, which on conversations finds more than reciprocal ranks do
(docs/adr/0010-search-fusion.md has the figures). The index proposes; a hit counts only once the record confirms its
version, its state and the caller's access, and the candidate set widens until `top_k` are confirmed or none are left.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from memos_server import names
from memos_server._pb.mip.v1.cube_pb2 import CubeContent
from memos_server._pb.mip.v1.memory_pb2 import (
    MEMORY_STATE_ACTIVE,
    MEMORY_STATE_ARCHIVED,
    MEMORY_STATE_DELETED,
    MEMORY_STATE_MERGED,
    Memory,
)
from memos_server._pb.mip.v1.memory_service_pb2 import (
    SEARCH_MODE_GRAPH,
    SEARCH_MODE_HYBRID,
    SEARCH_MODE_LEXICAL,
    SEARCH_MODE_UNSPECIFIED,
    SEARCH_MODE_VECTOR,
    ChannelScore,
    Explanation,
    Hit,
    SearchMemoriesRequest,
    SearchMemoriesResponse,
    StaleCube,
)
from memos_server.errors import MipError, invalid_field, too_many
from memos_server.graph_dbs.base import CubeRow, Reader, Version
from memos_server.mem_os import filters
from memos_server.mem_os.candidates import Channel, Ranked, Scope
from memos_server.mem_os.context import Call, Mos, at_revision, existing_cube
from memos_server.mem_os.embedding import checked
from memos_server.mem_os.filters import Filter
from memos_server.mem_os.graph_search import spread
from memos_server.mem_os.paging import RESPONSE_BYTES
from memos_server.mem_os.render import hide_names, memory_message
from memos_server.memories.analysis import analyze
from memos_server.vec_dbs.base import All, IndexQuery, IndexResult, Predicate, StateIn

WEIGHTS = {"lexical": 1.0, "vector": 0.7, "graph": 1.0}
_DEPTH = 200
_MAX_DEPTH = 1_000_000
_FEW_CUBES = 4
_SAME_S = 1.0
"""For how long a search takes its cubes as it first read them, seconds: what changes in one meanwhile, the next search
sees."""
_FEW_CANDIDATES = 2 * _DEPTH
_ALL_STATES = frozenset({MEMORY_STATE_ACTIVE, MEMORY_STATE_MERGED, MEMORY_STATE_ARCHIVED, MEMORY_STATE_DELETED})


async def search_memories(mos: Mos, call: Call, request: SearchMemoriesRequest) -> SearchMemoriesResponse:
    """See MemoryService.SearchMemories."""
    _check(request, mos.settings.limits.max_search_cubes)
    filter_ = filters.parse(request.filter)
    top_k = min(request.top_k or 10, mos.settings.limits.max_top_k)
    response = SearchMemoriesResponse()
    scopes = await _scopes(mos, call, request, response)
    terms = analyze(request.query) if request.query and request.mode != SEARCH_MODE_VECTOR else []
    if request.mode != SEARCH_MODE_LEXICAL:
        await _vectors(mos, request, scopes, response)
    states = _ALL_STATES if filter_.mentions("state") else frozenset({MEMORY_STATE_ACTIVE})
    where = All((filter_.pushdown(), StateIn(states)))
    depth = max(_DEPTH, 4 * top_k)
    confirmed: dict[tuple[str, str], Hit | None] = {}
    while True:
        results = await _ask(mos, scopes, terms, where, states, depth, response)
        newest_first = not terms and not _has_vectors(scopes)
        rank = partial(fuse, results, newest_first=newest_first)
        # Tens of thousands of candidates are no work for the event loop; for those of one cube a thread costs more.
        few = sum(len(result.candidates) for _, result in results) <= _FEW_CANDIDATES
        ranked = rank() if few else await asyncio.get_running_loop().run_in_executor(mos.cpu, rank)
        if request.mode == SEARCH_MODE_GRAPH:
            ranked, lost = await spread(mos, ranked, where, states)
            _leave_out(lost, scopes, response)
        confirm = partial(_confirm, mos, call, filter_, top_k=top_k, confirmed=confirmed, explain=request.explain)
        exhausted = all(result.exhausted for _, result in results)
        if newest_first and len(results) > 1 and request.mode != SEARCH_MODE_GRAPH:
            # The order of each index says nothing of the others: the newest of each are compared.
            by_cube = [await confirm([item for item in ranked if item.scope is scope]) for scope, _ in results]
            hits = sorted((hit for found in by_cube for hit in found), key=_newest_first)
            enough = all(len(found) >= top_k for found in by_cube)
        else:
            hits = await confirm(ranked)
            enough = len(hits) >= top_k
        if enough or exhausted or depth >= _MAX_DEPTH:
            break
        depth *= 4
    _fill(response, hits[:top_k])
    return response


def _check(request: SearchMemoriesRequest, max_cubes: int) -> None:
    if len(request.cubes) > max_cubes:
        raise invalid_field("cubes", too_many(max_cubes, len(request.cubes)), "TOO_MANY_ITEMS")
    if len(set(request.cubes)) != len(request.cubes):
        raise invalid_field("cubes", "names a cube twice")
    as_of = bool(request.as_of_revision) + request.HasField("as_of_time")
    if as_of and len(request.cubes) > 1:
        raise invalid_field("as_of_revision", "searches the past of one cube only", "CONFLICTING_ARGUMENTS")
    if as_of > 1:
        raise invalid_field("as_of_time", "goes without as_of_revision", "CONFLICTING_ARGUMENTS")
    if request.mode not in (
        SEARCH_MODE_UNSPECIFIED,
        SEARCH_MODE_HYBRID,
        SEARCH_MODE_VECTOR,
        SEARCH_MODE_LEXICAL,
        SEARCH_MODE_GRAPH,
    ):
        raise invalid_field("mode", "is not a search mode")
    if request.mode == SEARCH_MODE_LEXICAL and request.HasField("vector"):
        raise invalid_field("vector", "has no words for SEARCH_MODE_LEXICAL", "CONFLICTING_ARGUMENTS")
    if request.rerank:
        raise MipError("UNIMPLEMENTED", f"this server has no reranker {request.rerank!r}")


async def _scopes(
    mos: Mos, call: Call, request: SearchMemoriesRequest, response: SearchMemoriesResponse
) -> list[Scope]:
    async def read(txn: Reader) -> list[tuple[CubeRow, int | None]]:
        found = []
        for name in request.cubes:
            cube = await existing_cube(txn, names.parse_cube(name, "cubes"))
            revision = at_revision(cube, request.as_of_revision)
            if request.HasField("as_of_time"):
                moment = request.as_of_time.seconds * 1_000_000 + request.as_of_time.nanos // 1000
                revision = await txn.commit_at(cube.key, moment)
                if not revision:
                    raise MipError("REVISION_NOT_FOUND", f"{name} had no commit at as_of_time")
            found.append((cube, revision))
        return found

    scopes = []
    read_at = time.monotonic()
    cubes = await mos.read(read, brief=len(request.cubes) <= _FEW_CUBES)
    reached = await asyncio.gather(*(mos.keeper.caught_up(cube) for cube, _ in cubes))
    for (cube, revision), indexed in zip(cubes, reached, strict=True):
        name = names.cube_name(cube.id)
        wanted = revision or cube.revision
        if indexed < wanted:
            if not indexed and mos.keeper.broken(cube.uid):
                response.unreachable.append(name)
                continue
            response.stale.append(StaleCube(cube=name, indexed_revision=indexed))
            if not indexed:
                continue
        settings = CubeContent.FromString(cube.settings.payload)
        view = call.view(cube.id)
        granted = await mos.keeper.granted_uids(cube, view)
        scopes.append(Scope(cube, settings, view, min(wanted, indexed), granted, read_at))
    return scopes


async def _vectors(
    mos: Mos, request: SearchMemoriesRequest, scopes: Sequence[Scope], response: SearchMemoriesResponse
) -> None:
    """Gives each scope its query vector, where the cube and the request have one."""
    if request.HasField("vector"):
        for scope in scopes:
            scope.vector = checked(request.vector, scope.settings, "vector")
        return
    if not request.query:
        return
    embedded: NDArray[np.float32] | None = None
    without = []
    for scope in scopes:
        if not mos.embeddings.runs(scope.settings):
            without.append(names.cube_name(scope.cube.id))
            continue
        if embedded is None:
            embedded = await mos.embeddings.embed_query(request.query)
        scope.vector = embedded
    if not without:
        return
    if request.mode == SEARCH_MODE_VECTOR:
        raise MipError("EMBEDDER_UNAVAILABLE", f"no embedding model runs here for {without[0]}")
    response.notices.append(f"searched by words alone, as no embedding model runs here for: {', '.join(without)}")


def _has_vectors(scopes: Sequence[Scope]) -> bool:
    return any(scope.vector is not None for scope in scopes)


async def _ask(
    mos: Mos,
    scopes: list[Scope],
    terms: Sequence[str],
    where: Predicate,
    states: frozenset[int],
    depth: int,
    response: SearchMemoriesResponse,
) -> list[tuple[Scope, IndexResult]]:
    async def one(scope: Scope) -> IndexResult:
        query = IndexQuery(
            revision=scope.revision,
            where=where,
            max_sensitivity=scope.view.level,
            granted=scope.granted,
            base=states,
            terms=terms,
            vector=scope.vector,
            depth=depth,
        )
        return await mos.keeper.search(scope.cube, query)

    answers = await asyncio.gather(*(one(scope) for scope in scopes), return_exceptions=True)
    results, lost = [], []
    for scope, answer in zip(scopes, answers, strict=True):
        if isinstance(answer, MipError) and answer.reason == "BACKEND_UNAVAILABLE":
            lost.append(scope)
        elif isinstance(answer, BaseException):
            raise answer
        else:
            results.append((scope, answer))
    _leave_out(lost, scopes, response)
    return results


def _leave_out(lost: Sequence[Scope], scopes: list[Scope], response: SearchMemoriesResponse) -> None:
    """Names cubes whose index cannot be asked as unreachable, and leaves them out of the rest of the search."""
    for scope in lost:
        name = names.cube_name(scope.cube.id)
        scopes[:] = [other for other in scopes if other is not scope]
        response.unreachable.append(name)
        for stale in [stale for stale in response.stale if stale.cube == name]:
            # Nothing of it was searched, at no revision.
            response.stale.remove(stale)


def fuse(results: Sequence[tuple[Scope, IndexResult]], *, newest_first: bool) -> list[Ranked]:
    """Scales the channels over all cubes and sums them by weight, best first; ties by uid.

    Args:
        results: What the indexes found.
        newest_first: True when neither words nor a vector were asked for: the order of the index is kept.
    """
    lexical_top = max((result.lexical_top for _, result in results), default=0.0)
    with_vectors = [result for _, result in results if any(c.vector is not None for c in result.candidates)]
    vector_top = max((result.vector_top for result in with_vectors), default=0.0)
    vector_floor = min((result.vector_floor for result in with_vectors), default=0.0)
    by_words, by_vector = WEIGHTS["lexical"], WEIGHTS["vector"]
    spread_of = max(vector_top - vector_floor, 1e-9)
    ranked = []
    for scope, result in results:
        for uid, revision, lexical, vector, matched in result.candidates:
            score = 0.0
            channels: tuple[Channel, ...] = ()
            if lexical > 0.0:
                score = by_words * lexical / lexical_top
                channels = (Channel("lexical", lexical, score),)
            if vector is not None:
                # A single candidate has no spread; it then counts in full.
                scaled = (vector - vector_floor) / spread_of if vector_top > vector_floor else 1.0
                part = by_vector * min(max(scaled, 0.0), 1.0)
                score += part
                channels = (*channels, Channel("vector", vector, part))
            ranked.append(Ranked(scope, uid, revision, score, channels, matched))
    if not newest_first:
        ranked.sort(key=lambda item: (-item.score, item.uid))
    return ranked


Places = Mapping[tuple[str, str, str], int]
"""(channel, cube uid, uid) -> rank among the candidates of the channel, from 1."""


def channel_ranks(ranked: Sequence[Ranked]) -> Places:
    """Returns each candidate's rank in each of its channels; ties by uid."""
    by_channel: dict[str, list[tuple[float, str, str]]] = {}
    for item in ranked:
        for channel in item.channels:
            by_channel.setdefault(channel.name, []).append((-channel.score, item.uid, item.scope.cube.uid))
    return {
        (name, cube, uid): place
        for name, scores in by_channel.items()
        for place, (_, uid, cube) in enumerate(sorted(scores), start=1)
    }


def explanation(item: Ranked, places: Places) -> Explanation:
    """Returns what each channel found of a candidate, and how it was reached."""
    channels = [
        ChannelScore(
            channel=channel.name,
            rank=places[channel.name, item.scope.cube.uid, item.uid],
            score=channel.score,
            contribution=channel.contribution,
        )
        for channel in item.channels
    ]
    return Explanation(channels=channels, matched_terms=item.matched, path=item.path)


def _newest_first(hit: Hit) -> tuple[int, int]:
    return -hit.memory.create_time.seconds, -hit.memory.create_time.nanos


async def _confirm(
    mos: Mos,
    call: Call,
    filter_: Filter,
    ranked: Sequence[Ranked],
    *,
    top_k: int,
    confirmed: dict[tuple[str, str], Hit | None],
    explain: bool,
) -> list[Hit]:
    """Returns hits that the record confirms, best first; `confirmed` remembers verdicts between widenings."""
    hits: list[Hit] = []
    places = channel_ranks(ranked) if explain else {}
    position = 0
    while len(hits) < top_k and position < len(ranked):
        group = ranked[position : position + max(top_k - len(hits), 16)]
        position += len(group)
        unknown = [item for item in group if (item.scope.cube.uid, item.uid) not in confirmed]

        async def read(txn: Reader, items: Sequence[Ranked] = unknown) -> None:
            by_cube: dict[str, list[Ranked]] = {}
            for item in items:
                by_cube.setdefault(item.scope.cube.uid, []).append(item)
            for of_cube in by_cube.values():
                scope = of_cube[0].scope
                # At the searched revision, the newest one too: a commit made meanwhile is not what was searched.
                versions = await txn.versions_by_uid(scope.cube.key, [item.uid for item in of_cube], scope.revision)
                found = {item.uid: _as_indexed(item, versions.get(item.uid)) for item in of_cube}
                await hide_names(txn, call, scope.cube, [message for message in found.values() if message is not None])
                for uid, message in found.items():
                    fits = message is not None and _fits(message, filter_)
                    confirmed[scope.cube.uid, uid] = Hit(memory=message) if fits else None

        if unknown:
            # A search that waited for its index asks for the cubes as they are by now.
            recent = time.monotonic() - _SAME_S
            scopes = {item.scope.cube.uid: item.scope for item in unknown}.values()
            await mos.read(read, again=[scope.cube for scope in scopes if scope.read_at >= recent])
        for item in group:
            hit = confirmed[item.scope.cube.uid, item.uid]
            if hit is not None:
                hit.score = item.score
                if explain:
                    hit.explanation.CopyFrom(explanation(item, places))
                hits.append(hit)
    return hits


def _as_indexed(item: Ranked, version: Version | None) -> Memory | None:
    """Returns what the record says of a candidate; None where it is not, or no longer, what the index found."""
    if version is None or not version.payload or not item.scope.view.sees(version):
        return None
    return memory_message(item.scope.cube.id, version) if version.from_revision == item.from_revision else None


def _fits(message: Memory, filter_: Filter) -> bool:
    return (filter_.mentions("state") or message.state == MEMORY_STATE_ACTIVE) and filter_.matches(message)


def _fill(response: SearchMemoriesResponse, hits: Sequence[Hit]) -> None:
    filled = 0
    for hit in hits:
        filled += hit.ByteSize() + 8
        if filled > RESPONSE_BYTES:
            response.size_limited = True
            break
        response.hits.append(hit)
