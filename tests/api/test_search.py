"""Search: words, vectors, relations, filters, the past, and what cannot be searched."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from memos_server._pb.mip.v1.memory_service_pb2 import (
    SEARCH_MODE_GRAPH,
    SEARCH_MODE_HYBRID,
    SEARCH_MODE_LEXICAL,
    SEARCH_MODE_VECTOR,
    SearchMemoriesResponse,
)
from tests.conftest import MakeWorld, World
from tests.support.mip import Label, Memory, Mip, Relation, RpcError, Vector, text


def texts(response: SearchMemoriesResponse) -> list[str]:
    """Returns the texts of the hits."""
    return [hit.memory.plaintext.text for hit in response.hits]


def vector(*numbers: float) -> Vector:
    """Returns a float32 vector of the model `toy`."""
    return Vector(model="toy", dtype=1, dimension=len(numbers), data=np.array(numbers, "<f4").tobytes())


@pytest.fixture
async def cube(mip: Mip) -> str:
    """A cube whose callers send vectors of two dimensions."""
    created = await mip.CreateCube(cube_id="c", cube={"embedding_model": "toy", "embedding_dimension": 2})
    return created.cube.name


async def test_what_was_added_is_found_at_once(mip: Mip, cube: str) -> None:
    for number in range(20):
        await mip.AddMemories(parent=cube, memories=[text(f"the lighthouse number {number} at sea")])
        found = await mip.SearchMemories(cubes=[cube], query=f"lighthouse number {number}", top_k=1)
        assert texts(found) == [f"the lighthouse number {number} at sea"]
        assert not found.stale


async def test_words_find_their_inflections_and_rank_the_rarer_higher(mip: Mip, cube: str) -> None:
    batch = [text("she was hiking in the mountains"), text("hikes are fun"), text("the mountains"), text("tea")]
    await mip.AddMemories(parent=cube, memories=batch)
    found = await mip.SearchMemories(cubes=[cube], query="mountain hike", mode=SEARCH_MODE_LEXICAL)
    assert texts(found)[0] == "she was hiking in the mountains"
    assert set(texts(found)) == {"she was hiking in the mountains", "hikes are fun", "the mountains"}


async def test_vectors_find_the_nearest_and_explain_their_scores(mip: Mip, cube: str) -> None:
    batch = [text("north", vectors=[vector(0, 1)]), text("east", vectors=[vector(1, 0)]), text("none")]
    await mip.AddMemories(parent=cube, memories=batch)
    found = await mip.SearchMemories(cubes=[cube], vector=vector(0.1, 0.9), mode=SEARCH_MODE_VECTOR, explain=True)
    assert texts(found) == ["north", "east"]
    (channel,) = found.hits[0].explanation.channels
    assert (channel.channel, channel.rank) == ("vector", 1)
    assert channel.score == pytest.approx(0.9939, abs=1e-3)


async def test_hybrid_search_sums_weighted_channels(mip: Mip, cube: str) -> None:
    batch = [
        text("apples and pears", vectors=[vector(1, 0)]),
        text("apples", vectors=[vector(0, 1)]),
        text("cars", vectors=[vector(0.2, 1)]),
    ]
    await mip.AddMemories(parent=cube, memories=batch)
    by_words = await mip.SearchMemories(cubes=[cube], query="apples", mode=SEARCH_MODE_HYBRID, explain=True)
    assert texts(by_words) == ["apples", "apples and pears"]
    assert by_words.notices  # no model runs here, and the answer says so
    assert list(by_words.hits[0].explanation.matched_terms) == ["appl"]


async def test_without_a_query_the_newest_come_first(mip: Mip, cube: str) -> None:
    for words in ("first", "second", "third"):
        await mip.AddMemories(parent=cube, memories=[text(words, tags=["t"])])
    found = await mip.SearchMemories(cubes=[cube], filter='tags:"t"', top_k=2)
    assert texts(found) == ["third", "second"]


@pytest.mark.parametrize(
    ("filter_", "expected"),
    [
        ('tags:"red"', {"a", "c"}),
        ('labels.room = "kitchen"', {"a"}),
        ("attributes.size > 2", {"b", "c"}),
        ('tags:"red" AND NOT labels.room = "kitchen"', {"c"}),
        ("state = ARCHIVED", {"d"}),
        ("state = ARCHIVED OR state = ACTIVE", {"a", "b", "c", "d"}),
        ('text:"CHAIR"', {"a", "b", "c"}),
        ("confidence >= 0.5", {"b"}),
    ],
)
async def test_filters_are_exact(mip: Mip, cube: str, filter_: str, expected: set[str]) -> None:
    names = {id_: f"{cube}/memories/{id_}" for id_ in "abcd"}
    batch = [
        text("a chair", name=names["a"], tags=["red"], labels=[Label(key="room", value="kitchen")]),
        text("a chair", name=names["b"], attributes_json='{"size": 3}', confidence=0.7),
        text("a chair", name=names["c"], tags=["red"], attributes_json='{"size": 4}', confidence=0.1),
        text("a table", name=names["d"]),
    ]
    await mip.AddMemories(parent=cube, memories=batch)
    await mip.TransitionMemories(parent=cube, names=[names["d"]], state="MEMORY_STATE_ARCHIVED")
    found = await mip.SearchMemories(cubes=[cube], filter=filter_)
    assert {hit.memory.name.rpartition("/")[2] for hit in found.hits} == expected
    listed = await mip.ListMemories(parent=cube, filter=filter_)
    assert {memory.name.rpartition("/")[2] for memory in listed.memories} == expected


async def test_a_search_of_the_past_answers_as_it_did_then(mip: Mip, cube: str) -> None:
    await mip.AddMemories(parent=cube, memories=[text(f"note {n} about tea", tags=[f"t{n}"]) for n in range(30)])
    then = await mip.SearchMemories(cubes=[cube], query="tea note 7", explain=True, top_k=30)
    name = then.hits[0].memory.name
    await mip.UpdateMemory(memory=text("nothing of it", name=name))
    await mip.DeleteMemories(parent=cube, names=[then.hits[1].memory.name])
    await mip.AddMemories(parent=cube, memories=[text("tea tea tea")])
    now = await mip.SearchMemories(cubes=[cube], query="tea note 7", top_k=30)
    assert name not in [hit.memory.name for hit in now.hits]
    again = await mip.SearchMemories(cubes=[cube], query="tea note 7", explain=True, top_k=30, as_of_revision=2)
    assert [(hit.memory.name, hit.score) for hit in again.hits] == [(hit.memory.name, hit.score) for hit in then.hits]
    moment = (await mip.GetCommit(name=f"{cube}/commits/2")).commit.create_time
    by_time = await mip.SearchMemories(cubes=[cube], query="tea note 7", top_k=30, as_of_time=moment)
    assert texts(by_time) == texts(then)


async def test_the_graph_reaches_what_words_do_not(mip: Mip, cube: str) -> None:
    ids = {id_: f"{cube}/memories/{id_}" for id_ in ("seed", "friend", "far")}
    batch = [
        text("the lighthouse keeper", name=ids["seed"]),
        text("born in a small town", name=ids["friend"]),
        text("unrelated words", name=ids["far"]),
    ]
    await mip.AddMemories(parent=cube, memories=batch)
    edge = Relation(source=ids["seed"], target=ids["friend"], type="RELATES_TO")
    await mip.CreateRelations(parent=cube, relations=[edge])
    found = await mip.SearchMemories(cubes=[cube], query="lighthouse", mode=SEARCH_MODE_GRAPH, explain=True)
    assert texts(found) == ["the lighthouse keeper", "born in a small town"]
    assert list(found.hits[1].explanation.path) == [ids["seed"], ids["friend"]]


async def test_the_graph_finds_all_that_words_find_and_explains_each_score(mip: Mip, cube: str) -> None:
    batch = [text(f"the lighthouse, drawing {number}") for number in range(40)]
    batch += [
        text("Ada Byron, a lighthouse painter"),
        text("Ada Byron wrote notes", name=f"{cube}/memories/notes"),
        text("tea"),
    ]
    await mip.AddMemories(parent=cube, memories=batch)
    found = await mip.SearchMemories(
        cubes=[cube], query="lighthouse painter", mode=SEARCH_MODE_GRAPH, top_k=60, explain=True
    )
    assert set(texts(found)) == {memory.plaintext.text for memory in batch} - {"tea"}
    for hit in found.hits:
        assert hit.score == pytest.approx(sum(channel.contribution for channel in hit.explanation.channels))
    (graph,) = next(hit.explanation.channels for hit in found.hits if hit.memory.name == f"{cube}/memories/notes")
    assert graph.channel == "graph"


async def test_the_graph_compares_cubes_by_how_well_they_match(mip: Mip, cube: str) -> None:
    other = (await mip.CreateCube(cube_id="d")).cube.name
    await mip.AddMemories(parent=cube, memories=[text("a lighthouse keeper at sea")])
    await mip.AddMemories(parent=other, memories=[text("the sea"), *(text(f"sand {number}") for number in range(9))])
    found = await mip.SearchMemories(cubes=[cube, other], query="lighthouse at sea", mode=SEARCH_MODE_GRAPH)
    hybrid = await mip.SearchMemories(cubes=[cube, other], query="lighthouse at sea")
    assert texts(found) == texts(hybrid)
    assert len(found.hits) == 2
    assert found.hits[0].score > found.hits[1].score


async def test_several_cubes_are_searched_as_one(mip: Mip, cube: str) -> None:
    other = (await mip.CreateCube(cube_id="d")).cube.name
    await mip.AddMemories(parent=cube, memories=[text("tea in the morning")])
    await mip.AddMemories(parent=other, memories=[text("tea in the evening")])
    found = await mip.SearchMemories(cubes=[cube, other], query="tea")
    assert set(texts(found)) == {"tea in the morning", "tea in the evening"}
    with pytest.raises(RpcError) as raised:
        await mip.SearchMemories(cubes=[cube, other], query="tea", as_of_revision=1)
    assert (raised.value.code, raised.value.reason) == ("INVALID_ARGUMENT", "CONFLICTING_ARGUMENTS")


async def test_the_index_is_derived_and_comes_back_after_its_files_are_deleted(world: World) -> None:
    mip = world.admin
    cube = (await mip.CreateCube(cube={"embedding_model": "toy", "embedding_dimension": 2})).cube.name
    batch = [text(f"note {n}", vectors=[vector(n, 1)]) for n in range(50)]
    memory = (await mip.AddMemories(parent=cube, memories=batch)).memories[0]
    await mip.UpdateMemory(memory=Memory(name=memory.name, tags=["x"]), update_mask={"paths": ["tags"]})
    ask = {"cubes": [cube], "vector": vector(49, 1), "mode": SEARCH_MODE_VECTOR, "top_k": 5}
    before = await mip.SearchMemories(**ask)
    await world.stop()
    shutil.rmtree(world.data / "index")
    await world.start()
    after = await world.admin.SearchMemories(**ask)
    assert texts(after) == texts(before)
    assert not after.stale
    assert (await world.admin.VerifyCube(name=cube)).valid


async def test_a_search_in_a_mode_that_cannot_run_says_what_to_do(mip: Mip, cube: str) -> None:
    with pytest.raises(RpcError) as raised:
        await mip.SearchMemories(cubes=[cube], query="tea", mode=SEARCH_MODE_VECTOR)
    assert (raised.value.code, raised.value.reason) == ("FAILED_PRECONDITION", "EMBEDDER_UNAVAILABLE")
    with pytest.raises(RpcError) as raised:
        await mip.SearchMemories(cubes=[cube], query="tea", rerank="none-such")
    assert (raised.value.code, raised.value.reason) == ("UNIMPLEMENTED", "UNIMPLEMENTED")


async def test_rollback_and_past_search_embed_nothing(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world = await make_world()
    mip = world.admin
    cube = (await mip.CreateCube(cube={"embedding_model": "toy", "embedding_dimension": 2})).cube.name
    memory = (await mip.AddMemories(parent=cube, memories=[text("one", vectors=[vector(1, 0)])])).memories[0]
    await mip.UpdateMemory(memory=text("two", name=memory.name, vectors=[vector(0, 1)]))

    async def refuse(texts: object) -> None:
        raise AssertionError(f"something was embedded: {texts}")

    monkeypatch.setattr(world.server.mos.embeddings, "embed", refuse)
    monkeypatch.setattr(world.server.mos.embeddings, "embed_query", refuse)
    await mip.RollbackCube(name=cube, to_revision=2)
    now = await mip.SearchMemories(cubes=[cube], vector=vector(1, 0), mode=SEARCH_MODE_VECTOR, explain=True)
    assert now.hits[0].explanation.channels[0].score == pytest.approx(1.0)
    past = await mip.SearchMemories(
        cubes=[cube], vector=vector(0, 1), mode=SEARCH_MODE_VECTOR, explain=True, as_of_revision=3
    )
    assert past.hits[0].explanation.channels[0].score == pytest.approx(1.0)
