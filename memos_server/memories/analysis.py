"""How text becomes the terms of the lexical index: one analyzer for every engine, for memories and queries alike.

Words are folded (compatibility forms, case, accents), cut at 64 characters, freed of a small list of English function
words and stemmed (Snowball English). Runs of scripts that write no spaces between words (Chinese, Japanese, Thai and
their like), and Korean, become pairs of neighbouring characters. Of a text that folding makes longer than 262,144
characters, the rest is not looked at.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from functools import cache
from typing import Final

import Stemmer

from memos_server.memories.entities import entities
from memos_server.memories.words import STOP_WORDS

__all__ = ["ANALYZER_VERSION", "MAX_TERM", "analyze", "entities"]

ANALYZER_VERSION: Final = 2
"""Counts the changes that give a text other terms: an index built by another version is rebuilt."""
MAX_TERM: Final = 64
"""The most characters of a term."""
MAX_FOLDED: Final = 262_144
"""The most characters of a folded text that are looked at: folding makes 18 of some characters."""

# Scripts without spaces between words: Thai to Myanmar, Khmer, Hangul, kana and Han.
_UNSPACED: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U0001b000-\U0001b16f\U00020000-\U0003fffd"
)
_ASCII_WORD: Final = re.compile(r"[a-z0-9]+(?:'[a-z]+)*", re.ASCII)
_PLAIN_WORD: Final = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_TYPOGRAPHIC: Final = str.maketrans({"’": "'", "ʼ": "'", "＇": "'", "ø": "o", "ł": "l", "đ": "d", "æ": "ae", "œ": "oe"})
_ACCENT: Final = re.compile("[\u0300-\u036f]+")
_LAST_MARK: Final = 0x1E94A
_VARIATION_SELECTORS: Final = range(0xFE00, 0xFE10)

_MAX_STEMS: Final = 50_000

_local = threading.local()


def analyze(text: str) -> list[str]:
    """Returns the terms of a text, in order and with repeats: lower-case stems of at most 64 characters.

    A text of function words alone keeps them: a query such as "who are you" finds the memory that says just that.

    Args:
        text: Any text.
    """
    folded = text.lower() if text.isascii() else _folded(text)
    words: list[str] = _ASCII_WORD.findall(folded) if folded.isascii() else _unicode_words(folded)
    terms = [word if len(word) <= MAX_TERM else word[:MAX_TERM] for word in words if word not in STOP_WORDS]
    return list(map(_STEMS.__getitem__, terms or [word[:MAX_TERM] for word in words]))


class _Stems(dict[str, str]):
    """Word -> stem. The words of a language are few: looking one up costs a tenth of stemming it."""

    def __missing__(self, word: str) -> str:
        """Stems a word that was not seen lately."""
        if len(self) >= _MAX_STEMS:
            self.clear()
        stem: str = _stemmer().stemWord(word)
        self[word] = stem
        return stem


_STEMS: Final = _Stems()


def _stemmer() -> Stemmer.Stemmer:
    """Returns this thread's stemmer, which is not safe to share, without the slower cache of its own."""
    try:
        return _local.stemmer
    except AttributeError:
        _local.stemmer = Stemmer.Stemmer("english", 0)
        return _local.stemmer


def _folded(text: str) -> str:
    """Returns the text in NFKC, case-folded, without the accents of Latin, Greek and Cyrillic letters.

    Marks of other scripts stay: in Hindi or Thai they are vowels.
    """
    decomposed = unicodedata.normalize("NFKD", text[:MAX_FOLDED]).casefold().translate(_TYPOGRAPHIC)
    return unicodedata.normalize("NFKC", _ACCENT.sub("", decomposed[:MAX_FOLDED]))


def _unicode_words(text: str) -> list[str]:
    special, pattern = _unicode_patterns()
    if special.search(text) is None:
        found: list[str] = _PLAIN_WORD.findall(text)
        return found
    words = []
    for match in pattern.finditer(text):
        word = match[0]
        if match.lastgroup == "unspaced" and len(word) > 1:
            words += [word[at : at + 2] for at in range(len(word) - 1)]
        else:
            words.append(word)
    return words


@cache
def _unicode_patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    r"""Returns the pattern of characters that need the second pattern, and that one, which finds words.

    A word is letters and digits with the marks on them, which \w leaves out: in Hindi they are vowels.
    """
    ranges: list[list[int]] = []
    for code in range(0x300, _LAST_MARK):
        if unicodedata.category(chr(code))[0] != "M" or code in _VARIATION_SELECTORS:
            continue
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    marks = "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)
    letter = rf"(?![{_UNSPACED}_])\w"
    word = rf"{letter}(?:(?![{_UNSPACED}_])[\w{marks}])*"
    return re.compile(f"[{_UNSPACED}{marks}]"), re.compile(rf"(?P<unspaced>[{_UNSPACED}]+)|{word}(?:'{word})*")
