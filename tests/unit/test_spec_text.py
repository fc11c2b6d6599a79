"""The specification's pages: numbered requirements, links that lead somewhere, names that the protos have."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pb2

from memos_server._pb.mip.v1 import memory_pb2, options_pb2

ROOT = Path(__file__).resolve().parents[2]
SPEC = ROOT / "docs" / "spec"
PAGES = sorted(SPEC.glob("*.md"))
# The start of a requirement: a list item that begins with its id.
REQUIREMENT = re.compile(r"^- \[(MIP-[A-Z]{4}-\d{3})\] (.*(?:\n  .*)*)", re.MULTILINE)


def page_text(path: Path) -> str:
    """Returns the page without fenced blocks, which hold grammars and samples."""
    return re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def requirements() -> list[tuple[str, str, str]]:
    """Returns (page, id, sentence) of every requirement."""
    return [
        (path.name, match[1], " ".join(match[2].split()))
        for path in PAGES
        for match in REQUIREMENT.finditer(page_text(path))
    ]


def proto_names() -> set[str]:
    """Returns every name that the protos declare: messages, fields, enums and their values, services, RPCs."""
    files = descriptor_pb2.FileDescriptorSet.FromString((ROOT / "protos" / "mip.protoset").read_bytes())
    names: set[str] = set()

    def add_enum(enum: descriptor_pb2.EnumDescriptorProto) -> None:
        names.add(enum.name)
        for value in enum.value:
            names.update((value.name, value.name.removeprefix("ERROR_REASON_")))
            names.update(value.name.removeprefix(prefix) for prefix in ("MEMORY_STATE_", "CHANGE_KIND_"))

    def add_message(message: descriptor_pb2.DescriptorProto) -> None:
        names.add(message.name)
        for field in message.field:
            names.update((field.name, f"{message.name}.{field.name}"))
        names.update(oneof.name for oneof in message.oneof_decl)
        for enum in message.enum_type:
            add_enum(enum)
        for nested in message.nested_type:
            add_message(nested)

    for file in files.file:
        for message in file.message_type:
            add_message(message)
        for enum in file.enum_type:
            add_enum(enum)
        for service in file.service:
            names.update((service.name, *(method.name for method in service.method)))
        names.update(f"({file.package}.{extension.name})" for extension in file.extension)
    return names


def test_every_page_is_reached_from_the_index() -> None:
    index = (SPEC / "index.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\(([a-z]+\.md)\)", index))
    assert {path.name for path in PAGES} - {"index.md"} == linked


def test_requirement_ids_are_unique_and_each_page_has_its_own_letters() -> None:
    ids = [identifier for _, identifier, _ in requirements()]
    assert len(ids) > 100
    assert sorted(ids) == sorted(set(ids))
    pages_of_letters: dict[str, set[str]] = {}
    for page, identifier, _ in requirements():
        pages_of_letters.setdefault(identifier[4:8], set()).add(page)
    assert {letters: pages for letters, pages in pages_of_letters.items() if len(pages) > 1} == {}


def test_references_to_requirements_name_one_that_exists() -> None:
    known = {identifier for _, identifier, _ in requirements()}
    for path in PAGES:
        for named in re.findall(r"MIP-[A-Z]{4}-\d{3}", path.read_text(encoding="utf-8")):
            assert named in known, f"{path.name} names {named}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_words_of_rfc_2119_stand_in_requirements_only(path: Path) -> None:
    outside = REQUIREMENT.sub("", page_text(path))
    outside = re.sub(r"^The words MUST.*?explains\.$", "", outside, flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"[^\n]*\b(?:MUST|SHOULD|MAY|SHALL)\b[^\n]*", outside) == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_to_files_that_exist(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page_text(path)):
        if "://" not in target:
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", [p for p in PAGES if p.name != "filter.md"], ids=lambda path: path.name)
def test_capital_names_and_rpcs_are_those_of_the_protos(path: Path) -> None:
    known = proto_names()
    # Status codes are gRPC's; the rest are parts of names, media types and the like that no proto declares.
    known |= {status.name for status in grpc.StatusCode} | {"FILE", "TOKEN", "ERROR_REASON_", "PARENT_OF"}
    unknown = set()
    for span in re.findall(r"`([^`\n]+)`", page_text(path)):
        is_constant = re.fullmatch(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]*)+|[A-Z]{4,}", span)
        is_type_or_rpc = re.fullmatch(r"(?:[A-Z][a-z]+){2,}(?:\.[a-z_]+)?", span)
        if (is_constant or is_type_or_rpc) and span not in known:
            unknown.add(span)
    # Prose about other specifications' names.
    unknown -= {"EdDSA"}
    assert unknown == set()


def test_the_table_of_errors_is_the_one_of_the_protos() -> None:
    command = [sys.executable, str(ROOT / "tools" / "gen_error_docs.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_table_of_states_is_the_one_of_the_protos() -> None:
    page = (SPEC / "history.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]
    header = rows[0]
    assert header[1:] == ["ACTIVE", "MERGED", "ARCHIVED", "DELETED", "PURGED"]
    by_page = {
        row[0]: {state for state, cell in zip(header[1:], row[1:], strict=True) if "transition" in cell}
        for row in rows[2:7]
    }
    by_proto = {}
    for value in memory_pb2.MemoryState.DESCRIPTOR.values:
        if value.number:
            rule = value.GetOptions().Extensions[options_pb2.state_rule]
            by_proto[value.name.removeprefix("MEMORY_STATE_")] = set(rule.transition_to)
    assert by_page == by_proto
