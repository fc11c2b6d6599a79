"""Faults in who may do what: tokens, permissions on several resources, labels, grants, strangers, audit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from conformance.mutants.families import PERMISSION_CHECKS
from conformance.mutants.faults import Apply, after, everywhere, mutant, register, use_case
from conformance.mutants.servers import Patches
from memos_server._pb.mip.v1 import options_pb2
from memos_server._pb.mip.v1.access_pb2 import ROLE_ADMIN
from memos_server._pb.mip.v1.common_pb2 import SENSITIVITY_SECRET
from memos_server.api import accounts, endpoints, tokens
from memos_server.api import server as api_server
from memos_server.api.resources import Rule, rule_of
from memos_server.mem_os import access, commits, mutation, principals, render, sealing
from memos_server.mem_os.access import CubeView

_SECRETS = ("secrets*/*", "labels/*", "*secret*", "*hidden*", "*absent*", "grants*/*")
_SHOWN = (
    "secrets*/*",
    "fork-access/*",
    "labels/*",
    "grants*/*",
    "*access/*",
    "absent-and-forbidden/*",
    "merging-unseen/*",
)
_NOTHING_HIDDEN = ("GetCube", "VerifyCube", "GetSession", "ListSessions")
"""RPCs that read nothing with a label."""
_TOKENS = ("tokens/*", "revocation/*", "principals/*")


def _methods() -> list[Any]:
    return [method for service in api_server.services() for method in service.methods]


# Tokens.


@mutant("token-without-a-valid-signature", *_TOKENS)
def _forged(patches: Patches) -> None:
    """A token is believed whatever its signature."""
    import jwt

    def verified(self: Any, token: str, at: float) -> Any:
        try:
            claims = jwt.decode(token, options={"verify_signature": False})
            return tokens.Claims(claims["sub"], claims["jti"], claims["exp"])
        except (jwt.PyJWTError, KeyError, ValueError) as error:
            raise tokens._invalid() from error

    patches.set(tokens.TokenSigner, "_verified", verified)


@mutant("token-that-never-expires", *_TOKENS)
def _never_expires(patches: Patches) -> None:
    """A token holds for ever."""
    original = tokens.TokenSigner.verify

    def verify(self: Any, token: str, now: Any = None, before_check: Any = None) -> Any:
        claims = original(self, token, 0.0 if now is None else now, before_check)
        return claims._replace(expiry=2**52)

    patches.set(tokens, "CLOCK_LEEWAY_S", 2**60)
    patches.set(tokens.TokenSigner, "verify", verify)


@mutant("token-outlives-its-revocation", *_TOKENS)
def _revoked(patches: Patches) -> None:
    """A revoked token, and one of a disabled principal, is still accepted."""

    async def of(self: Any, principal: str, credentials: Any) -> Any:
        async def read(txn: Any) -> Any:
            return await txn.access(principal)

        return replace(await self._store.read(read), disabled=False)

    patches.set(accounts.Accounts, "access", of)


@mutant("no-token-needed", *_TOKENS)
def _no_token(patches: Patches) -> None:
    """A call without a token is made as the local administrator."""
    original = accounts.Accounts._claims

    def claims(self: Any, context: Any) -> Any:
        return original(self, context) or tokens.Claims("principals/local-admin", "0" * 36, 2**40)

    patches.set(accounts.Accounts, "_claims", claims)


# Permissions on what a request names.


def _names_of(rpc: str, chosen: Callable[[list[str]], list[str]]) -> Apply:
    """Returns a fault in which an RPC checks only some of the resources that its request names."""

    def apply(patches: Patches) -> None:
        def rule(method: Any) -> Rule:
            whole = rule_of(method)
            if method.name != rpc:
                return whole
            return whole._replace(resolve=lambda request: chosen(whole.resolve(request)))

        patches.set(endpoints, "rule_of", rule)

    return apply


for _method in _methods():
    _rule = rule_of(_method)
    _several = len(_rule.paths) > 1 or any("[]" in path for path in _rule.paths)
    if _several:
        _rpc = f"{_method.containing_service.name}.{_method.name}"
        register(
            f"only-the-first-resource-checked/{_rpc}",
            f"{_rpc} checks the permission on the first resource of its request alone.",
            _names_of(_method.name, lambda names: names[:1]),
            *PERMISSION_CHECKS,
        )
        register(
            f"the-last-resource-unchecked/{_rpc}",
            f"{_rpc} does not check the permission on the last resource of its request.",
            _names_of(_method.name, lambda names: names[:-1] or names),
            *PERMISSION_CHECKS,
        )


@mutant("reader-may-write", "permissions/*", "order-of-checks/*", "grants*/*")
def _reader_writes(patches: Patches) -> None:
    """A role of reader permits what that of writer does."""
    patches.set(access, "_NEEDED", {**access._NEEDED, options_pb2.PERMISSION_WRITE: 1})


@mutant("writer-may-administer", "permissions/*", "order-of-checks/*", "grants*/*")
def _writer_administers(patches: Patches) -> None:
    """A role of writer permits what that of administrator does."""
    patches.set(access, "_NEEDED", {**access._NEEDED, options_pb2.PERMISSION_ADMIN: 2})


@mutant("admin-of-a-cube-administers-the-server", "permissions/*", "order-of-checks/*", "grants*/*", "principals/*")
def _cube_admin(patches: Patches) -> None:
    """Who administers any cube administers the server."""

    def permits(original: Callable[..., bool], who: Any, permission: int, resource: str) -> bool:
        if permission == options_pb2.PERMISSION_SERVER_ADMIN:
            return any(role == ROLE_ADMIN for role, _ in who.grants.values())
        return original(who, permission, resource)

    patches.wrap(access, "permits", permits)


@mutant("everybody-creates-cubes", "permissions/*", "order-of-checks/*", "grants*/*", "cube*/*")
def _everybody_creates(patches: Patches) -> None:
    """Every principal may create and fork cubes."""
    original = access.permits

    def permits(who: Any, permission: int, resource: str) -> bool:
        return permission == options_pb2.PERMISSION_CREATE_CUBE or original(who, permission, resource)

    everywhere(patches, "permits", original, permits)


@mutant("grant-on-one-memory-opens-the-cube", "grants*/*", "secrets*/*", "labels/*")
def _memory_grant(patches: Patches) -> None:
    """A grant on one memory shows its whole cube."""
    original = access.view_of

    def view_of(who: Any, cube_id: str) -> CubeView:
        view = original(who, cube_id)
        return CubeView(1, max(view.granted.values()), view.granted) if view.granted and not view.rank else view

    everywhere(patches, "view_of", original, view_of)


@mutant("grant-above-ones-own-level", "grants*/*", "secrets*/*", "labels/*")
def _grant_above(patches: Patches) -> None:
    """A principal gives grants up to any level."""
    patches.set(principals, "_own_level", lambda call, resource: SENSITIVITY_SECRET)


@mutant("label-above-ones-own-level", "secrets*/*", "labels/*", "grants*/*")
def _label_above(patches: Patches) -> None:
    """A principal gives memories any label."""
    everywhere(patches, "require_level", access.require_level, lambda *args: None)


@mutant("lowest-grant-holds", "grants*/*", "secrets*/*", "labels/*")
def _lowest(patches: Patches) -> None:
    """Of several grants that cover a memory the lowest level holds."""
    patches.set(
        CubeView,
        "ceiling",
        lambda self, memory_id="": min(self.level or 9, self.granted.get(memory_id, self.level or 9)) % 9,
    )


@mutant("last-administrator-goes", "principals/*", "grants*/*")
def _last_admin(patches: Patches) -> None:
    """The last administrator of a server can be taken away."""

    async def unchecked(*args: Any) -> None:
        return None

    patches.set(principals, "_keep_an_admin", unchecked)


# What is hidden.


def _sees_everything(rpc: str, *, streams: bool) -> Apply:
    def cleared(call: Any) -> Any:
        cubes = {
            name: (role, SENSITIVITY_SECRET) if name.count("/") < 2 else (role, level)
            for name, (role, level) in call.access.grants.items()
        }
        if rpc.startswith("Purge"):
            # What derives from the erased content stands in other cubes.
            cubes["server"] = ROLE_ADMIN, SENSITIVITY_SECRET
        return replace(call, access=replace(call.access, grants=cubes))

    async def unary(original: Callable[..., Any], mos: Any, call: Any, request: Any) -> Any:
        return await original(mos, cleared(call), request)

    async def stream(original: Callable[..., Any], mos: Any, call: Any, request: Any) -> Any:
        async for frame in original(mos, cleared(call), request):
            yield frame

    return lambda patches: use_case(patches, rpc, stream if streams else unary)


for _method in _methods():
    _rule = rule_of(_method)
    if _method.name == "PurgeMemories" or (
        _rule.permission == options_pb2.PERMISSION_READ and _method.name not in _NOTHING_HIDDEN
    ):
        _rpc = f"{_method.containing_service.name}.{_method.name}"
        register(
            f"secret-shown/{_rpc}",
            f"{_rpc} shows memories above the caller's level.",
            _sees_everything(_method.name, streams=_method.server_streaming),
            *_SHOWN,
        )


@mutant("hidden-names-told", *_SECRETS, "merging/*")
def _hidden_names(patches: Patches) -> None:
    """merged_into and provenance name memories that the caller may not see."""

    async def nothing(*args: Any) -> bool:
        return False

    everywhere(patches, "hide_names", render.hide_names, nothing)


@mutant("past-judged-by-its-own-label", *_SECRETS)
def _past_label(patches: Patches) -> None:
    """A past version is judged by the label that it had, not by the present one too."""
    patches.set(CubeView, "sees", lambda self, version: version.sensitivity <= self.ceiling(version.id))


@mutant("label-not-inherited", *_SECRETS, "merging/*")
def _not_inherited(patches: Patches) -> None:
    """A memory that is made from others does not get their label."""

    async def asked(txn: Any, call: Any, cube: Any, memory: Any, label: int) -> int:
        return label or 2

    async def all_asked(txn: Any, call: Any, cube: Any, memories: Any) -> list[int]:
        return [label or 2 for _, label in memories]

    everywhere(patches, "inherited_sensitivity", sealing.inherited_sensitivity, asked)
    everywhere(patches, "inherited_sensitivities", sealing.inherited_sensitivities, all_asked)


@mutant("sealed-bytes-for-everybody", *_SECRETS, "digests/*", "sealing/*", "commits*/*", "changes/*")
def _sealed(patches: Patches) -> None:
    """Sealed commits and changes are sent to callers that may not see everything."""
    patches.set(commits, "_require_sealed", lambda call, cube_id, view: view == 2)


@mutant("hidden-changes-counted", *_SECRETS)
def _counted(patches: Patches) -> None:
    """change_count counts what the caller may not see, and every cause is shown."""
    for rpc in ("ListCommits", "GetCommit"):

        async def unary(original: Callable[..., Any], mos: Any, call: Any, request: Any) -> Any:
            shown = replace(call, access=replace(call.access, grants={**call.access.grants, "server": (ROLE_ADMIN, 4)}))
            return await original(mos, shown, request)

        use_case(patches, rpc, unary)


@mutant("statistics-of-hidden-memories", *_SECRETS, "search*/*")
def _statistics(patches: Patches) -> None:
    """Scores of words are computed over memories that the caller may not see as well."""
    from memos_server.mem_os import searching

    original = searching.IndexQuery

    def query(**fields: Any) -> Any:
        return original(**{**fields, "max_sensitivity": SENSITIVITY_SECRET})

    patches.set(searching, "IndexQuery", query)


# What a stranger learns.


@mutant("existing-cubes-answer-otherwise", "absent*/*", "*absent*", "permissions/*", "order-of-checks/*")
def _existing(patches: Patches) -> None:
    """The answer to who lacks the permission says of cubes that exist something else than of those that do not."""
    from memos_server.errors import MipError

    made: set[str] = set()

    async def create(original: Callable[..., Any], mos: Any, call: Any, request: Any) -> Any:
        response = await original(mos, call, request)
        made.add(response.cube.name)
        return response

    use_case(patches, "CreateCube", create)
    original = access.denied

    def denied(resource: str) -> MipError:
        error = original(resource)
        if "/".join(resource.split("/")[:2]) in made:
            error.message = f"you lack the permission for this call on {resource}"
        return error

    everywhere(patches, "denied", original, denied)


@mutant("hidden-memories-are-denied", "absent*/*", "*absent*", *_SECRETS)
def _hidden_denied(patches: Patches) -> None:
    """A memory above the caller's level is refused, one that does not exist not found."""
    from memos_server.mem_os import memories

    async def find(original: Callable[..., Any], txn: Any, call: Any, cube: Any, memory_id: str, *rest: Any) -> Any:
        from memos_server.graph_dbs.base import Kind

        found = await txn.versions(cube.key, Kind.MEMORY, [memory_id], *rest)
        if memory_id in found and not call.view(cube.id).sees(found[memory_id]):
            raise access.denied(memory_id)
        return await original(txn, call, cube, memory_id, *rest)

    original = memories.find
    everywhere(patches, "find", original, lambda *args: find(original, *args))


# Audit.


@mutant("audit-forgets-everything", "audit/*")
def _no_audit(patches: Patches) -> None:
    """Nothing that was done leaves an audit event."""

    async def nothing(*args: Any, **kwargs: Any) -> None:
        return None

    everywhere(patches, "audit", mutation.audit, nothing)


@mutant("audit-without-revisions", "audit/*")
def _audit_revisions(patches: Patches) -> None:
    """Audit events do not name the commit that the call made, nor who called."""

    def erase(response: Any) -> None:
        for event in response.events:
            event.ClearField("revision")
            event.ClearField("principal")

    after(patches, "ListAuditEvents", erase)
