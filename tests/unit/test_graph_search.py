"""Seeds and walk of SEARCH_MODE_GRAPH."""

from __future__ import annotations

import pytest

from memos_server.mem_os.graph_search import SEEDS, pagerank, seed_weights


def test_a_walk_along_one_edge_stays_longest_where_it_returns_to() -> None:
    # p(a) = 1/2 + p(b)/2 and p(b) = p(a)/2 have the solution 2/3 and 1/3.
    found = pagerank({"a": {"b": 5.0}, "b": {"a": 5.0}}, {"a": 1.0})
    assert found == pytest.approx({"a": 2 / 3, "b": 1 / 3}, abs=1e-4)


def test_a_walk_goes_along_heavy_edges_more_often() -> None:
    found = pagerank({"a": {"b": 3.0, "c": 1.0}, "b": {"a": 3.0}, "c": {"a": 1.0}}, {"a": 1.0})
    assert found["b"] == pytest.approx(3 * found["c"])
    assert sum(found.values()) == pytest.approx(1.0)


def test_seeds_without_edges_keep_their_shares() -> None:
    assert pagerank({}, {"a": 3.0, "b": 1.0}) == pytest.approx({"a": 0.75, "b": 0.25})


def test_an_edge_without_weight_leads_nowhere() -> None:
    found = pagerank({"a": {"b": 0.0}, "b": {"a": 0.0}}, {"a": 1.0})
    assert found == pytest.approx({"a": 1.0, "b": 0.0})


def test_few_seeds_count_by_the_squares_of_their_scores() -> None:
    assert seed_weights([2.0, 1.0]) == pytest.approx([0.8, 0.2])


def test_among_many_candidates_a_seed_counts_by_what_it_has_above_the_last_seed() -> None:
    weights = seed_weights([1.0, 0.75, *[0.5] * (SEEDS - 2)])
    assert weights[:2] == pytest.approx([0.8, 0.2])
    assert max(weights[2:]) < 1e-9


def test_seeds_of_equal_scores_count_alike() -> None:
    assert seed_weights([0.0] * SEEDS) == pytest.approx([1 / SEEDS] * SEEDS)
