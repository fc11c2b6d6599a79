"""Access tokens: what verifies, what does not, and how the key is kept."""

from __future__ import annotations

import base64
import json
import os
import time
import uuid
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from memos_server.api.tokens import TokenSigner
from memos_server.configs.errors import SetupError
from memos_server.errors import MipError

NOW = 1_800_000_000
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
JTI = "0198c5a2-7f3e-7c41-9a52-3d1f0b6e8c77"


@pytest.fixture
def signer() -> TokenSigner:
    return TokenSigner(KEY, "mip:here")


def claims(**changes: object) -> dict[str, object]:
    made: dict[str, object] = {
        "iss": "mip:here",
        "aud": "mip:here",
        "sub": "principals/ana",
        "iat": NOW,
        "exp": NOW + 60,
        "jti": JTI,
    }
    made.update(changes)
    return {key: value for key, value in made.items() if value is not None}


def signed(**changes: object) -> str:
    return jwt.encode(claims(**changes), KEY, algorithm="EdDSA")


def refused(signer: TokenSigner, token: str, reason: str = "TOKEN_INVALID", now: float = NOW) -> None:
    with pytest.raises(MipError) as caught:
        signer.verify(token, now)
    assert caught.value.reason == reason


def test_an_issued_token_verifies_until_it_expires(signer: TokenSigner) -> None:
    issued = signer.issue("principals/ana", 60, now=NOW + 0.7)
    assert issued.expiry == NOW + 60
    assert uuid.UUID(issued.token_id).version == 7
    assert signer.verify(issued.token, NOW + 59.9) == ("principals/ana", issued.token_id, NOW + 60)
    refused(signer, issued.token, "TOKEN_EXPIRED", NOW + 60)
    refused(TokenSigner(KEY, "mip:here"), issued.token, "TOKEN_EXPIRED", NOW + 60)


def test_the_clock_is_the_servers_when_none_is_given(signer: TokenSigner) -> None:
    assert signer.verify(signer.issue("principals/ana", 60).token).expiry > time.time() + 50


def test_the_clocks_of_two_servers_may_differ_by_half_a_minute(signer: TokenSigner) -> None:
    signer.verify(signed(iat=NOW + 30), NOW)
    refused(signer, signed(iat=NOW + 31))
    signer.verify(signed(nbf=NOW + 30), NOW)
    refused(signer, signed(nbf=NOW + 31))


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "mip:other"},
        {"aud": "mip:other"},
        {"iss": None},
        {"aud": None},
        {"sub": None},
        {"exp": None},
        {"iat": None},
        {"jti": None},
        {"sub": "ana"},
        {"sub": 5},
        {"sub": "principals/../x"},
        {"jti": "1"},
        {"jti": 5},
        {"exp": "soon"},
        {"exp": True},
        {"exp": 1e400},
        {"exp": NOW + 0.5},
        {"exp": -1},
        {"iat": [1]},
        {"nbf": "x"},
        {"aud": {"a": 1}},
    ],
)
def test_a_token_with_wrong_claims_is_invalid(signer: TokenSigner, changes: dict[str, object]) -> None:
    refused(signer, signed(**changes))


def test_only_eddsa_with_the_servers_key_verifies(signer: TokenSigner) -> None:
    public = KEY.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    refused(signer, jwt.encode(claims(), Ed25519PrivateKey.generate(), algorithm="EdDSA"))
    refused(signer, jwt.encode(claims(), None, algorithm="none"))
    refused(signer, jwt.encode(claims(), public, algorithm="HS256"))
    refused(signer, jwt.encode(claims(), ec.generate_private_key(ec.SECP256R1()), algorithm="ES256"))
    refused(signer, jwt.encode(claims(), rsa.generate_private_key(65537, 2048), algorithm="RS256"))


def test_no_part_of_a_token_can_be_changed(signer: TokenSigner) -> None:
    header, _, signature = signed().split(".")
    body = base64.urlsafe_b64encode(json.dumps(claims(sub="principals/bo")).encode()).rstrip(b"=").decode()
    refused(signer, f"{header}.{body}.{signature}")
    refused(signer, signed()[:-4])


@pytest.mark.parametrize("token", ["", ".", "..", "a.b.c", "é.é.é", "x" * 5000, "[" * 4000, "\x00"])
def test_what_is_no_token_is_invalid(signer: TokenSigner, token: str) -> None:
    refused(signer, token)


def test_the_cache_is_bounded_and_does_not_remember_forgeries(signer: TokenSigner) -> None:
    small = TokenSigner(KEY, "mip:here", cache_size=2)
    tokens = [signed(jti=str(uuid.UUID(int=number))) for number in range(5)]
    for token in [*tokens, *tokens]:
        small.verify(token, NOW)
    assert len(small._cache) == 2
    refused(small, tokens[0][:-4] + "AAAA")
    assert len(small._cache) == 2


def test_a_cached_token_is_verified_much_faster(signer: TokenSigner) -> None:
    token = signed()
    signer.verify(token, NOW)
    begun = time.perf_counter()
    for _ in range(1000):
        signer.verify(token, NOW)
    assert time.perf_counter() - begun < 0.1  # measured: about 2 ms; uncached about 100


def test_the_key_is_made_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "token.ed25519.pem"
    first = TokenSigner.open(path, "mip:here")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    issued = first.issue("principals/ana", 60)
    assert TokenSigner.open(path, "mip:here").verify(issued.token).principal == "principals/ana"
    assert os.listdir(path.parent) == ["token.ed25519.pem"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key.pem"
    TokenSigner.open(path, "a")
    path.chmod(mode)
    with pytest.raises(SetupError, match=f"mode {mode:04o}.*chmod 600"):
        TokenSigner.open(path, "a")


def test_a_file_without_an_ed25519_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(b"nonsense")
    path.chmod(0o600)
    with pytest.raises(SetupError, match="no readable private key"):
        TokenSigner.open(path, "a")
    path.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    with pytest.raises(SetupError, match="not Ed25519"):
        TokenSigner.open(path, "a")


def test_damage_of_the_number_of_the_keys_algorithm_is_refused_as_such(tmp_path: Path) -> None:
    """The library knows another algorithm by that number, or none, or fails: each is an exception of its own."""
    pem = KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = tmp_path / "key.pem"
    path.touch(0o600)
    for place in range(38, 46):
        for letter in set(range(256)) - {pem[place]}:
            path.write_bytes(pem[:place] + bytes([letter]) + pem[place + 1 :])
            with pytest.raises(SetupError, match=r"no readable private key|not Ed25519"):
                TokenSigner.open(path, "a")


def test_a_link_in_place_of_the_key_is_refused(tmp_path: Path) -> None:
    real = tmp_path / "real.pem"
    TokenSigner.open(real, "a")
    (tmp_path / "link.pem").symlink_to(real)
    with pytest.raises(SetupError, match="cannot be read"):
        TokenSigner.open(tmp_path / "link.pem", "a")


def test_wrong_arguments_of_issue_are_refused(signer: TokenSigner) -> None:
    with pytest.raises(MipError, match="INVALID_NAME"):
        signer.issue("ana", 60)
    with pytest.raises(ValueError, match="above 0"):
        signer.issue("principals/ana", 0)
