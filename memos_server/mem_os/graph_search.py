"""SEARCH_MODE_GRAPH: personalised PageRank around the best hybrid hits.

The walk starts at the seeds, follows relations (either way) and shared entities, and returns to the seeds with a fixed
probability (Haveliwala, "Topic-sensitive PageRank", WWW 2002). Only what the caller sees is part of the graph, so a
hidden memory neither appears on a path nor lends weight to one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from memos_server import names
from memos_server._pb.mip.v1.memory_service_pb2 import ChannelScore
from memos_server.graph_dbs.base import Reader, Version
from memos_server.mem_os.candidates import Ranked, Scope
from memos_server.mem_os.context import Mos
from memos_server.mem_os.relations import present
from memos_server.vec_dbs.base import IndexQuery, Predicate

SEEDS = 20
HOPS = 2
NODES = 2000
RETURN = 0.5
ITERATIONS = 15
RELATION_WEIGHT = 3.0
"""What a relation of weight 1 counts beside shared entities, whose weights are sums of log(1 + N/df)."""

Graph = dict[str, dict[str, float]]


async def spread(
    mos: Mos, ranked: Sequence[Ranked], where: Predicate, states: frozenset[int], depth: int
) -> list[Ranked]:
    """Returns the candidates reached from the seeds, by PageRank; ties by uid."""
    found: list[Ranked] = []
    by_cube: dict[str, list[Ranked]] = {}
    for item in ranked[:SEEDS]:
        by_cube.setdefault(item.scope.cube.uid, []).append(item)
    for seeds in by_cube.values():
        scope = seeds[0].scope
        graph, reached_from, versions = await _neighbourhood(mos, scope, [seed.uid for seed in seeds], where, states)
        highest = max(seed.score for seed in seeds) or 1.0
        weights = {seed.uid: max(seed.score / highest, 1e-6) ** 2 for seed in seeds}
        known = {item.uid: item for item in ranked if item.scope.cube.uid == scope.cube.uid}
        for uid, score in pagerank(graph, weights).items():
            version = versions.get(uid)
            if version is None:
                continue
            channels = [*(known[uid].channels if uid in known else []), ChannelScore(channel="graph", score=score)]
            channels[-1].contribution = score
            path = tuple(
                names.memory_name(scope.cube.id, versions[step].id)
                for step in _path(reached_from, uid)
                if step in versions
            )
            matched = known[uid].matched if uid in known else ()
            found.append(Ranked(scope, uid, version.from_revision, score, channels, matched, path))
    found.sort(key=lambda item: (-item.score, item.uid))
    for place, item in enumerate(found, start=1):
        item.channels[-1].rank = place
    return found[:depth]


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
        shared = await mos.keeper.related(scope.cube, query, frontier) if hop < HOPS else {}

        async def read(
            txn: Reader, nodes: Sequence[str] = frontier, shared: Mapping[str, Mapping[str, float]] = shared
        ) -> list[tuple[str, str, float]]:
            revision = None if scope.revision == scope.cube.revision else scope.revision
            edges = [(node, other, weight) for node in nodes for other, weight in shared.get(node, {}).items()]
            around = await txn.relations(scope.cube.key, nodes, outgoing=True, incoming=True, revision=revision)
            edges += [(edge.source, edge.target, edge.weight * RELATION_WEIGHT) for edge in around]
            unknown = {uid for a, b, _ in edges for uid in (a, b)} | set(nodes)
            found = await txn.versions_by_uid(scope.cube.key, unknown - set(versions), revision)
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
    total = sum(seeds.values())
    start = {node: weight / total for node, weight in seeds.items()}
    degree = {node: sum(edges.values()) for node, edges in graph.items()}
    current = dict(start)
    for _ in range(ITERATIONS):
        following = {node: RETURN * share for node, share in start.items()}
        for node, mass in current.items():
            edges = graph.get(node)
            if not edges:
                # A dead end sends its mass back to the seeds.
                for seed, share in start.items():
                    following[seed] += (1 - RETURN) * mass * share
                continue
            for other, weight in edges.items():
                following[other] = following.get(other, 0.0) + (1 - RETURN) * mass * weight / degree[node]
        current = following
    return current


def _path(reached_from: Mapping[str, str], uid: str) -> list[str]:
    path = [uid]
    while reached_from.get(path[-1]):
        path.append(reached_from[path[-1]])
    return path[::-1]
