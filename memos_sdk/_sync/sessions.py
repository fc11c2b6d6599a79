# Generated from memos_sdk/_async/sessions.py by tools/gen_sync_client.py.
# fmt: off
# ruff: noqa: I001, UP028, RUF100
"""The sessions of a cube: conversations in which memories are made."""

from __future__ import annotations

from collections.abc import Iterator, Iterable, Mapping
from types import TracebackType

from memos_sdk import _stubs
from memos_sdk._sync.caller import Caller
from memos_sdk._core.build import labels_of, session_name
from memos_sdk.models import Session


class Sessions:
    """Begins, ends and lists the sessions of one cube."""

    def __init__(self, caller: Caller, cube: str) -> None:
        """Is made by the cube."""
        self._caller = caller
        self._cube = cube

    def create(
        self,
        display_name: str = "",
        *,
        participants: Iterable[str] = (),
        labels: Mapping[str, str] | None = None,
        id: str = "",
        request_id: str = "",
        timeout: float | None = None,
    ) -> Session:
        """Begins a session.

        Args:
            display_name: What it is called for people.
            participants: Who takes part, users and agents, in free text.
            labels: Labels.
            id: The id; empty lets the server choose one.
            request_id: A UUID that makes repeating safe; one is made when empty.
            timeout: Seconds.
        """
        session = {"display_name": display_name, "participants": list(participants), "labels": labels_of(labels)}
        request = _stubs.CREATE_SESSION(parent=self._cube, session_id=id, session=session, request_id=request_id)
        response = self._caller.call(_stubs.CREATE_SESSION, request, timeout)
        return Session(response.session)

    def get(self, session: str | Session, *, timeout: float | None = None) -> Session:
        """Returns a session."""
        request = _stubs.GET_SESSION(name=session_name(self._cube, session))
        response = self._caller.call(_stubs.GET_SESSION, request, timeout)
        return Session(response.session)

    def list(self, *, page_size: int = 0, timeout: float | None = None) -> Iterator[Session]:
        """Yields the sessions in the order of their creation."""
        request = _stubs.LIST_SESSIONS(parent=self._cube, page_size=page_size)
        for session in self._caller.pages(_stubs.LIST_SESSIONS, request, "sessions", timeout):
            yield Session(session)

    def end(self, session: str | Session, *, request_id: str = "", timeout: float | None = None) -> Session:
        """Ends a session; new memories cannot name it any more."""
        request = _stubs.END_SESSION(name=session_name(self._cube, session), request_id=request_id)
        response = self._caller.call(_stubs.END_SESSION, request, timeout)
        return Session(response.session)


class SessionScope:
    """A session that begins and ends with a block."""

    def __init__(
        self,
        sessions: Sessions,
        display_name: str,
        participants: Iterable[str],
        labels: Mapping[str, str] | None,
        id: str,
        request_id: str,
        timeout: float | None,
    ) -> None:
        """Is made by `session` of the cube."""
        self._sessions = sessions
        self._display_name = display_name
        self._participants = participants
        self._labels = labels
        self._id = id
        self._request_id = request_id
        self._timeout = timeout
        self._session: Session | None = None

    def __enter__(self) -> Session:
        """Begins the session."""
        self._session = self._sessions.create(
            self._display_name,
            participants=self._participants,
            labels=self._labels,
            id=self._id,
            request_id=self._request_id,
            timeout=self._timeout,
        )
        return self._session

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the session."""
        if self._session is not None:
            self._sessions.end(self._session, timeout=self._timeout)
