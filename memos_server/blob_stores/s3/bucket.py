"""What the blob store asks of a bucket. Everything here blocks; errors of the library become those of `failures.py`."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, Final, TypeVar

import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)

from memos_server.blob_stores.s3 import failures

_PASSING_TRIES: Final = 4
_PASSING_S: Final = 0.05
"""How long a store that is busy with one of its folders is left alone at first, seconds."""
_ATTEMPTS: Final = 3
_CONNECT_S: Final = 5.0
_ANSWER_S: Final = 20.0
"""How long the store may be silent before a request is tried again, seconds."""
_UNITE_S: Final = 300.0
"""The same for making many parts one object, which some stores copy for."""
_BATCH: Final = 1000
"""The most objects that one request deletes."""
_TRIES: Final = 5
_BROKEN: Final = (IncompleteReadError, ReadTimeoutError, ResponseStreamingError)
_WRITER: Final = "writer"
# What these write at the level debug quotes the bytes of requests.
_TALKATIVE: Final = ("botocore", "boto3", "urllib3")

T = TypeVar("T")


class ConditionError(Exception):
    """A conditional write was refused: somebody else has written the object, or deleted it."""


class AbsentError(Exception):
    """There is no such object."""


@dataclass(frozen=True, slots=True)
class Account:
    """Where the bucket is and who asks.

    Attributes:
        endpoint: `http(s)://HOST[:PORT]`; empty for Amazon S3 itself.
        region: The region.
        access_key: The access key; empty for what the machine gives its programs (environment, role of the instance).
        secret_key: Its secret.
        ca_file: The authorities that may have signed the store's certificate, PEM; empty for the system's.
    """

    endpoint: str
    region: str
    access_key: str
    secret_key: str
    ca_file: str

    def __repr__(self) -> str:
        """Returns it without the secret."""
        return f"Account({self.endpoint!r}, {self.region!r})"


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as a listing shows it.

    Attributes:
        key: Its name.
        size: Its size, bytes.
        etag: What changes with its bytes.
        modified: When it was written, by the store's clock.
    """

    key: str
    size: int
    etag: str
    modified: datetime


class Bucket:
    """A bucket. May be used by several threads at once."""

    def __init__(
        self,
        account: Account,
        bucket: str,
        *,
        connections: int,
        patience_s: float = _ANSWER_S,
        attempts: int = _ATTEMPTS,
    ) -> None:
        """Prepares; nothing is sent yet.

        Args:
            account: Where it is and who asks.
            bucket: Its name.
            connections: The most connections at once.
            patience_s: How long the store may be silent, seconds.
            attempts: How often a request is made at most.
        """
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
        # Where the settings give a key, nothing of the user's own files decides anything.
        own_files: dict[str, Any] = {}
        if account.access_key:
            own_files = {
                "profile": (None, None, None, None),
                "config_file": (None, None, os.devnull, None),
                "credentials_file": (None, None, os.devnull, None),
            }
        session = botocore.session.Session(session_vars=own_files)
        self.name = bucket
        self._client = _client(session, account, connections, patience_s, attempts)
        # Connections are made when they are used: this one has none for long.
        self._patient = _client(session, account, 2, max(patience_s, _UNITE_S), attempts)

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()
        self._patient.close()

    # Reading.

    def size(self, key: str) -> int | None:
        """Returns an object's size, None when it is absent."""
        found = self._head(key)
        return None if found is None else int(found["ContentLength"])

    def read(self, key: str, start: int, length: int) -> tuple[bytes, int]:
        """Returns at most `length` bytes (at least 1) from `start` on, and the object's size; none behind its end.

        Raises:
            AbsentError: There is no such object.
            MipError: BACKEND_UNAVAILABLE.
        """

        def get() -> tuple[bytes, int]:
            wanted = f"bytes={start}-{start + length - 1}"
            try:
                answer = self._client.get_object(Bucket=self.name, Key=key, Range=wanted)
            except ClientError as error:
                if failures.is_absent(error):
                    raise AbsentError(key) from None
                if failures.is_range(error):
                    return b"", start
                raise
            with contextlib.closing(answer["Body"]) as body:
                data: bytes = body.read()
            whole = answer.get("ContentRange", "").rpartition("/")[2]
            if not whole.isdigit():
                # A store that knows no ranges sends the object.
                return data[start : start + length], len(data)
            return data, int(whole)

        def again() -> tuple[bytes, int]:
            # The library tries again until an answer begins; from there on it is ours to do.
            for _ in range(_ATTEMPTS - 1):
                with contextlib.suppress(*_BROKEN):
                    return get()
            return get()

        return self._asked(again)

    def listed(self, prefix: str) -> Iterator[Stored]:
        """Yields the objects whose names begin so, in their order."""
        marks = {"ContinuationToken": "NextContinuationToken"}
        for page in self._pages(self._client.list_objects_v2, prefix, marks):
            for each in page.get("Contents", ()):
                yield Stored(each["Key"], int(each["Size"]), each["ETag"], each["LastModified"])

    def now(self, prefix: str) -> datetime:
        """Returns the time by the store's clock, by which objects are dated; `prefix` may be listed."""
        answer = self._asked(lambda: self._client.list_objects_v2(Bucket=self.name, MaxKeys=1, Prefix=prefix))
        told = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
        return parsedate_to_datetime(told).astimezone(UTC) if told else datetime.now(UTC)

    # Writing.

    def put(self, key: str, data: bytes) -> None:
        """Writes an object, whatever was there."""
        self._asked(lambda: self._client.put_object(Bucket=self.name, Key=key, Body=data, ChecksumSHA256=_sha256(data)))

    def put_if(self, key: str, data: bytes, etag: str | None) -> str:
        """Writes an object on a condition, and returns its new etag.

        Args:
            key: Its name.
            data: Its bytes.
            etag: What the object's etag must be; None when there must be none.

        Raises:
            ConditionError: The condition does not hold. Nothing was written.
            MipError: BACKEND_UNAVAILABLE or STORAGE_FULL; whether it was written is not known.
        """
        condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
        writer = uuid.uuid4().hex
        try:
            answer = self._asked(
                lambda: self._client.put_object(
                    Bucket=self.name,
                    Key=key,
                    Body=data,
                    ChecksumSHA256=_sha256(data),
                    Metadata={_WRITER: writer},
                    **condition,
                ),
                conditional=True,
            )
        except ConditionError:
            # The library tries again when an answer is lost, and then meets what it has written itself.
            found = self._head(key)
            if found is not None and found.get("Metadata", {}).get(_WRITER) == writer:
                return str(found["ETag"])
            raise
        return str(answer["ETag"])

    def begin_parts(self, key: str) -> str:
        """Begins to write an object in parts and returns what names that."""
        answer = self._asked(
            lambda: self._client.create_multipart_upload(Bucket=self.name, Key=key, ChecksumAlgorithm="SHA256")
        )
        return str(answer["UploadId"])

    def put_part(self, key: str, upload: str, number: int, data: bytes) -> Mapping[str, object]:
        """Writes a part, and returns what `end_parts` needs of it. All but the last have 5 MiB at least."""
        checksum = _sha256(data)
        answer = self._asked(
            lambda: self._client.upload_part(
                Bucket=self.name,
                Key=key,
                UploadId=upload,
                PartNumber=number,
                Body=data,
                ChecksumSHA256=checksum,
            )
        )
        part: dict[str, object] = {"PartNumber": number, "ETag": answer["ETag"]}
        # Only a store that has kept the checksum wants to see it again.
        return part | ({"ChecksumSHA256": checksum} if answer.get("ChecksumSHA256") else {})

    def end_parts(self, key: str, upload: str, parts: Iterable[Mapping[str, object]]) -> None:
        """Makes the parts one object, at once.

        Raises:
            AbsentError: They were dropped, or made an object already.
        """

        def end() -> None:
            try:
                self._patient.complete_multipart_upload(
                    Bucket=self.name, Key=key, UploadId=upload, MultipartUpload={"Parts": list(parts)}
                )
            except ClientError as error:
                if failures.is_gone_upload(error):
                    raise AbsentError(key) from None
                raise

        self._asked(end)

    def drop_parts(self, key: str, upload: str) -> None:
        """Drops what was written in parts; it may be gone already."""

        def drop() -> None:
            try:
                self._client.abort_multipart_upload(Bucket=self.name, Key=key, UploadId=upload)
            except ClientError as error:
                if not (failures.is_gone_upload(error) or failures.is_absent(error)):
                    raise

        self._asked(drop)

    def in_parts(self, prefix: str) -> Iterator[tuple[str, str, datetime]]:
        """Yields (key, what names it, when it was begun) of what is being written in parts."""
        marks = {"KeyMarker": "NextKeyMarker", "UploadIdMarker": "NextUploadIdMarker"}
        for page in self._pages(self._client.list_multipart_uploads, prefix, marks):
            for each in page.get("Uploads", ()):
                yield each["Key"], each["UploadId"], each["Initiated"]

    # Erasing.

    def versioning(self) -> str:
        """Returns `Enabled`, `Suspended`, or nothing where the bucket never kept versions."""

        def ask() -> str:
            try:
                return str(self._client.get_bucket_versioning(Bucket=self.name).get("Status", ""))
            except ClientError as error:
                if failures.is_unknown_operation(error):
                    return ""
                raise

        return self._asked(ask)

    def delete(self, keys: Iterable[str]) -> None:
        """Deletes objects as they are now; absent ones are fine."""
        self._delete([{"Key": key} for key in keys])

    def erase(self, prefix: str) -> None:
        """Erases all whose name begins so: objects, older versions of them, and what is being written in parts.

        Raises:
            MipError: BACKEND_UNAVAILABLE, also when more comes while it is erased, and when the bucket keeps versions.
        """
        for _ in range(_TRIES):
            parts = list(self.in_parts(prefix))
            for key, upload, _begun in parts:
                self.drop_parts(key, upload)
            versioning = self.versioning()
            if versioning == "Enabled":
                raise failures.keeps_versions(self.name)
            found = self._versions(prefix) if versioning else [{"Key": each.key} for each in self.listed(prefix)]
            self._delete(found)
            if not parts and not found:
                return
        raise failures.still_written(self.name)

    def _versions(self, prefix: str) -> list[dict[str, str]]:
        found: list[dict[str, str]] = []
        marks = {"KeyMarker": "NextKeyMarker", "VersionIdMarker": "NextVersionIdMarker"}
        for page in self._pages(self._client.list_object_versions, prefix, marks):
            versions = (*page.get("Versions", ()), *page.get("DeleteMarkers", ()))
            found += [{"Key": each["Key"], "VersionId": each["VersionId"]} for each in versions]
        return found

    def _delete(self, objects: list[dict[str, str]]) -> None:
        for first in range(0, len(objects), _BATCH):
            batch = objects[first : first + _BATCH]
            wanted = {"Objects": batch, "Quiet": True}
            answer = self._asked(partial(self._client.delete_objects, Bucket=self.name, Delete=wanted))
            for wrong in answer.get("Errors", ()):
                if wrong.get("Code") not in ("NoSuchKey", "NoSuchVersion"):
                    raise failures.not_deleted(self.name, str(wrong.get("Code", "")))

    # Asking.

    def _pages(self, ask: Callable[..., Any], prefix: str, marks: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
        """Yields the pages of a listing; `marks` says which argument continues it, and where in a page it stands."""
        after: dict[str, str] = {}
        while True:
            page = self._asked(partial(ask, Bucket=self.name, Prefix=prefix, **after))
            yield page
            if not page.get("IsTruncated"):
                return
            after = {argument: page[mark] for argument, mark in marks.items() if page.get(mark)}

    def _head(self, key: str) -> Mapping[str, Any] | None:
        def head() -> Mapping[str, Any] | None:
            try:
                found: Mapping[str, Any] = self._client.head_object(Bucket=self.name, Key=key)
            except ClientError as error:
                if failures.is_absent(error):
                    return None
                raise
            return found

        return self._asked(head)

    def _asked(self, ask: Callable[[], T], *, conditional: bool = False) -> T:
        for attempt in range(_PASSING_TRIES):
            try:
                return ask()
            except ClientError as error:
                if attempt == _PASSING_TRIES - 1 or not failures.is_passing(error):
                    raise self._told(error, conditional=conditional) from error
                time.sleep(_PASSING_S * 2**attempt)
            except BotoCoreError as error:
                raise failures.explained(error, self.name) from error
        raise AssertionError("the last attempt returns or raises")

    def _told(self, error: ClientError, *, conditional: bool) -> Exception:
        # A write of what is not there any more fails its condition as well.
        if conditional and (failures.is_condition(error) or failures.is_absent(error)):
            return ConditionError()
        return failures.explained(error, self.name)


def _client(
    session: botocore.session.Session, account: Account, connections: int, patience_s: float, attempts: int
) -> Any:
    return session.create_client(
        "s3",
        region_name=account.region,
        endpoint_url=account.endpoint or None,
        aws_access_key_id=account.access_key or None,
        aws_secret_access_key=account.secret_key or None,
        verify=account.ca_file or True,
        config=Config(
            connect_timeout=min(_CONNECT_S, patience_s),
            read_timeout=patience_s,
            max_pool_connections=connections,
            retries={"mode": "standard", "total_max_attempts": attempts},
            # The signature names the SHA-256 of what is sent, which every store has to check, over TLS too.
            s3={"payload_signing_enabled": True, "addressing_style": "path" if account.endpoint else "auto"},
            # Checksums are given explicitly where bytes are stored; streamed ones are refused by many stores.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            user_agent_extra="memos",
        ),
    )


def _sha256(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode("ascii")
