"""What of the S3 blob store needs no store: names, chains of pieces, parts, settings, and what errors mean."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError

from memos_server.blob_stores.s3 import S3BlobStore, failures
from memos_server.blob_stores.s3.bucket import Account, Bucket, Stored
from memos_server.blob_stores.s3.composing import PART_BYTES, part_size, parts_of
from memos_server.blob_stores.s3.keys import Keys, piece_key
from memos_server.blob_stores.s3.uploads import chain, size_of
from memos_server.configs.errors import SetupError
from memos_server.errors import MipError

CUBE = "0198c5a2-7f3e-7c41-9a52-3d1f0b6e8c77"
DIGEST = "sha256:" + "ab" * 32
MIB = 2**20


def piece(start: int, size: int) -> Stored:
    return Stored(piece_key("uploads/c/d/", start), size, '"e"', datetime(2026, 1, 1, tzinfo=UTC))


def test_a_prefix_is_a_folder_whatever_slashes_it_has() -> None:
    for prefix in ("a/b", "/a/b/", "a//b"):
        assert Keys(prefix).blob(CUBE, DIGEST) == f"a/b/cubes/{CUBE}/blobs/{'ab' * 32}"
    assert Keys("").upload(CUBE, DIGEST) == f"uploads/{CUBE}/{'ab' * 32}/"


@pytest.mark.parametrize("prefix", ["a/../b", "./a", "a b", "ä", "x" * 401])
def test_a_prefix_that_is_no_name_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        Keys(prefix)


def test_the_name_of_a_piece_tells_what_it_is_of() -> None:
    keys = Keys("p")
    assert keys.of_piece(piece_key(keys.upload(CUBE, DIGEST), 4096)) == (CUBE, DIGEST, 4096)
    assert keys.of_piece(f"p/uploads/{CUBE}/what") is None
    assert keys.of_piece(keys.blob(CUBE, DIGEST)) is None


def test_a_chain_leaves_out_what_does_not_follow() -> None:
    pieces = [piece(0, 10), piece(5, 3), piece(10, 4), piece(20, 1)]
    assert [int(each.key[-4:]) for each in chain(pieces)] == [0, 10]
    assert size_of(chain(pieces)) == 14
    assert chain([piece(3, 5)]) == []


def test_parts_are_of_equal_size_across_pieces() -> None:
    pieces = [piece(0, 7), piece(7, 1), piece(8, 12)]
    first, second = pieces[0].key, pieces[2].key
    parts = parts_of(pieces, 8)
    assert parts == [[(first, 0, 7), (pieces[1].key, 0, 1)], [(second, 0, 8)], [(second, 8, 4)]]
    assert parts_of([], 8) == []


@pytest.mark.parametrize(("size", "expected"), [(0, 8 * MIB), (60 * 2**30, 8 * MIB), (2**40, 117 * MIB)])
def test_parts_grow_where_there_would_be_too_many(size: int, expected: int) -> None:
    assert part_size(size) == expected
    assert size <= 10_000 * part_size(size)
    assert PART_BYTES >= 5 * MIB


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"bucket": "B"}, "bucket"),
        ({"endpoint": "ftp://x"}, "endpoint"),
        ({"endpoint": "http://user:secret@x"}, "endpoint"),
        ({"access_key": "a"}, "exactly one"),
        ({"access_key": "a", "secret_key": "s", "secret_key_file": "f"}, "exactly one"),
        ({"secret_key": "s"}, "exactly one"),
        ({"ca_file": "/nowhere/ca.pem"}, "ca_file"),
        ({"max_unfinished_bytes": -1}, "max_unfinished_bytes"),
        ({"threads": 0}, "threads"),
    ],
)
def test_a_wrong_setting_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        S3BlobStore("", **{"bucket": "memos", **settings})


def test_a_secret_comes_of_a_file_that_is_its_owners(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("hush\n")
    file.chmod(0o600)
    S3BlobStore("", bucket="memos", access_key="a", secret_key_file=str(file))
    file.chmod(0o644)
    with pytest.raises(SetupError, match="readable or writable by others"):
        S3BlobStore("", bucket="memos", access_key="a", secret_key_file=str(file))


def test_an_account_shows_no_secret() -> None:
    assert "hush" not in repr(Account("https://x", "r", "key", "hush", ""))


def answer(code: str, status: int = 400) -> ClientError:
    return ClientError(
        {
            "Error": {"Code": code, "Message": "AWSAccessKeyId=key secret text"},
            "ResponseMetadata": {"HTTPStatusCode": status},
        },
        "PutObject",
    )


@pytest.mark.parametrize(
    ("error", "reason", "words"),
    [
        (answer("QuotaExceeded", 403), "STORAGE_FULL", "free some space"),
        (answer("XMinioStorageFull", 507), "STORAGE_FULL", "free some space"),
        (answer("Whatever", 507), "STORAGE_FULL", "free some space"),
        (answer("NoSuchBucket", 404), "BACKEND_UNAVAILABLE", "is gone"),
        (answer("SignatureDoesNotMatch", 403), "BACKEND_UNAVAILABLE", "credentials"),
        (answer("RequestTimeTooSkewed", 403), "BACKEND_UNAVAILABLE", "clock"),
        (answer("SlowDown", 503), "BACKEND_UNAVAILABLE", "SlowDown to PutObject"),
        (EndpointConnectionError(endpoint_url="https://x"), "BACKEND_UNAVAILABLE", "cannot be reached"),
        (ReadTimeoutError(endpoint_url="https://x"), "BACKEND_UNAVAILABLE", "in time"),
    ],
)
def test_an_error_says_what_to_do_and_quotes_nothing(error: Exception, reason: str, words: str) -> None:
    told = failures.explained(error, "memos")
    assert told.reason == reason
    assert words in told.message
    assert "secret" not in told.message
    assert reason == "STORAGE_FULL" or told.retry_after_s == 2.0


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("NoSuchBucket", "does not exist"),
        ("InvalidAccessKeyId", "refuses the credentials"),
        ("PermanentRedirect", "region"),
    ],
)
def test_what_is_set_wrong_keeps_a_server_from_starting(code: str, words: str) -> None:
    told = failures.explained_at_start(answer(code), "memos", "https://x")
    assert isinstance(told, SetupError)
    assert words in str(told)


def test_a_store_that_is_away_at_the_start_is_no_wrong_setting() -> None:
    told = failures.explained_at_start(EndpointConnectionError(endpoint_url="https://x"), "memos", "https://x")
    assert isinstance(told, MipError)
    assert told.reason == "BACKEND_UNAVAILABLE"


@pytest.fixture
def silent() -> Iterator[str]:
    """A store that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_store_that_is_silent_is_given_up_in_time(silent: str) -> None:
    bucket = Bucket(Account(silent, "r", "key", "hush", ""), "memos", connections=1, patience_s=0.2, attempts=1)
    began = time.monotonic()
    with pytest.raises(MipError, match=r"BACKEND_UNAVAILABLE: .* does not answer in time") as caught:
        bucket.size("x")
    assert time.monotonic() - began < 5
    assert "hush" not in str(caught.value)
    bucket.close()
