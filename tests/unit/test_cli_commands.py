"""The command line over a real channel: what it sends, prints and returns."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

from memos_sdk.cli import main
from memos_sdk.cli.commands import OF_SERVER
from memos_server._pb.mip.v1 import (
    access_pb2,
    access_service_pb2,
    cube_service_pb2,
    graph_service_pb2,
    job_service_pb2,
    memory_service_pb2,
    relation_pb2,
    server_service_pb2,
    session_pb2,
    session_service_pb2,
)
from tests.unit.fake_mip import FakeMip, Notes, Refusal, commit, cube, digest_of


class Result(NamedTuple):
    """What a run returned and printed."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Memos = Callable[..., Result]


@pytest.fixture
def fake() -> Iterator[FakeMip]:
    server = FakeMip()
    Notes(server)
    yield server
    server.stop()


@pytest.fixture
def memos(fake: FakeMip, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Memos:
    for name in ("MEMOS_DATA", "MEMOS_TOKEN", "MEMOS_TLS_CA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MEMOS_TARGET", fake.address)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")

    def call(*arguments: object, stdin: str = "") -> Result:
        monkeypatch.setattr(sys, "argv", ["memos", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        status = main.run()
        captured = capsys.readouterr()
        return Result(status, captured.out, captured.err)

    return call


def last(fake: FakeMip, name: str) -> Any:
    return fake.named(name)[-1].request


def test_remember_and_search(fake: FakeMip, memos: Memos) -> None:
    assert memos("cube", "create", "notes") == (0, "cubes/notes at revision 1\n", "")
    added = memos("add", "notes", "Ada drinks tea.", "--tag", "ada", "--label", "k=v", "--attributes", '{"a": 1}')
    assert added == (0, "cubes/notes/memories/m1 at revision 2\n", "")
    sent = last(fake, "AddMemories").memories[0]
    assert (list(sent.tags), sent.labels[0].value, sent.attributes_json) == (["ada"], "v", '{"a":1}')
    found = memos("search", "notes", "tea", "--explain")
    assert found.out == "0.500  m1  [ada]\n       Ada drinks tea.\n"
    assert "lexical: rank 1, score 2.5000, adds 0.5000" in found.err


def test_json_is_what_the_protos_say(memos: Memos) -> None:
    memos("add", "notes", "Ada drinks tea.")
    assert memos("get", "notes", "m1", "--json").json == {
        "plaintext": {"text": "Ada drinks tea."},
        "name": "cubes/notes/memories/m1",
        "revision": 2,
        "etag": "etag2",
        "state": "ACTIVE",
    }
    assert memos("--json", "cube", "show", "notes").json["head_digest"] == digest_of(2).hex()
    assert [item["name"] for item in memos("list", "notes", "--json").json] == ["cubes/notes/memories/m1"]
    assert memos("search", "notes", "tea", "--json").json["hits"][0]["score"] == 0.5


def test_a_text_comes_from_standard_input(fake: FakeMip, memos: Memos) -> None:
    assert memos("add", "notes", stdin="from a pipe\n").status == 0
    assert memos("add", "notes", "-", stdin="two\nlines\n").status == 0
    texts = [call.request.memories[0].plaintext.text for call in fake.named("AddMemories")]
    assert texts == ["from a pipe", "two\nlines"]
    assert memos("add", "notes", stdin="  \n").status == 2


def test_a_file_is_added_by_paragraph_with_its_lines(fake: FakeMip, memos: Memos, tmp_path: Path) -> None:
    path = tmp_path / "guide.md"
    path.write_text("# A\n\n" + "x" * 300 + "\n\n# B\n\n" + "y" * 300 + "\n")
    assert memos("add", "notes", "--file", path, "--tag", "doc").out == "added 2 memories to cubes/notes, revision 2\n"
    sent = last(fake, "BulkAddMemories")[1].batch.memories
    assert [(item.provenance[0].line_start, item.provenance[0].line_end) for item in sent] == [(3, 3), (7, 7)]
    assert sent[0].provenance[0].source == path.as_posix()
    assert [list(item.tags) for item in sent] == [["doc"], ["doc"]]


def test_json_lines_are_added_and_a_wrong_line_is_named(memos: Memos, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "one", "tags": ["a"]}\n\n{"text": "two"}\n')
    added = memos("add", "notes", "--jsonl", path, "--json").json
    assert (added["added"], len(added["names"]), added["commits"][0]["revision"]) == (2, 2, 2)
    wrong = memos("add", "notes", "--jsonl", "-", stdin='{"text": "one"}\n[1]\n')
    assert wrong.status == 2
    assert "error: INVALID_JSON: -:2 is not an object" in wrong.err
    assert "Traceback" not in wrong.err


REQUEST = "7b0ff1ae-8e5a-4a5c-9f31-0a2b3c4d5e6f"


def test_a_request_id_of_the_caller_is_sent(fake: FakeMip, memos: Memos) -> None:
    memos("add", "notes", "one", "--request-id", REQUEST)
    memos("add", "notes", "two", "three", "--request-id", REQUEST)
    memos("update", "notes", "m1", "two", "--request-id", REQUEST)
    assert last(fake, "AddMemories").request_id == REQUEST
    assert last(fake, "BulkAddMemories")[0].header.request_id == REQUEST
    assert last(fake, "UpdateMemory").request_id == REQUEST


def test_every_command_that_changes_something_takes_a_request_id() -> None:
    changing = {
        "": "add update archive activate merge delete purge relate unrelate",
        "cube": "create update rollback fork delete undelete purge",
        "session": "create end",
        "principal": "create disable",
        "token": "revoke",
        "grant": "set delete",
        "job": "cancel",
    }
    top = vars(typer.main.get_command(main.build()))["commands"]
    groups = {"": top} | {name: vars(item)["commands"] for name, item in top.items() if "commands" in vars(item)}
    taking: dict[str, set[str]] = {}
    for group, commands in groups.items():
        for name, item in commands.items():
            if any("--request-id" in parameter.opts for parameter in item.params):
                taking.setdefault(group, set()).add(name)
    assert taking == {group: set(names.split()) for group, names in changing.items()}


def test_an_update_sends_only_what_is_given(fake: FakeMip, memos: Memos) -> None:
    memos("add", "notes", "one")
    done = memos("update", "notes", "m1", "two", "--etag", "etag2", "--cause", "typo")
    assert done.out == "cubes/notes/memories/m1 is now at revision 3\n"
    assert list(last(fake, "UpdateMemory").update_mask.paths) == ["plaintext.text"]
    assert last(fake, "UpdateMemory").cause == "typo"


def test_a_stale_etag_is_status_5_with_the_remedy(memos: Memos) -> None:
    memos("add", "notes", "one")
    stale = memos("update", "notes", "m1", "two", "--etag", "old")
    assert stale == (
        5,
        "",
        "error: ETAG_MISMATCH: the memory has changed\n"
        "  etag: etag2\n"
        "remedy: Read the resource again, apply the change to what it is now, and send its new etag.\n",
    )


def test_an_error_with_json_is_json_on_the_error_stream(memos: Memos) -> None:
    missing = memos("get", "notes", "none", "--json")
    assert (missing.status, missing.out) == (3, "")
    assert json.loads(missing.err)["error"] == {
        "code": "NOT_FOUND",
        "reason": "MEMORY_NOT_FOUND",
        "message": "there is no memory cubes/notes/memories/none",
        "remedy": "See `memos list CUBE`; --deleted includes deleted ones.",
        "metadata": {},
        "violations": [],
    }


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("INVALID_ARGUMENT", 2),
        ("PERMISSION_DENIED", 4),
        ("UNAUTHENTICATED", 4),
        ("FAILED_PRECONDITION", 5),
        ("DATA_LOSS", 7),
        ("INTERNAL", 1),
    ],
)
def test_each_sort_of_error_has_its_status(fake: FakeMip, memos: Memos, code: str, status: int) -> None:
    def refuse(request: Any) -> Any:
        raise Refusal(code)

    fake.on("GetCube", refuse)
    assert memos("cube", "show", "notes").status == status


def test_control_characters_of_a_memory_do_not_reach_the_terminal(memos: Memos) -> None:
    memos("add", "notes", "red \x1b[31m and [bold]markup[/bold]")
    shown = memos("get", "notes", "m1").out + memos("list", "notes").out + memos("search", "notes", "red").out
    assert "\x1b" not in shown
    assert shown.count("[bold]markup[/bold]") == 3


def test_the_log_and_the_changes_are_tables(fake: FakeMip, memos: Memos) -> None:
    commits = [commit(2, "why"), commit(1)]
    fake.on("ListCommits", lambda request: cube_service_pb2.ListCommitsResponse(commits=commits))
    changes = cube_service_pb2.ListCommitChangesResponse()
    changes.changes.add(kind=1, name="memories/m1", after_state=1, after_commitment=b"\xab" * 32)
    fake.on("ListCommitChanges", lambda request: changes)
    log = memos("cube", "log", "notes", "-n", "1").out.splitlines()
    assert log[0].split() == ["REVISION", "WHEN", "WHO", "CHANGES", "DIGEST", "WHY"]
    assert log[1].split()[-2:] == [digest_of(2).hex()[:12], "why"]
    assert len(log) == 2
    shown = memos("cube", "changes", "notes", 2).out.splitlines()[1].split()
    assert shown == ["memory_added", "memories/m1", "-", "active", "abababababab"]
    assert last(fake, "ListCommitChanges").parent == "cubes/notes/commits/2"


def test_a_rollback_says_what_stays_purged(fake: FakeMip, memos: Memos) -> None:
    answer = cube_service_pb2.RollbackCubeResponse(cube=cube(4), commit=commit(4))
    answer.skipped_purges.add(name="cubes/notes/memories/m9", purge_revision=3)
    fake.on("RollbackCube", lambda request: answer)
    done = memos("cube", "rollback", "notes", 2)
    assert done.out == "cubes/notes is as it was at revision 2; this is revision 4\n"
    assert done.err == "cubes/notes/memories/m9 stays purged (revision 3)\n"
    assert memos("cube", "rollback", "notes", 0).status == 2


def test_verify_remembers_the_head_between_two_runs_and_fails_with_status_7(fake: FakeMip, memos: Memos) -> None:
    memos("add", "notes", "one")
    answer = cube_service_pb2.VerifyCubeResponse(valid=True, head_revision=2, head_digest=digest_of(2))
    fake.on("VerifyCube", lambda request: answer)
    assert memos("cube", "verify", "notes").out.startswith("notes: verified, 0 commits, head 2 ")
    assert last(fake, "VerifyCube").expected_revision == 2
    assert last(fake, "VerifyCube").expected_head_digest == digest_of(2)
    answer.valid = False
    answer.findings.add(kind="head", resource="cubes/notes", revision=2, message="the digest differs")
    failed = memos("cube", "verify", "notes")
    assert failed.status == 7
    assert "head: cubes/notes (revision 2): the digest differs" in failed.out
    assert memos("cube", "verify", "notes", "--expected-digest", "xyz").status == 2


def test_a_purge_is_confirmed(fake: FakeMip, memos: Memos) -> None:
    answer = memory_service_pb2.PurgeMemoriesResponse(commit=commit(2), derived=["cubes/copy/memories/m1"])
    fake.on("PurgeMemories", lambda request: answer)
    asked = memos("purge", "notes", "m1", "--reason", "by request")
    assert asked.status == 2
    assert "CONFIRMATION_REQUIRED" in asked.err
    assert fake.named("PurgeMemories") == []
    done = memos("purge", "notes", "m1", "--reason", "by request", "--yes")
    assert done.out == "memory m1 is erased for good (revision 2)\n"
    assert done.err.splitlines() == [
        "derives from it and stays: cubes/copy/memories/m1",
        "backups made before still hold it: make a new one and delete the older ones",
    ]


def test_a_watch_prints_one_object_a_line(fake: FakeMip, memos: Memos) -> None:
    def frames(request: Any) -> Iterator[Any]:
        for revision in (2, 3):
            yield cube_service_pb2.WatchCubeResponse(commit=commit(revision, "why"))
            yield cube_service_pb2.WatchCubeResponse(end={"revision": revision})

    fake.on("WatchCube", frames)
    lines = memos("watch", "notes", "--from", 2, "-n", 2, "--json").out.splitlines()
    assert [json.loads(line)["commit"]["revision"] for line in lines] == [2, 3]
    assert memos("watch", "notes", "--from", 2, "-n", 1).out.split()[-2:] == ["principals/local-admin", "why"]


def test_states_and_merges_are_sent(fake: FakeMip, memos: Memos) -> None:
    moved = memory_service_pb2.TransitionMemoriesResponse(commit=commit(2))
    fake.on("TransitionMemories", lambda request: moved)
    fake.on("DeleteMemories", lambda request: memory_service_pb2.DeleteMemoriesResponse(commit=commit(2)))
    fake.on("MergeMemories", lambda request: memory_service_pb2.MergeMemoriesResponse(commit=commit(2)))
    assert memos("archive", "notes", "m1", "m2").out == "archived 2 memories (revision 2)\n"
    assert last(fake, "TransitionMemories").state == 3
    assert memos("activate", "notes", "m1").out == "activated memory m1 (revision 2)\n"
    assert last(fake, "TransitionMemories").state == 1
    assert memos("delete", "notes", "m1").status == 0
    assert memos("merge", "notes", "m1", "m2", "--into", "m3").status == 0
    assert last(fake, "MergeMemories").target == "cubes/notes/memories/m3"
    assert memos("merge", "notes", "m1").status == 2


def test_relations_are_created_listed_and_walked(fake: FakeMip, memos: Memos) -> None:
    edge = relation_pb2.Relation(
        source="cubes/notes/memories/m1", target="cubes/notes/memories/m2", type="FOLLOWS", weight=0.5, revision=2
    )
    walk = graph_service_pb2.TraverseResponse()
    walk.visits.add(depth=0).memory.name = "cubes/notes/memories/m1"
    walk.visits.add(depth=1, via=edge).memory.name = "cubes/notes/memories/m2"
    fake.on("CreateRelations", lambda request: graph_service_pb2.CreateRelationsResponse(commit=commit(2)))
    fake.on("DeleteRelations", lambda request: graph_service_pb2.DeleteRelationsResponse(commit=commit(3)))
    fake.on("ListRelations", lambda request: graph_service_pb2.ListRelationsResponse(relations=[edge]))
    fake.on("Traverse", lambda request: walk)
    assert memos("relate", "notes", "m1", "m2", "--type", "FOLLOWS").out == "m1 FOLLOWS m2 (revision 2)\n"
    assert memos("unrelate", "notes", "m1", "m2", "--type", "FOLLOWS").status == 0
    assert memos("relations", "notes", "m1").out.splitlines()[1].split() == ["m1", "FOLLOWS", "m2", "0.5", "2"]
    assert memos("traverse", "notes", "m1", "--depth", 2).out.splitlines() == ["m1", "  FOLLOWS m2"]
    assert last(fake, "Traverse").max_depth == 2


def test_principals_tokens_grants_and_the_audit_trail(fake: FakeMip, memos: Memos) -> None:
    alice = access_pb2.Principal(name="principals/alice", display_name="Alice")
    grant = access_pb2.Grant(principal="principals/alice", resource="cubes/notes", role=1, max_sensitivity=2)
    event = access_pb2.AuditEvent(principal="principals/alice", method="/mip.v1.X/Y", outcome="OK", count=1)
    service = access_service_pb2
    fake.on("CreatePrincipal", lambda request: service.CreatePrincipalResponse(principal=alice))
    fake.on("ListPrincipals", lambda request: service.ListPrincipalsResponse(principals=[alice]))
    fake.on("DisablePrincipal", lambda request: service.DisablePrincipalResponse(principal=alice))
    fake.on("IssueToken", lambda request: service.IssueTokenResponse(token="a.b.c", token_id="id"))
    fake.on("RevokeToken", lambda request: service.RevokeTokenResponse())
    fake.on("SetGrant", lambda request: service.SetGrantResponse(grant=grant))
    fake.on("ListGrants", lambda request: service.ListGrantsResponse(grants=[grant]))
    fake.on("DeleteGrant", lambda request: service.DeleteGrantResponse())
    fake.on("ListAuditEvents", lambda request: service.ListAuditEventsResponse(events=[event]))
    assert memos("principal", "create", "alice", "--display-name", "Alice").out == "principals/alice\n"
    assert memos("principal", "list").out.splitlines()[1].split() == ["alice", "Alice"]
    assert memos("principal", "disable", "alice").status == 0
    assert memos("token", "issue", "alice", "--ttl", "90d").out == "a.b.c\n"
    assert last(fake, "IssueToken").ttl.seconds == 90 * 86400
    assert memos("token", "issue", "alice", "--ttl", "soon").status == 2
    assert memos("token", "revoke", "id").status == 0
    set_ = memos("grant", "set", "alice", "notes", "reader", "--max-sensitivity", "internal")
    assert set_.out == "principals/alice is reader on cubes/notes up to internal\n"
    assert memos("grant", "list", "notes").out.splitlines()[1].split() == ["alice", "cubes/notes", "reader", "internal"]
    assert memos("grant", "delete", "alice", "notes").status == 0
    assert memos("grant", "set", "alice", "notes", "king").status == 2
    assert memos("audit").out.splitlines()[1].split() == ["alice", "Y", "OK"]
    assert last(fake, "ListAuditEvents").resource == "server"


def test_sessions_and_jobs(fake: FakeMip, memos: Memos) -> None:
    session = session_pb2.Session(name="cubes/notes/sessions/s1", display_name="Plan", participants=["Ada"])
    fake.on("CreateSession", lambda request: session_service_pb2.CreateSessionResponse(session=session))
    fake.on("GetSession", lambda request: session_service_pb2.GetSessionResponse(session=session))
    fake.on("ListSessions", lambda request: session_service_pb2.ListSessionsResponse(sessions=[session]))
    fake.on("EndSession", lambda request: session_service_pb2.EndSessionResponse(session=session))
    assert memos("session", "create", "notes", "Plan", "--participant", "Ada").out == "cubes/notes/sessions/s1\n"
    assert "participants: Ada" in memos("session", "show", "notes", "s1").out
    assert memos("session", "list", "notes").out.splitlines()[1].split() == ["s1", "Plan", "open", "Ada"]
    assert memos("session", "end", "notes", "s1").status == 0
    job: dict[str, Any] = {"name": "cubes/notes/jobs/j1", "kind": "compaction", "state": 2, "done": 1, "total": 2}
    ended = {**job, "state": 4, "error_reason": "STORAGE_FULL", "error_message": "no space"}
    fake.on("ListJobs", lambda request: job_service_pb2.ListJobsResponse(jobs=[job]))
    fake.on("GetJob", lambda request: job_service_pb2.GetJobResponse(job=job))
    fake.on("WaitJob", lambda request: job_service_pb2.WaitJobResponse(job=ended))
    fake.on("CancelJob", lambda request: job_service_pb2.CancelJobResponse(job=job))
    assert memos("job", "list", "notes").out.splitlines()[1].split()[1:4] == ["compaction", "running", "1/2"]
    assert memos("job", "show", "cubes/notes/jobs/j1").status == 0
    assert memos("job", "cancel", "cubes/notes/jobs/j1").status == 0
    failed = memos("job", "wait", "cubes/notes/jobs/j1")
    assert failed.status == 1
    assert "STORAGE_FULL: no space" in failed.out


def test_capabilities_show_what_is_missing(fake: FakeMip, memos: Memos) -> None:
    answer = server_service_pb2.GetCapabilitiesResponse(
        server_name="memos", server_version="1", protocol_version="1.0", notices=["no weights"]
    )
    fake.on("GetCapabilities", lambda request: answer)
    shown = memos("capabilities").out
    assert shown.startswith(f"memos 1 at {fake.address}, MIP 1.0\n")
    assert "notice: no weights" in shown


def test_token_show_prints_the_token_and_nothing_else(memos: Memos, tmp_path: Path) -> None:
    (tmp_path / "admin.token").write_text("a.b.c\n")
    assert memos("token", "show", "--data", tmp_path) == (0, "a.b.c\n", "")
    missing = memos("token", "show", "--data", tmp_path / "none")
    assert (missing.status, missing.out) == (3, "")
    assert "memos serve" in missing.err


def test_the_options_are_taken_before_and_after_the_command(fake: FakeMip, memos: Memos) -> None:
    for arguments in (("--token", "t", "cube", "list"), ("cube", "list", "--token", "t")):
        assert memos(*arguments).status == 0
        assert fake.calls[-1].metadata["authorization"] == "Bearer t"


def test_nobody_listening_is_status_6_with_a_remedy(memos: Memos) -> None:
    gone = memos("cube", "list", "--target", "127.0.0.1:9")
    assert gone.status == 6
    assert gone.err == (
        "error: CONNECT_FAILED: no server answers at 127.0.0.1:9\n"
        "remedy: Start a server with `memos serve`, or name the address with --target, Client(target) "
        "or MEMOS_TARGET.\n"
    )


def test_a_token_for_another_machine_needs_tls_or_insecure(memos: Memos) -> None:
    refused = memos("cube", "list", "--target", "203.0.113.1:7600", "--token", "secret")
    assert refused.status == 2
    assert "INSECURE_CHANNEL" in refused.err
    assert "secret" not in refused.err


@pytest.mark.parametrize(
    "arguments", [("nonsense",), ("cube", "nonsense"), ("search",), ("get", "notes", "m", "--as-of", "x")]
)
def test_wrong_usage_is_status_2_and_says_how(memos: Memos, arguments: tuple[str, ...]) -> None:
    wrong = memos(*arguments)
    assert wrong.status == 2
    assert "Usage: memos" in wrong.err
    assert "Traceback" not in wrong.err


def leaves(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, item in group.commands.items():
        if hasattr(item, "commands"):
            yield from leaves(item, (*path, name))
        else:
            yield (*path, name), item


def test_every_command_has_help_and_the_shared_options() -> None:
    found = dict(leaves(typer.main.get_command(main.build())))
    assert {("add",), ("search",), ("cube", "verify"), ("token", "show"), ("demo",)} <= set(found)
    ours = {path: item for path, item in found.items() if path[0] not in OF_SERVER}
    assert len(ours) >= 40
    for path, item in ours.items():
        options = {option for parameter in item.params for option in parameter.opts}
        assert {"--json", "--target", "--token", "--data", "--tls-ca"} <= options, path
        assert item.help, path


def test_the_completion_script_can_be_shown(memos: Memos, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    shown = memos("--show-completion", "bash")
    assert shown.status == 0
    assert "_MEMOS_COMPLETE" in shown.out
