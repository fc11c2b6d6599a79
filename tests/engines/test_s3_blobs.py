"""What is special to blobs in S3: several servers over one bucket, and what a bucket does that a folder does not."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from memos_server.blob_stores.s3 import S3BlobStore
from memos_server.blob_stores.s3 import store as store_module
from memos_server.blob_stores.s3.composing import PART_BYTES
from memos_server.blob_stores.s3.uploads import OPEN_BYTES
from memos_server.configs.errors import SetupError
from memos_server.errors import MipError
from tests.support import engines
from tools.engines import S3Engine

pytestmark = pytest.mark.engines

CUBE = "0198c5a2-7f3e-7c41-9a52-3d1f0b6e8c77"
OTHER = "0198c5a2-7f3e-7c41-9a52-3d1f0b6e8c78"
MIB = 2**20
LARGE = random.Random(7).randbytes(2 * PART_BYTES + 3 * MIB + 17)


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@pytest.fixture
def config() -> dict[str, Any]:
    return engines.clean_s3()


@pytest.fixture
def client() -> Any:
    made = engines.s3().client()
    yield made
    made.close()


@pytest.fixture
async def servers(config: dict[str, Any]) -> AsyncIterator[list[S3BlobStore]]:
    opened = [S3BlobStore("", **config) for _ in range(2)]
    for each in opened:
        await each.open()
    yield opened
    for each in opened:
        await each.close()


def keys(client: Any, config: dict[str, Any], prefix: str = "") -> list[str]:
    page = client.list_objects_v2(Bucket=config["bucket"], Prefix=prefix)
    return [each["Key"] for each in page.get("Contents", ())]


def parts(client: Any, config: dict[str, Any]) -> list[str]:
    return [each["Key"] for each in client.list_multipart_uploads(Bucket=config["bucket"]).get("Uploads", ())]


async def send(store: S3BlobStore, data: bytes, cube: str = CUBE, start: int = 0) -> str:
    digest = digest_of(data)
    for offset in range(start, len(data), MIB):
        await store.append(cube, digest, offset, data[offset : offset + MIB])
    return digest


async def get(store: S3BlobStore, digest: str, offset: int = 0, limit: int = 0) -> bytes:
    return b"".join([piece async for piece in store.read(CUBE, digest, offset, limit)])


async def refused(call: Awaitable[object], reason: str) -> MipError:
    with pytest.raises(MipError) as caught:
        await call
    assert caught.value.reason == reason
    return caught.value


async def test_an_upload_that_one_server_began_another_goes_on_with_and_a_third_finishes(
    servers: list[S3BlobStore], config: dict[str, Any]
) -> None:
    digest = digest_of(LARGE)
    await servers[0].append(CUBE, digest, 0, LARGE[:10])
    assert await servers[1].upload_size(CUBE, digest) == 10
    await servers[1].append(CUBE, digest, 10, LARGE[10 : 2 * MIB])
    error = await refused(servers[0].append(CUBE, digest, 10, LARGE[10:20]), "INVALID_STREAM")
    assert error.metadata == {"offset": str(2 * MIB)}
    await send(servers[0], LARGE, start=2 * MIB)
    third = S3BlobStore("", **config)
    await third.open()
    assert await servers[1].size(CUBE, digest) is None
    await third.finish(CUBE, digest, len(LARGE))
    await third.close()
    assert await servers[0].size(CUBE, digest) == len(LARGE)
    assert await get(servers[1], digest) == LARGE
    assert await servers[1].upload_size(CUBE, digest) == 0


@pytest.mark.parametrize("seed", range(4))
async def test_servers_that_append_at_once_never_interleave(servers: list[S3BlobStore], seed: int) -> None:
    chance = random.Random(seed)
    data = chance.randbytes(3 * OPEN_BYTES)
    digest = digest_of(data)

    async def writer(store: S3BlobStore) -> list[tuple[int, int]]:
        taken, offset = [], 0
        while offset < len(data):
            size = chance.choice([1, 700, 20_000, OPEN_BYTES - 1, OPEN_BYTES, OPEN_BYTES + 5])
            piece = data[offset : offset + size]
            try:
                await store.append(CUBE, digest, offset, piece)
            except MipError as error:
                if error.reason != "INVALID_STREAM":
                    raise
                offset = int(error.metadata["offset"])
            else:
                taken.append((offset, offset + len(piece)))
                offset += len(piece)
        return taken

    written = await asyncio.gather(*(writer(store) for store in [*servers, *servers]))
    ranges = sorted(each for taken in written for each in taken)
    # What was acknowledged covers the blob, each byte once.
    assert [start for start, _ in ranges] == [0, *(end for _, end in ranges[:-1])]
    assert ranges[-1][1] == len(data)
    await asyncio.gather(*(store.finish(CUBE, digest, len(data)) for store in servers))
    assert await get(servers[0], digest) == data


async def test_small_appends_make_few_objects(servers: list[S3BlobStore], client: Any, config: dict[str, Any]) -> None:
    data = random.Random(1).randbytes(OPEN_BYTES + 2000)
    digest = digest_of(data)
    for offset in range(0, len(data), 4000):
        await servers[0].append(CUBE, digest, offset, data[offset : offset + 4000])
    assert len(keys(client, config)) == 2
    await servers[0].finish(CUBE, digest, len(data))
    assert keys(client, config) == [f"cubes/{CUBE}/blobs/{digest[7:]}"]


async def test_servers_that_finish_at_once_both_succeed(
    servers: list[S3BlobStore], client: Any, config: dict[str, Any]
) -> None:
    digest = await send(servers[0], LARGE)
    await asyncio.gather(*(store.finish(CUBE, digest, len(LARGE)) for store in servers))
    assert await get(servers[0], digest) == LARGE
    assert keys(client, config) == [f"cubes/{CUBE}/blobs/{digest[7:]}"]
    assert parts(client, config) == []


async def test_a_large_upload_with_other_bytes_leaves_nothing(
    servers: list[S3BlobStore], client: Any, config: dict[str, Any]
) -> None:
    digest = await send(servers[0], LARGE)
    pieces = keys(client, config, "uploads/")
    client.put_object(Bucket=config["bucket"], Key=pieces[9], Body=b"\0" * MIB)
    await refused(servers[1].finish(CUBE, digest, len(LARGE)), "DIGEST_MISMATCH")
    assert keys(client, config) == []
    assert parts(client, config) == []
    assert await servers[0].size(CUBE, digest) is None


async def test_a_damaged_blob_is_told_at_the_end_of_a_whole_read_and_written_anew(
    servers: list[S3BlobStore], client: Any, config: dict[str, Any]
) -> None:
    data = LARGE[: 5 * MIB]
    digest = await send(servers[0], data)
    await servers[0].finish(CUBE, digest, len(data))
    client.put_object(Bucket=config["bucket"], Key=f"cubes/{CUBE}/blobs/{digest[7:]}", Body=data[:-1] + b"?")
    await refused(get(servers[0], digest), "DATA_CORRUPT")
    client.put_object(Bucket=config["bucket"], Key=f"cubes/{CUBE}/blobs/{digest[7:]}", Body=data[:-1])
    await refused(get(servers[0], digest), "DATA_CORRUPT")
    await send(servers[0], data)
    await servers[1].finish(CUBE, digest, len(data))
    assert await get(servers[0], digest) == data


@pytest.mark.parametrize(("offset", "limit"), [(0, 0), (4 * MIB - 1, 2), (5, 9 * MIB), (8 * MIB, 0), (len(LARGE), 0)])
async def test_parts_are_read_across_requests(servers: list[S3BlobStore], offset: int, limit: int) -> None:
    digest = await send(servers[0], LARGE)
    await servers[0].finish(CUBE, digest, len(LARGE))
    assert await get(servers[1], digest, offset, limit) == LARGE[offset : offset + limit if limit else None]


async def test_a_reader_that_goes_away_leaves_nothing_running(servers: list[S3BlobStore]) -> None:
    digest = await send(servers[0], LARGE)
    await servers[0].finish(CUBE, digest, len(LARGE))
    reading = servers[0].read(CUBE, digest)
    assert len(await anext(reading)) == MIB
    await reading.aclose()  # type: ignore[attr-defined]
    await servers[0].delete(CUBE, digest)
    await refused(get(servers[0], digest), "BLOB_NOT_FOUND")


def dated_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes everything that is stored by now older than a day."""
    monkeypatch.setattr(store_module, "UPLOAD_LIFETIME_S", -5)


async def test_what_nobody_continues_expires_with_parts_and_probes(
    servers: list[S3BlobStore], client: Any, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = await send(servers[0], LARGE[: 2 * MIB])
    await servers[0].finish(CUBE, digest, 2 * MIB)
    await send(servers[0], LARGE[: 3 * MIB])
    client.put_object(Bucket=config["bucket"], Key="probes/of-a-server-that-died", Body=b"1")
    client.create_multipart_upload(Bucket=config["bucket"], Key=f"cubes/{CUBE}/blobs/{'0' * 64}")
    await servers[1].expire()
    assert len(keys(client, config)) == 5
    dated_back(monkeypatch)
    await servers[1].expire()
    assert keys(client, config) == [f"cubes/{CUBE}/blobs/{digest[7:]}"]
    assert parts(client, config) == []
    # The server that began it knows it by heart, and hears that it is gone.
    error = await refused(servers[0].append(CUBE, digest_of(LARGE[: 3 * MIB]), 3 * MIB, b""), "INVALID_STREAM")
    assert error.metadata == {"offset": "0"}


async def test_erasing_leaves_no_object_and_no_part(
    servers: list[S3BlobStore], client: Any, config: dict[str, Any]
) -> None:
    digest = await send(servers[0], LARGE)
    client.create_multipart_upload(Bucket=config["bucket"], Key=f"cubes/{CUBE}/blobs/{digest[7:]}")
    await servers[1].delete(CUBE, digest)
    assert (keys(client, config), parts(client, config)) == ([], [])
    await send(servers[0], LARGE)
    await servers[0].finish(CUBE, digest, len(LARGE))
    await send(servers[0], b"x" * 10)
    client.create_multipart_upload(Bucket=config["bucket"], Key=f"cubes/{CUBE}/blobs/{'0' * 64}")
    await send(servers[0], b"y", OTHER)
    await servers[1].drop_cube(CUBE)
    assert keys(client, config) == [f"uploads/{OTHER}/{digest_of(b'y')[7:]}/0000000000000000"]
    assert parts(client, config) == []


async def test_servers_count_a_cubes_unfinished_uploads_of_all(config: dict[str, Any]) -> None:
    first, second = (S3BlobStore("", max_unfinished_bytes=15, **config) for _ in range(2))
    await first.open()
    await second.open()
    assert first.max_unfinished_upload_bytes() == 15
    await first.append(CUBE, digest_of(b"a" * 10), 0, b"a" * 10)
    error = await refused(second.append(CUBE, digest_of(b"b" * 6), 0, b"b" * 6), "QUOTA_EXCEEDED")
    assert error.metadata == {"quota": "unfinished_upload_bytes", "limit": "15"}
    assert error.retry_after_s == 60
    await second.append(OTHER, digest_of(b"b" * 15), 0, b"b" * 15)
    await first.finish(CUBE, digest_of(b"a" * 10), 10)
    await first.append(CUBE, digest_of(b"b" * 15), 0, b"b" * 15)
    await first.close()
    await second.close()


async def test_two_prefixes_of_a_bucket_know_nothing_of_each_other(config: dict[str, Any]) -> None:
    first, second = S3BlobStore("", prefix="a", **config), S3BlobStore("", prefix="a/b", **config)
    await first.open()
    await second.open()
    digest = await send(first, b"hello")
    await first.finish(CUBE, digest, 5)
    assert await second.size(CUBE, digest) is None
    await second.drop_cube(CUBE)
    assert await get(first, digest) == b"hello"
    await first.close()
    await second.close()


# What stands in the way.


def failed(code: str, status: int, operation: str) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, operation)


def client_of(store: S3BlobStore) -> Any:
    return store._bucket._client


async def test_a_write_whose_answer_was_lost_is_known_as_ones_own(
    servers: list[S3BlobStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_of(servers[0])
    real = client.put_object

    def twice(**arguments: Any) -> Any:
        real(**arguments)
        return real(**arguments)

    monkeypatch.setattr(client, "put_object", twice)
    data = b"z" * 100
    digest = digest_of(data)
    for offset in range(0, 100, 10):
        await servers[0].append(CUBE, digest, offset, data[offset : offset + 10])
    await servers[0].finish(CUBE, digest, 100)
    assert await get(servers[0], digest) == data


async def test_an_append_that_failed_is_asked_after_and_goes_on(
    servers: list[S3BlobStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_of(servers[0])
    real = client.put_object
    digest = digest_of(b"abcdef")

    def stored_and_lost(**arguments: Any) -> Any:
        real(**arguments)
        raise failed("InternalError", 500, "PutObject")

    await servers[0].append(CUBE, digest, 0, b"abc")
    with monkeypatch.context() as patched:
        patched.setattr(client, "put_object", stored_and_lost)
        error = await refused(servers[0].append(CUBE, digest, 3, b"def"), "BACKEND_UNAVAILABLE")
        assert error.retry_after_s == 2
    assert await servers[0].upload_size(CUBE, digest) == 6
    await servers[0].finish(CUBE, digest, 6)
    assert await get(servers[0], digest) == b"abcdef"


async def test_a_full_store_keeps_the_upload_at_its_last_acknowledged_size(
    servers: list[S3BlobStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = digest_of(b"abcdef")
    await servers[0].append(CUBE, digest, 0, b"abc")

    def full(**_: Any) -> Any:
        raise failed("XMinioStorageFull", 507, "PutObject")

    with monkeypatch.context() as patched:
        patched.setattr(client_of(servers[0]), "put_object", full)
        await refused(servers[0].append(CUBE, digest, 3, b"def"), "STORAGE_FULL")
        await refused(servers[0].finish(CUBE, digest, 3), "DIGEST_MISMATCH")
    await servers[0].append(CUBE, digest, 0, b"abcdef")
    with monkeypatch.context() as patched:
        patched.setattr(client_of(servers[0]), "put_object", full)
        await refused(servers[0].finish(CUBE, digest, 6), "STORAGE_FULL")
    await servers[0].finish(CUBE, digest, 6)
    assert await get(servers[0], digest) == b"abcdef"


async def test_a_failed_part_drops_the_others_and_keeps_the_upload(
    servers: list[S3BlobStore], client: Any, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = await send(servers[0], LARGE)
    real = client_of(servers[0]).upload_part

    def second_fails(**arguments: Any) -> Any:
        if arguments["PartNumber"] == 2:
            raise failed("SlowDown", 503, "UploadPart")
        return real(**arguments)

    with monkeypatch.context() as patched:
        patched.setattr(client_of(servers[0]), "upload_part", second_fails)
        await refused(servers[0].finish(CUBE, digest, len(LARGE)), "BACKEND_UNAVAILABLE")
    assert parts(client, config) == []
    assert await servers[0].size(CUBE, digest) is None
    assert await servers[0].upload_size(CUBE, digest) == len(LARGE)
    await servers[0].finish(CUBE, digest, len(LARGE))
    assert await get(servers[0], digest) == LARGE


async def test_a_cancelled_finish_leaves_no_part_and_the_upload(
    servers: list[S3BlobStore], client: Any, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = await send(servers[0], LARGE)
    begun = asyncio.Event()
    loop, real = asyncio.get_running_loop(), client_of(servers[0]).upload_part

    def upload_part(**arguments: Any) -> Any:
        loop.call_soon_threadsafe(begun.set)
        return real(**arguments)

    monkeypatch.setattr(client_of(servers[0]), "upload_part", upload_part)
    task = asyncio.create_task(servers[0].finish(CUBE, digest, len(LARGE)))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert parts(client, config) == []
    assert await servers[0].upload_size(CUBE, digest) == len(LARGE)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"bucket": "no-such-bucket"}, "does not exist"),
        ({"secret_key": "not-the-secret-of-it"}, "refuses the credentials"),
        ({"access_key": "nobody"}, "refuses the credentials"),
    ],
)
async def test_a_store_that_is_set_wrong_keeps_the_server_from_starting(
    config: dict[str, Any], wrong: dict[str, str], words: str
) -> None:
    with pytest.raises(SetupError, match=words) as caught:
        await S3BlobStore("", **{**config, **wrong}).open()
    assert caught.value.remedy
    assert config["secret_key"] not in str(caught.value)
    assert "not-the-secret-of-it" not in str(caught.value)


async def test_a_store_without_conditional_writes_is_refused(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from memos_server.blob_stores.s3.bucket import Bucket

    def unconditional(self: Bucket, key: str, data: bytes, etag: str | None) -> str:
        self.put(key, data)
        return "e"

    monkeypatch.setattr(Bucket, "put_if", unconditional)
    with pytest.raises(SetupError, match="conditional writes"):
        await S3BlobStore("", **config).open()


async def test_over_tls_the_certificate_counts(tmp_path: Path) -> None:
    engines.need("s3")
    engine = S3Engine(tmp_path / "s3", tls=True)
    engine.start()
    try:
        config = engine.config(files=True)
        trusting = S3BlobStore("", **config)
        await trusting.open()
        await trusting.probe()
        digest = await send(trusting, LARGE)
        await trusting.finish(CUBE, digest, len(LARGE))
        assert await get(trusting, digest) == LARGE
        await trusting.close()
        del config["ca_file"]
        with pytest.raises(SetupError, match="certificate"):
            await S3BlobStore("", **config).open()
    finally:
        engine.kill()


async def test_a_store_that_goes_away_is_named_and_used_again_when_it_is_back(tmp_path: Path) -> None:
    engines.need("s3")
    engine = S3Engine(tmp_path / "s3")
    engine.start()
    try:
        store = S3BlobStore("", **engine.config())
        await store.open()
        digest = await send(store, LARGE)
        engine.kill()
        for call in (
            lambda: store.probe(),
            lambda: store.size(CUBE, digest),
            lambda: store.append(CUBE, digest, len(LARGE), b"x"),
            lambda: store.finish(CUBE, digest, len(LARGE)),
            lambda: store.delete(CUBE, digest),
            lambda: get(store, digest),
        ):
            error = await refused(call(), "BACKEND_UNAVAILABLE")
            assert error.retry_after_s == 2
            assert "cannot be reached" in error.message
        with pytest.raises(MipError, match="BACKEND_UNAVAILABLE"):
            await S3BlobStore("", **engine.config()).open()
        engine.start()
        await store.probe()
        await store.finish(CUBE, digest, len(LARGE))
        assert await get(store, digest) == LARGE
        await store.close()
    finally:
        engine.kill()


class VersioningEngine(S3Engine):
    """A store whose buckets can keep versions."""

    def _command(self) -> tuple[list[str], dict[str, str]]:
        arguments, environment = super()._command()
        (self.folder / "versions").mkdir(exist_ok=True)
        return [*arguments[:-1], "--versioning-dir", str(self.folder / "versions"), arguments[-1]], environment


async def test_a_bucket_that_keeps_versions_is_refused_and_one_that_kept_them_is_erased_whole(tmp_path: Path) -> None:
    engines.need("s3")
    engine = VersioningEngine(tmp_path / "s3")
    engine.start()
    client = engine.client()
    try:
        bucket = engine.config()["bucket"]

        def switch(status: str) -> None:
            client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})

        store = S3BlobStore("", **engine.config())
        await store.open()
        digest = await send(store, b"PIN is 4417")
        await store.finish(CUBE, digest, 11)
        switch("Enabled")
        error = await refused(store.delete(CUBE, digest), "BACKEND_UNAVAILABLE")
        assert "suspend its versioning" in error.message
        with pytest.raises(SetupError, match="keeps versions"):
            await S3BlobStore("", **engine.config()).open()
        client.put_object(Bucket=bucket, Key=f"cubes/{CUBE}/blobs/{digest[7:]}", Body=b"PIN is 4418")
        switch("Suspended")
        await store.delete(CUBE, digest)
        left = client.list_object_versions(Bucket=bucket)
        assert not left.get("Versions")
        assert not left.get("DeleteMarkers")
        await store.close()
    finally:
        client.close()
        engine.kill()


async def test_a_gateway_that_tidies_up_a_folder_is_asked_again(
    servers: list[S3BlobStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = servers[0]._bucket._client
    put, calls = client.put_object, 0

    def busy_at_first(**named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise ClientError({"Error": {"Code": "ExistingObjectIsDirectory"}}, "PutObject")
        return put(**named)

    monkeypatch.setattr(client, "put_object", busy_at_first)
    data = b"weights" * 100
    digest = await send(servers[0], data)
    assert calls == 3
    await servers[0].finish(CUBE, digest, len(data))
    assert await get(servers[1], digest) == data
