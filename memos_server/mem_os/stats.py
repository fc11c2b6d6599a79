"""GetServerStats: what the server counts and measures of itself."""

from __future__ import annotations

import psutil

from memos_server._pb.mip.v1.server_service_pb2 import GetServerStatsRequest, GetServerStatsResponse, ProcessStats
from memos_server.mem_cube.log import now_us, timestamp
from memos_server.mem_os.context import Call, Mos

_PROCESS = psutil.Process()


async def get_server_stats(mos: Mos, call: Call, request: GetServerStatsRequest) -> GetServerStatsResponse:
    """See ServerService.GetServerStats."""
    del mos, call, request
    times = _PROCESS.cpu_times()
    return GetServerStatsResponse(
        start_time=timestamp(round(_PROCESS.create_time() * 1e6)),
        observe_time=timestamp(now_us()),
        process=ProcessStats(
            resident_bytes=_PROCESS.memory_info().rss,
            cpu_seconds=times.user + times.system,
            open_files=_PROCESS.num_fds() if hasattr(_PROCESS, "num_fds") else 0,
        ),
    )
