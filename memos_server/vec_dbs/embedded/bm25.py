"""BM25 over an inverted index, with the statistics of what one caller sees at one revision.

The variant is Lucene's, see Kamphuis et al., "Which BM25 do you mean?" (ECIR 2020): a score is the sum over the query's
terms of idf * tf / (tf + k1 * (1 - b + b * length / mean)), with idf = ln(1 + (N - df + 0.5) / (df + 0.5)). A term that
the query repeats counts once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memos_server.vec_dbs.embedded.columns import FLOAT32_UNIT
from memos_server.vec_dbs.embedded.postings import Postings
from memos_server.vec_dbs.embedded.views import Statistics

COMMON_SHARE = 16
"""Terms that one content in so many has are kept as a dense array of weights while a view lives: adding 100,000 floats
takes a tenth of the time of adding to half of them by index, and every question has such words."""

COMMON_TERMS = 32
"""How many such arrays a view keeps at most."""


@dataclass(frozen=True, slots=True, eq=False)
class QueryTerm:
    """A term of the query with its postings and its inverse document frequency."""

    term: str
    ordinals: NDArray[np.int32]
    counts: NDArray[np.uint16]
    idf: float


def query_terms(postings: Postings, statistics: Statistics, terms: Sequence[str]) -> list[QueryTerm]:
    """Returns the terms that some content has, each once, in the query's order."""
    found = []
    for term in dict.fromkeys(terms):
        ordinals, counts = postings.get(term)
        if len(ordinals):
            df = len(ordinals) if statistics.everything else int(np.count_nonzero(statistics.base[ordinals]))
            idf = math.log(1.0 + (statistics.count - df + 0.5) / (df + 0.5))
            found.append(QueryTerm(term, ordinals, counts, idf))
    return found


def approximate(terms: Sequence[QueryTerm], statistics: Statistics) -> NDArray[np.float32]:
    """Returns the score of every content in float32, 0 where no term matches; `slack` bounds the relative error."""
    scores = np.zeros(len(statistics.norm), dtype=np.float32)
    for term in terms:
        common = statistics.common.get(term.term)
        if common is not None:
            scores += common
            continue
        weight = term.counts.astype(np.float32)
        divisor = statistics.norm[term.ordinals]
        divisor += weight
        weight *= np.float32(term.idf)
        weight /= divisor
        scores[term.ordinals] += weight
        if len(term.ordinals) * COMMON_SHARE >= len(scores) and len(statistics.common) < COMMON_TERMS:
            common = np.zeros(len(scores), dtype=np.float32)
            common[term.ordinals] = weight
            statistics.common[term.term] = common
    return scores


def slack(terms: Sequence[QueryTerm]) -> float:
    """Returns twice a bound of the relative error of `approximate`: all summands are positive, so errors add up."""
    return 2.0 * (len(terms) + 8) * FLOAT32_UNIT


def exact(
    terms: Sequence[QueryTerm],
    statistics: Statistics,
    lengths: NDArray[np.int32],
    chosen: NDArray[np.int64],
    k1: float,
    b: float,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Returns the scores of chosen contents in float64, and which terms each has, shape (terms, chosen)."""
    scores = np.zeros(len(chosen), dtype=np.float64)
    matched = np.zeros((len(terms), len(chosen)), dtype=np.bool_)
    wanted = chosen.astype(np.int32)
    norm = k1 * (1.0 - b + b * lengths[chosen].astype(np.float64) / statistics.mean_length)
    for row, term in enumerate(terms):
        places = np.minimum(np.searchsorted(term.ordinals, wanted), len(term.ordinals) - 1)
        has = term.ordinals[places] == wanted
        matched[row] = has
        count = term.counts[places].astype(np.float64)
        scores += np.where(has, term.idf * count / (count + norm), 0.0)
    return scores, matched
