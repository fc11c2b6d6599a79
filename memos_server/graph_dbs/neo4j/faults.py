"""What driver and database raise, sorted into what is tried again, what is uncertain, and what a caller hears.

Messages of the database quote property values, which may be content: only its codes, and names of the driver's
exceptions, are passed on.
"""

from __future__ import annotations

import ssl
from typing import Final

from neo4j.exceptions import (
    AuthError,
    ClientError,
    ConfigurationError,
    ConstraintError,
    DatabaseError,
    DatabaseUnavailable,
    DriverError,
    Forbidden,
    IncompleteCommit,
    Neo4jError,
    SessionExpired,
    TransientError,
)

from memos_server.errors import MipError

RETRY_AFTER_S: Final = 1.0
"""When a caller may try again what failed because the database was away or busy."""

_OUT_OF_MEMORY: Final = frozenset(
    {
        "Neo.TransientError.General.MemoryPoolOutOfMemoryError",
        "Neo.TransientError.General.OutOfMemoryError",
        "Neo.TransientError.Transaction.MaximumTransactionLimitReached",
    }
)
_FULL: Final = frozenset(
    {"Neo.TransientError.General.DatabaseReadOnly", "Neo.ClientError.General.ForbiddenOnReadOnlyDatabase"}
)
# Statements are constant, so what does not fit an operation was in the graph.
_MISTYPED: Final = frozenset({"Neo.ClientError.Statement.TypeError", "Neo.ClientError.Statement.ArithmeticError"})
_TIMED_OUT: Final = frozenset(
    {
        "Neo.ClientError.Transaction.TransactionTimedOut",
        "Neo.ClientError.Transaction.TransactionTimedOutClientConfiguration",
        "Neo.TransientError.Transaction.LockAcquisitionTimeout",
        "Neo.ClientError.Transaction.LockClientStopped",
        "Neo.TransientError.Transaction.LockClientStopped",
        "Neo.TransientError.Transaction.Terminated",
        "Neo.ClientError.Transaction.Terminated",
    }
)


class NoAnswerError(Exception):
    """The database keeps its connection and answers nothing for so long that the network must have lost it."""


FAULTS: Final = (Neo4jError, DriverError, NoAnswerError)
"""What driver and database raise, and what they leave out."""


def is_conflict(error: BaseException) -> bool:
    """Returns whether another transaction stood in the way, so that the same work may succeed now: a deadlock, or
    something unique that another one made first."""
    if isinstance(error, ConstraintError):
        return True
    return isinstance(error, TransientError) and not _is_away(error) and error.code not in _OUT_OF_MEMORY | _FULL


def _is_away(error: BaseException) -> bool:
    return isinstance(error, DatabaseUnavailable)


def is_lost(error: BaseException) -> bool:
    """Returns whether the connection or the database went away, so that nothing of an open transaction remains."""
    if isinstance(error, Neo4jError):
        return _is_away(error)
    return isinstance(error, DriverError) and error.is_retryable() and not isinstance(error, IncompleteCommit)


def is_uncertain(error: BaseException) -> bool:
    """Returns whether an error met while a commit was awaited leaves open whether it took effect."""
    # A database that shuts down says that it is unavailable, also where the transaction was in its log by then.
    return (
        _is_away(error)
        or isinstance(error, IncompleteCommit | SessionExpired | DatabaseError | NoAnswerError)
        or (isinstance(error, DriverError) and not isinstance(error, ConfigurationError))
    )


def explained(error: BaseException, where: str) -> MipError | None:
    """Returns what an error of the driver or the database means to callers and to the operator; None for another's.

    Args:
        error: What was raised.
        where: The database's address, without secrets.
    """
    if isinstance(error, Neo4jError):
        return _of_database(error, where)
    if isinstance(error, NoAnswerError):
        return _away(f"Neo4j at {where} does not answer; see whether it is overloaded, and the network to it whole")
    if isinstance(error, ConfigurationError):
        return _away(
            f"the driver refuses the settings of Neo4j at {where} ({type(error).__name__}); correct [record.config]"
        )
    if isinstance(error, DriverError):
        if _certificate_refused(error):
            return _away(
                f"the certificate of Neo4j at {where} is not trusted; set ca_file to the authority that signed it"
            )
        return _away(f"Neo4j at {where} cannot be reached ({type(error).__name__}); see whether it runs")
    return None


def _of_database(error: Neo4jError, where: str) -> MipError:
    code = error.code or "unknown"
    short = code.removeprefix("Neo.")
    if isinstance(error, AuthError | Forbidden):
        return _away(f"Neo4j at {where} refuses the user ({short}); correct user and password in [record.config]")
    if code in _OUT_OF_MEMORY:
        return MipError(
            "BACKEND_UNAVAILABLE",
            f"Neo4j at {where} has not the memory for this transaction ({short}); write less at once, or raise"
            " server.memory.heap.max_size and dbms.memory.transaction.total.max there",
            retry_after_s=10.0,
        )
    if code in _FULL or _disk_full(error):
        return MipError(
            "STORAGE_FULL", f"the disk of Neo4j at {where} is full or read-only ({short}); free some space there"
        )
    if code in _MISTYPED:
        return MipError(
            "DATA_CORRUPT",
            f"the record in Neo4j at {where} holds values of another type ({short}), as only a hand in the database"
            " makes it; restore the database from a backup",
        )
    if code in _TIMED_OUT:
        return _away(f"Neo4j at {where} ended the transaction after waiting for too long ({short})")
    if isinstance(error, TransientError):
        return _away(f"Neo4j at {where} cannot do this now ({short})")
    if isinstance(error, DatabaseError):
        return _away(f"Neo4j at {where} failed ({short}); look for the cause in its debug.log")
    if isinstance(error, ClientError) and code.startswith("Neo.ClientError.Database."):
        return _away(f"the database of Neo4j at {where} is not there ({short}); correct `database` in [record.config]")
    return _away(f"Neo4j at {where} refuses a statement ({short}); see that it is version 5.26 or later")


def _disk_full(error: BaseException) -> bool:
    """Returns whether the database says in words that its disk is full; there is no code for it."""
    text = str(error)
    return "No space left on device" in text or "disk is full" in text.lower() or "Disk quota exceeded" in text


def _certificate_refused(error: BaseException) -> bool:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _away(message: str) -> MipError:
    return MipError("BACKEND_UNAVAILABLE", message, retry_after_s=RETRY_AFTER_S)
