"""Digests and commitments of the log, as docs/spec/digests.md defines them.

The chain holds no content digest in the clear: it holds SHA-256(salt || content digest), and salt and digest are erased
together with the content. So nobody can guess a purged "PIN is 4417" back from the log.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable

SALT_BYTES = 32


def new_salt() -> bytes:
    """Returns 32 random bytes."""
    return secrets.token_bytes(SALT_BYTES)


def new_salts(count: int) -> list[bytes]:
    """Returns so many salts, for one call of the system's random source, which costs more than all else of a salt."""
    drawn = secrets.token_bytes(SALT_BYTES * count)
    return [drawn[start : start + SALT_BYTES] for start in range(0, len(drawn), SALT_BYTES)]


def content_digest(payload: bytes) -> bytes:
    """Returns SHA-256 over the exact bytes of a sealed content."""
    return hashlib.sha256(payload).digest()


def commitment(salt: bytes, digest: bytes) -> bytes:
    """Returns SHA-256(salt || content digest)."""
    return hashlib.sha256(salt + digest).digest()


def change_digest(change: bytes) -> bytes:
    """Returns SHA-256 over the exact bytes of a change."""
    return hashlib.sha256(change).digest()


def changes_digest(change_digests: Iterable[bytes]) -> bytes:
    """Returns SHA-256 over the concatenated digests of a commit's changes, in order."""
    digest = hashlib.sha256()
    for item in change_digests:
        digest.update(item)
    return digest.digest()


def commit_digest(header: bytes) -> bytes:
    """Returns SHA-256 over the exact bytes of a sealed commit header."""
    return hashlib.sha256(header).digest()
