"""What a run says of a server: nothing that is declared is skipped, nothing that is not exercised passes."""

from __future__ import annotations

from pathlib import Path

import pytest
from mip_conformance.verdicts import as_report, level_results, passed

from tests.conformance.fake_servers import (
    always,
    by_rpc,
    capabilities,
    refuse_as,
    requirement,
    run,
    serving,
    suite,
    unimplemented,
    wire,
)

ONE = """
name: cubes
level: core
cases:
  - name: a-cube-is-found
    requirements: [MIP-TEST-001]
    steps:
      - call: {rpc: CubeService.GetCube, request: {name: cubes/a}, expect: {response: {cube: {name: cubes/a}}}}
"""
BLOBS = """
name: blobs
level: core
cases:
  - name: a-blob-is-found
    requirements: [MIP-TEST-002]
    steps:
      - call: {rpc: BlobService.ReadBlob, request: {name: cubes/a/blobs/x}}
"""
FOUND = by_rpc({"CubeService.GetCube": wire("GetCubeResponse", cube={"name": "cubes/a"})})


def test_a_check_of_an_undeclared_service_does_not_apply(tmp_path: Path) -> None:
    with serving(FOUND, capabilities()) as target:
        found = run(target, suite(tmp_path, one=ONE, two=BLOBS))
    assert [(result.check.name, result.outcome) for result in found.results] == [
        ("cubes/a-cube-is-found", "passed"),
        ("blobs/a-blob-is-found", "not applicable"),
    ]
    assert found.results[1].message == "the server does not declare mip.v1.BlobService"
    assert passed(found)


def test_a_check_of_an_undeclared_level_or_feature_does_not_apply(tmp_path: Path) -> None:
    cases = """
name: more
level: core
cases:
  - name: of-a-level
    requirements: [MIP-TEST-001]
    steps: [{call: {rpc: GraphService.ListRelations, request: {parent: cubes/a}}}]
  - name: of-a-feature
    requirements: [MIP-TEST-001]
    features: [search.vector, payload.activation, payload.plaintext]
    steps: [{call: {rpc: CubeService.GetCube, request: {name: cubes/a}}}]
  - name: of-a-condition
    requirements: [MIP-TEST-001]
    when: "capabilities.server_name == 'another'"
    steps: [{call: {rpc: CubeService.GetCube, request: {name: cubes/a}}}]
"""
    with serving(FOUND, capabilities()) as target:
        found = run(target, suite(tmp_path, more=cases))
    assert [(result.outcome, result.message) for result in found.results] == [
        ("not applicable", "the server does not declare the level graph"),
        ("not applicable", "the server does not declare search.vector, payload.activation"),
        ("not applicable", "applies only where capabilities.server_name == 'another'"),
    ]


def test_what_is_declared_and_answers_unimplemented_fails(tmp_path: Path) -> None:
    with serving(unimplemented, capabilities()) as target:
        found = run(target, suite(tmp_path, one=ONE))
    assert found.results[0].outcome == "failed"
    assert "UNIMPLEMENTED UNIMPLEMENTED (no) instead of OK" in found.results[0].message
    assert not passed(found)
    assert level_results(found)["core"]["verdict"] == "failed"


def test_a_cube_that_cannot_be_made_fails_the_check_that_needs_it(tmp_path: Path) -> None:
    cases = ONE.replace("    steps:", "    cubes: [cube]\n    steps:")
    with serving(FOUND, capabilities()) as target:
        found = run(target, suite(tmp_path, one=cases))
    assert found.results[0].outcome == "failed"
    assert found.results[0].message.startswith("cannot be exercised: CubeService.CreateCube was answered with UNIMPL")


def test_a_run_that_exercises_no_must_fails(tmp_path: Path) -> None:
    with serving(FOUND, capabilities()) as target:
        found = run(target, suite(tmp_path, two=BLOBS))
    assert not passed(found)
    assert level_results(found)["core"]["why"] == ["no MUST was exercised with success"]


def test_a_run_of_a_should_alone_exercises_no_must(tmp_path: Path) -> None:
    with serving(FOUND, capabilities()) as target:
        found = run(target, suite(tmp_path, one=ONE), requirements=[requirement("MIP-TEST-001", "SHOULD")])
    assert found.results[0].outcome == "passed"
    assert not passed(found)


def test_a_run_without_checks_fails(tmp_path: Path) -> None:
    with serving(FOUND, capabilities()) as target:
        assert not passed(run(target, []))
        assert not passed(run(target, [], whole=False))


def test_a_level_that_is_not_declared_does_not_pass_however_well_its_checks_go(tmp_path: Path) -> None:
    with serving(FOUND, capabilities(of=["history"])) as target:
        found = run(target, suite(tmp_path, one=ONE))
    assert "GetCapabilities does not declare the level" in level_results(found)["core"]["why"]
    assert not passed(found)


def test_a_level_without_one_of_its_services_does_not_pass(tmp_path: Path) -> None:
    with serving(FOUND, capabilities(services=["ServerService", "CubeService"])) as target:
        found = run(target, suite(tmp_path, one=ONE))
    assert level_results(found)["core"]["why"] == ["GetCapabilities does not declare mip.v1.MemoryService"]


def test_a_broken_should_warns_and_a_broken_must_beside_it_fails(tmp_path: Path) -> None:
    cases = """
name: mixed
level: core
cases:
  - name: should
    requirements: [MIP-TEST-003]
    steps: [{call: {rpc: CubeService.GetCube, request: {name: cubes/a}, expect: {response: {cube: {name: b}}}}}]
  - name: both
    requirements: [MIP-TEST-003, MIP-TEST-001]
    steps: [{call: {rpc: CubeService.GetCube, request: {name: cubes/a}, expect: {response: {cube: {name: b}}}}}]
"""
    lines = [requirement("MIP-TEST-001"), requirement("MIP-TEST-003", "SHOULD")]
    with serving(FOUND, capabilities()) as target:
        found = run(target, suite(tmp_path, mixed=cases), requirements=lines)
    assert [result.outcome for result in found.results] == ["warned", "failed"]
    report = as_report(found)
    assert {line["id"]: line["result"] for line in report["requirements"]} == {
        "MIP-TEST-001": "failed",
        "MIP-TEST-003": "warned",
    }


def test_some_checks_alone_say_nothing_of_a_level(tmp_path: Path) -> None:
    with serving(FOUND, capabilities()) as target:
        found = run(target, suite(tmp_path, one=ONE), whole=False)
    assert level_results(found)["core"]["verdict"] == "partial"
    assert passed(found)


@pytest.mark.parametrize(
    ("code", "reason", "told"),
    [
        ("NOT_FOUND", "", "carries no ErrorInfo of the domain mip"),
        ("NOT_FOUND", "NO_SUCH_REASON", "is not in the table"),
        ("NOT_FOUND", "ETAG_MISMATCH", "ETAG_MISMATCH came with NOT_FOUND instead of ABORTED"),
    ],
)
def test_every_error_is_held_to_the_table_of_reasons(tmp_path: Path, code: str, reason: str, told: str) -> None:
    from google.rpc.error_details_pb2 import ErrorInfo

    cases = ONE.replace("expect: {response: {cube: {name: cubes/a}}}", "expect: {code: ANY}")
    details = [ErrorInfo(reason=reason, domain="mip")] if reason else []
    with serving(lambda rpc, request, context: refuse_as(context, code, "no", *details), capabilities()) as target:
        found = run(target, suite(tmp_path, one=cases))
    assert found.results[0].outcome == "failed"
    assert told in found.results[0].message


def test_a_failure_shows_what_was_asked_and_what_came_back(tmp_path: Path) -> None:
    cases = ONE.replace("name: cubes/a}}}", "name: cubes/b}}}")
    with serving(FOUND, capabilities()) as target:
        report = as_report(run(target, suite(tmp_path, one=cases)))
    check = report["checks"][0]
    assert check["message"] == "CubeService.GetCube: response.cube.name is 'cubes/a' instead of 'cubes/b'"
    call = check["calls"][0]
    assert (call["rpc"], call["as"], call["code"]) == ("CubeService.GetCube", "the administrator", "OK")
    assert call["requests"] == ['{"name": "cubes/a"}']
    assert call["responses"] == ['{"cube": {"name": "cubes/a"}}']
    assert call["reproduce"] == (
        """grpcurl -plaintext -H "authorization: Bearer $TOKEN" -d '{"name": "cubes/a"}' """
        f"{target.address} mip.v1.CubeService/GetCube"
    )


def test_a_report_holds_no_token_that_was_issued(tmp_path: Path) -> None:
    cases = """
name: tokens
level: core
cases:
  - name: one
    requirements: [MIP-TEST-001]
    steps:
      - call: {rpc: AccessService.IssueToken, request: {principal: principals/a}, expect: {code: NOT_FOUND}}
"""
    answer = always(wire("IssueTokenResponse", token="a-very-secret-token"))
    with serving(answer, capabilities(of=["core", "access"])) as target:
        report = as_report(run(target, suite(tmp_path, tokens=cases)))
    assert report["checks"][0]["result"] == "failed"
    assert "a-very-secret-token" not in str(report)


def test_checks_that_want_to_be_alone_are(tmp_path: Path) -> None:
    import threading
    import time

    cases = "name: many\nlevel: core\ncases:\n" + "".join(
        f"""
  - name: case-{number}
    alone: {"true" if number % 2 else "false"}
    requirements: [MIP-TEST-001]
    steps: [{{call: {{rpc: CubeService.GetCube, request: {{name: cubes/{number}}}}}}}]
"""
        for number in range(8)
    )
    lock, going, most = threading.Lock(), [], []

    def behave(rpc: str, request: bytes, context: object) -> bytes:
        with lock:
            going.append(request)
            most.extend([(request[-1:], len(going))])
        time.sleep(0.05)
        with lock:
            going.remove(request)
        return b""

    with serving(behave, capabilities()) as target:
        found = run(target, suite(tmp_path, many=cases), jobs=8)
    assert {result.outcome for result in found.results} == {"passed"}
    assert max(count for _, count in most) > 1
    assert {count for name, count in most if int(name) % 2} == {1}
