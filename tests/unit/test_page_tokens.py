"""Page tokens verify for their caller, method and arguments only."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memos_server._pb.mip.v1.memory_service_pb2 import ListMemoriesRequest
from memos_server.api.page_tokens import MAX_TOKEN_CHARACTERS, PageTokens
from memos_server.errors import MipError

KEY = bytes(range(32))
METHOD = "/mip.v1.MemoryService/ListMemories"
ANA = "principals/ana"


def arguments(**fields: object) -> ListMemoriesRequest:
    return ListMemoriesRequest(parent="cubes/x", filter="tags:work", **fields)  # type: ignore[arg-type]


def refused(token: str, principal: str = ANA, method: str = METHOD, request: ListMemoriesRequest | None = None) -> None:
    with pytest.raises(MipError, match="INVALID_PAGE_TOKEN") as caught:
        PageTokens(KEY).decode(token, principal, method, request or arguments())
    assert caught.value.violations[0].field == "page_token"


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63)
        | st.text(st.characters(exclude_categories=["Cs"]))
        | st.floats(allow_nan=False, allow_infinity=False),
        max_size=4,
    )
)
def test_a_cursor_comes_back_as_it_was(cursor: dict[str, str | int | float | bool | None]) -> None:
    token = PageTokens(KEY).encode(ANA, METHOD, arguments(), cursor)
    assert PageTokens(KEY).decode(token, ANA, METHOD, arguments()) == cursor


def test_the_next_page_may_have_another_size() -> None:
    token = PageTokens(KEY).encode(ANA, METHOD, arguments(page_size=10), {"after": 10})
    assert PageTokens(KEY).decode(token, ANA, METHOD, arguments(page_size=5, page_token=token)) == {"after": 10}


def test_a_token_is_bound_to_caller_method_and_arguments() -> None:
    token = PageTokens(KEY).encode(ANA, METHOD, arguments(), {"after": 10})
    refused(token, principal="principals/bo")
    refused(token, method="/mip.v1.MemoryService/SearchMemories")
    refused(token, request=ListMemoriesRequest(parent="cubes/y", filter="tags:work"))
    refused(token, request=ListMemoriesRequest(parent="cubes/x"))
    refused(token, request=arguments(show_deleted=True))
    with pytest.raises(MipError, match="INVALID_PAGE_TOKEN"):
        PageTokens(b"\x01" * 32).decode(token, ANA, METHOD, arguments())


def test_no_bit_of_a_token_can_be_changed() -> None:
    token = PageTokens(KEY).encode(ANA, METHOD, arguments(), {"after": 10})
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    for at in range(len(raw) * 8):
        changed = bytearray(raw)
        changed[at // 8] ^= 1 << (at % 8)
        refused(base64.urlsafe_b64encode(changed).rstrip(b"=").decode())


def test_no_character_of_a_token_can_be_changed_not_even_bits_that_no_byte_takes() -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for cursor in ({"after": 1}, {"after": 10}, {"after": 100}):
        token = PageTokens(KEY).encode(ANA, METHOD, arguments(), cursor)
        for other in alphabet.replace(token[-1], ""):
            refused(token[:-1] + other)


@pytest.mark.parametrize("token", ["", "x", "====", "é", "A" * 5000, "a b", "AAAA" * 20, "\x00"])
def test_what_is_no_token_is_refused(token: str) -> None:
    refused(token)


def test_a_cursor_that_is_too_long_is_a_fault_of_the_server() -> None:
    with pytest.raises(ValueError, match=f"at most {MAX_TOKEN_CHARACTERS}"):
        PageTokens(KEY).encode(ANA, METHOD, arguments(), {"after": "x" * 4000})


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 32"):
        PageTokens(b"short")
