"""Errors on the wire: code, message with remedy, details; and what unforeseen errors become."""

from __future__ import annotations

import errno
import logging
import sqlite3
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from memos_server._pb.mip.v1.memory_pb2 import Memory
from memos_server.api import status
from memos_server.errors import FieldViolation, MipError, reason_rules


def details(error: MipError) -> dict[str, Message]:
    """The details of an error by type, as a client reads them from the trailers."""
    ((key, value),) = status.trailing_metadata(error)
    assert key == "grpc-status-details-bin"
    found: dict[str, Message] = {}
    for packed in status_pb2.Status.FromString(value).details:
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
            unpacked = kind()
            if packed.Unpack(unpacked):
                found[kind.DESCRIPTOR.name] = unpacked
    return found


def test_an_error_carries_domain_reason_metadata_and_remedy() -> None:
    error = MipError("ETAG_MISMATCH", "The memory was changed", metadata={"etag": "abc"})
    info = details(error)["ErrorInfo"]
    assert info == error_details_pb2.ErrorInfo(
        domain="mip",
        reason="ETAG_MISMATCH",
        metadata={
            "etag": "abc",
            "remedy": "Read the resource again, apply the change to what it is now, and send its new etag.",
        },
    )
    assert status.status_code(error) is grpc.StatusCode.ABORTED
    assert status.to_status(error).code == 10
    assert status.message_of(error) == (
        "The memory was changed. Read the resource again, apply the change to what it is now, and send its new etag."
    )


def test_violations_become_a_bad_request_and_a_wait_a_retry_info() -> None:
    error = MipError("INVALID_FIELD", "wrong", violations=[FieldViolation("memories[3].tags", "too long")])
    violation = details(error)["BadRequest"].field_violations[0]  # type: ignore[attr-defined]
    assert (violation.field, violation.description) == ("memories[3].tags", "too long")
    retry = details(MipError("QUOTA_EXCEEDED", "slow down", retry_after_s=1.5))["RetryInfo"]
    assert retry.retry_delay.ToMilliseconds() == 1500  # type: ignore[attr-defined]
    assert set(details(MipError("INTERNAL", "x"))) == {"ErrorInfo"}


def test_what_is_out_of_reach_says_when_to_come_again_even_where_nobody_knows_better() -> None:
    for reason, milliseconds, given in (("BACKEND_UNAVAILABLE", 1000, None), ("SHUTTING_DOWN", 250, 0.25)):
        retry = details(MipError(reason, "away", retry_after_s=given))["RetryInfo"]
        assert retry.retry_delay.ToMilliseconds() == milliseconds  # type: ignore[attr-defined]


@pytest.mark.parametrize("reason", sorted(reason_rules()))
def test_every_reason_has_a_status_code_and_a_remedy(reason: str) -> None:
    error = MipError(reason, "It happened.")
    assert status.status_code(error) is not grpc.StatusCode.OK
    assert status.message_of(error).startswith("It happened. ")
    assert status.message_of(error).endswith(error.remedy)


def test_trailers_stay_within_what_peers_accept() -> None:
    error = MipError(
        "INVALID_FIELD",
        "é" * 5000,
        metadata={"much": "é" * 5000},
        violations=[FieldViolation(f"f{number}" + "é" * 500, "d" * 500) for number in range(20)],
    )
    ((_, value),) = status.trailing_metadata(error)
    assert len(value) <= 4096
    kept = details(error)["BadRequest"].field_violations  # type: ignore[attr-defined]
    assert 3 < len(kept) < 20
    assert kept[0].field.startswith("f0é")
    assert len(status.message_of(error).encode()) < 800


def test_a_mip_error_stays_as_it_is() -> None:
    error = MipError("CUBE_NOT_FOUND", "x")
    assert status.from_exception(error) is error


def test_an_unforeseen_error_is_logged_and_shows_the_caller_an_incident_only(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        error = status.from_exception(KeyError("the PIN is 4417"))
    assert error.reason == "INTERNAL"
    incident = error.metadata["incident"]
    assert len(incident) == 16
    assert "4417" not in status.message_of(error)
    assert incident in status.message_of(error)
    assert incident in caplog.text
    assert "KeyError" in caplog.text
    assert status.from_exception(KeyError("x")).metadata["incident"] != incident


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (TimeoutError(), "DEADLINE_EXCEEDED"),
        (OSError(errno.ENOSPC, "No space left on device"), "STORAGE_FULL"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "STORAGE_FULL"),
        (sqlite3.OperationalError("database or disk is full"), "STORAGE_FULL"),
        (sqlite3.DatabaseError("database disk image is malformed"), "DATA_CORRUPT"),
        (sqlite3.DatabaseError("file is not a database"), "DATA_CORRUPT"),
        (sqlite3.OperationalError("no such table: x"), "INTERNAL"),
        (sqlite3.ProgrammingError("Cannot operate on a closed database."), "INTERNAL"),
        (OSError(errno.EIO, "Input/output error"), "BACKEND_UNAVAILABLE"),
        (PermissionError(errno.EACCES, "Permission denied"), "BACKEND_UNAVAILABLE"),
        (FileNotFoundError(errno.ENOENT, "No such file"), "INTERNAL"),
        (DecodeError("Error parsing message"), "DATA_CORRUPT"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "DATA_CORRUPT"),
        (ValueError("x"), "INTERNAL"),
    ],
)
def test_foreseen_errors_have_their_own_reason(raised: Exception, reason: str) -> None:
    assert status.from_exception(raised).reason == reason


def test_a_damaged_record_is_recognised_by_sqlites_own_code(tmp_path: Path) -> None:
    path = tmp_path / "record.sqlite"
    path.write_bytes(b"this is no database" * 100)
    connection = sqlite3.connect(path)
    with pytest.raises(sqlite3.DatabaseError) as caught:
        connection.execute("SELECT * FROM sqlite_master").fetchall()
    connection.close()
    assert status.from_exception(caught.value).reason == "DATA_CORRUPT"


def test_what_is_stored_and_does_not_parse_is_logged_as_an_incident(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(DecodeError) as caught, caplog.at_level(logging.ERROR):
        Memory.FromString(b"\xff\xff\xff")
    error = status.from_exception(caught.value)
    assert status.status_code(error) is grpc.StatusCode.DATA_LOSS
    assert error.metadata["incident"] in status.message_of(error)
    assert f"incident {error.metadata['incident']}: DecodeError" in caplog.text
