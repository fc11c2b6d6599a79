"""The fuzz targets: one function each, from bytes to a verdict, for Hypothesis here and for any other fuzzer.

A target takes any bytes and raises AssertionError, or whatever the code under it must not raise. A coverage-guided
fuzzer needs no more: `atheris.Setup(sys.argv, targets.filters)`, with `corpus/filters` to begin from.
"""

from __future__ import annotations

import base64
import json
import math
from functools import cache
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from memos_server import json_text
from memos_server._pb.mip.v1.memory_pb2 import Memory
from memos_server._pb.mip.v1.memory_service_pb2 import ListMemoriesRequest
from memos_server.api.page_tokens import PageTokens
from memos_server.api.tokens import TokenSigner
from memos_server.errors import MipError
from memos_server.mem_os import filters
from memos_server.mem_os.filters.syntax import MAX_BYTES
from tests.fuzz.printing import printed

NOW: Final = 1_800_000_000
KEY: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
JTI: Final = "0198c5a2-7f3e-7c41-9a52-3d1f0b6e8c77"
METHOD: Final = "/mip.v1.MemoryService/ListMemories"
ANA: Final = "principals/ana"


@cache
def samples() -> tuple[Memory, ...]:
    """Returns memories that filters are evaluated over: an ordinary one, an empty one, and one of extremes."""
    ordinary = Memory(
        name="cubes/notes/memories/m1",
        state=1,
        sensitivity=3,
        owner="principals/ana",
        tags=["work", "a", "\u00e9"],
        attributes_json='{"a":{"b":[1,"x",true,null]},"n":5,"s":"mid","done":false,"none":null,"big":1e30,"deep":{"er":{}}}',
        session="cubes/notes/sessions/s1",
        confidence=0.5,
        revision=7,
    )
    ordinary.plaintext.text = "The quick brown fox; stra\u00dfe"
    ordinary.plaintext.kind = "fact"
    ordinary.labels.add(key="team", value="red")
    ordinary.provenance.add(kind=1, speaker="Ana", source="notes.md")
    ordinary.create_time.FromJsonString("2026-05-01T12:00:00.000001Z")
    extreme = Memory(
        state=2, sensitivity=4, tags=["", "\0", "x" * 300], revision=2**63 - 1, confidence=1e-300, attributes_json="{}"
    )
    extreme.activation.SetInParent()
    extreme.valid_from.seconds = -62_135_596_800
    extreme.valid_until.seconds = 253_402_300_799
    extreme.valid_until.nanos = 999_999_999
    return ordinary, Memory(), extreme


def _must(holds: bool, what: str) -> None:
    assert holds, what


def _refused(error: MipError, *reasons: str) -> None:
    _must(error.reason in reasons, f"refused with {error}")


def filter_expression(data: bytes) -> None:
    """Any text is a filter or refused with its place; a filter means what its printed form means."""
    text = data.decode("utf-8", "replace")
    try:
        parsed = filters.parse(text)
    except MipError as error:
        _refused(error, "INVALID_FILTER")
        _must(1 <= int(error.metadata.get("position", "1")) <= len(text) + 1, str(error))
        return
    if len(printed(text).encode()) > MAX_BYTES:
        return
    again = filters.parse(printed(text))
    assert again.pushdown() == parsed.pushdown(), (text, printed(text))
    for memory in samples():
        assert again.matches(memory) == parsed.matches(memory), (text, printed(text))
    assert printed(printed(text)) == printed(text)


@cache
def _pages() -> tuple[PageTokens, str]:
    pages = PageTokens(bytes(range(32)))
    return pages, pages.encode(ANA, METHOD, ListMemoriesRequest(parent="cubes/x"), {"after": 10})


def page_token(data: bytes) -> None:
    """Any text but the tokens that this server wrote is refused; the first byte chooses what of a valid one stays."""
    pages, valid = _pages()
    if data[:1] in (b"\x01", b"\x02", b"\x03"):
        raw = bytearray(base64.urlsafe_b64decode(valid + "=" * (-len(valid) % 4)))
        for at in range(1, len(data) - 1, 2):
            raw[data[at] % len(raw)] ^= data[at + 1]
        if data[0] == 2:
            del raw[len(raw) - len(data) % len(raw) :]
        elif data[0] == 3:
            raw += data[1:]
        token = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    else:
        token = data.decode("utf-8", "surrogateescape" if len(data) % 2 else "replace")
    try:
        pages.decode(token, ANA, METHOD, ListMemoriesRequest(parent="cubes/x"))
    except MipError as error:
        _refused(error, "INVALID_PAGE_TOKEN")
        return
    assert token == valid, "a token verified that this server did not write"


@cache
def _signer() -> TokenSigner:
    return TokenSigner(KEY, "mip:here", cache_size=1)


def access_token(data: bytes) -> None:
    """Any text is refused as a token; only one with the server's signature and sound claims says who calls."""
    token = data.decode("utf-8", "surrogateescape")
    try:
        claims = _signer().verify(token, NOW)
    except MipError as error:
        _refused(error, "TOKEN_INVALID", "TOKEN_EXPIRED")
        return
    # Whatever was accepted is one that this key signed, for this server, at a time that fits.
    header = jwt.get_unverified_header(token)
    body = jwt.decode(token, KEY.public_key(), algorithms=["EdDSA"], options={"verify_signature": True}, **_LOOSE)
    assert header["alg"] == "EdDSA"
    assert claims.principal == body["sub"]
    assert claims.principal.startswith("principals/")
    assert "mip:here" in (body["aud"] if isinstance(body["aud"], list) else [body["aud"]])
    assert NOW < claims.expiry < 2**53


_LOOSE: Final[dict[str, Any]] = {"audience": "mip:here", "leeway": 2**60}


def signed_token(header: object, claims: object) -> bytes:
    """Returns a token whose signature is right, whatever header and claims are; text is taken for JSON as it is."""

    def part(value: object) -> bytes:
        text = value if isinstance(value, str) else json.dumps(value)
        return base64.urlsafe_b64encode(text.encode("utf-8", "surrogatepass")).rstrip(b"=")

    signing = part(header) + b"." + part(claims)
    return signing + b"." + base64.urlsafe_b64encode(KEY.sign(signing)).rstrip(b"=")


def json_document(data: bytes) -> None:
    """Any text is JSON or refused; what is JSON has a canonical form, which parses to the same value."""
    text = data.decode("utf-8", "replace")
    try:
        value = json_text.parse(text)
        canonical = json_text.canonical(value)
    except json_text.JsonTextError:
        return
    again = json_text.parse(canonical)
    assert _same(again, value), text
    assert json_text.canonical(again) == canonical, text


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, int | float) and isinstance(right, int | float):
        return math.isclose(left, right, rel_tol=0, abs_tol=0) or float(left) == float(right)
    return bool(left == right)


TARGETS: Final = {
    "filters": filter_expression,
    "page_tokens": page_token,
    "jwts": access_token,
    "json": json_document,
}
"""Name of the corpus -> target."""
