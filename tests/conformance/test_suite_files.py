"""Files of the suite that are wrong are refused, with the file and what is wrong in it: nothing misspelt passes."""

from __future__ import annotations

from pathlib import Path

import pytest
from mip_conformance.cases import SuiteError
from mip_conformance.requirements import gaps

from tests.conformance.fake_servers import suite

CASE = """
name: cubes
level: core
cases:
  - name: found
    requirements: [MIP-TEST-001]
    steps:
      - call: {rpc: CubeService.GetCube, request: {name: cubes/a}}
"""


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("    requirements:", "    requirement:", 'no field named "requirement"'),
        ("{rpc: CubeService.GetCube,", "{rcp: CubeService.GetCube,", 'no field named "rcp"'),
        ("CubeService.GetCube", "CubeService.FindCube", "found: there is no RPC CubeService.FindCube"),
        ("    requirements: [MIP-TEST-001]\n", "", "found: a case needs steps and requirements"),
        ("      - call: {rpc: CubeService.GetCube, request: {name: cubes/a}}\n", "", "a case needs steps and"),
        (
            "      - call: {rpc: CubeService.GetCube, request: {name: cubes/a}}",
            "      - id: nothing",
            "found: a step does nothing; it needs one of call, open",
        ),
        ("level: core", "level: core\nlevel: history", "line 2: the key 'level' is repeated"),
        ("request: {name: cubes/a}", "request: {name: cubes/a, name: cubes/b}", "line 8: the key 'name' is repeated"),
        ("[MIP-TEST-001]", "MIP-TEST-001", "repeated field requirements must be in"),
        ("    steps:", "    steps: {", r"line \d+"),
        ("    steps:", "    steps: !!python/object/apply:os.getcwd []\n    note:", "could not determine a constructor"),
    ],
)
def test_a_mistake_is_refused_with_its_file(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in CASE
    with pytest.raises(SuiteError, match=rf"(?s)^mistaken.yaml: .*{told}"):
        suite(tmp_path, mistaken=CASE.replace(old, new, 1))


def test_two_checks_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"^two.yaml: there are two checks cubes/found$"):
        suite(tmp_path, one=CASE, two=CASE)


def test_two_elements_of_a_list_with_one_label_are_refused(tmp_path: Path) -> None:
    twice = CASE.replace("    steps:", "    each: '[1, 1]'\n    steps:")
    with pytest.raises(SuiteError, match=r"^one.yaml: there are two checks cubes/found/1$"):
        suite(tmp_path, one=twice)


def test_a_case_with_a_list_stands_for_a_check_for_each_element(tmp_path: Path) -> None:
    listed = CASE.replace("    steps:", '    each: \'["a", "b"]\'\n    label: it-is-${each}\n    steps:')
    assert [check.name for check in suite(tmp_path, one=listed)] == ["cubes/found/it-is-a", "cubes/found/it-is-b"]


def test_dates_and_the_words_of_yaml_stay_texts_where_they_are_texts(tmp_path: Path) -> None:
    dated = CASE.replace("{name: cubes/a}", "{name: 2026-01-01T00:00:00Z}")
    request = suite(tmp_path, one=dated)[0].case.steps[0].call.request
    assert dict(request) == {"name": "2026-01-01T00:00:00Z"}


def test_a_check_needs_the_rpcs_that_it_calls_and_those_of_its_cubes_and_principals(tmp_path: Path) -> None:
    inner = """
name: cubes
level: core
cases:
  - name: found
    requirements: [MIP-TEST-001]
    cubes: [cube]
    principals: [{alias: guest}]
    steps:
      - parallel:
          branches:
            - steps:
                - repeat: {each: "[1]", steps: [{open: {rpc: CubeService.WatchCube}}]}
      - verify: {cube: "${cube}"}
"""
    assert set(suite(tmp_path, one=inner)[0].needed) == {
        "CubeService.WatchCube",
        "CubeService.GetCommit",
        "CubeService.ListCommitChanges",
        "CubeService.CreateCube",
        "AccessService.CreatePrincipal",
        "AccessService.IssueToken",
        "AccessService.SetGrant",
    }


def test_a_gap_between_specification_and_cases_is_found(tmp_path: Path) -> None:
    checks = suite(tmp_path, one=CASE)
    assert "cubes/found names MIP-TEST-001, which has no line" in gaps(checks)
