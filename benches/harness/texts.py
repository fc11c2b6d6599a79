"""Texts, questions and vectors: natural ones from a folder of data sets, else made to resemble them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.calls import DIMENSION

_LONGEST = 600
"""Characters of a text: a memory is a statement or a passage, not a document."""
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_COMMON = re.findall(
    r"\w+",
    "the of and to in a is that for it as was with be by on not he i this are or his from at which but have an had they"
    " you were their one all we can her has there been if more when will would who so no my out what up about into",
)
_SYLLABLES = [a + b + c for a in "bcdfgklmnprstvw" for b in "aeiou" for c in ("", "l", "n", "r", "s", "t")]
_ASKING = ("When did {0} {1} the {2}?", "What does {0} think of {1} and {2}?", "Who told {0} about the {1} in {2}?")


class Texts:
    """A supply of texts.

    Attributes:
        source: Where they are from, in words.
        questions: Natural questions.
    """

    def __init__(self, data: Path | None, seed: int = 7) -> None:
        """Reads the data sets, or prepares to make texts.

        Args:
            data: A folder of files in the form that benches/retrieval.py tells; None or an empty one makes texts.
            seed: Of all chance.
        """
        self._random = np.random.default_rng(seed)
        self._texts: list[str] = []
        self.questions: list[str] = []
        for path in sorted(data.glob("*.json")) if data is not None else []:
            for collection in json.loads(path.read_text(encoding="utf-8"))["collections"]:
                self._texts += [item["text"][:_LONGEST] for item in collection["items"] if item["text"].strip()]
                self.questions += [question["text"] for question in collection["questions"]]
        self.source = f"texts and questions of {len(self._texts):,} natural items" if self._texts else "made texts"
        if not self._texts:
            self._make(20_000)
        order = self._random.permutation(len(self._texts))
        self._texts = [self._texts[place] for place in order]
        self.questions = [self.questions[place] for place in self._random.permutation(len(self.questions))]
        self._sentences = [
            part for text in self._texts for part in _SENTENCE.split(text) if 20 <= len(part) <= 300
        ] or self._texts

    def _make(self, count: int) -> None:
        """Makes texts whose words are as unevenly frequent as those of a language (Zipf)."""
        random = self._random
        vocabulary = list(
            dict.fromkeys("".join(random.choice(_SYLLABLES, random.integers(2, 4))) for _ in range(40_000))
        )
        words = [*_COMMON, *vocabulary]
        weight = 1.0 / np.arange(3, len(words) + 3)
        names = [word.capitalize() for word in vocabulary[:2000]]
        drawn = random.choice(len(words), count * 40, p=weight / weight.sum()).reshape(count, 40)
        for row in drawn.tolist():
            said = [words[place] for place in row[: int(random.integers(8, 40))]]
            self._texts.append(f"{names[int(random.integers(len(names)))]} {' '.join(said)}.")
        for number in range(500):
            rare = [vocabulary[place] for place in random.integers(0, 5000, 2).tolist()]
            self.questions.append(_ASKING[number % 3].format(names[int(random.integers(len(names)))], *rare))

    def take(self, count: int) -> list[str]:
        """Returns so many texts, no two alike: the natural ones first, then sentences of several put together."""
        found = self._texts[:count]
        missing = count - len(found)
        if missing > 0:
            parts = self._random.integers(0, len(self._sentences), (missing, 3))
            sizes = self._random.integers(1, 4, missing).tolist()
            for number, (row, size) in enumerate(zip(parts.tolist(), sizes, strict=True)):
                chosen = " ".join(self._sentences[place] for place in row[:size])
                found.append(f"{chosen} ({number})"[:_LONGEST])
        return found


def unit_vectors(count: int, seed: int = 11) -> NDArray[np.float32]:
    """Returns float32 (count, DIMENSION): unit vectors in clusters, as those of texts are."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((max(count // 50, 1), DIMENSION), dtype=np.float32)
    made = np.empty((count, DIMENSION), dtype=np.float32)
    for low in range(0, count, 10_000):
        high = min(low + 10_000, count)
        noise = random.standard_normal((high - low, DIMENSION), dtype=np.float32)
        made[low:high] = centres[random.integers(0, len(centres), high - low)] + 0.7 * noise
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made


def near(vectors: NDArray[np.float32], count: int, seed: int = 13) -> NDArray[np.float32]:
    """Returns float32 (count, DIMENSION): queries near some of the vectors."""
    random = np.random.default_rng(seed)
    chosen = vectors[random.integers(0, len(vectors), count)]
    asked = chosen + 0.03 * random.standard_normal(chosen.shape, dtype=np.float32)
    made: NDArray[np.float32] = asked / np.linalg.norm(asked, axis=1, keepdims=True)
    return made


def cycled(items: Sequence[str], count: int) -> list[str]:
    """Returns so many items, over and over again where they are fewer."""
    return [items[number % len(items)] for number in range(count)]
