"""The cases, read from YAML and checked against their schema: nothing misspelt passes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from google.protobuf import json_format

from mip_conformance.contract import described_rpcs, rpcs, suite_class
from mip_conformance.expressions import as_text, evaluate, filled
from mip_conformance.limits import limits
from mip_conformance.open_services import open_rpcs
from mip_conformance.values import whole

_ACTIONS = ("call", "open", "receive", "cancel", "parallel", "repeat", "check", "let", "verify")


class SuiteError(Exception):
    """A file of the suite is wrong: its name, and what is wrong."""


class Check(NamedTuple):
    """A case, or the case for one element of its list: what a report has one line for.

    Attributes:
        name: `{suite}/{case}` or `{suite}/{case}/{label}`.
        level: The level of its suite.
        requirements: What fails with it.
        features: What a server must declare for it to apply.
        needed: The RPCs that it calls, besides those that an expression chooses.
        case: The case itself, a message.
        each: The element, None without a list.
        file: The file that it stands in, relative to the folder of cases.
    """

    name: str
    level: str
    requirements: tuple[str, ...]
    features: tuple[str, ...]
    needed: tuple[str, ...]
    case: Any
    each: Any
    file: str


class Requirement(NamedTuple):
    """A line of conformance/requirements/.

    Attributes:
        id: The id.
        level: The level that it belongs to.
        keyword: `MUST` or `SHOULD`.
        sentence: What it says.
        excluded: Why there is no check, empty where there are some.
    """

    id: str
    level: str
    keyword: str
    sentence: str
    excluded: str


def data_folder() -> Path:
    """Returns the folder of `cases` and `requirements`: in the package when installed, beside it in a checkout."""
    installed = Path(__file__).parent / "_data"
    return installed if installed.is_dir() else Path(__file__).parent.parent


def read_yaml(path: Path, kind: str) -> Any:
    """Returns a file as a message of mip.conformance.v1.

    Raises:
        SuiteError: It is no YAML, or does not fit the schema.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_loader())  # noqa: S506  a safe one, and stricter
        return json_format.ParseDict(content or {}, suite_class(kind)())
    except (OSError, yaml.YAMLError, json_format.ParseError) as error:
        raise SuiteError(f"{path.name}: {error}") from None


@cache
def _loader() -> Any:
    """Returns a safe loader that refuses repeated keys, and reads no dates: schema and server have texts there."""
    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.value != "<<"]
            for key in keys:
                if keys.count(key) > 1:
                    raise yaml.YAMLError(f"line {node.start_mark.line + 1}: the key {key!r} is repeated")
            return super().construct_mapping(node, deep)

    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in base.yaml_implicit_resolvers.items()
    }
    return Loader


@cache
def samples() -> Mapping[str, Any]:
    """Returns a valid request for each RPC."""
    found = read_yaml(data_folder() / "cases" / "samples.yaml", "Samples")
    return {sample.rpc: sample for sample in found.samples}


def steps_of(steps: Sequence[Any]) -> Iterator[Any]:
    """Yields steps with those inside of them."""
    for step in steps:
        yield step
        for branch in step.parallel.branches:
            yield from steps_of(branch.steps)
        yield from steps_of(step.repeat.steps)


def _needed(case: Any, file: str) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for step in steps_of(case.steps):
        action = step.WhichOneof("action")
        if action is None:
            raise SuiteError(f"{file}: {case.name}: a step does nothing; it needs one of {', '.join(_ACTIONS)}")
        if action in ("call", "open"):
            name = getattr(step, action).rpc
            if "${" in name:
                continue
            if name in open_rpcs():
                continue
            if name not in rpcs():
                raise SuiteError(f"{file}: {case.name}: there is no RPC {name}")
            found[name] = None
        elif action == "verify":
            found |= dict.fromkeys(("CubeService.GetCommit", "CubeService.ListCommitChanges"))
    if case.cubes:
        found |= {"CubeService.CreateCube": None}
    if case.principals:
        found |= dict.fromkeys(("AccessService.CreatePrincipal", "AccessService.IssueToken", "AccessService.SetGrant"))
    return tuple(found)


@cache
def _described() -> Mapping[str, Any]:
    """Returns what the `each` of a case sees."""
    return {"rpcs": described_rpcs(), "limits": [limit.described() for limit in limits()]}


def _checks_of(suite: Any, file: str) -> Iterator[Check]:
    described = _described()
    for case in suite.cases:
        if not case.steps or not case.requirements:
            raise SuiteError(f"{file}: {case.name}: a case needs steps and requirements")
        needed = _needed(case, file)
        common = (suite.level, tuple(case.requirements), tuple(case.features))
        if not case.each:
            yield Check(f"{suite.name}/{case.name}", *common, needed, case, None, file)
            continue
        for element in evaluate(case.each, described):
            if case.label:
                label = filled(case.label, {"each": element})
            else:
                label = (
                    element["rpc"]
                    if isinstance(element, dict)
                    else element
                    if isinstance(element, str)
                    else as_text(element)
                )
            yield Check(f"{suite.name}/{case.name}/{label}", *common, needed, case, element, file)


@cache
def all_checks() -> tuple[Check, ...]:
    """Returns every check of the suite, in the order of files and cases.

    Raises:
        SuiteError: A file is wrong, or two checks have one name.
    """
    return checks_in(data_folder() / "cases")


def checks_in(folder: Path) -> tuple[Check, ...]:
    """Returns the checks of a folder of cases, in the order of files and cases.

    Raises:
        SuiteError: A file is wrong, or two checks have one name.
    """
    found: dict[str, Check] = {}
    for path in sorted(folder.rglob("*.yaml")):
        if path.name == "samples.yaml":
            continue
        file = str(path.relative_to(folder))
        for check in _checks_of(read_yaml(path, "Suite"), file):
            if check.name in found:
                raise SuiteError(f"{file}: there are two checks {check.name}")
            found[check.name] = check
    return tuple(found.values())


def request_of(sample: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns the templates of a sample: its request, and the requests of its stream."""
    return whole(json_format.MessageToDict(sample.request)), [
        whole(json_format.MessageToDict(frame)) for frame in sample.frames
    ]
