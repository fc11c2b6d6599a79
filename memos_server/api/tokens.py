"""Access tokens: JSON Web Tokens (RFC 7519) signed with Ed25519 (RFC 8037), which this server issues to itself.

Only `EdDSA` with the server's own key verifies; `none`, HMAC and RSA are not even looked at. Whether a token was
revoked or its principal disabled is the record's knowledge and is judged at every call, outside this module.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import jwt
import uuid_utils
from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from memos_server import names
from memos_server._pb.mip.v1 import options_pb2
from memos_server.configs.errors import SetupError
from memos_server.configs.secret_files import create_secret, read_secret
from memos_server.errors import MipError

ALGORITHM: Final = "EdDSA"
"""The only accepted value of the header's `alg`."""

MAX_TOKEN_BYTES: Final = 4096
"""The longest token that is looked at."""

CLOCK_LEEWAY_S: Final = 30
"""How far `iat` and `nbf` may lie ahead of this server's clock, in seconds. Expiry has no leeway."""

CACHE_SIZE: Final = 4096
"""The number of verified tokens kept; a signature costs about 100 microseconds, a look-up less than one."""

_REQUIRED: Final = ["iss", "aud", "sub", "exp", "iat", "jti"]


class Claims(NamedTuple):
    """What a verified token says.

    Attributes:
        principal: The caller's name, `principals/{principal}`.
        id: The token's `jti`, a UUID, by which it is revoked.
        expiry: When it ends, whole seconds since the epoch.
    """

    principal: str
    id: str
    expiry: int


class IssuedToken(NamedTuple):
    """A new token.

    Attributes:
        token: The compact JWT.
        token_id: Its `jti`, a UUIDv7.
        expiry: When it ends, whole seconds since the epoch.
    """

    token: str
    token_id: str
    expiry: int


class TokenSigner:
    """Issues and verifies the tokens of one server. Safe to use from several threads."""

    def __init__(self, key: Ed25519PrivateKey, audience: str, cache_size: int = CACHE_SIZE) -> None:
        """Makes a signer.

        Args:
            key: The server's private key.
            audience: What tokens of this server name as `aud` and `iss`.
            cache_size: The most verified tokens to keep.
        """
        self.audience = audience
        self._key = key
        self._public_key = key.public_key()
        self._cache_size = cache_size
        self._cache: OrderedDict[bytes, Claims] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: Path, audience: str) -> TokenSigner:
        """Loads the private key, or makes it at the first start.

        Args:
            path: A PKCS #8 PEM file, readable by its owner only.
            audience: What tokens of this server name as `aud` and `iss`.

        Raises:
            SetupError: The file is readable by others, or holds no Ed25519 key.
        """
        if not path.exists():
            pem = Ed25519PrivateKey.generate().private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            create_secret(path, pem)
        try:
            key = serialization.load_pem_private_key(read_secret(path), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm, InternalError) as error:
            # The last two: where the damage lies in the number of the key's algorithm.
            raise SetupError(f"{path} holds no readable private key.", _NEW_KEY) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise SetupError(f"{path} holds a key that is not Ed25519.", _NEW_KEY)
        return cls(key, audience)

    def issue(self, principal: str, ttl_s: int, now: float | None = None) -> IssuedToken:
        """Returns a new token.

        Args:
            principal: Whom it is for, `principals/{principal}`.
            ttl_s: How long it holds, in seconds, above 0.
            now: Seconds since the epoch; None takes the clock's.

        Raises:
            MipError: INVALID_NAME.
        """
        names.parse_principal(principal)
        if ttl_s <= 0:
            raise ValueError("ttl_s must be above 0")
        issued_at = int(time.time() if now is None else now)
        token_id = str(uuid_utils.uuid7())
        expiry = issued_at + ttl_s
        claims = {
            "iss": self.audience,
            "aud": self.audience,
            "sub": principal,
            "iat": issued_at,
            "exp": expiry,
            "jti": token_id,
        }
        return IssuedToken(jwt.encode(claims, self._key, algorithm=ALGORITHM), token_id, expiry)

    def verify(self, token: str, now: float | None = None, before_check: Callable[[], None] | None = None) -> Claims:
        """Returns what a token says.

        Args:
            token: The compact JWT, as the caller sent it.
            now: Seconds since the epoch; None takes the clock's.
            before_check: Called before a signature is checked that was not seen before; what it raises ends the call.

        Raises:
            MipError: TOKEN_INVALID when it is malformed, forged or for another server; TOKEN_EXPIRED.
        """
        at = time.time() if now is None else now
        if len(token) > MAX_TOKEN_BYTES or not token.isascii():
            if before_check is not None:
                before_check()
            raise _invalid()
        digest = hashlib.sha256(token.encode("ascii")).digest()
        with self._lock:
            claims = self._cache.get(digest)
            if claims is not None:
                self._cache.move_to_end(digest)
        if claims is None:
            if before_check is not None:
                before_check()
            claims = self._verified(token, at)
            with self._lock:
                self._cache[digest] = claims
                if len(self._cache) > self._cache_size:
                    self._cache.popitem(last=False)
        if at >= claims.expiry:
            raise MipError("TOKEN_EXPIRED", "The token has expired", metadata={"expiry": str(claims.expiry)})
        return claims

    def _verified(self, token: str, at: float) -> Claims:
        try:
            # The times are judged below: PyJWT has one leeway for all three of them.
            claims: dict[str, Any] = jwt.decode(
                token,
                self._public_key,
                algorithms=[ALGORITHM],
                audience=self.audience,
                issuer=self.audience,
                options={"require": _REQUIRED, "verify_exp": False, "verify_iat": False, "verify_nbf": False},
            )
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise _invalid() from error
        expiry, principal, token_id = claims["exp"], claims["sub"], claims["jti"]
        starts = [claims["iat"], claims.get("nbf", 0)]
        if not all(type(moment) is int and 0 <= moment < 2**53 for moment in (expiry, *starts)):
            raise _invalid()
        if max(starts) > at + CLOCK_LEEWAY_S:
            raise _invalid()
        if not names.matches(options_pb2.FORMAT_PRINCIPAL_NAME, principal) or not names.matches(
            options_pb2.FORMAT_UUID, token_id
        ):
            raise _invalid()
        return Claims(principal, token_id, expiry)


_NEW_KEY: Final = "Restore the file from a backup, or remove it: a new key is made, and tokens issued so far end."


def _invalid() -> MipError:
    # One message for all causes: what is wrong with a forged token is nobody's business.
    return MipError("TOKEN_INVALID", "The token is not one that this server issued")


def audience_of(path: Path) -> str:
    """Returns the audience of a server's tokens: `mip:` and the first 16 hexadecimal digits of SHA-256 over the public
    key, so that a token of one server means nothing to another.

    Raises:
        SetupError: The file holds no usable key.
    """
    key = TokenSigner.open(path, "")._public_key
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return f"mip:{hashlib.sha256(raw).hexdigest()[:16]}"
