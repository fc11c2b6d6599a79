"""JobService: long work shown, awaited and ended."""

from __future__ import annotations

from memos_server import names
from memos_server._pb.mip.v1.job_pb2 import JOB_STATE_SUCCEEDED, Job
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
from memos_server.mem_os.access import CubeView
from memos_server.mem_os.context import Call, Mos, existing_cube
from memos_server.mem_os.paging import Pages, page_size

_MAX_WAIT_S = 600


def _message(row: JobRow, *, full: bool) -> Job:
    # The steps of a job count what it erases or moves, which may be hidden; without full clearance it is one step.
    done, total = (row.done, row.total) if full else (int(row.state == JOB_STATE_SUCCEEDED), 1)
    return Job(
        name=names.job_name(row.cube_id, row.id),
        kind=row.kind,
        state=row.state,  # type: ignore[arg-type]
        principal=row.principal,
        create_time=timestamp(row.created),
        update_time=timestamp(row.updated),
        done=done,
        total=total,
        error_reason=row.error_reason,
        error_message=row.error_message,
    )


def _shown(call: Call, view: CubeView, row: JobRow) -> bool:
    """Returns whether a caller may know of a job: who sees everything in the cube, of all; others, of their own. That
    there is a job tells that something was purged, which they may not have seen."""
    return view.full or row.principal == call.principal


async def _find(mos: Mos, call: Call, name: str) -> JobRow:
    cube_id, job_id = names.parse_job(name)
    view = call.view(cube_id, whole=True)

    async def read(txn: Reader) -> JobRow:
        await existing_cube(txn, cube_id, deleted=True)
        row = await txn.job(cube_id, job_id)
        if row is None or not _shown(call, view, row):
            raise MipError("JOB_NOT_FOUND", f"{name} does not exist")
        return row

    return await mos.read(read)


async def _get(mos: Mos, call: Call, name: str) -> Job:
    row = await _find(mos, call, name)
    return _message(row, full=call.view(row.cube_id).full)


async def list_jobs(mos: Mos, call: Call, request: ListJobsRequest) -> ListJobsResponse:
    """See JobService.ListJobs."""
    cube_id = names.parse_cube(request.parent, "parent")
    view = call.view(cube_id, whole=True)
    size = page_size(mos, request.page_size)
    pages = Pages(mos.pages, call, request)
    before = str(pages.cursor(request.page_token).get("before", ""))

    async def read(txn: Reader) -> ListJobsResponse:
        await existing_cube(txn, cube_id, deleted=True)
        kept: list[JobRow] = []
        position = before
        # Pages are cut among the jobs that the caller sees, so that they do not count the others.
        while len(kept) <= size and (rows := await txn.jobs(cube_id, position, size + 1)):
            position = rows[-1].id
            kept += [row for row in rows if _shown(call, view, row)]
        token = pages.token(before=kept[size - 1].id) if len(kept) > size else ""
        jobs = [_message(row, full=view.full) for row in kept[:size]]
        return ListJobsResponse(jobs=jobs, next_page_token=token)

    return await mos.read(read)


async def get_job(mos: Mos, call: Call, request: GetJobRequest) -> GetJobResponse:
    """See JobService.GetJob."""
    return GetJobResponse(job=await _get(mos, call, request.name))


async def wait_job(mos: Mos, call: Call, request: WaitJobRequest) -> WaitJobResponse:
    """See JobService.WaitJob."""
    timeout = request.timeout.seconds + request.timeout.nanos / 1e9 if request.HasField("timeout") else 30.0
    if not 0 <= timeout <= _MAX_WAIT_S:
        raise invalid_field("timeout", "must be between 0 and 600 seconds")
    row = await _find(mos, call, request.name)
    await mos.jobs.wait(row.cube_id, row.id, timeout)
    return WaitJobResponse(job=await _get(mos, call, request.name))


async def cancel_job(mos: Mos, call: Call, request: CancelJobRequest) -> CancelJobResponse:
    """See JobService.CancelJob."""
    row = await _find(mos, call, request.name)
    await mos.jobs.cancel(row.cube_id, row.id)
    return CancelJobResponse(job=await _get(mos, call, request.name))
