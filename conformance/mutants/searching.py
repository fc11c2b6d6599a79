"""Faults in searching and in relations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from conformance.mutants.faults import after, before, mutant, turned, use_case
from conformance.mutants.servers import Patches
from memos_server.errors import MipError
from memos_server.mem_os import embedding, filters, relations, searching

_SEARCH = ("search*/*", "filter*/*", "*search*")
_GRAPH = ("relation*/*", "tree/*", "traverse/*", "graph*/*")


def _hits(change: Callable[[list[Any]], list[Any]]) -> Callable[[Any], None]:
    def apply(response: Any) -> None:
        kept = change(list(response.hits))
        del response.hits[:]
        response.hits.extend(kept)

    return apply


@mutant("filter-ignored", *_SEARCH, "memor*/*", "reading-memories/*", "*pages/*")
def _filter_ignored(patches: Patches) -> None:
    """Lists and searches take no notice of their filter."""
    for rpc in ("ListMemories", "SearchMemories"):

        async def unfiltered(original: Callable[..., Any], mos: Any, call: Any, request: Any) -> Any:
            filters.parse(request.filter)
            request.ClearField("filter")
            return await original(mos, call, request)

        use_case(patches, rpc, unfiltered)


@mutant("filter-malformed-passes", *_SEARCH, "limits/*")
def _filter_malformed(patches: Patches) -> None:
    """A filter that does not parse passes everything."""

    def lenient(original: Callable[..., Any], text: str) -> Any:
        try:
            return original(text)
        except MipError:
            return original("")

    patches.wrap(filters, "parse", lenient)


@mutant("filter-or-binds-as-and", "filter*/*")
def _filter_precedence(patches: Patches) -> None:
    """`a AND b OR c` means `(a AND b) OR c`."""

    def regrouped(original: Callable[..., Any], text: str) -> Any:
        if " AND " in text and " OR " in text and "(" not in text and '"' not in text:
            return original(" OR ".join(f"({part})" for part in text.split(" OR ")))
        return original(text)

    patches.wrap(filters, "parse", regrouped)


@mutant(
    "search-finds-every-state",
    *_SEARCH,
    "states/*",
    "updates-by-state/*",
    "deleting/*",
    "deleted-cubes*/*",
    "merging/*",
)
def _every_state(patches: Patches) -> None:
    """A search finds memories in every state, asked for or not."""

    def wide(request: Any) -> None:
        condition = "(state = ACTIVE OR state = ARCHIVED OR state = MERGED OR state = DELETED)"
        if "state" not in request.filter:
            request.filter = f"({request.filter}) AND {condition}" if request.filter else condition

    before(patches, "SearchMemories", wide)


@mutant("search-worst-first", *_SEARCH)
def _worst_first(patches: Patches) -> None:
    """Hits are sorted by score, lowest first."""
    after(patches, "SearchMemories", _hits(lambda hits: hits[::-1]))


@mutant("search-in-a-random-order", *_SEARCH)
def _random_order(patches: Patches) -> None:
    """Hits with equal scores, and those of a search for nothing, come in another order each time."""
    count = iter(range(10**9))

    def turn(hits: list[Any]) -> list[Any]:
        place = next(count) % max(1, len(hits))
        turned = hits[place:] + hits[:place]
        return sorted(turned, key=lambda hit: -hit.score)

    after(patches, "SearchMemories", _hits(turn))


@mutant("search-with-more-than-top-k", *_SEARCH)
def _top_k(patches: Patches) -> None:
    """top_k is not kept."""

    def many(request: Any) -> None:
        request.top_k = 1000

    before(patches, "SearchMemories", many)


@mutant("search-stops-early", *_SEARCH)
def _stops_early(patches: Patches) -> None:
    """A search looks at the best candidates alone, and filters after the fact."""
    patches.set(searching, "_MAX_DEPTH", 1)
    patches.set(searching, "_DEPTH", 5)

    async def unfiltered(
        original: Callable[..., Any], mos: Any, scopes: Any, terms: Any, where: Any, *rest: Any
    ) -> Any:
        from memos_server.vec_dbs.base import All

        states, _, response = rest
        return await original(mos, scopes, terms, All(()), states, 5, response)

    patches.wrap(searching, "_ask", unfiltered)


@mutant("search-of-the-first-cube", *_SEARCH)
def _first_cube(patches: Patches) -> None:
    """Of several cubes only the first is searched."""

    def shorten(request: Any) -> None:
        del request.cubes[1:]

    before(patches, "SearchMemories", shorten)


@mutant("search-without-explanations", *_SEARCH)
def _no_explanations(patches: Patches) -> None:
    """Hits are not explained."""

    def erase(response: Any) -> None:
        for hit in response.hits:
            hit.ClearField("explanation")

    after(patches, "SearchMemories", erase)


@mutant("search-explained-wrongly", *_SEARCH)
def _wrong_explanations(patches: Patches) -> None:
    """The contributions of the channels do not sum up to the score, and every term is said to be contained."""

    def change(response: Any) -> None:
        for hit in response.hits:
            for channel in hit.explanation.channels:
                channel.contribution *= 2
                channel.rank += 1
            hit.explanation.matched_terms.append("nowhere")

    after(patches, "SearchMemories", change)


@mutant("search-without-notices", *_SEARCH)
def _no_notices(patches: Patches) -> None:
    """A search does not say that it used words alone."""
    after(patches, "SearchMemories", lambda response: response.ClearField("notices"))


@mutant("search-of-conflicting-arguments", *_SEARCH, "limits/*")
def _conflicting(patches: Patches) -> None:
    """Arguments that exclude each other are taken, one of them ignored."""

    def unchecked(request: Any) -> None:
        return None

    patches.set(searching, "_check", unchecked)


@mutant("search-in-other-words", *_SEARCH)
def _other_words(patches: Patches) -> None:
    """The query's words are ignored: everything is found, newest first."""
    before(patches, "SearchMemories", lambda request: request.HasField("query") and request.ClearField("query"))


@mutant("search-without-vector", *_SEARCH)
def _no_vector(patches: Patches) -> None:
    """The query's vector is ignored."""
    before(patches, "SearchMemories", lambda request: request.HasField("vector") and request.ClearField("vector"))


@mutant("search-with-a-vector-of-another-model", *_SEARCH, "values/*")
def _another_model(patches: Patches) -> None:
    """A vector of another model than the cube's is taken."""

    def blind(original: Callable[..., Any], vector: Any, settings: Any, field: str) -> Any:
        copy = type(vector)()
        copy.CopyFrom(vector)
        copy.model = ""
        return original(copy, settings, field)

    patches.wrap(embedding, "checked", blind)
    patches.set(searching, "checked", embedding.checked)


@mutant("search-before-the-index-has-caught-up", *_SEARCH, "memor*/*", "reading-memories/*", "mutations/*")
def _stale(patches: Patches) -> None:
    """A search does not see the newest commit, and does not say so."""

    patches.wrap(searching, "_scopes", _one_behind)


async def _one_behind(original: Callable[..., Any], *args: Any) -> Any:
    scopes = await original(*args)
    for scope in scopes:
        scope.revision = max(scope.revision - 1, 1)
    return scopes


@mutant(
    "get-before-the-write-is-seen",
    "memor*/*",
    "reading-memories/*",
    "update-masks/*",
    "mutations/*",
    "states/*",
    "updates-by-state/*",
)
def _stale_get(patches: Patches) -> None:
    """GetMemory returns the version before the present one, where there is one."""

    async def older(original: Callable[..., Any], mos: Any, call: Any, request: Any) -> Any:
        response = await original(mos, call, request)
        if not request.as_of_revision and response.memory.revision > 2:
            request.as_of_revision = response.memory.revision - 1
            try:
                return await original(mos, call, request)
            except MipError:
                return response
        return response

    use_case(patches, "GetMemory", older)


# Relations.


@mutant("tree-with-two-parents", *_GRAPH)
def _two_parents(patches: Patches) -> None:
    """A memory may have two parents, and PARENT_OF may close a cycle."""

    async def unchecked(*args: Any) -> None:
        return None

    patches.set(relations, "_check_tree", unchecked)


@mutant("relation-keeps-its-weight", *_GRAPH)
def _keeps_weight(patches: Patches) -> None:
    """Every relation has the weight 1."""

    def one(request: Any) -> None:
        for relation in request.relations:
            relation.weight = 1.0

    before(patches, "CreateRelations", one)


@mutant("relations-of-every-type", *_GRAPH)
def _every_type(patches: Patches) -> None:
    """Lists and walks take no notice of the types that were asked for."""
    for rpc in ("ListRelations", "Traverse"):
        before(patches, rpc, lambda request: request.ClearField("types"))


@mutant("relations-in-every-direction", *_GRAPH)
def _every_direction(patches: Patches) -> None:
    """Lists and walks follow relations either way."""
    patches.set(relations, "_directions", lambda direction: (True, True))


@mutant("relations-of-every-memory", *_GRAPH)
def _every_memory(patches: Patches) -> None:
    """ListRelations returns the relations of all memories."""
    before(patches, "ListRelations", lambda request: request.ClearField("memory"))


@mutant("relations-newest-first", *_GRAPH)
def _newest_first(patches: Patches) -> None:
    """ListRelations returns the newest relation of a page first."""
    turned(patches, "ListRelations", "relations")


@mutant("relations-of-deleted-memories", *_GRAPH, "purg*/*", "deleting/*", "deleted-cubes*/*")
def _of_deleted(patches: Patches) -> None:
    """Relations with a deleted end are listed and followed."""

    def present(view: Any, version: Any) -> bool:
        return version is not None and view.sees(version)

    patches.set(relations, "present", present)


@mutant("walk-of-one-step", *_GRAPH)
def _one_step(patches: Patches) -> None:
    """Traverse goes one step, however many were asked for."""
    before(patches, "Traverse", lambda request: request.ClearField("max_depth"))


@mutant("walk-without-end", *_GRAPH)
def _without_end(patches: Patches) -> None:
    """Traverse goes as far as it can, however few steps were asked for."""

    def far(request: Any) -> None:
        request.max_depth = 16

    before(patches, "Traverse", far)


@mutant("walk-without-limit", *_GRAPH)
def _without_limit(patches: Patches) -> None:
    """Traverse returns more memories than its limit, and does not say that it was cut short."""
    before(patches, "Traverse", lambda request: request.ClearField("limit"))


@mutant("walk-farthest-first", *_GRAPH)
def _farthest_first(patches: Patches) -> None:
    """Traverse returns what is farthest first."""
    turned(patches, "Traverse", "visits")


@mutant("walk-without-its-way", *_GRAPH)
def _without_way(patches: Patches) -> None:
    """Traverse says neither how far a memory is nor over which relation it was reached."""

    def erase(response: Any) -> None:
        for visit in response.visits:
            visit.ClearField("via")
            visit.ClearField("depth")

    after(patches, "Traverse", erase)
