"""The payload types: what they refuse, what search sees of them, how they merge, and how they are found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from memos_server._pb.mip.v1.common_pb2 import Label
from memos_server._pb.mip.v1.memory_pb2 import (
    PROVENANCE_KIND_DOCUMENT,
    PROVENANCE_KIND_MESSAGE,
    Activation,
    BlobRef,
    Extension,
    HiddenStates,
    KvCache,
    Memory,
    Parametric,
    Plaintext,
    Provenance,
)
from memos_server.configs.errors import SetupError
from memos_server.errors import MipError
from memos_server.mem_os.index_batches import INDEX_VERSION, version_of
from memos_server.memories.activation import ActivationType
from memos_server.memories.extension import ExtensionType
from memos_server.memories.indexed_text import indexed_text
from memos_server.memories.parametric import ParametricType
from memos_server.memories.plaintext import PlaintextType
from memos_server.memories.registry import MemoryTypes

TYPES = MemoryTypes([PlaintextType(), ActivationType(), ParametricType()])
MAY_8 = Timestamp(seconds=1_683_547_200)  # 2023-05-08T12:00:00Z
BLOB = BlobRef(digest="sha256:" + "ab" * 32, size=4)


class RecipeType(ExtensionType):
    """A plug-in's type: an extension that is read as UTF-8."""

    extension_type = "org.example.recipe"

    def text(self, memory: Memory) -> str:
        """Returns the recipe."""
        return memory.extension.data.decode()


def words(text: str, **content: Any) -> Memory:
    """Returns a memory in words."""
    return Memory(plaintext=Plaintext(text=text), **content)


def kv(**cache: Any) -> Memory:
    """Returns a memory that is a KV cache."""
    return Memory(activation=Activation(model_fingerprint="m", kv_cache=KvCache(**cache), blobs=[BLOB]))


def refusal(call: Callable[[], object]) -> tuple[str, str]:
    """Returns the reason with which a call is refused and the field that it names."""
    with pytest.raises(MipError) as caught:
        call()
    return caught.value.reason, caught.value.violations[0].field


def test_a_text_of_white_space_is_refused() -> None:
    assert refusal(lambda: PlaintextType().validate(words(" \n\u2003"), "memory")) == (
        "FIELD_REQUIRED",
        "memory.plaintext.text",
    )
    PlaintextType().validate(words(" a "), "memory")


def test_texts_merge_in_order_and_equal_ones_once() -> None:
    merged = PlaintextType().merge([words("Tea."), words("Coffee."), words("Tea.")])
    assert merged == words("Tea.\n\nCoffee.")


def test_a_merge_unites_tags_labels_and_provenance() -> None:
    one = Provenance(source="a.md", line_start=1)
    two = Provenance(source="b.md")
    merged = PlaintextType().merge(
        [
            words("a", tags=["x", "y"], labels=[Label(key="k", value="first"), Label(key="z")], provenance=[one]),
            words("b", tags=["y", "w"], labels=[Label(key="a"), Label(key="k", value="second")], provenance=[one, two]),
        ]
    )
    assert sorted(merged.tags) == ["w", "x", "y"]
    assert [(label.key, label.value) for label in merged.labels] == [("a", ""), ("k", "first"), ("z", "")]
    assert list(merged.provenance) == [one, two]


def test_a_merge_keeps_what_all_agree_on_and_nothing_else() -> None:
    def fact(text: str, language: str) -> Memory:
        plaintext = Plaintext(text=text, media_type="text/markdown", language=language, kind="fact")
        return Memory(
            plaintext=plaintext, confidence=0.5, valid_from=MAY_8, attributes_json="{}", session="cubes/c/sessions/s"
        )

    later = fact("c", "en")
    later.valid_until.seconds = 1_700_000_000
    merged = PlaintextType().merge([fact("a", "en"), fact("b", "de"), later])
    assert merged == Memory(
        plaintext=Plaintext(text="a\n\nb\n\nc", media_type="text/markdown", kind="fact"),
        confidence=0.5,
        valid_from=MAY_8,
        attributes_json="{}",
    )


def test_the_provenance_of_a_merge_leaves_room_for_the_merged_memories() -> None:
    many = [Provenance(source=f"{number}.md") for number in range(100)]
    merged = PlaintextType().merge([words("a", provenance=many[:50]), words("b", provenance=many[50:])])
    assert list(merged.provenance) == many[:62]


def test_texts_too_long_to_merge_are_refused() -> None:
    half = "é" * 65_536
    assert len(PlaintextType().merge([words(half[:-2]), words(half[1:])]).plaintext.text.encode()) == 262_140
    assert refusal(lambda: PlaintextType().merge([words(half), words("a" + half)])) == ("FIELD_TOO_LARGE", "sources")


def test_only_memories_in_words_merge_by_themselves() -> None:
    cache = kv(token_count=1)
    adapter = Memory(parametric=Parametric(base_fingerprint="m"))
    other = Memory(extension=Extension(type="org.example.unknown"))
    for memories in ([cache, cache], [adapter, adapter], [other, other], [words("a"), cache]):
        kind = TYPES.for_memory(memories[0], "merged")
        assert refusal(lambda kind=kind, memories=memories: kind.merge(memories)) == ("FIELD_REQUIRED", "merged")


def test_an_activation_without_its_sort_is_refused() -> None:
    memory = Memory(activation=Activation(model_fingerprint="m"))
    assert refusal(lambda: ActivationType().validate(memory, "memory")) == ("FIELD_REQUIRED", "memory.activation.kind")


@pytest.mark.parametrize(
    ("memory", "field"),
    [
        (kv(token_ids=bytes(7), token_count=1), "token_ids"),
        (kv(token_ids=bytes(8), token_count=3), "token_ids"),
        (kv(token_ids=bytes(8)), "token_ids"),
        (kv(block_hashes=bytes(33)), "block_hashes"),
    ],
    ids=["torn token", "another count", "no count", "torn hash"],
)
def test_a_kv_cache_whose_lists_do_not_add_up_is_refused(memory: Memory, field: str) -> None:
    path = f"memory.activation.kv_cache.{field}"
    assert refusal(lambda: ActivationType().validate(memory, "memory")) == ("INVALID_FIELD", path)


def test_whole_activations_are_accepted() -> None:
    ActivationType().validate(kv(token_ids=bytes(8), token_count=2, block_hashes=bytes(64)), "memory")
    ActivationType().validate(kv(token_count=2), "memory")
    ActivationType().validate(Memory(activation=Activation(hidden_states=HiddenStates(rows=1))), "memory")


def test_model_memories_name_their_blobs_and_have_no_words() -> None:
    adapter = Memory(parametric=Parametric(base_fingerprint="m", blobs=[BLOB]), tags=["lora"])
    for memory in (kv(token_count=1), adapter):
        kind = TYPES.for_memory(memory, "memory")
        kind.validate(memory, "memory")
        assert list(kind.blobs(memory)) == [BLOB]
        assert kind.text(memory) == ""
        assert indexed_text(TYPES, memory) == ""


def test_an_extension_without_a_plug_in_is_kept_and_found_by_its_words() -> None:
    memory = Memory(extension=Extension(type="org.example.unknown", data=b"\xff\x00", text="a pie"))
    before = memory.SerializeToString(deterministic=True)
    kind = TYPES.for_memory(memory, "memory")
    kind.validate(memory, "memory")
    assert type(kind) is ExtensionType
    assert (kind.text(memory), list(kind.blobs(memory))) == ("a pie", [])
    assert memory.SerializeToString(deterministic=True) == before


def test_a_plug_in_handles_its_own_extension_type_only() -> None:
    types = MemoryTypes([PlaintextType(), RecipeType()])
    pie = Memory(extension=Extension(type="org.example.recipe", data=b"bake it", text="ignored"))
    other = Memory(extension=Extension(type="org.example.other", data=b"bake it", text="a pie"))
    assert indexed_text(types, pie) == "bake it"
    assert indexed_text(types, other) == "a pie"
    assert types.extension_types() == ["org.example.recipe"]
    assert types.payloads() == ["plaintext", "extension"]


def test_what_a_plug_in_cannot_read_is_found_by_its_own_words() -> None:
    class Failing(RecipeType):
        def text(self, memory: Memory) -> str:
            raise UnicodeDecodeError("utf-8", b"", 0, 1, "no words")

    memory = Memory(extension=Extension(type="org.example.recipe", data=b"\xff", text="a pie"), tags=["home"])
    assert indexed_text(MemoryTypes([Failing()]), memory) == "a pie\nhome"


def test_the_version_of_an_index_names_its_backend_and_the_types_of_plug_ins() -> None:
    own, more = MemoryTypes([PlaintextType()]), MemoryTypes([PlaintextType(), RecipeType()])
    assert own.version() == ""
    assert more.version() == f"extension/org.example.recipe={RecipeType.__module__}@"
    versions = [version_of(types, backend) for types in (own, more) for backend in ("embedded", "other")]
    assert versions[0] == INDEX_VERSION
    assert len(set(versions)) == 4
    assert max(map(len, versions)) <= 64


def test_a_memory_without_a_payload_is_refused() -> None:
    assert refusal(lambda: TYPES.for_memory(Memory(tags=["a"]), "memories[3]")) == (
        "FIELD_REQUIRED",
        "memories[3].payload",
    )


def test_a_payload_whose_type_is_not_installed_is_refused() -> None:
    types = MemoryTypes([PlaintextType()])
    assert refusal(lambda: types.for_memory(kv(), "memory")) == ("UNKNOWN_PAYLOAD", "memory.payload")


def test_two_types_for_one_payload_are_refused_at_the_start() -> None:
    with pytest.raises(SetupError, match=r"both handle extension org\.example\.recipe"):
        MemoryTypes([RecipeType(), RecipeType()])


@pytest.mark.parametrize(("payload", "extension_type"), [("words", ""), ("plaintext", "org.example.recipe")])
def test_a_type_that_no_memory_can_have_is_refused_at_the_start(payload: str, extension_type: str) -> None:
    odd = RecipeType()
    odd.payload, odd.extension_type = payload, extension_type
    with pytest.raises(SetupError, match="which no memory can have"):
        MemoryTypes([odd])


def test_the_installed_types_handle_every_payload_of_the_contract() -> None:
    assert MemoryTypes.installed().payloads() == ["plaintext", "activation", "parametric", "extension"]


def test_the_indexed_text_begins_with_speaker_and_date_and_ends_with_the_tags() -> None:
    said = Provenance(kind=PROVENANCE_KIND_MESSAGE, speaker="Caroline", time=MAY_8)
    assert indexed_text(TYPES, words("I paint.", provenance=[said], tags=["art", "hobby"])) == (
        "Caroline (8 May 2023, 2023-05-08): I paint.\nart hobby"
    )


@pytest.mark.parametrize(
    ("provenance", "text"),
    [
        ([], "I paint."),
        ([Provenance(kind=PROVENANCE_KIND_DOCUMENT, source="a.md", line_start=3)], "I paint."),
        ([Provenance(speaker="Caroline")], "Caroline: I paint."),
        ([Provenance(time=MAY_8)], "8 May 2023, 2023-05-08: I paint."),
        (
            [Provenance(speaker="Mel", time=Timestamp(seconds=-62_135_596_800))],
            "Mel (1 January 1, 0001-01-01): I paint.",
        ),
        ([Provenance(speaker="Mel", time=Timestamp(seconds=2**60))], "Mel: I paint."),
        ([Provenance(speaker="A"), Provenance(speaker="B"), Provenance(speaker="A")], "A, B: I paint."),
        ([Provenance(speaker=speaker) for speaker in "ABCDEF"], "A, B, C, D: I paint."),
    ],
    ids=["none", "document", "speaker", "date", "year 1", "beyond years", "two", "many"],
)
def test_the_indexed_text_names_the_sources_that_have_a_name_or_a_date(provenance: list[Provenance], text: str) -> None:
    assert indexed_text(TYPES, words("I paint.", provenance=provenance)) == text
