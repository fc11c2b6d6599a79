"""`memos doctor`: examines record, index and blobs, in a data folder or in engines, and makes what is derived anew."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from memos_server import names
from memos_server._pb.mip.v1.cube_service_pb2 import (
    Finding,
    ListCubesRequest,
    ListCubesResponse,
    VerifyCubeRequest,
    VerifyCubeResponse,
)
from memos_server.api.server import DEPENDENCY
from memos_server.api.status import from_exception
from memos_server.configs import tls
from memos_server.configs.data_folder import PAGE_KEY_BYTES, DataFolder, ServerInfo
from memos_server.configs.errors import SetupError
from memos_server.configs.secret_files import read_secret
from memos_server.configs.settings import MetricsSettings, Settings, TlsSettings, TracingSettings
from memos_server.doctor_channel import channel_to
from memos_server.doctor_engines import ENGINES, absent, is_shared, remedy, stand_ins
from memos_server.errors import MipError
from memos_server.graph_dbs.base import CubeRow, PrincipalAccess, Reader
from memos_server.index_upkeep import opened, rebuild
from memos_server.main import LOCAL_ADMIN, load_embedder, serving
from memos_server.mem_os.context import Call, Mos
from memos_server.mem_os.verify_holdings import BLOBS_AWAY, INDEX_AWAY
from memos_server.mem_os.verifying import verify_cube
from memos_server.mem_os.vitals import DEPENDENCIES

_STEP = 500
_INDEX_WAIT_S = 3600.0
_ANSWER_S = 5.0
_RESTORE = "Restore a backup into a new folder: memos restore BACKUP --data DIR."
_REMEDIES = {
    "STORAGE_FULL": "Free some space on the disk; nothing acknowledged was lost.",
    "BACKEND_UNAVAILABLE": "Look for errors of the disk in the system's log; nothing was changed.",
}
_FINDINGS = {
    "index": "memos doctor --repair",
    "blob": "Put the blob's file back from a backup, or upload its bytes again (memos blob put).",
}
_ONLINE_S = 3600.0
_NAMED = 20


class Check(NamedTuple):
    """One thing that was examined.

    Attributes:
        name: What.
        status: `ok`, `warn`, `fail` or `repaired`.
        message: What was found.
        remedy: What to do; empty when nothing.
    """

    name: str
    status: str
    message: str
    remedy: str = ""


async def examine(settings: Settings, *, repair: bool = False) -> list[Check]:
    """Examines a data folder. A folder that a server uses is left to that server, but for what needs no lock.

    Args:
        settings: The settings; the folder is `settings.data`.
        repair: True makes anew what is derived and damaged: indexes, the key of page tokens.
    """
    model, missing = load_embedder(settings)
    if model is None:
        checks = [Check("model", "warn", missing, "memos models add minilm")]
    else:
        checks = [Check("model", "ok", f"{model.name}, {model.dimension} dimensions, {model.runtime}")]
        model.close()
    checks += _certificates(settings)
    folder = DataFolder(settings.data)
    if not folder.path.exists():
        return [*checks, Check("folder", "warn", f"{folder.path} does not exist yet; the first `memos serve` makes it")]
    running = folder.read_server_info()
    if running is not None and _answers(running.address):
        note = f"a server (pid {running.pid}) uses {folder.path} and listens on {running.address}"
        checks.append(Check("folder", "ok", note))
        found = await _online(settings, folder, running)
        return checks + (await _repaired(settings, found) if repair and is_shared(settings) else found)
    try:
        stale = folder.server_info.exists()
        checks += _page_key(folder, repair=repair)
        found = await _offline(settings, repair=repair)
        if stale:
            text = "server.json named a server that does not run, and was removed"
            checks.append(Check("server.json", "repaired", text))
        return checks + found
    except SetupError as error:
        return [*checks, Check("folder", "fail", error.message, error.remedy)]
    except MipError as error:
        local = _REMEDIES.get(error.reason, _RESTORE)
        return [*checks, Check("record", "fail", error.message, remedy(settings, "record", error.reason, local))]


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=1.0):
            return True
    except OSError:
        return False


def _page_key(folder: DataFolder, *, repair: bool) -> list[Check]:
    """Examines the key of page tokens, which a server makes anew where it is missing."""
    key = folder.page_key
    if not key.exists() or key.stat().st_size == PAGE_KEY_BYTES:
        return []
    if not repair:
        text = f"{key} does not hold {PAGE_KEY_BYTES} bytes"
        return [Check("page-tokens.key", "fail", text, "memos doctor --repair")]
    key.unlink()
    text = "the key of page tokens was damaged and is made anew; listings that were under way start again"
    return [Check("page-tokens.key", "repaired", text)]


async def _online(settings: Settings, folder: DataFolder, running: ServerInfo) -> list[Check]:
    """Lets a running server say how it is, over TLS too where the folder holds what that needs."""
    try:
        channel, certified = channel_to(settings, folder, running)
    except SetupError as error:
        text = f"not checked, nor what the server depends on: {error.message}"
        return [Check("record", "warn", text, error.remedy)]
    async with channel:
        try:
            await asyncio.wait_for(channel.channel_ready(), _ANSWER_S)
        except TimeoutError:
            text = "not checked, nor what the server depends on: no connection comes about" + (
                " with the certificates that the settings name" if running.tls else ""
            )
            return [
                Check("record", "warn", text, "Name the server's settings with --config, or stop the server first.")
            ]
        found = await _verified(settings, folder, channel, certified=certified)
        return [*await _unhealthy(channel), *found]


async def _unhealthy(channel: grpc.aio.Channel) -> list[Check]:
    """Asks a running server's health service, which needs no token, for what the server says does not work."""
    checks = []
    health = health_pb2_grpc.HealthStub(channel)
    for name in DEPENDENCIES:
        request = health_pb2.HealthCheckRequest(service=f"{DEPENDENCY}{name}")
        try:
            answer = await health.Check(request, timeout=_ANSWER_S)
        except grpc.aio.AioRpcError as error:
            # An older server, or one without this part, does not know it.
            if error.code() not in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED):
                text = f"not checked: the running server answers {error.code().name}"
                checks.append(Check(name, "warn", text, "Look into the server's log."))
            continue
        if answer.status == health_pb2.HealthCheckResponse.NOT_SERVING:
            text = "the running server says that it does not work"
            checks.append(Check(name, "fail", text, "`memos top` says what is wrong with it, and so does its log."))
    return checks


def _certificates(settings: Settings) -> list[Check]:
    now = datetime.now(UTC)
    checks = []
    try:
        for path, end in tls.ends(settings):
            message = f"{path} expires on {end:%Y-%m-%d}" if end > now else f"{path} expired on {end:%Y-%m-%d}"
            status = "fail" if end <= now else "warn" if end <= now + tls.RENEW_BEFORE else "ok"
            remedy = "" if status == "ok" else "Renew it, for instance with `memos tls init --renew`."
            checks.append(Check("certificate", status, message, remedy))
    except SetupError as error:
        checks.append(Check("certificate", "fail", error.message, error.remedy))
    return checks


async def _verified(
    settings: Settings, folder: DataFolder, channel: grpc.aio.Channel, *, certified: bool
) -> list[Check]:
    """Lets the running server verify its cubes; the record's file is examined page by page only without a server."""
    metadata: tuple[tuple[str, str], ...] = ()
    if not certified:
        try:
            token = read_secret(folder.admin_token).decode("ascii", "replace").strip()
        except SetupError as error:
            return [Check("record", "warn", f"not checked: {error.message}", error.remedy)]
        metadata = (("authorization", f"Bearer {token}"),)
    checks: list[Check] = []
    listed = channel.unary_unary(
        "/mip.v1.CubeService/ListCubes", ListCubesRequest.SerializeToString, ListCubesResponse.FromString
    )
    verified = channel.unary_unary(
        "/mip.v1.CubeService/VerifyCube", VerifyCubeRequest.SerializeToString, VerifyCubeResponse.FromString
    )
    count, page = 0, ""
    try:
        while True:
            found = await listed(ListCubesRequest(page_size=1000, page_token=page), metadata=metadata)
            for cube in found.cubes:
                count += 1
                answer = await verified(VerifyCubeRequest(name=cube.name), metadata=metadata, timeout=_ONLINE_S)
                checks += _judged(settings, cube.name, answer.head_revision, answer.findings)
            page = found.next_page_token
            if not page:
                break
    except grpc.aio.AioRpcError as error:
        text = f"the server answers {error.code().name}: {error.details()}"
        remedy = "Look into the server's log; stop it and run `memos doctor` again."
        return [*checks, Check("record", "fail", text, remedy)]
    text = "in use; the server verified its cubes"
    if settings.record.backend not in ENGINES:
        text += ". Its file is examined page by page when the server is stopped"
    return [Check("record", "ok", text), *checks, Check("cubes", "ok", f"{count} cubes examined")]


async def _repaired(settings: Settings, found: list[Check]) -> list[Check]:
    """Makes indexes in an engine anew of which a running server found that they disagree with the log."""
    wrong = {check.name for check in found if check.status == "fail" and check.remedy == _FINDINGS["index"]}
    # An index that knows more than a damaged log is kept: it tells what is missing.
    damaged = {check.name for check in found if check.status == "fail" and check.remedy != _FINDINGS["index"]}
    cubes = sorted(name for name in wrong - damaged if name.startswith("cubes/"))
    if not cubes:
        return found
    try:
        async with opened(settings) as upkeep:
            results = {each.cube: each for each in await rebuild(upkeep, cubes)}
    except SetupError as error:
        return [*found, Check("index", "fail", f"not made anew: {error.message}", error.remedy)]
    except MipError as error:
        what = remedy(settings, "index", error.reason, error.remedy)
        return [*found, Check("index", "fail", f"not made anew: {error.message}", what)]
    kept = [check for check in found if not (check.name in results and check.remedy == _FINDINGS["index"])]
    for cube, each in results.items():
        if each.problem:
            text = f"the search index is at {each.indexed} of {each.revision}: {each.problem}"
            kept.append(Check(cube, "fail", text, remedy(settings, "index", "BACKEND_UNAVAILABLE", _FINDINGS["index"])))
        else:
            kept.append(Check(cube, "repaired", "the search index was made anew from the log"))
    return kept


async def _offline(settings: Settings, *, repair: bool) -> list[Check]:
    missing = await absent(settings)
    checks = [
        Check(each.part, "fail", f"{getattr(settings, each.part).backend}: {each.message}", each.remedy)
        for each in missing
    ]
    if any(each.part == "record" for each in missing):
        # Without it nothing says what index and blobs should hold.
        return checks
    # A port of its own, on loopback, so that an examined folder is not served to anybody; and as much time as an index
    # needs, so that it is compared whole.
    patient = settings.search.model_copy(update={"index_wait_s": _INDEX_WAIT_S})
    # Nor does it send or show anything elsewhere, on the port of another server or to its collector.
    # On loopback it needs no certificate, so that one that has expired keeps nothing from being examined.
    silent = {"metrics": MetricsSettings(), "tracing": TracingSettings(), "tls": TlsSettings()}
    alone = settings.model_copy(update={"listen": "127.0.0.1:0", "search": patient, **silent})
    async with serving(alone, stand_ins(missing)) as server:
        mos = server.mos
        checks.append(Check("folder", "ok", f"{settings.data} is readable and writable"))
        # What is wrong in the file need not keep the cubes from being read: each is verified all the same.
        damaged = await mos.store.check()
        restore = _restore(settings)
        checks += [Check("record", "fail", text, restore) for text in damaged[:_NAMED]]
        if len(damaged) > _NAMED:
            checks.append(Check("record", "fail", f"{len(damaged) - _NAMED} more findings", restore))
        if not damaged:
            engine = settings.record.backend in ENGINES
            text = f"what {settings.record.backend} holds is sound" if engine else "the record's file is sound"
            checks.append(Check("record", "ok", text))
        try:
            checks += await _all_cubes(mos, repair=repair)
        except (MipError, sqlite3.DatabaseError) as error:
            checks.append(_stopped("cubes", settings, error))
    return checks


def _stopped(name: str, settings: Settings, error: MipError | sqlite3.DatabaseError) -> Check:
    """Returns that something could not be examined to its end; an engine that is away says nothing against it."""
    told = from_exception(error)
    what = remedy(settings, "record", told.reason, _RESTORE)
    return Check(name, "fail", f"not checked: {told.message}" if name == "cubes" else told.message, what)


def _restore(settings: Settings) -> str:
    return remedy(settings, "record", "DATA_CORRUPT", _RESTORE)


async def _all_cubes(mos: Mos, *, repair: bool) -> list[Check]:
    call = Call("doctor", await _admin(mos))
    checks: list[Check] = []
    cubes = await _cubes(mos)
    for cube in cubes:
        try:
            checks += await _cube(mos, call, cube, repair=repair)
        except (MipError, sqlite3.DatabaseError) as error:
            checks.append(_stopped(names.cube_name(cube.id), mos.settings, error))
    return [*checks, Check("cubes", "ok", f"{len(cubes)} cubes examined")]


async def _admin(mos: Mos) -> PrincipalAccess:
    async def read(txn: Reader) -> PrincipalAccess:
        return await txn.access(LOCAL_ADMIN)

    return await mos.read(read)


async def _cubes(mos: Mos) -> Sequence[CubeRow]:
    found: list[CubeRow] = []

    async def read(txn: Reader) -> Sequence[CubeRow]:
        return await txn.cubes(found[-1].key if found else 0, _STEP)

    while rows := await mos.read(read):
        found += rows
    return found


async def _cube(mos: Mos, call: Call, cube: CubeRow, *, repair: bool) -> list[Check]:
    name = names.cube_name(cube.id)
    request = VerifyCubeRequest(name=name)
    # Where files of an index are missing or do not match their checksums, it begins anew by itself when it is opened.
    lost = cube.revision > 0 and await mos.keeper.indexed_revision(cube.uid) == 0
    answer = (await verify_cube(mos, call, request)).findings
    found, _ = _apart(answer)
    # An index that knows more than a damaged log is kept: it tells what is missing.
    derived_found = bool(found) and all(finding.kind == "index" for finding in found)
    checks = []
    if lost and not derived_found and await mos.keeper.indexed_revision(cube.uid) > 0:
        checks.append(Check(name, "repaired", "the search index was missing or damaged and was made anew from the log"))
    if repair and derived_found:
        await mos.keeper.rebuild(cube)
        answer = (await verify_cube(mos, call, request)).findings
        if not any(finding.kind == "index" for finding in answer):
            checks.append(Check(name, "repaired", "the search index was made anew from the log"))
    return checks + _judged(mos.settings, name, cube.revision, answer, well=not checks)


def _apart(findings: Sequence[Finding]) -> tuple[list[Finding], list[str]]:
    """Returns what is wrong, and of what nothing is known as it is away: `index`, `blobs`."""
    away = {INDEX_AWAY: "index", BLOBS_AWAY: "blobs"}
    wrong = [finding for finding in findings if finding.message not in away]
    return wrong, sorted({away[finding.message] for finding in findings if finding.message in away})


def _judged(
    settings: Settings, name: str, revision: int, answer: Sequence[Finding], *, well: bool = True
) -> list[Check]:
    """Returns what VerifyCube found of a cube as checks; with `well`, also that it found nothing."""
    findings, away = _apart(answer)
    checks = []
    for finding in findings[:_NAMED]:
        what = _FINDINGS.get(finding.kind, _restore(settings))
        if finding.kind == "blob" and settings.blobs.backend in ENGINES:
            what = "Put the blob's object back from a copy of the bucket, or upload its bytes again (memos blob put)."
        checks.append(Check(name, "fail", f"{finding.kind} {finding.resource}: {finding.message}", what))
    if len(findings) > _NAMED:
        checks.append(Check(name, "fail", f"{len(findings) - _NAMED} more findings", "memos cube verify names more."))
    if away:
        parts = " and ".join(f"{part} ({getattr(settings, part).backend})" for part in away)
        text = f"revision {revision}, not compared: {parts} cannot be asked"
        checks.append(Check(name, "warn", text, "Run `memos doctor` again when it works."))
    elif not findings and well:
        checks.append(Check(name, "ok", f"revision {revision}, chain, content, blobs and index agree"))
    return checks
