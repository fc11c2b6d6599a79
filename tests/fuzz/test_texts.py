"""Texts that come from outside: filters, page tokens, access tokens, JSON; each accepted or refused with its reason."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from tests.fuzz import targets
from tests.fuzz.corpus import EFFORTS, files, fuzz

CHARACTERS = st.characters(exclude_categories=["Cs"])


@pytest.mark.parametrize(
    ("name", "file"),
    [pytest.param(name, file, id=f"{name}-{file.name}") for name in targets.TARGETS for file in files(name)],
)
def test_a_kept_text_is_accepted_or_refused_with_its_reason(name: str, file: Path) -> None:
    begun = time.perf_counter()
    targets.TARGETS[name](file.read_bytes())
    assert time.perf_counter() - begun < 1, "a text of a few kilobytes takes longer than a second"


def words(*lines: str) -> st.SearchStrategy[str]:
    """Returns a strategy of the words of lines."""
    return st.sampled_from([word for line in lines for word in line.split(" ")])


PIECES = st.one_of(
    words(
        "state tags text labels attributes a b . : = != < <= > >= * ( ) NOT AND OR - \" ' \\ \n , x/y x@y \u00e9 \0",
        "ACTIVE 1 1.5 -1 1e999 2026-01-01 2026-01-01T00:00:00Z 0001-01-01T00:00:00+23:59 true null create_time",
        "confidence revision provenance speaker kind session has source \u2028 \U0001f600",
    ),
    st.text(CHARACTERS, max_size=6),
)
WELL_FORMED = st.recursive(
    st.builds(
        "{}{}{}".format,
        st.sampled_from(["state", "tags", "labels.a", 'attributes."a b".c', "create_time", "text", "kind", "session"]),
        st.sampled_from(["=", "!=", ":", "<", ">="]),
        st.one_of(
            st.sampled_from(["ACTIVE", "*", "1", "2026-05-01", '"x"', "'y'"]), st.text(CHARACTERS).map(json.dumps)
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=4).map(" ".join),
        st.lists(inner, min_size=2, max_size=4).map(" OR ".join),
        inner.map("NOT ({})".format),
        inner.map("({})".format),
    ),
    max_leaves=20,
)


@EFFORTS
def test_any_text_is_a_filter_or_refused_with_its_place(effort: int) -> None:
    texts = st.one_of(st.lists(PIECES, max_size=30).map(" ".join), st.lists(PIECES, max_size=30).map("".join))
    fuzz(150 * effort, targets.filter_expression, st.one_of(texts, WELL_FORMED).map(lambda text: text.encode()))


@EFFORTS
def test_only_what_this_server_wrote_is_a_page_token(effort: int) -> None:
    changed = st.tuples(st.sampled_from([b"\x01", b"\x02", b"\x03"]), st.binary(max_size=12)).map(b"".join)
    fuzz(200 * effort, targets.page_token, st.one_of(st.binary(max_size=200), changed))


NUMBERS = st.one_of(
    st.sampled_from(
        [targets.NOW, targets.NOW + 60, targets.NOW - 60, 0, -1, 2**53, 2**63, 2**64, 10**400, 1e308, 1.5, True, None]
    ),
    st.integers(),
    st.floats(),
)
WORDS = st.one_of(
    st.sampled_from(
        [
            "mip:here",
            "principals/ana",
            "principals/a\n",
            "principals/../x",
            "principals/é",
            targets.JTI,
            "EdDSA",
            "none",
        ]
    ),
    st.text(max_size=20),
)
ANYTHING = st.recursive(
    NUMBERS | WORDS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3), max_leaves=8
)
SOUND = {
    "iss": "mip:here",
    "aud": "mip:here",
    "sub": "principals/ana",
    "iat": targets.NOW,
    "exp": targets.NOW + 60,
    "jti": targets.JTI,
}


def repeated(claims: dict[str, Any], key: str, value: Any) -> str:
    """Returns the claims as JSON in which one key stands twice."""
    return json.dumps(claims)[:-1] + f", {json.dumps(key)}: {json.dumps(value)}" + "}"


@st.composite
def signed_tokens(draw: st.DrawFn) -> bytes:
    """Tokens with a right signature around changed headers and claims: what is left to refuse are the claims."""
    header: Any = {
        "alg": draw(st.sampled_from(["EdDSA", "EdDSA", "EdDSA", "none", "HS256", "eddsa", ""])),
        "typ": "JWT",
    }
    header.update(
        draw(st.dictionaries(st.sampled_from(["kid", "crit", "b64", "jku", "x5c", "zip"]), ANYTHING, max_size=2))
    )
    claims: dict[str, Any] = dict(SOUND)
    claims.update(draw(st.dictionaries(st.sampled_from([*SOUND, "nbf", "extra"]), ANYTHING, max_size=3)))
    for key in draw(st.lists(st.sampled_from(list(SOUND)), max_size=2)):
        claims.pop(key, None)
    how = draw(st.integers(0, 5))
    body: Any = claims
    if how == 0:
        body = repeated(claims, draw(st.sampled_from(list(SOUND))), draw(ANYTHING))
    elif how == 1:
        body = draw(st.sampled_from(["[]", "1", '"x"', "null", "", "{", "[" * 900, "9" * 3000, "NaN", '{"exp":1e999}']))
    token = targets.signed_token(header, body)
    return token if len(token) < 5000 else token[:5000]


@EFFORTS
def test_only_signed_and_sound_claims_are_an_access_token(effort: int) -> None:
    forged = st.lists(st.binary(max_size=30), min_size=2, max_size=4).map(
        lambda parts: b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    )
    fuzz(150 * effort, targets.access_token, st.one_of(signed_tokens(), forged, st.binary(max_size=100)))


@EFFORTS
def test_any_text_is_json_with_a_canonical_form_or_refused(effort: int) -> None:
    pieces = words(
        '{ } [ ] : , "a" "" " \\ \\u0000 \\ud800 \\udc00 0 -0 1e308 1e309 -1e-400 1.0 9007199254740993 1E2 01 1. true',
        "123456789012345678901 false null NaN Infinity \ufeff \u2028 \u00e9 \0 \n",
    )
    texts = st.one_of(st.lists(pieces, max_size=30).map("".join), ANYTHING.map(json.dumps), st.text(CHARACTERS))
    fuzz(200 * effort, targets.json_document, texts.map(lambda text: text.encode("utf-8", "replace")))


def test_the_limits_are_told_apart_from_hangs() -> None:
    """The worst texts of the permitted sizes are judged in well under a second."""
    worst = {
        "filters": ["(" * 4096, "NOT " * 1000, '"' + "\\" * 4000, "a=" * 2000, "x:" + "(" * 4000, "a OR " * 800],
        "json": ["[" * 10**6, '"' + "\\" * 10**6, '{"a":' * 10**5, "9" * 10**6, "0." + "1" * 10**6, '"\\ud800' * 10**5],
        "jwts": ["." * 4096, "a" * 10**6, "eyJ" * 1365],
        "page_tokens": ["A" * 10**6, "=" * 4096],
    }
    for name, texts in worst.items():
        for text in texts:
            begun = time.perf_counter()
            targets.TARGETS[name](text.encode())
            assert time.perf_counter() - begun < 1, (name, text[:20])
