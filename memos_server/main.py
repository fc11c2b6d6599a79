"""Wires a server: settings and data folder to backends, backends to use cases, use cases to gRPC."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import secrets
import signal
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc
from grpc_health.v1 import _async as health_aio

from memos_server._pb.mip.v1.access_pb2 import ROLE_ADMIN
from memos_server._pb.mip.v1.common_pb2 import SENSITIVITY_SECRET
from memos_server._pb.mip.v1.server_service_pb2 import GetServerStatsResponse
from memos_server.api.accounts import Accounts, RefusedCalls
from memos_server.api.endpoints import Server
from memos_server.api.page_tokens import PageTokens
from memos_server.api.quotas import Quotas
from memos_server.api.server import build, levels, services, set_dependency, set_serving
from memos_server.api.status import from_exception
from memos_server.api.tokens import TokenSigner, audience_of
from memos_server.blob_stores.base import BlobStore
from memos_server.configs.backends import load_backend
from memos_server.configs.data_folder import DataFolder
from memos_server.configs.errors import SetupError
from memos_server.configs.secret_files import create_secret, read_secret
from memos_server.configs.settings import PrincipalQuota, Settings
from memos_server.configs.tls import server_credentials
from memos_server.embedders.base import Embedder, EmbedderUnavailableError
from memos_server.embedders.service import EmbeddingService
from memos_server.errors import MipError
from memos_server.graph_dbs.base import AuditRow, RecordStore, Writer
from memos_server.graph_dbs.moving import refuse_marked
from memos_server.mem_cube.log import now_us
from memos_server.mem_os import index_batches
from memos_server.mem_os.access import SERVER
from memos_server.mem_os.compaction import compact
from memos_server.mem_os.context import Mos
from memos_server.mem_os.drift import DriftSweep
from memos_server.mem_os.embedding import Embeddings
from memos_server.mem_os.fork_blobs import FORK, take_back
from memos_server.mem_os.indexing import IndexKeeper
from memos_server.mem_os.staging import Staging
from memos_server.mem_os.stats import server_stats
from memos_server.mem_os.vitals import RECORD, Dependency, Vitals
from memos_server.mem_os.watching import hear_of_others
from memos_server.mem_scheduler.jobs import JobRunner
from memos_server.memories.registry import MemoryTypes
from memos_server.telemetry.probing import explained
from memos_server.telemetry.prometheus import Metrics
from memos_server.telemetry.tracing import Tracing
from memos_server.vec_dbs.base import SearchIndex

_LOG = logging.getLogger(__name__)

LOCAL_ADMIN = "principals/local-admin"
EMBEDDED_INDEX = "embedded"
"""The index backend whose files lie in the data folder, which one server uses."""
_LOCAL_TTL_S = 366 * 86_400
_SWITCH_S = 0.0005
"""How long a thread computes before another may: the event loop waits so long each time that it needs its turn while
indexing or verifying keeps other threads busy. With Python's 5 ms, p99 of Get beside such work was 77 to 278 ms, with
half a millisecond 37 to 42, and the work took no longer (benches/bench.py --only busy)."""
_COLLECT_AFTER = 50_000
"""New objects after which cycles are looked for; Python's 700 are fewer than a large batch makes."""
_HOUSEKEEPING_S = 3600.0
_RECORDING_S = 60.0
_SCRAPE_S = 5.0


def load_embedder(settings: Settings) -> tuple[Embedder | None, str]:
    """Returns the embedder that the settings name, or None and why there is none."""
    section = settings.embedder
    if section.backend == "none":
        return None, "no embedding model is configured; search works by words"
    try:
        embedder: Embedder = load_backend("memos.embedders", section.backend, str(settings.data), **section.config)
    except EmbedderUnavailableError as error:
        return None, f"search works by words alone: {error}"
    except SetupError as error:
        if section.config:
            raise
        return None, f"search works by words alone: {error}"
    return embedder, ""


@dataclass(slots=True)
class Running:
    """A server that listens.

    Attributes:
        address: Where it listens, `HOST:PORT`.
        mos: Its parts.
        folder: Its data folder.
    """

    address: str
    mos: Mos
    folder: DataFolder


@dataclass(frozen=True, slots=True)
class StandIns:
    """Parts that stand in for those of the settings: the doctor examines the rest while one of them is away.

    Attributes:
        index: An index that is not opened; None for the settings'.
        blobs: A blob store that is not opened; None for the settings'.
    """

    index: SearchIndex | None = None
    blobs: BlobStore | None = None


@asynccontextmanager
async def serving(settings: Settings, instead: StandIns = StandIns()) -> AsyncIterator[Running]:
    """Runs a server until the block ends, then drains it.

    Args:
        settings: The settings.
        instead: What is used instead of parts of the settings.

    Raises:
        SetupError: The folder is in use, the port is taken, a backend is missing, TLS is needed.
        MipError: The record is damaged, or the disk is full.
    """
    async with AsyncExitStack() as stack:
        try:
            running = await _started(settings, instead, stack)
        except OSError as error:
            raise explained(Path(error.filename or settings.data), error) from error
        except sqlite3.DatabaseError as error:
            raise from_exception(error) from error
        yield running


async def _started(settings: Settings, instead: StandIns, stack: AsyncExitStack) -> Running:
    """Starts everything and returns it; what the stack holds then ends it."""
    credentials = server_credentials(settings)
    folder = stack.enter_context(DataFolder(settings.data, settings.keys.folder))
    tracing = Tracing(settings.tracing) if settings.tracing.endpoint is not None else None
    if tracing is not None:
        stack.push_async_callback(asyncio.to_thread, tracing.close)
    data = str(settings.data)
    store: RecordStore = load_backend(
        "memos.graph_dbs", settings.record.backend, data, port=RecordStore, **settings.record.config
    )
    # First, so that what a failed start has opened is closed.
    stack.push_async_callback(store.close)
    await store.open()
    await refuse_marked(store)
    folder.up_to_date()
    signer = TokenSigner.open(folder.token_key, audience_of(folder.token_key))
    await _ensure_admin(store, folder, signer)
    mos = await _parts(settings, instead, folder, store, signer, stack)
    quotas = _quotas(settings)
    accounts = Accounts(store, signer, quotas, client_certificates=settings.tls.client_ca is not None)
    refused = RefusedCalls(store)
    server, status = build(Server(mos, accounts, refused, quotas), tracing=tracing)
    address = _listen(server, settings, credentials)
    await server.start()
    stack.push_async_callback(_drain, server, status, mos, refused)
    drift = DriftSweep(store, mos.keeper, partial(_works, mos))
    if settings.metrics.listen is not None:
        read = partial(_stats_from_thread, mos, asyncio.get_running_loop())
        metrics = Metrics(settings.metrics, read, drift.drift)
        stack.push_async_callback(asyncio.to_thread, metrics.close)
        _LOG.info("metrics are at http://%s/metrics", metrics.address)
    mos.jobs.start()
    mos.vitals.changed = partial(_dependency_changed, status, mos)
    mos.vitals.start()
    stack.push_async_callback(mos.vitals.close)
    if settings.index.backend != EMBEDDED_INDEX:
        # The embedded index would read all its files for it, and nobody else can leave it behind.
        stack.callback(asyncio.create_task(drift.run(), name="drift of the indexes").cancel)
    housekeeping = asyncio.create_task(_housekeeping(mos), name="housekeeping")
    stack.callback(housekeeping.cancel)
    recording = asyncio.create_task(_recording(refused), name="refused calls")
    stack.callback(recording.cancel)
    if mos.shared:
        others = hear_of_others(store, mos.heads, mos.access, mos.embeddings.forget, settings.watch.poll_s)
        stack.callback(asyncio.create_task(others, name="what other servers wrote").cancel)
    folder.write_server_info(_on_this_machine(address), credentials is not None)
    stack.callback(folder.remove_server_info)
    await set_serving(status, mos.vitals.serves())
    return Running(address, mos, folder)


async def _opened(backend: SearchIndex, version: str, what: str) -> None:
    """Opens an index, whose errors may be those of any library."""
    try:
        await backend.open(version)
    except (SetupError, MipError, OSError):
        raise
    except Exception as error:
        raise SetupError(
            f"The {what} cannot be opened: {type(error).__name__}: {error}.",
            "Correct its section in the settings, or choose another backend; an index is made anew from the record.",
        ) from error


def _quotas(settings: Settings) -> Quotas:
    # The local administrator reads the data folder anyway: limiting it by default would protect nobody.
    own = {LOCAL_ADMIN.removeprefix("principals/"): PrincipalQuota(), **settings.quotas.principals}
    return Quotas(settings.quotas, own, settings.quotas.unauthenticated_per_second)


async def _parts(
    settings: Settings,
    instead: StandIns,
    folder: DataFolder,
    store: RecordStore,
    signer: TokenSigner,
    stack: AsyncExitStack,
) -> Mos:
    data = str(settings.data)
    types = MemoryTypes.installed()
    index = instead.index or load_backend(
        "memos.vec_dbs", settings.index.backend, data, port=SearchIndex, **settings.index.config
    )
    index_version = index_batches.version_of(types, settings.index.backend)
    if folder.index_version() != index_version:
        folder.clear_index()
        folder.set_index_version(index_version)
    # First, so that what a failed start has opened is closed.
    stack.push_async_callback(index.close)
    await _opened(index, index_version, f"index backend {settings.index.backend!r}")
    blob_config = {"max_blob_bytes": settings.limits.max_blob_bytes, **settings.blobs.config}
    blobs = instead.blobs or load_backend(
        "memos.blob_stores", settings.blobs.backend, data, port=BlobStore, **blob_config
    )
    await blobs.open()
    stack.push_async_callback(blobs.close)
    keeper = IndexKeeper(store, index, types, wait_s=settings.search.index_wait_s)
    stack.push_async_callback(keeper.close)
    # Loading 90 MB of weights takes longer than anybody should wait for the loop.
    model, missing = await asyncio.get_running_loop().run_in_executor(None, load_embedder, settings)
    if missing:
        _LOG.warning("%s", missing)
    runner = EmbeddingService(model)
    stack.push_async_callback(runner.close)
    jobs = JobRunner(store, f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}", from_exception)
    stack.push_async_callback(jobs.close)
    embeddings = Embeddings(model, runner, settings.embedding.default_model, missing)
    mos = Mos(
        settings=settings,
        store=store,
        blobs=blobs,
        keeper=keeper,
        embeddings=embeddings,
        types=types,
        jobs=jobs,
        pages=PageTokens(folder.page_token_key()),
        issuer=signer,
        audience=signer.audience,
        staging=Staging(settings.limits.max_staged_bytes),
        vitals=_vitals(settings, store, index, blobs, embeddings),
        services=[service.full_name for service in services()],
        levels=levels(),
    )
    jobs.register("compaction", partial(compact, mos), cancellable=False)
    jobs.register(FORK, partial(take_back, mos), cancellable=False)
    stack.callback(mos.cpu.shutdown, wait=False, cancel_futures=True)
    return mos


def _vitals(
    settings: Settings, store: RecordStore, index: SearchIndex, blobs: BlobStore, embeddings: Embeddings
) -> Vitals:
    parts = [
        Dependency(RECORD, settings.record.backend, store.probe),
        Dependency("index", settings.index.backend, index.probe),
        Dependency("blobs", settings.blobs.backend, blobs.probe),
    ]
    if settings.embedder.backend != "none":
        parts.append(Dependency("embedder", settings.embedder.backend, embeddings.probe))
    health = settings.health
    return Vitals(settings.data, parts, interval_s=health.interval_s, timeout_s=health.timeout_s)


async def _dependency_changed(status: health_aio.HealthServicer, mos: Mos, name: str, works: bool) -> None:
    """Tells it to those who watch the server's health; without its record the whole server is out."""
    await set_dependency(status, name, works)
    if name == RECORD and not mos.going:
        await set_serving(status, works)


def _works(mos: Mos) -> bool:
    """Returns whether record and index work, as far as is known."""
    return all(each.serving for each in mos.vitals.dependencies() if each.name in (RECORD, "index"))


def _stats_from_thread(mos: Mos, loop: asyncio.AbstractEventLoop) -> GetServerStatsResponse:
    return asyncio.run_coroutine_threadsafe(server_stats(mos), loop).result(_SCRAPE_S)


async def _ensure_admin(store: RecordStore, folder: DataFolder, signer: TokenSigner) -> None:
    """Makes the local administrator at the first start, and its token whenever that is missing or spent."""

    async def work(txn: Writer) -> None:
        if await txn.principal(LOCAL_ADMIN.removeprefix("principals/")) is None:
            now = now_us()
            await txn.put_principal(LOCAL_ADMIN.removeprefix("principals/"), "local administrator", now)
            await txn.put_grant(LOCAL_ADMIN, SERVER, ROLE_ADMIN, SENSITIVITY_SECRET, now)
            await txn.put_audit(AuditRow(now, LOCAL_ADMIN, "first start", SERVER, "OK", "made the local administrator"))

    await store.write(work)
    if folder.admin_token.exists():
        try:
            claims = signer.verify(read_secret(folder.admin_token).decode("ascii", "replace").strip())
            if claims.expiry > now_us() // 1_000_000 + _LOCAL_TTL_S // 2:
                return
        except MipError as error:
            _LOG.warning("the local administrator's token is made anew: %s", error.message)
        folder.admin_token.unlink()
    create_secret(folder.admin_token, signer.issue(LOCAL_ADMIN, _LOCAL_TTL_S).token.encode() + b"\n")


def _listen(server: grpc.aio.Server, settings: Settings, credentials: grpc.ServerCredentials | None) -> str:
    host, port = settings.endpoint
    shown = f"[{host}]" if ":" in host else host
    wanted = f"{shown}:{port}"
    try:
        bound = (
            server.add_secure_port(wanted, credentials) if credentials is not None else server.add_insecure_port(wanted)
        )
    except RuntimeError as error:
        raise SetupError(
            f"The server cannot listen on {wanted}: the port is taken, or the address is not this machine's.",
            "End the program that uses the port, or choose another with --listen.",
        ) from error
    return f"{shown}:{bound}"


def _on_this_machine(address: str) -> str:
    """Returns where clients of this machine reach the server: a wildcard is no address to connect to."""
    host, _, port = address.rpartition(":")
    return {"0.0.0.0": f"127.0.0.1:{port}", "[::]": f"[::1]:{port}"}.get(host, address)  # noqa: S104


async def _drain(server: grpc.aio.Server, status: health_aio.HealthServicer, mos: Mos, refused: RefusedCalls) -> None:
    """Tells that it is going, ends watches, lets running calls finish, and records those that were refused."""
    mos.going = True
    await set_serving(status, False)
    await asyncio.sleep(mos.settings.health.drain_s)
    mos.draining = True
    mos.heads.moved_all()
    await server.stop(mos.settings.health.grace_s)
    await refused.write_all()


async def _recording(refused: RefusedCalls) -> None:
    """Brings the counts of refused calls into the record, also those after which no more came."""
    while True:
        await asyncio.sleep(_RECORDING_S)
        await refused.write_due()


async def _housekeeping(mos: Mos) -> None:
    """Forgets request ids that are older than the server promises to remember, and uploads that nobody continues."""
    while True:
        before = now_us() - mos.settings.limits.request_id_retention_seconds * 1_000_000
        try:

            async def work(txn: Writer, before: int = before) -> int:
                return await txn.forget_requests(before)

            await mos.store.write(work)
            await mos.blobs.expire()
        except Exception:
            # Whatever the error is, it passes; housekeeping must outlive it.
            _LOG.exception("old request ids or uploads could not be forgotten now")
        await asyncio.sleep(_HOUSEKEEPING_S)


def _calm_collector() -> None:
    """Lets the garbage collector leave alone what lives as long as the server, and look less often at what does not.

    Calls make few cycles and many objects: looking for cycles among all of them, modules and tables too, took a fifth
    of the processor time of reading a memory.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 20, 50)


async def run(settings: Settings, announce: object = None) -> None:
    """Runs a server until SIGINT or SIGTERM.

    Args:
        settings: The settings.
        announce: Called with the Running server once it listens.
    """
    sys.setswitchinterval(_SWITCH_S)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with serving(settings) as server:
        _calm_collector()
        if callable(announce):
            announce(server)
        await stop.wait()
