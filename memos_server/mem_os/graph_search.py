"""SEARCH_MODE_GRAPH: personalised PageRank around the best hybrid hits.

The walk starts at the seeds, follows relations (either way) and shared entities, and returns to the seeds with a fixed
probability (Haveliwala, "Topic-sensitive PageRank", WWW 2002). Only what the caller sees is part of the graph, so a
hidden memory neither appears on a path nor lends weight to one. The constants are those that found most on documents
(docs/adr/0010-search-fusion.md has the figures).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from memos_server import names
from memos_server.errors import MipError
from memos_server.graph_dbs.base import Reader, Version
from memos_server.mem_os.candidates import Channel, Ranked, Scope
from memos_server.mem_os.context import Mos
from memos_server.mem_os.relations import present
from memos_server.vec_dbs.base import IndexQuery, Predicate

SEEDS = 20
HOPS = 2
"""How many relations lead away from a seed at most."""
ENTITY_HOPS = 1
"""How many shared entities do: a second one found nothing more, and asks the index for hundreds of memories."""
NODES = 2000
EDGES = 10_000
"""The most relations that one hop looks at; a hub may have millions."""
RETURN = 0.5
ITERATIONS = 15
RELATION_WEIGHT = 3.0
"""What a relation of weight 1 counts beside shared entities, whose weights are sums of log(1 + N/df)."""

GRAPH_SHARE = 0.99
"""The share of PageRank in a score. The rest, the hybrid score, orders what the walk does not tell apart or reach."""

Graph = dict[str, dict[str, float]]


async def spread(
    mos: Mos, ranked: Sequence[Ranked], where: Predicate, states: frozenset[int]
) -> tuple[list[Ranked], list[Scope]]:
    """Returns the candidates and what is reached from the best of them, by PageRank, ties by uid; and the cubes whose
    index cannot be asked now, of which it returns nothing.

    Scores of several cubes are comparable: each cube's walk has the share of all probability that its seeds have.
    """
    if not ranked:
        return [], []
    highest = ranked[0].score or 1.0
    seeds = ranked[:SEEDS]
    by_cube: dict[str, list[tuple[Ranked, float]]] = {}
    for item, share in zip(seeds, seed_weights([seed.score for seed in seeds]), strict=True):
        by_cube.setdefault(item.scope.cube.uid, []).append((item, share))
    reached: list[Ranked] = []
    lost: list[Scope] = []
    for of_cube in by_cube.values():
        scope = of_cube[0][0].scope
        shares = {seed.uid: share for seed, share in of_cube}
        try:
            graph, reached_from, versions = await _neighbourhood(mos, scope, list(shares), where, states)
        except MipError as error:
            if error.reason != "BACKEND_UNAVAILABLE":
                raise
            lost.append(scope)
            continue
        for uid, score in pagerank(graph, shares).items():
            version = versions.get(uid)
            if version is None:
                continue
            path = tuple(
                names.memory_name(scope.cube.id, versions[step].id)
                for step in _path(reached_from, uid)
                if step in versions
            )
            weight = score * sum(shares.values())
            channel = Channel("graph", weight, weight)
            reached.append(Ranked(scope, uid, version.from_revision, weight, (channel,), (), path))
    lost_uids = {scope.cube.uid for scope in lost}
    return _mixed([item for item in ranked if item.scope.cube.uid not in lost_uids], reached, highest), lost


def seed_weights(scores: Sequence[float]) -> list[float]:
    """Returns the seeds' shares of the walk's returns; together 1.

    A share is the square of how far the score lies above the last of SEEDS: among hundreds of candidates even the
    twentieth has half the best score or more, and would be returned to almost as often.

    Args:
        scores: The seeds' hybrid scores, best first, at most SEEDS.
    """
    floor = scores[-1] if len(scores) == SEEDS else 0.0
    above = np.maximum((np.array(scores) - floor) / max(scores[0] - floor, 1e-9), 1e-6) ** 2
    shares: list[float] = (above / above.sum()).tolist()
    return shares


def _mixed(ranked: Sequence[Ranked], reached: Sequence[Ranked], highest: float) -> list[Ranked]:
    """Gives each reached memory and each candidate its score; contributions sum up to it."""
    best = max((item.score for item in reached), default=1.0)
    mixed = {}
    for item in reached:
        weight = item.score
        item.channels = (Channel("graph", weight, GRAPH_SHARE * weight / best),)
        mixed[item.scope.cube.uid, item.uid] = item
    share = (1.0 - GRAPH_SHARE) / highest
    for candidate in ranked:
        key = candidate.scope.cube.uid, candidate.uid
        channels = tuple(Channel(name, score, share * part) for name, score, part in candidate.channels)
        found = mixed.get(key)
        if found is not None:
            found.channels = (*channels, *found.channels)
            found.matched = candidate.matched
        else:
            mixed[key] = Ranked(
                candidate.scope, candidate.uid, candidate.from_revision, 0.0, channels, candidate.matched
            )
    for item in mixed.values():
        item.score = sum(channel.contribution for channel in item.channels)
    return sorted(mixed.values(), key=lambda item: (-item.score, item.uid))


async def _neighbourhood(
    mos: Mos, scope: Scope, seeds: Sequence[str], where: Predicate, states: frozenset[int]
) -> tuple[Graph, dict[str, str], dict[str, Version]]:
    """Returns the weighted graph around the seeds, the node that each node was reached from first, and the versions."""
    graph: Graph = {}
    reached_from = dict.fromkeys(seeds, "")
    versions: dict[str, Version] = {}
    frontier = list(seeds)
    query = IndexQuery(scope.revision, where, scope.view.level, scope.granted, states, depth=20)
    for hop in range(HOPS + 1):
        shared = await mos.keeper.related(scope.cube, query, frontier) if hop < ENTITY_HOPS else {}

        async def read(
            txn: Reader, nodes: Sequence[str] = frontier, shared: Mapping[str, Mapping[str, float]] = shared
        ) -> list[tuple[str, str, float]]:
            revision = None if scope.revision == scope.cube.revision else scope.revision
            edges = [(node, other, weight) for node in nodes for other, weight in shared.get(node, {}).items()]
            around = await txn.relations(
                scope.cube.key, nodes, outgoing=True, incoming=True, revision=revision, limit=EDGES
            )
            edges += [(edge.source, edge.target, edge.weight * RELATION_WEIGHT) for edge in around]
            unknown = {uid for a, b, _ in edges for uid in (a, b)} | set(nodes)
            found = await txn.versions_by_uid(scope.cube.key, unknown - set(versions), revision, with_content=False)
            versions.update({uid: version for uid, version in found.items() if present(scope.view, version)})
            return [(a, b, weight) for a, b, weight in edges if a in versions and b in versions]

        nodes = set(frontier)
        frontier = []
        for a, b, weight in await mos.read(read):
            last_hop = hop == HOPS
            if last_hop and (a not in reached_from or b not in reached_from):
                continue
            graph.setdefault(a, {})[b] = max(graph.get(a, {}).get(b, 0.0), weight)
            graph.setdefault(b, {})[a] = max(graph.get(b, {}).get(a, 0.0), weight)
            for here, there in ((a, b), (b, a)):
                if there not in reached_from and len(reached_from) < NODES and here in nodes:
                    reached_from[there] = here
                    frontier.append(there)
        if not frontier:
            break
    return graph, reached_from, versions


def pagerank(graph: Graph, seeds: Mapping[str, float]) -> dict[str, float]:
    """Returns the stationary probabilities of a walk that returns to the seeds with probability RETURN at each step.

    Args:
        graph: node -> neighbour -> weight, symmetric.
        seeds: node -> weight of returning to it.
    """
    nodes = list(dict.fromkeys([*seeds, *graph]))
    place = {node: index for index, node in enumerate(nodes)}
    edges = [
        (place[node], place[other], weight)
        for node, around in graph.items()
        for other, weight in around.items()
        if weight > 0.0
    ]
    source = np.array([edge[0] for edge in edges], dtype=np.int64)
    target = np.array([edge[1] for edge in edges], dtype=np.int64)
    weight = np.array([edge[2] for edge in edges], dtype=np.float64)
    start = np.zeros(len(nodes))
    start[: len(seeds)] = list(seeds.values())
    start /= start.sum()
    degree = np.bincount(source, weight, len(nodes))
    # A dead end sends its mass back to the seeds.
    dead = degree == 0.0
    share = weight / degree[source]
    current = start
    for _ in range(ITERATIONS):
        walked = np.bincount(target, current[source] * share, len(nodes)) + current[dead].sum() * start
        current = RETURN * start + (1.0 - RETURN) * walked
    return dict(zip(nodes, current.tolist(), strict=True))


def _path(reached_from: Mapping[str, str], uid: str) -> list[str]:
    path = [uid]
    while reached_from.get(path[-1]):
        path.append(reached_from[path[-1]])
    return path[::-1]
