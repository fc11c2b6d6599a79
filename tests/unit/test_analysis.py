"""The analyzer: which terms and which names a text has, written out."""

from __future__ import annotations

import string
import time
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memos_server.memories.analysis import ANALYZER_VERSION, analyze, entities

UNTIMED = settings(deadline=None)
"""The first call pays for what is made once; a busy machine would fail it."""


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("", []),
        ("  \n\t ", []),
        ("Caroline paints landscapes", ["carolin", "paint", "landscap"]),
        ("painted PAINTING paints", ["paint", "paint", "paint"]),
        ("the cat is on the mat", ["cat", "mat"]),
        ("In May 2023 I will go", ["may", "2023", "go"]),
        ("Caroline's O'Brien don't", ["carolin", "o'brien"]),
        ("it’s Mary’s", ["mari"]),
        ("café naïve ÉCOLE cafe\u0301", ["cafe", "naiv", "ecol", "cafe"]),
        ("Øresund Łódź œuvre", ["oresund", "lodz", "oeuvr"]),
        ("Straße STRASSE", ["strass", "strass"]),
        ("Ελλάδα Москва", ["ελλαδα", "москва"]),
        ("ﬁne 𝐀𝐁 ＡＢＣ １２", ["fine", "ab", "abc", "12"]),
        ("version 1.2.3 costs $1,500", ["version", "1", "2", "3", "cost", "1", "500"]),
        ("2023-05-08", ["2023", "05", "08"]),
        ("snake_case camelCase C++", ["snake", "case", "camelcas", "c"]),
        ("I ❤️ 👩‍👩‍👧 rain…", ["rain"]),
        ("黒猫が好き", ["黒猫", "猫が", "が好", "好き"]),
        ("猫", ["猫"]),
        ("GPU買った2023年", ["gpu", "買っ", "った", "2023", "年"]),
        ("서울에서", ["서울", "울에", "에서"]),
        ("สวัสดี", ["สว", "วั", "ัส", "สด", "ดี"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("who are you", ["who", "are", "you"]),
        ("running runs runner rock'n'roll x²", ["run", "run", "runner", "rock'n'rol", "x2"]),
        ("привет МИР", ["привет", "мир"]),
        ("\u0301\u0302 ___ ''", []),
    ],
)
def test_the_terms_of_a_text(text: str, terms: list[str]) -> None:
    assert analyze(text) == terms


def test_a_query_and_a_memory_meet_in_their_terms() -> None:
    assert set(analyze("When did Caroline paint the lake?")) <= set(analyze("Caroline painted the lakes: when? did…"))


def test_terms_are_cut_at_64_characters() -> None:
    assert analyze("x" * 65 + " " + "b" * 64) == ["x" * 64, "b" * 64]
    assert analyze("я" * 100) == ["я" * 64]


def test_a_text_that_folding_makes_many_times_longer_is_cut() -> None:
    # One character becomes 18, in four words.
    assert len(analyze("\ufdfa" * 87_000)) < 262_144 / 18 * 4


def test_the_version_is_pinned_with_the_terms() -> None:
    # Whoever changes what a text's terms are counts the version up: indexes on disk hold the old terms.
    assert ANALYZER_VERSION == 2


@UNTIMED
@given(st.text(max_size=200))
def test_any_text_has_terms_of_1_to_64_characters(text: str) -> None:
    terms = analyze(text)
    assert all(1 <= len(term) <= 64 for term in terms)
    assert terms == analyze(unicodedata.normalize("NFC", text))


@UNTIMED
@given(st.text(alphabet="abcé 'ñ-.", max_size=60))
def test_case_and_composition_make_no_difference(text: str) -> None:
    assert analyze(text) == analyze(text.upper()) == analyze(unicodedata.normalize("NFD", text))


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


def test_threads_analyse_alike() -> None:
    texts = [f"the {word}ing of {word}s number {number}" for number, word in enumerate(["paint", "walk", "index"] * 50)]
    expected = [analyze(text) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(analyze, texts)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "a'" * 131_072,
        "猫" * 87_000,
        "_" * 262_144,
        "e\u0301" * 80_000,
        "\ufdfa" * 87_000,
        "हि" * 40_000,
        "A " * 131_072,
    ],
)
def test_the_largest_texts_take_their_time_in_proportion(text: str) -> None:
    start = time.perf_counter()
    analyze(text)
    entities(text)
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        ("nothing with capitals here", []),
        ("We flew to New York with Caroline.", ["new york", "caroline"]),
        ("Caroline: I met Dr. Smith and J. K. Rowling in Paris", ["caroline", "dr. smith", "j. k. rowling", "paris"]),
        ("Caroline (8 May 2023, 2023-05-08): hi", ["caroline"]),
        ("The Bank of America and the University of Oxford", ["bank of america", "university of oxford"]),
        ("Aamir Khan and Karisma Kapoor", ["aamir khan", "karisma kapoor"]),
        ("Mary's house, Mary’s dog", ["mary"]),
        ("He joined NASA. Running helps. Wow!", ["nasa"]),
        ("Painting is fun. I showed my Painting to Bo", ["painting", "bo"]),
        ("On Monday, 5 May 2023, at 10 AM in June", []),
        ("My iPhone 15 Pro and GitHub", ["iphone 15 pro", "github"]),
        ("the Jean-Luc van Damme film", ["jean-luc van damme"]),
        ("U.S. Army in the U.S.", ["u.s. army", "u.s"]),
        ("Łódź and Ærø are places; Москва too", ["łódź", "ærø", "москва"]),
        ("日本語の文", []),
        ("Yesterday I met Caroline and her dog Rex in New York.", ["caroline", "rex", "new york"]),
        ("Caroline's painting hangs in the Museum of Modern Art.", ["caroline", "museum of modern art"]),
        ("Running is fun. Thanks for the tip! The weather was fine.", []),
        ("Rex barked. Then Rex slept. REX!", ["rex"]),
    ],
)
def test_the_names_in_a_text(text: str, names: list[str]) -> None:
    assert entities(text) == names


def test_at_most_32_names_are_kept_the_first_ones() -> None:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    names = [f"Q{one.lower()}{two.lower()}" for one in letters[:2] for two in letters]
    assert entities("with " + ", ".join(names)) == [name.lower() for name in names[:32]]


@UNTIMED
@given(st.text(max_size=300))
def test_names_are_distinct_lower_case_and_short(text: str) -> None:
    names = entities(text)
    assert len(names) == len(set(names)) <= 32
    assert all(2 <= len(name) <= 64 for name in names)
    assert all(name == name.casefold() for name in names)
