"""Three servers over one record, one index and one blob store: to callers they are one."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from memos_sdk import AsyncClient
from memos_sdk.errors import NotFound, PermissionDenied, Unauthenticated, Unavailable
from tests.engines.cluster import PATIENCE, Cluster, fresh, health
from tests.engines.fleet import Fleet
from tests.engines.load import Load, find
from tests.engines.promises import settled
from tests.engines.scene import _write
from tests.engines.watchers import Watcher

pytestmark = [pytest.mark.engines, pytest.mark.timeout(300 * PATIENCE)]


async def judged(load: Load, watchers: list[Watcher], *, connections: bool) -> list[str]:
    """Returns the promises that do not hold after a load."""
    found = await settled(load)
    broken = found.broken
    for watcher in watchers:
        broken += await watcher.caught_up(found.log)
    return broken + load.errors.unexpected(connections=connections)


def watching(cluster: Cluster, cube: str) -> list[Watcher]:
    """Begins to watch a cube on every server."""
    watchers = [Watcher(cluster, cube, number) for number in range(len(cluster.nodes))]
    for watcher in watchers:
        watcher.start()
    return watchers


async def linearizable(fleet: Fleet, folder: Path, rng: random.Random, writers: int, seconds: float) -> Load:
    """Lets writers on three servers change two cubes at once, and judges both histories."""
    async with Cluster(folder, fleet.backends(), 3) as cluster:
        loads = [Load(cluster, fresh(), random.Random(rng.random())) for _ in range(2)]
        for load in loads:
            await load.create()
        watchers = [watching(cluster, load.cube) for load in loads]
        await asyncio.gather(*(load.run(writers // 2, seconds, least=60) for load in loads))
        for load, seen in zip(loads, watchers, strict=True):
            broken = await judged(load, seen, connections=False)
            assert not broken, "\n".join(broken)
            assert load.errors.counts() == {}
            assert load.history.counts()["refused"] > 0
        operations = [len(load.history.operations) for load in loads]
        row = {
            "servers": 3,
            "callers": writers,
            "operations": sum(operations),
            "acknowledged": sum(load.acknowledged for load in loads),
            "seconds": seconds,
        }
        _write("many-servers-linearizable", row | {"fault": "no fault: writers on three servers", "result": "holds"})
        return loads[0]


async def test_commits_of_writers_on_three_servers_have_one_order(
    fleet: Fleet, tmp_path: Path, rng: random.Random
) -> None:
    load = await linearizable(fleet, tmp_path, rng, writers=12, seconds=6.0)
    assert load.acknowledged >= 60


@pytest.mark.long
@pytest.mark.timeout(900 * PATIENCE)
async def test_commits_of_many_writers_over_minutes_have_one_order(
    fleet: Fleet, tmp_path: Path, rng: random.Random
) -> None:
    await linearizable(fleet, tmp_path, rng, writers=40, seconds=120.0)


async def test_what_one_server_acknowledged_every_server_shows_at_once(
    fleet: Fleet, tmp_path: Path, rng: random.Random
) -> None:
    async with Cluster(tmp_path, fleet.backends(), 3) as cluster:
        clients = [cluster.client(number) for number in range(3)]
        cube = fresh()
        await clients[0].cubes.create(cube)
        for number in range(30):
            writer, reader = rng.sample(clients, 2)
            added = await writer.cube(cube).add(f"word{number} of the sea", id=f"m{number}", tags=["w0"])
            read = await reader.cube(cube).get(f"m{number}")
            assert (read.text, read.etag) == (added.text, added.etag)
            hits = await reader.cube(cube).search(f"word{number}", top_k=3)
            assert hits[0].memory.id == f"m{number}", f"search on another server does not find m{number}"
            changed = await reader.cube(cube).update(f"m{number}", f"word{number} changed", etag=read.etag)
            assert (await writer.cube(cube).get(f"m{number}")).etag == changed.etag


async def test_a_request_id_that_two_servers_get_at_once_takes_effect_once(
    fleet: Fleet, tmp_path: Path, rng: random.Random
) -> None:
    async with Cluster(tmp_path, fleet.backends(), 3) as cluster:
        clients = [cluster.client(number) for number in range(3)]
        cube = fresh()
        await clients[0].cubes.create(cube)
        for number in range(10):
            request_id = f"00000000-0000-4000-8000-{rng.getrandbits(48):012x}"
            sent = [client.cube(cube).add(f"once {number}", request_id=request_id) for client in clients * 3]
            names = Counter(memory.name for memory in await asyncio.gather(*sent))
            assert len(names) == 1, names
        assert (await clients[1].cube(cube).refresh()).revision == 11


async def test_a_cube_made_twice_at_once_on_two_servers_is_made_once(
    fleet: Fleet, tmp_path: Path, rng: random.Random
) -> None:
    async with Cluster(tmp_path, fleet.backends(), 2) as cluster:
        clients = [cluster.client(number) for number in (0, 1, 0, 1)]
        for _ in range(5):
            cube = fresh()
            made = await asyncio.gather(*(client.cubes.create(cube) for client in clients), return_exceptions=True)
            assert sorted(getattr(one, "reason", "made") for one in made) == ["ALREADY_EXISTS"] * 3 + ["made"], made


async def test_what_is_revoked_on_one_server_is_refused_by_all(
    fleet: Fleet, tmp_path: Path, rng: random.Random
) -> None:
    async with Cluster(tmp_path, fleet.backends(), 2) as cluster:
        admins = [cluster.client(number) for number in range(2)]
        cube, who = fresh(), fresh()
        await admins[0].cubes.create(cube)
        await admins[0].cube(cube).add("a memory", id="m1")
        await admins[0].access.create_principal(who)
        await admins[0].access.grant(f"principals/{who}", f"cubes/{cube}", role="reader")
        issued = await admins[0].access.issue_token(f"principals/{who}")
        async with AsyncClient(cluster.nodes[1].address, token=issued.token, timeout=60.0) as reader:
            assert (await reader.cube(cube).get("m1")).text == "a memory"
            await admins[0].access.revoke_grant(f"principals/{who}", f"cubes/{cube}")
            with pytest.raises(PermissionDenied):
                await reader.cube(cube).get("m1")
            await admins[0].access.revoke_token(issued.token_id)
            with pytest.raises(Unauthenticated):
                await reader.cube(cube).get("m1")


def journal_of(path: Path) -> list[tuple[float, int, str, str]]:
    """Returns what `server_variant` noted of jobs: time, process, word, `cube/job`."""
    lines = [line.split() for line in path.read_text().splitlines()]
    return [(float(at), int(pid), word, f"{cube}/{job}") for at, pid, word, cube, job in lines]


async def purge_one(client: AsyncClient, cube: str) -> str:
    """Makes a cube with a memory, purges the memory, and returns the name of the job that follows."""
    await client.cubes.create(cube)
    await client.cube(cube).add("to be erased", id="m1")
    return (await client.cube(cube).purge("m1", reason="asked")).compaction_job


async def test_a_job_is_run_once_however_many_servers_look_for_it(
    fleet: Fleet, tmp_path: Path, rng: random.Random
) -> None:
    journal = tmp_path / "journal"
    journal.touch()
    # The call does not wait for its job, which takes several looks of the others for unfinished jobs.
    variant = {"poll_s": 0.1, "slow_job_s": 0.8, "lease_s": 2, "inline_s": 0.05, "journal": str(journal)}
    async with Cluster(tmp_path, fleet.backends(), 3, variants=[variant] * 3) as cluster:
        clients = [cluster.client(number) for number in range(3)]
        cubes = [fresh() for _ in range(12)]
        jobs = await asyncio.gather(*(purge_one(clients[n % 3], cube) for n, cube in enumerate(cubes)))
        for job in jobs:
            assert (await clients[0].jobs.wait(job, seconds=30 * PATIENCE)).state.name == "SUCCEEDED"
        entries = journal_of(journal)
        begun = Counter(job for _, _, word, job in entries if word == "begun")
        ours = {f"{job.split('/')[1]}/{job.split('/')[3]}" for job in jobs}
        assert {job: count for job, count in begun.items() if job in ours} == dict.fromkeys(ours, 1)


async def test_a_killed_server_loses_its_leases_when_they_end_and_the_others_keep_theirs(
    fleet: Fleet, tmp_path: Path, rng: random.Random
) -> None:
    journal = tmp_path / "journal"
    journal.touch()
    lease_s = 3.0
    variant = {"poll_s": 0.1, "slow_job_s": 6.0, "lease_s": 3, "inline_s": 0.05, "journal": str(journal)}
    async with Cluster(tmp_path, fleet.backends(), 3, variants=[variant] * 3) as cluster:
        clients = [cluster.client(number) for number in range(3)]
        cubes = [fresh() for _ in range(6)]
        asked = [asyncio.create_task(purge_one(clients[n % 3], cube)) for n, cube in enumerate(cubes)]
        # Whichever server got a job first dies while it runs it; the jobs take six seconds.
        while not (running := [entry for entry in journal_of(journal) if entry[2] == "begun"]):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        await asyncio.sleep(1.0)
        dead = running[0][1]
        node = next(node for node in cluster.nodes if node.pid == dead)
        killed = time.monotonic()
        node.kill()
        await asyncio.gather(*asked, return_exceptions=True)
        alive = clients[(cluster.nodes.index(node) + 1) % 3]
        jobs: list[str] = []
        for cube in cubes:
            # What was asked of the dead server may not have come about.
            with suppress(NotFound, PermissionDenied):
                jobs += [job.name async for job in alive.jobs.list(cube)]
        assert len(jobs) >= 4, "most purges were asked of the living"
        for job in jobs:
            assert (await alive.jobs.wait(job, seconds=60 * PATIENCE)).state.name == "SUCCEEDED"
        runs: dict[str, list[tuple[float, int]]] = {}
        for at, pid, word, job in journal_of(journal):
            if word == "begun":
                runs.setdefault(job, []).append((at, pid))
        names = {f"{job.split('/')[1]}/{job.split('/')[3]}" for job in jobs}
        mine = {job: seen for job, seen in runs.items() if job in names}
        lost = {job: seen for job, seen in mine.items() if seen[0][1] == dead}
        assert lost, "the killed server ran no job"
        for job, seen in mine.items():
            if job not in lost:
                assert len(seen) == 1, f"{job} was taken from a living server: {seen}"
                continue
            assert len(seen) == 2, f"{job} was run {len(seen)} times"
            # It told its progress every 0.2 s: the lease ends almost three seconds after the kill, not before.
            assert killed + lease_s - 1.0 * PATIENCE < seen[1][0] < killed + lease_s + 3.0 * PATIENCE, seen
            assert seen[1][1] != dead
        waited = [seen[1][0] - killed for seen in lost.values()]
        facts = {"jobs of the dead server": len(lost), "taken over after s": round(max(waited), 2)}
        row = {"fault": "SIGKILL of a server that runs jobs (leases of 3 s)", "servers": 3, "facts": facts}
        _write("kill-server-jobs", row | {"result": "holds", "callers": 3})


async def test_an_old_and_a_new_server_serve_together(fleet: Fleet, tmp_path: Path, rng: random.Random) -> None:
    """A rolling upgrade: servers of the old sort are replaced one after the other, each with another index version."""
    old = {"index_version": "old"}
    async with Cluster(tmp_path, fleet.backends(), 3, variants=[old] * 3) as cluster:
        load = Load(cluster, fresh(), random.Random(rng.random()))
        await load.create()
        watchers = watching(cluster, load.cube)
        load.start(6, pause_s=0.02)
        for node in cluster.nodes:
            await load.reach(load.acknowledged + 10)
            assert await asyncio.to_thread(node.stop) == 0
            node.variant.clear()
            await asyncio.to_thread(node.start)
        await load.reach(load.acknowledged + 10)
        await load.finish()
        assert await judged(load, watchers, connections=True) == []
        assert load.acknowledged >= 40
        facts = {"searches not complete": sum(load.degraded.values())}
        row = {"fault": "rolling upgrade to another index version", "servers": 3, "callers": 6, "facts": facts}
        row |= {"operations": len(load.history.operations), "acknowledged": load.acknowledged}
        _write("rolling-upgrade", row | {"errors": load.errors.counts(), "result": "holds"})


async def test_a_server_that_is_told_to_end_says_so_first_and_finishes_its_calls(
    fleet: Fleet, tmp_path: Path, rng: random.Random
) -> None:
    settings = {"MEMOS_HEALTH__DRAIN_S": "1.5", "MEMOS_HEALTH__GRACE_S": "5"}
    variants = [{"slow_call_s": 1.0}, {}]
    async with Cluster(tmp_path, fleet.backends(), 2, settings, variants) as cluster:
        leaving = cluster.nodes[0]
        clients = [cluster.client(number) for number in range(2)]
        cube = fresh()
        await clients[1].cubes.create(cube)
        states: list[str] = []
        asked = asyncio.Event()

        async def watch_health() -> None:
            async with grpc.aio.insecure_channel(leaving.address) as channel:
                request = health_pb2.HealthCheckRequest(service="mip.v1.MemoryService")
                async for answer in health_pb2_grpc.HealthStub(channel).Watch(request):
                    name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
                    states.append(name)
                    asked.set()

        told = asyncio.create_task(watch_health())
        await asked.wait()
        running = asyncio.create_task(clients[0].cube(cube).add("under way when the server is told", id="m1"))
        await asyncio.sleep(0.2)
        leaving.tell(signal.SIGTERM)
        await asyncio.sleep(0.3)
        assert states == ["SERVING", "NOT_SERVING"]
        assert await health(leaving.address) == "NOT_SERVING"
        # It still answers, as whoever spreads the calls may not have noticed yet; this call ends within the grace.
        late = asyncio.create_task(clients[0].cube(cube).add("after it was told", id="m2"))
        assert (await running).id == "m1"
        assert (await late).id == "m2"
        assert await asyncio.to_thread(leaving.stop) == 0
        await asyncio.gather(told, return_exceptions=True)
        with pytest.raises(Unavailable):
            await clients[0].cube(cube).add("nobody is there")
        assert [(await clients[1].cube(cube).get(id_)).id for id_ in ("m1", "m2")] == ["m1", "m2"]
        with pytest.raises(NotFound):
            await clients[1].cube(cube).get("m3")


async def test_clients_move_on_while_servers_are_drained_one_after_the_other(
    fleet: Fleet, tmp_path: Path, rng: random.Random
) -> None:
    settings = {"MEMOS_HEALTH__DRAIN_S": "0.5"}
    async with Cluster(tmp_path, fleet.backends(), 3, settings) as cluster:
        load = Load(cluster, fresh(), random.Random(rng.random()))
        await load.create()
        watchers = watching(cluster, load.cube)
        load.start(6, pause_s=0.02)
        for node in cluster.nodes:
            await load.reach(load.acknowledged + 10)
            assert await asyncio.to_thread(node.stop) == 0
            await asyncio.to_thread(node.start)
        await load.reach(load.acknowledged + 10)
        await load.finish()
        assert await judged(load, watchers, connections=True) == []
        assert load.history.counts()["open"] == 0, "a call was lost, although servers were drained"


async def test_blobs_and_uploads_are_shared(fleet: Fleet, tmp_path: Path, rng: random.Random) -> None:
    async with Cluster(tmp_path, fleet.backends(), 2) as cluster:
        clients = [cluster.client(number, 60.0) for number in range(2)]
        cube = fresh()
        await clients[0].cubes.create(cube)
        data = rng.randbytes(3_000_000)
        await asyncio.gather(*(client.cube(cube).blobs.upload(data) for client in clients), return_exceptions=True)
        reference = await clients[0].cube(cube).blobs.upload(data)
        for client in clients:
            assert await client.cube(cube).blobs.read(reference.digest) == data


async def test_searches_do_not_miss_what_another_server_wrote_a_moment_ago(
    fleet: Fleet, tmp_path: Path, rng: random.Random
) -> None:
    async with Cluster(tmp_path, fleet.backends(), 2) as cluster:
        writer, reader = cluster.client(0), cluster.client(1)
        cube = fresh()
        await writer.cubes.create(cube)
        for number in range(20):
            await writer.cube(cube).add(f"number {number}", id=f"m{number}", tags=["w0"])
            found = await find(reader.cube(cube), "w0")
            assert not isinstance(found, str), f"search says {found} of a healthy cluster"
            assert len(found.found) == number + 1  # type: ignore[arg-type]


async def test_a_watch_on_another_server_hears_of_a_commit_within_a_second(
    fleet: Fleet, tmp_path: Path, rng: random.Random
) -> None:
    async with Cluster(tmp_path, fleet.backends(), 2) as cluster:
        writer, reader = cluster.client(0), cluster.client(1)
        cube = fresh()
        await writer.cubes.create(cube)
        heard: dict[int, float] = {}

        async def follow() -> None:
            async for event in reader.cube(cube).watch(2):
                heard[event.commit.revision] = time.monotonic()

        task = asyncio.create_task(follow())
        told: dict[int, float] = {}
        for number in range(10):
            memory = await writer.cube(cube).add(f"number {number}")
            told[memory.revision] = time.monotonic()
            await asyncio.sleep(rng.uniform(0.0, 0.3))
        await asyncio.sleep(1.0 * PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sorted(heard) == sorted(told)
        assert max(heard[revision] - told[revision] for revision in told) < 1.0 * PATIENCE
