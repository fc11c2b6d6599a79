"""Who calls: the token of a call verified, its principal's grants read, refused calls counted."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from memos_server.api.tokens import TokenSigner
from memos_server.errors import MipError
from memos_server.graph_dbs.base import AuditRow, PrincipalAccess, Reader, RecordStore, Writer
from memos_server.mem_cube.log import now_us

_LOG = logging.getLogger(__name__)
_SCHEME = "bearer "
_CACHED = 4096
_KEYS = 1000
_EVERY_US = 60_000_000

REFUSED = frozenset({"UNAUTHENTICATED", "TOKEN_INVALID", "TOKEN_EXPIRED", "TOKEN_REVOKED", "PERMISSION_DENIED"})


class Accounts:
    """Authenticates calls. What it remembers is valid for one generation of the record's access data."""

    def __init__(self, store: RecordStore, signer: TokenSigner) -> None:
        """Judges tokens of `signer` by the record in `store`."""
        self._store = store
        self._signer = signer
        self._generation: int | None = None
        self._known: dict[tuple[str, str], PrincipalAccess] = {}

    async def authenticate(self, metadata: Sequence[tuple[str, str | bytes]]) -> tuple[PrincipalAccess, str]:
        """Returns who calls, and the token's id.

        Args:
            metadata: The call's metadata.

        Raises:
            MipError: UNAUTHENTICATED, TOKEN_INVALID, TOKEN_EXPIRED, TOKEN_REVOKED.
        """
        values = [value for key, value in metadata if key == "authorization"]
        if not values:
            raise MipError("UNAUTHENTICATED", "The call carries no token")
        value = values[0] if len(values) == 1 else ""
        if not isinstance(value, str) or not value.lower().startswith(_SCHEME):
            raise MipError("TOKEN_INVALID", "The authorization metadata is not one bearer token")
        claims = self._signer.verify(value[len(_SCHEME) :].strip())
        return await self.access(claims.principal, claims.token_id), claims.token_id

    async def access(self, principal: str, token_id: str) -> PrincipalAccess:
        """Returns a principal's rights as they are now.

        Raises:
            MipError: TOKEN_REVOKED when the token is revoked, or the principal disabled or unknown.
        """
        generation = self._store.access_generation
        key = principal, token_id
        if generation is not None and generation == self._generation and key in self._known:
            return self._known[key]

        async def read(txn: Reader) -> tuple[PrincipalAccess, int]:
            return await txn.access(principal), await txn.token_revoked(token_id)

        access, revoked = await self._store.read(read, brief=True)
        if revoked or access.disabled or not access.known:
            raise MipError("TOKEN_REVOKED", "The token was revoked, or its principal disabled")
        if generation is not None:
            if generation != self._generation or len(self._known) >= _CACHED:
                self._known.clear()
                self._generation = generation
            self._known[key] = access
        return access


@dataclass(slots=True)
class _Count:
    waiting: int
    written: int


class RefusedCalls:
    """Counts refused calls and writes samples to the audit trail: one row a minute for each kind, never one a call."""

    def __init__(self, store: RecordStore) -> None:
        """Writes to `store`."""
        self._store = store
        self._counts: dict[tuple[str, str, str], _Count] = {}

    async def count(self, principal: str, method: str, reason: str) -> None:
        """Counts a refused call."""
        key = principal, method, reason
        if key not in self._counts and len(self._counts) >= _KEYS:
            key = "", "", reason
        now = now_us()
        entry = self._counts.setdefault(key, _Count(0, 0))
        entry.waiting += 1
        if now - entry.written < _EVERY_US:
            return
        waiting, entry.waiting, entry.written = entry.waiting, 0, now
        row = AuditRow(now, key[0], key[1], "server", reason, "refused", waiting)

        async def write(txn: Writer) -> None:
            await txn.put_audit(row)

        try:
            await self._store.write(write)
        except Exception:
            # The caller is refused for its own reason, whatever keeps the server from recording that.
            _LOG.exception("a refused call could not be recorded")
