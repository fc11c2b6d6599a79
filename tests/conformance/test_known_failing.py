"""The list of checks that are known to fail is strict: it excuses what it names as long as that fails, nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from mip_conformance.cases import SuiteError
from mip_conformance.cli import _known
from mip_conformance.verdicts import as_report, level_results, passed

from tests.conformance.fake_servers import by_rpc, capabilities, run, serving, suite, wire

CASES = """
name: cubes
level: core
cases:
  - name: right
    requirements: [MIP-TEST-001]
    steps: [{call: {rpc: CubeService.GetCube, request: {name: cubes/a}}}]
  - name: wrong
    requirements: [MIP-TEST-002]
    steps: [{call: {rpc: CubeService.GetCube, request: {name: cubes/a}, expect: {code: NOT_FOUND}}}]
"""
FOUND = by_rpc({"CubeService.GetCube": wire("GetCubeResponse", cube={"name": "cubes/a"})})


def test_a_failure_that_is_listed_fails_the_level_and_not_the_run(tmp_path: Path) -> None:
    with serving(FOUND, capabilities()) as target:
        found = run(target, suite(tmp_path, cubes=CASES), known={"cubes/wrong": "it is late"})
    assert [result.outcome for result in found.results] == ["passed", "known"]
    assert found.results[1].message.endswith("instead of NOT_FOUND [known: it is late]")
    assert passed(found)
    assert level_results(found)["core"]["verdict"] == "failed"
    assert "calls" in as_report(found)["checks"][1]


def test_a_listed_check_that_passes_fails_the_run(tmp_path: Path) -> None:
    with serving(FOUND, capabilities()) as target:
        found = run(target, suite(tmp_path, cubes=CASES), known={"cubes/wrong": "late", "cubes/right": "old"})
    assert found.problems == ["known failing: cubes/right does not fail any more (passed); take it off the list"]
    assert not passed(found)


def test_a_line_that_matches_no_check_fails_the_run(tmp_path: Path) -> None:
    with serving(FOUND, capabilities()) as target:
        found = run(target, suite(tmp_path, cubes=CASES), known={"cubes/wrong": "late", "cubes/wron*": "typo"})
    assert found.problems == ["known failing: cubes/wron* matches no check of this run"]
    assert not passed(found)


def test_a_level_whose_every_check_is_listed_does_not_make_a_run_pass(tmp_path: Path) -> None:
    only_wrong = CASES[: CASES.index("  - name: right")] + CASES[CASES.index("  - name: wrong") :]
    with serving(FOUND, capabilities()) as target:
        found = run(target, suite(tmp_path, cubes=only_wrong), known={"cubes/wrong": "late"})
    assert found.results[0].outcome == "known"
    assert not passed(found)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("- {check: a/b, reason: why}", "known.yaml: a/b needs a reason and a link"),
        ("- {check: a/b, link: https://example.com}", "known.yaml: a/b needs a reason and a link"),
        (2 * "- {check: a/b, reason: why, link: https://example.com}\n", "known.yaml: a/b is listed twice"),
        ("- {check: a/b, why: so}", 'known.yaml: .*no field named "why"'),
        ("- [a/b]", "known.yaml: "),
    ],
)
def test_each_line_needs_a_check_a_reason_and_a_link(tmp_path: Path, lines: str, told: str) -> None:
    path = tmp_path / "known.yaml"
    path.write_text(f"known_failures:\n{lines}\n", encoding="utf-8")
    with pytest.raises(SuiteError, match=told):
        _known(path)


def test_a_list_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"none.yaml: .*No such file"):
        _known(tmp_path / "none.yaml")
