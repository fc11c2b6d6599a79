"""Faults in what comes before the work: bounds, the order of checks, what an error tells, what is open to everybody."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from google.protobuf.message import Message

from conformance.mutants.faults import after, before, everywhere, mutant, use_case
from conformance.mutants.servers import Patches
from memos_server._pb.mip.v1 import options_pb2
from memos_server._pb.mip.v1.access_pb2 import ROLE_ADMIN
from memos_server._pb.mip.v1.common_pb2 import SENSITIVITY_SECRET
from memos_server._pb.mip.v1.server_service_pb2 import UNKNOWN_FIELDS_REFUSED
from memos_server.api import endpoints, open_services
from memos_server.api import server as api_server
from memos_server.errors import MipError, invalid_field, option
from memos_server.mem_os import access, sealing, searching

_ORDER = ("order-of-checks/*", "errors/*", "*limits/*", "names/*")
_PERMISSIONS = ("permissions/*", "grants*/*", "order-of-checks/*", "absent-and-forbidden/*")


def _mutations() -> Iterator[str]:
    for service in api_server.services():
        for method in service.methods:
            if "request_id" in method.input_type.fields_by_name:
                yield method.name


@mutant("bounds-one-too-small", "*limits/*")
def _bounds(patches: Patches) -> None:
    """A text, bytes or a list as long as its bound is refused."""
    original = endpoints.validate

    def validate(request: Message) -> None:
        original(request)
        _refuse_full(request, "")

    patches.set(endpoints, "validate", validate)


def _refuse_full(message: Message, path: str) -> None:
    for descriptor, value in message.ListFields():
        limit: options_pb2.Limit = option(descriptor.GetOptions(), options_pb2.limit)
        if limit.max_items and len(value) >= limit.max_items:
            raise invalid_field(f"{path}{descriptor.name}", "has too many", "TOO_MANY_ITEMS")
        for item in value if descriptor.is_repeated else [value]:
            name = f"{path}{descriptor.name}"
            if isinstance(item, Message):
                _refuse_full(item, f"{name}.")
            elif isinstance(item, str | bytes) and limit.max_bytes:
                size = len(item.encode() if isinstance(item, str) else item)
                if size >= limit.max_bytes:
                    raise invalid_field(name, "is too long", "FIELD_TOO_LARGE")


@mutant("request-id-of-one-version-alone", "names/*", "*request-ids/*", "*limits/*")
def _uuid4(patches: Patches) -> None:
    """Only a UUIDv4 in lower case is taken for a request_id."""
    four = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

    def strict(request: Any) -> None:
        if request.request_id and not four.fullmatch(request.request_id):
            raise invalid_field("request_id", "is no UUIDv4")

    for rpc in _mutations():
        before(patches, rpc, strict)


@mutant("permission-before-bounds", *_ORDER)
def _late_bounds(patches: Patches) -> None:
    """Who lacks the permission is told so before the request is held to its bounds."""
    original = endpoints.validate
    authorize = endpoints.Endpoint._authorize

    def late(self: Any, call: Any, request: Message) -> None:
        authorize(self, call, request)
        original(request)

    patches.set(endpoints, "validate", lambda request: None)
    patches.set(endpoints.Endpoint, "_authorize", late)


@mutant("denied-is-not-found", *_ORDER, *_PERMISSIONS)
def _denied_not_found(patches: Patches) -> None:
    """Who lacks the permission on a cube is told that it does not exist."""

    def denied(resource: str) -> MipError:
        return MipError("CUBE_NOT_FOUND", f"{resource} does not exist")

    everywhere(patches, "denied", access.denied, denied)


@mutant("expectations-before-existence", *_ORDER)
def _expectations(patches: Patches) -> None:
    """A stale etag or revision is told before that the memory does not exist."""

    async def early(original: Callable[..., Any], mos: Any, call: Any, request: Any) -> Any:
        try:
            return await original(mos, call, request)
        except MipError as error:
            if not error.reason.endswith("_NOT_FOUND"):
                raise
            if getattr(request, "expected_revision", 0):
                raise MipError("REVISION_MISMATCH", "the revision is another") from None
            raise MipError("ETAG_MISMATCH", "the etag is another") from None

    for rpc in _mutations():
        use_case(patches, rpc, early)


@mutant("errors-with-the-token", *_ORDER, "tokens/*")
def _token_told(patches: Patches) -> None:
    """The message of an error repeats the caller's metadata, its token among it."""
    original = endpoints.Endpoint._fail

    async def fail(self: Any, context: Any, call: Any, error: Exception) -> None:
        sent = dict(context.invocation_metadata() or ()).get("authorization", "")
        if isinstance(error, MipError):
            error.message = f"{error.message}: {sent}"
        await original(self, context, call, error)

    patches.set(endpoints.Endpoint, "_fail", fail)


@mutant("health-and-reflection-missing", "declarations/*")
def _no_open_services(patches: Patches) -> None:
    """Neither health nor reflection is served."""
    patches.set(open_services.OpenServices, "service", lambda self, details: None)


@mutant("capabilities-for-the-first-stranger", "declarations/*", "tokens/*")
def _capabilities_once(patches: Patches) -> None:
    """GetCapabilities answers a caller without a token once, and then no more."""
    asked = iter(range(10**9))

    async def once(original: Callable[..., Any], mos: Any, call: Any, request: Any) -> Any:
        if next(asked):
            raise MipError("UNAUTHENTICATED", "who asks?")
        return await original(mos, call, request)

    use_case(patches, "GetCapabilities", once)


@mutant("capabilities-without-sense", "declarations/*", "bulk-add/*", "request-ids/*", "*limits/*")
def _capabilities_wrong(patches: Patches) -> None:
    """What GetCapabilities declares of limits and models cannot be: ids are forgotten at once, models have no size."""

    def change(response: Any) -> None:
        response.limits.request_id_retention_seconds = 60
        response.limits.max_bulk_memories = 0
        response.limits.max_bulk_bytes = 0
        response.embedding_models.add(name="", dimension=0, is_default=True)
        response.embedding_models.add(name="", dimension=0, is_default=True)

    after(patches, "GetCapabilities", change)


@mutant("content-in-the-statistics", "server-stats/*")
def _stats_tell(patches: Patches) -> None:
    """GetServerStats tells what was added last, and the names of cubes."""
    told: list[str] = []

    async def add(original: Callable[..., Any], mos: Any, call: Any, request: Any) -> Any:
        told.extend(memory.plaintext.text for memory in request.memories)
        response = await original(mos, call, request)
        told.extend(memory.name for memory in response.memories)
        return response

    def tell(response: Any) -> None:
        for word in told:
            response.dependencies.add(name=word)

    use_case(patches, "AddMemories", add)
    after(patches, "GetServerStats", tell)


@mutant("something-in-what-is-empty", "search*/*", "reading-memories/*", "*pages/*", "filter*/*")
def _never_empty(patches: Patches) -> None:
    """A list or search without results returns one that is empty."""
    after(patches, "SearchMemories", lambda response: None if response.hits else response.hits.add() and None)
    after(patches, "ListMemories", lambda response: None if response.memories else response.memories.add() and None)


@mutant("administrator-of-the-server-needs-grants", *_PERMISSIONS)
def _no_server_admin(patches: Patches) -> None:
    """Who administers the server has no rights on cubes that others made."""
    original = access.permits

    def permits(who: Any, permission: int, resource: str) -> bool:
        if resource.startswith("cubes/") and not any(name.startswith("cubes/") for name in who.grants):
            return False
        return original(who, permission, resource)

    everywhere(patches, "permits", original, permits)


@mutant("grant-on-one-memory-opens-nothing-of-its-cube", *_PERMISSIONS)
def _no_guests(patches: Patches) -> None:
    """Who has a grant on one memory may not call what reads its cube."""
    original = access.permits

    def permits(who: Any, permission: int, resource: str) -> bool:
        if "/memories/" not in resource and resource.startswith("cubes/") and resource not in who.grants:
            return access.is_server_admin(who)
        return original(who, permission, resource)

    everywhere(patches, "permits", original, permits)


@mutant("guest-of-one-memory-sees-all-names", "grants*/*", "search-access/*", "secrets*/*")
def _guest_lists(patches: Patches) -> None:
    """Lists, searches and walks show to who has a grant on one memory the others up to the same level."""
    original = access.view_of

    def view_of(who: Any, cube_id: str) -> Any:
        view = original(who, cube_id)
        return replace(view, rank=1, level=SENSITIVITY_SECRET) if view.granted and not view.rank else view

    everywhere(patches, "view_of", original, view_of)


@mutant("hidden-sources-raise-labels", "labels/*", "secrets*/*")
def _hidden_sources(patches: Patches) -> None:
    """A memory that names a hidden one as its source gets that one's label."""
    original = sealing.inherited_sensitivity

    async def inherited(txn: Any, call: Any, *args: Any) -> int:
        seeing = replace(call, access=replace(call.access, grants={"server": (ROLE_ADMIN, SENSITIVITY_SECRET)}))
        return await original(txn, seeing, *args)

    everywhere(patches, "inherited_sensitivity", original, inherited)


@mutant("grant-on-one-memory-opens-nothing", *_PERMISSIONS)
def _no_memory_grants(patches: Patches) -> None:
    """Who has a grant on one memory may not call what is about that memory."""
    original = access.permits

    def permits(who: Any, permission: int, resource: str) -> bool:
        of_cubes = {name: grant for name, grant in who.grants.items() if "/memories/" not in name}
        seen = replace(who, grants=of_cubes) if "/memories/" in resource else who
        return original(seen, permission, resource)

    everywhere(patches, "permits", original, permits)


@mutant("every-principal-reads", *_PERMISSIONS, "principals/*", "audit/*")
def _all_read(patches: Patches) -> None:
    """Every principal may read every cube."""
    permits, view_of = access.permits, access.view_of

    def permitted(who: Any, permission: int, resource: str) -> bool:
        return permission == options_pb2.PERMISSION_READ or permits(who, permission, resource)

    def view(who: Any, cube_id: str) -> Any:
        seen = view_of(who, cube_id)
        return seen if seen.rank else replace(seen, rank=1, level=SENSITIVITY_SECRET)

    everywhere(patches, "permits", permits, permitted)
    everywhere(patches, "view_of", view_of, view)


@mutant("errors-with-content", "errors/*")
def _content_told(patches: Patches) -> None:
    """The message of an error repeats the request."""
    asked: ContextVar[str] = ContextVar("asked", default="")
    checked, fail = endpoints.Endpoint._checked, endpoints.Endpoint._fail

    def remember(self: Any, raw: bytes) -> Message:
        asked.set(raw.decode(errors="replace"))
        return checked(self, raw)

    async def told(self: Any, context: Any, call: Any, error: Exception) -> None:
        if isinstance(error, MipError):
            error.message = f"{error.message}: {asked.get()}"
        await fail(self, context, call, error)

    patches.set(endpoints.Endpoint, "_checked", remember)
    patches.set(endpoints.Endpoint, "_fail", told)


@mutant("unknown-enum-values-pass", "settled*/*", "*limits/*")
def _enums(patches: Patches) -> None:
    """A value that an enum does not have is taken for none."""
    original = endpoints.validate

    def validate(request: Message) -> None:
        _without_unknown(request)
        original(request)

    patches.set(endpoints, "validate", validate)


def _without_unknown(message: Message) -> None:
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None:
            for item in value if descriptor.is_repeated else [value]:
                if isinstance(item, Message):
                    _without_unknown(item)
        elif descriptor.enum_type is None or descriptor.is_repeated:
            continue
        elif value not in descriptor.enum_type.values_by_number:
            message.ClearField(descriptor.name)


@mutant("vectors-from-nowhere", "settled*/*", "update-masks/*", "search*/*", "values/*")
def _vectors_from_nowhere(patches: Patches) -> None:
    """GetMemory shows a vector of a memory that has none, asked for or not."""

    def invent(response: Any) -> None:
        if not response.memory.vectors:
            response.memory.vectors.add(model="nowhere", dtype=1, dimension=1, data=bytes(4))

    after(patches, "GetMemory", invent)


@mutant("works-more-than-it-declares", "declarations/*", "search-hybrid/*", "search-requests/*")
def _declares_less(patches: Patches) -> None:
    """What GetCapabilities leaves out works all the same: services and levels, modes of search, the past, payloads."""

    def change(response: Any) -> None:
        kept = [
            name for name in response.services if name.endswith((".ServerService", ".CubeService", ".MemoryService"))
        ]
        del response.services[:]
        response.services.extend(kept)
        del response.levels[:]
        response.levels.append("core")
        del response.features[:]
        del response.payloads[:]
        response.payloads.append("plaintext")
        response.unknown_fields = UNKNOWN_FIELDS_REFUSED

    after(patches, "GetCapabilities", change)


@mutant("hybrid-search-by-words-alone", "search-hybrid/*", embeds=True)
def _by_words(patches: Patches) -> None:
    """A hybrid search does not embed its query, and does not say so."""

    async def nothing(*args: Any) -> None:
        return None

    patches.set(searching, "_vectors", nothing)


@mutant("declares-nothing-and-works", "declarations/*")
def _declares_nothing(patches: Patches) -> None:
    """GetCapabilities declares no service and no level, and everything works."""

    def change(response: Any) -> None:
        del response.services[:]
        del response.levels[:]

    after(patches, "GetCapabilities", change)


@mutant("declares-a-bound-that-it-does-not-keep", "bulk-add/*")
def _declares_bound(patches: Patches) -> None:
    """A stream may hold more memories than GetCapabilities declares."""

    def change(response: Any) -> None:
        response.limits.max_bulk_memories = 1000

    after(patches, "GetCapabilities", change)


@mutant("secret-found-by-its-meaning", "secrets/*", embeds=True)
def _found_by_meaning(patches: Patches) -> None:
    """A search by words on a server that embeds shows memories above the caller's level."""

    async def cleared(original: Callable[..., Any], mos: Any, call: Any, request: Any) -> Any:
        grants = {name: (role, SENSITIVITY_SECRET) for name, (role, _) in call.access.grants.items()}
        return await original(mos, replace(call, access=replace(call.access, grants=grants)), request)

    use_case(patches, "SearchMemories", cleared)
