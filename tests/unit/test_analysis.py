"""The analyzer: which terms a text has for the lexical index, and which names it mentions."""

from __future__ import annotations

import string
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memos_server.memories.analysis import ANALYZER_VERSION, analyze, analyze_many, entities

UNTIMED = settings(deadline=None)
"""The first call pays for what is made once; a busy machine would fail it."""


def test_the_terms_of_version_1_are_these() -> None:
    # Whoever changes an expectation here raises ANALYZER_VERSION: indexes of the old version are built anew by it.
    assert ANALYZER_VERSION == 1
    assert analyze("Caroline went to the Support Group; it was powerful, and she's painting daily (since 2023).") == [
        *("carolin", "went", "support", "group", "power", "paint", "daili", "sinc", "2023"),
    ]


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("running runs runner", ["run", "run", "runner"]),
        ("don't Caroline's rock'n'roll", ["carolin", "rock'n'rol"]),
        ("don’t Caroline’s", ["carolin"]),
        ("naïve café Łódź Straße", ["naiv", "cafe", "lodz", "strass"]),
        ("ＡＢＣ ﬁne x²", ["abc", "fine", "x2"]),
        ("snake_case a-b 3.14 v2", ["snake", "case", "b", "3", "14", "v2"]),
        ("東京都", ["東京", "京都"]),
        ("東", ["東"]),
        ("GPUを使う", ["gpu", "を使", "使う"]),
        ("서울역", ["서울", "울역"]),
        ("ภาษา", ["ภา", "าษ", "ษา"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("привет МИР", ["привет", "мир"]),
        ("🎉 !!! —", []),
        ("", []),
    ],
)
def test_words_of_many_scripts_become_terms(text: str, terms: list[str]) -> None:
    assert analyze(text) == terms


def test_a_text_of_function_words_alone_keeps_them() -> None:
    assert analyze("who are you") == ["who", "are", "you"]


def test_terms_end_after_64_characters() -> None:
    assert analyze("7" * 100) == ["7" * 64]
    assert analyze("ж" * 100) == ["ж" * 64]


def test_texts_get_the_same_terms_alone_together_and_in_threads() -> None:
    texts = [f"painting number {number} of daily paintings" for number in range(200)]
    expected = [["paint", "number", str(number), "daili", "paint"] for number in range(200)]
    assert analyze_many(texts) == expected
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(analyze, texts)) == expected


@UNTIMED
@given(st.text(max_size=200))
def test_every_term_is_short_and_not_empty(text: str) -> None:
    assert all(1 <= len(term) <= 64 for term in analyze(text))


@UNTIMED
@given(st.text(max_size=100))
def test_terms_do_not_depend_on_how_accents_are_written(text: str) -> None:
    assert analyze(unicodedata.normalize("NFC", text)) == analyze(unicodedata.normalize("NFD", text))


@UNTIMED
@given(st.lists(st.text(string.ascii_letters + string.digits, min_size=1, max_size=12), min_size=1, max_size=20))
def test_ascii_words_get_the_same_terms_beside_words_of_other_scripts(words: list[str]) -> None:
    # The fast path for ASCII and the path for the rest must agree, or a query would miss what a memory says.
    text = " ".join(words) + " xyzzy"
    assert analyze(f"{text} 東京") == [*analyze(text), "東京"]


@UNTIMED
@given(st.text(string.ascii_letters + " .,'", max_size=100))
def test_terms_do_not_depend_on_case(text: str) -> None:
    assert analyze(text.upper()) == analyze(text.lower()) == analyze(text)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Yesterday I met Caroline and her dog Rex in New York.", ["caroline", "rex", "new york"]),
        ("Caroline's painting hangs in the Museum of Modern Art.", ["caroline", "museum of modern art"]),
        ("Running is fun. Thanks for the tip! The weather was fine.", []),
        ("On Monday, 8 May 2023, at 14:00, we paid 30 dollars.", []),
        ("nothing here has a capital", []),
        ("We use NASA data.", ["nasa"]),
        ("Rex barked. Then Rex slept. REX!", ["rex"]),
        ("", []),
    ],
)
def test_names_are_found_by_their_capitals(text: str, names: list[str]) -> None:
    assert entities(text) == names


def test_a_text_names_32_entities_at_most() -> None:
    names = [f"{first}{second}x" for first in "ABCDEFG" for second in "klmnop"]
    assert entities("we met " + ", ".join(names)) == [name.lower() for name in names[:32]]


@UNTIMED
@given(st.text(max_size=300))
def test_entities_are_lower_case_short_and_named_once(text: str) -> None:
    found = entities(text)
    assert len(found) == len(set(found)) <= 32
    assert all(2 <= len(name) <= 64 and name == name.casefold() for name in found)
