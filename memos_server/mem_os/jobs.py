"""JobService: long work shown, awaited and ended."""

from __future__ import annotations

from memos_server import names
from memos_server._pb.mip.v1.job_pb2 import Job
from memos_server._pb.mip.v1.job_service_pb2 import (
    CancelJobRequest,
    CancelJobResponse,
    GetJobRequest,
    GetJobResponse,
    ListJobsRequest,
    ListJobsResponse,
    WaitJobRequest,
    WaitJobResponse,
)
from memos_server.errors import MipError, invalid_field
from memos_server.graph_dbs.base import JobRow, Reader
from memos_server.mem_cube.log import timestamp
from memos_server.mem_os.context import Call, Mos, existing_cube
from memos_server.mem_os.paging import Pages, page_size

_MAX_WAIT_S = 600


def _message(row: JobRow) -> Job:
    return Job(
        name=names.job_name(row.cube_id, row.id),
        kind=row.kind,
        state=row.state,  # type: ignore[arg-type]
        principal=row.principal,
        create_time=timestamp(row.created),
        update_time=timestamp(row.updated),
        done=row.done,
        total=row.total,
        error_reason=row.error_reason,
        error_message=row.error_message,
    )


async def _find(mos: Mos, call: Call, name: str) -> JobRow:
    cube_id, job_id = names.parse_job(name)
    call.view(cube_id, whole=True)

    async def read(txn: Reader) -> JobRow:
        await existing_cube(txn, cube_id, deleted=True)
        row = await txn.job(cube_id, job_id)
        if row is None:
            raise MipError("JOB_NOT_FOUND", f"{name} does not exist")
        return row

    return await mos.read(read)


async def list_jobs(mos: Mos, call: Call, request: ListJobsRequest) -> ListJobsResponse:
    """See JobService.ListJobs."""
    cube_id = names.parse_cube(request.parent, "parent")
    call.view(cube_id, whole=True)
    size = page_size(request.page_size)
    pages = Pages(mos.pages, call, request)
    before = str(pages.cursor(request.page_token).get("before", ""))

    async def read(txn: Reader) -> ListJobsResponse:
        await existing_cube(txn, cube_id, deleted=True)
        rows = await txn.jobs(cube_id, before, size + 1)
        token = pages.token(before=rows[size - 1].id) if len(rows) > size else ""
        return ListJobsResponse(jobs=[_message(row) for row in rows[:size]], next_page_token=token)

    return await mos.read(read)


async def get_job(mos: Mos, call: Call, request: GetJobRequest) -> GetJobResponse:
    """See JobService.GetJob."""
    return GetJobResponse(job=_message(await _find(mos, call, request.name)))


async def wait_job(mos: Mos, call: Call, request: WaitJobRequest) -> WaitJobResponse:
    """See JobService.WaitJob."""
    timeout = request.timeout.seconds + request.timeout.nanos / 1e9 if request.HasField("timeout") else 30.0
    if not 0 <= timeout <= _MAX_WAIT_S:
        raise invalid_field("timeout", "must be between 0 and 600 seconds")
    row = await _find(mos, call, request.name)
    await mos.jobs.wait(row.cube_id, row.id, timeout)
    return WaitJobResponse(job=_message(await _find(mos, call, request.name)))


async def cancel_job(mos: Mos, call: Call, request: CancelJobRequest) -> CancelJobResponse:
    """See JobService.CancelJob."""
    row = await _find(mos, call, request.name)
    await mos.jobs.cancel(row.cube_id, row.id)
    return CancelJobResponse(job=_message(await _find(mos, call, request.name)))
