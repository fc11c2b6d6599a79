"""What an answer of the store means: to a caller, to the operator, and to whoever starts a server.

Only codes and names of operations are told. What else a store puts into an error may quote keys, signatures or content.
"""

from __future__ import annotations

from typing import Any, Final

from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
    SSLError,
)

from memos_server.configs.errors import SetupError
from memos_server.errors import MipError

RETRY_S: Final = 2.0
"""When to try again what the store could not do now, seconds."""

_FULL: Final = frozenset(
    {"InsufficientStorage", "QuotaExceeded", "QuotaExceededException", "XMinioStorageFull", "NotEnoughSpace"}
    | {"XMinioAdminBucketQuotaExceeded", "ServiceQuotaExceededException", "EntityQuotaExceeded", "DiskFull"}
)
_CREDENTIALS: Final = frozenset(
    {"AccessDenied", "AllAccessDisabled", "AccountProblem", "InvalidAccessKeyId", "SignatureDoesNotMatch"}
    | {"ExpiredToken", "InvalidToken", "InvalidSecurity", "XAdminUserNotFound", "401", "403", "Forbidden"}
)
_ABSENT: Final = frozenset({"NoSuchKey", "404", "NotFound"})
_CONDITION: Final = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
_PASSING: Final = frozenset({"ExistingObjectIsDirectory"})
_UNKNOWN_HERE: Final = frozenset({"NotImplemented", "MethodNotAllowed", "VersioningNotConfigured", "501", "405"})


def code_of(error: Exception) -> str:
    """Returns the store's code of an error; empty for one that is no answer of the store."""
    if not isinstance(error, ClientError):
        return ""
    answer: Any = error.response
    return str(answer.get("Error", {}).get("Code", ""))


def _status(error: ClientError) -> int:
    answer: Any = error.response
    return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_passing(error: ClientError) -> bool:
    """Returns whether a store that keeps objects as files was asked while it tidied up a folder; nothing was done."""
    return code_of(error) in _PASSING


def is_absent(error: ClientError) -> bool:
    """Returns whether the object is not there."""
    return code_of(error) in _ABSENT


def is_condition(error: ClientError) -> bool:
    """Returns whether a condition of a write did not hold: somebody else has written."""
    return code_of(error) in _CONDITION or _status(error) == 412


def is_range(error: ClientError) -> bool:
    """Returns whether the wanted bytes lie behind the end of the object."""
    return code_of(error) in ("InvalidRange", "416")


def is_unknown_operation(error: ClientError) -> bool:
    """Returns whether the store does not know what it was asked for."""
    return code_of(error) in _UNKNOWN_HERE or _status(error) == 501


def is_gone_upload(error: ClientError) -> bool:
    """Returns whether a multipart upload is no more."""
    return code_of(error) == "NoSuchUpload"


def explained(error: Exception, bucket: str) -> MipError:
    """Returns what an error means to a caller: STORAGE_FULL, or BACKEND_UNAVAILABLE with what the operator can do."""
    store = f"the blob store (bucket {bucket})"
    if isinstance(error, ClientError):
        code = code_of(error)
        if code in _FULL or _status(error) == 507:
            return MipError("STORAGE_FULL", f"{store} is full ({code}); free some space there or raise its quota")
        if code == "NoSuchBucket":
            return _away(f"{store} is gone; make the bucket again and restore its objects from a copy")
        if code in _CREDENTIALS:
            return _away(f"{store} refuses the server's credentials ({code}); correct the key or what it may do")
        if code == "RequestTimeTooSkewed":
            return _away(f"{store} says that the clocks differ; set this machine's clock by the network's time")
        return _away(f"{store} answers {code or _status(error)} to {error.operation_name}")
    if isinstance(error, SSLError):
        return _away(f"{store} does not show a certificate that is trusted; correct blobs.config.ca_file")
    if isinstance(error, NoCredentialsError):
        return _away(f"there are no credentials for {store}; set access_key and secret_key_file")
    if isinstance(error, EndpointConnectionError | ConnectTimeoutError):
        return _away(f"{store} cannot be reached; look whether it runs and whether the network lets the server through")
    if isinstance(error, ReadTimeoutError):
        return _away(f"{store} does not answer in time; look whether it is overloaded")
    return _away(f"{store} cannot be used now ({type(error).__name__})")


def explained_at_start(error: Exception, bucket: str, endpoint: str) -> SetupError | MipError:
    """Returns what an error means while a server starts: what is set wrong is a SetupError."""
    code = code_of(error)
    where = endpoint or "Amazon S3"
    if code == "NoSuchBucket":
        return SetupError(
            f"The bucket {bucket} does not exist at {where}.",
            "Make it, or correct blobs.config.bucket in the settings.",
        )
    if code in _CREDENTIALS or isinstance(error, NoCredentialsError):
        return SetupError(
            f"{where} refuses the credentials for the bucket {bucket} ({code or 'there are none'}).",
            "Correct access_key and secret_key_file in blobs.config; the key needs to list, read, write and delete"
            " objects, to list and abort multipart uploads, and s3:GetBucketVersioning.",
        )
    if code in ("InvalidBucketName", "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraint"):
        return SetupError(
            f"{where} does not take the bucket {bucket} ({code}).", "Correct bucket and region in blobs.config."
        )
    if isinstance(error, SSLError):
        return SetupError(
            f"{where} does not show a certificate that is trusted.",
            "Name the authority that signed it in blobs.config.ca_file (PEM), and the host as the certificate has it.",
        )
    return explained(error, bucket)


def keeps_versions(bucket: str) -> MipError:
    """Returns the error of an erasure in a bucket that keeps what is deleted."""
    return _away(
        f"the bucket {bucket} keeps versions, so nothing can be erased; suspend its versioning, and what is purged goes"
        " with its older versions"
    )


def still_written(bucket: str) -> MipError:
    """Returns the error of an erasure while which more is written."""
    return _away(f"in the bucket {bucket} more was written of what is being erased; it is tried again")


def not_deleted(bucket: str, code: str) -> MipError:
    """Returns the error of objects that the store does not delete."""
    return _away(f"the bucket {bucket} does not delete objects ({code}); look for its policies, locks and holds")


def _away(message: str) -> MipError:
    return MipError("BACKEND_UNAVAILABLE", message, retry_after_s=RETRY_S)
