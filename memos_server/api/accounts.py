"""Who calls: the token or the certificate of a call verified, its principal's grants read, refused calls counted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

from memos_server.api.certificates import Certificate, PeerCertificates
from memos_server.api.quotas import Quotas
from memos_server.api.tokens import Claims, TokenSigner
from memos_server.errors import MipError
from memos_server.graph_dbs.base import AuditRow, PrincipalAccess, Reader, RecordStore, Writer
from memos_server.mem_cube.log import now_us

_LOG = logging.getLogger(__name__)
_SCHEME = "bearer "
_CACHED = 4096
_KEYS = 1000
_EVERY_US = 60_000_000

REFUSED = frozenset(
    {"UNAUTHENTICATED", "TOKEN_INVALID", "TOKEN_EXPIRED", "TOKEN_REVOKED", "PERMISSION_DENIED", "QUOTA_EXCEEDED"}
)


class Peer(Protocol):
    """What of gRPC's context tells who calls."""

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """Returns the call's metadata."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Returns what the transport verified."""

    def peer(self) -> str:
        """Returns the peer's address."""


class Caller(NamedTuple):
    """Who calls.

    Attributes:
        access: The principal with its grants.
        credentials: The ids of the token and of the certificate that say so; revoking one ends the call's right.
        expiry: When the first of them ends, seconds since the epoch.
    """

    access: PrincipalAccess
    credentials: tuple[str, ...]
    expiry: float


class Accounts:
    """Authenticates calls. What it remembers is valid for one generation of the record's access data."""

    def __init__(
        self, store: RecordStore, signer: TokenSigner, quotas: Quotas, *, client_certificates: bool = False
    ) -> None:
        """Judges tokens of `signer`, and certificates, by the record in `store`.

        Args:
            store: The record.
            signer: Verifies tokens.
            quotas: Bound what callers without an identity cost.
            client_certificates: True where the transport has verified every peer's certificate.
        """
        self._store = store
        self._signer = signer
        self._quotas = quotas
        self._certificates = PeerCertificates() if client_certificates else None
        self._generation: int | None = None
        self._known: dict[tuple[str, tuple[str, ...]], PrincipalAccess] = {}

    async def authenticate(self, context: Peer) -> Caller:
        """Returns who calls: the principal that the token names, or the client certificate, or both alike.

        Args:
            context: The call's context.

        Raises:
            MipError: UNAUTHENTICATED, TOKEN_INVALID, TOKEN_EXPIRED, TOKEN_REVOKED, QUOTA_EXCEEDED.
        """
        certificate = self._certificate(context)
        claims = self._claims(context)
        shown = [each for each in (claims, certificate) if each is not None]
        # A certificate that names nobody admits to the server, and the token alone says who calls.
        principals = {each.principal for each in shown if each.principal}
        if not principals:
            self._quotas.stranger(context.peer())
            raise MipError("UNAUTHENTICATED", "The call carries no token")
        if len(principals) > 1:
            raise MipError("TOKEN_INVALID", "The token and the certificate are of two principals")
        credentials = tuple(each.id for each in shown)
        return Caller(await self.access(principals.pop(), credentials), credentials, min(each.expiry for each in shown))

    def _certificate(self, context: Peer) -> Certificate | None:
        if self._certificates is None:
            return None
        return self._certificates.of_peer(context.auth_context(), time.time())

    def _claims(self, context: Peer) -> Claims | None:
        values = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
        if not values:
            return None
        value = values[0] if len(values) == 1 else ""
        if not isinstance(value, str) or not value.lower().startswith(_SCHEME):
            self._quotas.stranger(context.peer())
            raise MipError("TOKEN_INVALID", "The authorization metadata is not one bearer token")
        # A signature costs a hundred times what a look-up does: only so many unknown ones are checked for one address.
        return self._signer.verify(
            value[len(_SCHEME) :].strip(), before_check=lambda: self._quotas.stranger(context.peer())
        )

    async def access(self, principal: str, credentials: Sequence[str]) -> PrincipalAccess:
        """Returns a principal's rights as they are now.

        Args:
            principal: The name.
            credentials: The ids of what the caller showed.

        Raises:
            MipError: TOKEN_REVOKED when one of them is revoked, or the principal disabled or unknown.
        """
        generation = self._store.access_generation
        key = principal, tuple(credentials)
        if generation is not None and generation == self._generation and key in self._known:
            return self._known[key]

        async def read(txn: Reader) -> PrincipalAccess:
            return await txn.access(principal, credentials)

        access = await self._store.read(read, brief=True)
        if access.revoked or access.disabled or not access.known:
            raise MipError("TOKEN_REVOKED", "The token or certificate was revoked, or its principal disabled")
        if generation is not None:
            if generation != self._generation or len(self._known) >= _CACHED:
                self._known.clear()
                self._generation = generation
            self._known[key] = access
        return access


def require_unexpired(expiry: float) -> None:
    """Ends a stream whose caller's token or certificate has run out meanwhile.

    Args:
        expiry: Seconds since the epoch.

    Raises:
        MipError: TOKEN_EXPIRED.
    """
    if time.time() >= expiry:
        raise MipError("TOKEN_EXPIRED", "The token or certificate has expired", metadata={"expiry": str(int(expiry))})


@dataclass(slots=True)
class _Count:
    waiting: int
    written: int


_Kind: TypeAlias = tuple[str, str, str]


class RefusedCalls:
    """Counts refused calls and writes samples to the audit trail: one row a minute for each kind, never one a call."""

    def __init__(self, store: RecordStore) -> None:
        """Writes to `store`."""
        self._store = store
        self._counts: dict[_Kind, _Count] = {}
        self._writing: set[asyncio.Task[None]] = set()

    async def count(self, principal: str, method: str, reason: str) -> None:
        """Counts a refused call."""
        key = principal, method, reason
        if key not in self._counts and len(self._counts) >= _KEYS:
            key = "", "", reason
        entry = self._counts.setdefault(key, _Count(0, 0))
        entry.waiting += 1
        if now_us() - entry.written >= _EVERY_US:
            await self._write([key])

    async def write_due(self) -> None:
        """Writes what has waited for a minute: after a burst nobody may call whose call would write it."""
        before = now_us() - _EVERY_US
        await self._write([key for key, entry in self._counts.items() if entry.waiting and entry.written <= before])

    async def write_all(self) -> None:
        """Writes everything, before the server ends."""
        await asyncio.gather(*self._writing)
        await self._write([key for key, entry in self._counts.items() if entry.waiting])

    async def _write(self, kinds: Sequence[_Kind]) -> None:
        if not kinds:
            return
        now = now_us()
        counts = [(kind, self._counts[kind].waiting) for kind in kinds]
        for kind in kinds:
            # A write that fails is tried again after a minute too.
            self._counts[kind].waiting, self._counts[kind].written = 0, now
        task = asyncio.create_task(self._record(now, counts))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        # A caller that goes away does not undo the write.
        await asyncio.shield(task)

    async def _record(self, now: int, counts: Sequence[tuple[_Kind, int]]) -> None:
        async def write(txn: Writer) -> None:
            for (principal, method, reason), count in counts:
                await txn.put_audit(AuditRow(now, principal, method, "server", reason, "refused", count))

        try:
            await self._store.write(write)
        except Exception:
            # The caller is refused for its own reason, whatever keeps the server from recording that.
            _LOG.exception("refused calls could not be recorded")
            for kind, count in counts:
                self._counts[kind].waiting += count
