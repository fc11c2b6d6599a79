"""GetServerStats: what the server counts and measures of itself. Metrics and `memos top` show the same numbers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from memos_server import names
from memos_server._pb.mip.v1.server_service_pb2 import (
    CallStats,
    GetServerStatsRequest,
    GetServerStatsResponse,
    IndexLag,
    ReasonCount,
)
from memos_server.graph_dbs.base import OPEN, Reader
from memos_server.mem_cube.log import now_us, timestamp
from memos_server.mem_os.context import Call, Mos
from memos_server.telemetry.calls import LATENCY_BOUNDS, CallCounts

_LOG = logging.getLogger(__name__)

_MAX_LAGS = 100
_MAX_LOOKED_AT = 1000
"""Of more cubes that are behind than this, some are only counted."""
_MAX_JOBS = 10_000
_RECORD_WAIT_S = 2.0


async def get_server_stats(mos: Mos, call: Call, request: GetServerStatsRequest) -> GetServerStatsResponse:
    """See ServerService.GetServerStats."""
    del call, request
    return await server_stats(mos)


async def server_stats(mos: Mos) -> GetServerStatsResponse:
    """Returns the state of the server. It answers when the record does not: what that would tell is left out then."""
    behind = mos.keeper.behind()
    response = GetServerStatsResponse(
        start_time=timestamp(round(mos.calls.start_time * 1e6)),
        observe_time=timestamp(now_us()),
        calls=call_stats(mos.calls),
        latency_bounds=LATENCY_BOUNDS,
        open_streams=mos.calls.open_streams,
        waiting_writes=mos.store.waiting_writes,
        waiting_embeddings=mos.embeddings.waiting,
        lagging_indexes=len(behind),
    )
    response.dependencies.extend(mos.vitals.dependencies())
    response.process.CopyFrom(await mos.vitals.process())
    try:
        async with asyncio.timeout(_RECORD_WAIT_S):
            response.unfinished_jobs, lags = await _from_record(mos, behind)
    except Exception as error:
        # The record's trouble is among the dependencies; it must not hide the rest.
        _LOG.warning("jobs and index lags could not be read", exc_info=error)
    else:
        lags.sort(key=lambda lag: (lag.indexed_revision - lag.revision, lag.cube))
        response.index_lags.extend(lags[:_MAX_LAGS])
    return response


async def _from_record(mos: Mos, behind: Mapping[str, str]) -> tuple[int, list[IndexLag]]:
    """Returns the number of unfinished jobs, and how far the indexes of some cubes are behind."""

    async def read(txn: Reader) -> tuple[int, list[tuple[str, str, int]]]:
        heads = []
        for uid, cube_id in list(behind.items())[:_MAX_LOOKED_AT]:
            cube = await txn.cube(cube_id)
            if cube is not None and cube.uid == uid:
                heads.append((uid, names.cube_name(cube_id), cube.revision))
        # All leases count as over at the end of time.
        return len(await txn.unfinished_jobs(OPEN, _MAX_JOBS)), heads

    jobs, heads = await mos.read(read)
    lags = []
    for uid, name, revision in heads:
        indexed = await mos.keeper.indexed_revision(uid)
        if indexed < revision:
            lags.append(IndexLag(cube=name, indexed_revision=indexed, revision=revision))
    return jobs, lags


def call_stats(calls: CallCounts) -> list[CallStats]:
    """Returns the counts as the protocol has them."""
    return [
        CallStats(
            method=counts.name,
            running=counts.running,
            succeeded=counts.succeeded,
            failed=[ReasonCount(reason=reason, count=count) for reason, count in sorted(counts.failed.items())],
            latency_counts=counts.latencies,
            latency_sum=counts.latency_sum,
            request_bytes=counts.request_bytes,
            response_bytes=counts.response_bytes,
        )
        for counts in calls
    ]
