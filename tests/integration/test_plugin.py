"""The example package (examples/plugin): a memory type and an index of a third party, with a server and without."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from memos_server._pb.mip.v1.common_pb2 import VIEW_SEALED
from memos_server._pb.mip.v1.memory_pb2 import Extension
from memos_server._pb.mip.v1.memory_service_pb2 import SEARCH_MODE_LEXICAL
from memos_server.configs.backends import load_backend
from memos_server.configs.errors import SetupError
from memos_server.vec_dbs.base import IndexBatch
from tests.conftest import World
from tests.support.mip import Memory, Mip, RpcError, text
from tests.support.plugins import EXAMPLE, describe, install

ROOT = Path(__file__).parents[2]
TYPE = "org.example.task"
BACKEND = {"backend": "example-sqlite", "config": {"wait_for_disk": False}}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The folder that the example is installed in."""
    return install(EXAMPLE, tmp_path / "site")


@contextmanager
def beside(site: Path) -> Iterator[None]:
    """Within the block this process finds what is installed in a folder."""
    known = set(sys.modules)
    importlib.invalidate_caches()
    sys.path.append(str(site))
    try:
        yield
    finally:
        sys.path.remove(str(site))
        for name in set(sys.modules) - known:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(site)):
                del sys.modules[name]


def task(words: str = "", **fields: str) -> Memory:
    """Returns a task; `words` is what a server without the plug-in indexes."""
    data = json.dumps({"status": "open", **fields}).encode()
    return Memory(extension=Extension(type=TYPE, data=data, text=words))


async def test_the_example_keeps_few_files_open(site: Path, tmp_path: Path) -> None:
    with beside(site):
        index = load_backend("memos.vec_dbs", "example-sqlite", str(tmp_path), wait_for_disk=False, open_cubes=2)
        await index.open()
        cubes = [f"0192f7a0-0000-7000-8000-{number:012x}" for number in range(6)]
        await asyncio.gather(*(index.apply(cube, 0, IndexBatch(0, 1)) for cube in cubes))
        assert [await index.indexed_revision(cube) for cube in cubes] == [1] * 6
        assert len({open_.path for open_ in psutil.Process().open_files() if open_.path.endswith(".sqlite")}) <= 2
        dropped = [index.drop(cube) for cube in cubes]
        read = [index.indexed_revision(cube) for cube in cubes]
        assert set(await asyncio.gather(*dropped, *read)) <= {None, 0, 1}
        assert [await index.indexed_revision(cube) for cube in cubes] == [0] * 6
        await index.close()
    assert [path.name for path in (tmp_path / "index").iterdir()] == []


@pytest.mark.timeout(400)
def test_the_example_passes_the_port_suite_unchanged(site: Path) -> None:
    arguments = ["-q", "-p", "no:cacheprovider", "-k", "example-sqlite", "tests/ports/test_vec_dbs.py"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    environment |= {"PYTHONPATH": str(site), "MEMOS_TEST_BACKENDS": '{"example-sqlite": {"wait_for_disk": false}}'}
    command = [sys.executable, "-m", "pytest", *arguments, "tests/ports/test_probes.py"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=390)
    assert done.returncode == 0, done.stdout[-4000:]
    passed = re.search(r"^(\d+) passed, ", done.stdout, re.MULTILINE)
    assert passed is not None
    assert int(passed[1]) >= 43
    assert "skipped" not in done.stdout


async def found(mip: Mip, cube: str, query: str, **more: int) -> list[str]:
    """Returns the names of what a search by words finds, best first."""
    answer = await mip.SearchMemories(cubes=[cube], query=query, mode=SEARCH_MODE_LEXICAL, **more)
    assert not answer.stale
    return [hit.memory.name.rpartition("/")[2] for hit in answer.hits]


async def test_a_task_is_checked_found_by_its_words_and_merged(site: Path, tmp_path: Path) -> None:
    world = World(tmp_path / "data", index=BACKEND)
    with beside(site):
        await world.start()
        mip = world.admin
        assert list((await mip.GetCapabilities()).extension_types) == [TYPE]
        cube = (await mip.CreateCube(cube_id="c")).cube.name
        good = task(title="Renew the passport", due="2026-12-24")
        for wrong, reason, field in [
            (task(title=" "), "FIELD_REQUIRED", "data.title"),
            (task(title="t", due="Christmas"), "INVALID_FIELD", "data.due"),
            (task(title="t", status="soon"), "INVALID_FIELD", "data.status"),
            (task(title="t", notes="\ud800"), "INVALID_FIELD", "data.notes"),
            (task(title="t", colour="red"), "INVALID_FIELD", "data"),
            (Memory(extension=Extension(type=TYPE, data=b"\xff")), "INVALID_JSON", "data"),
            (Memory(extension=Extension(type=TYPE, data=b"[" * 60_000)), "INVALID_JSON", "data"),
            (Memory(extension=Extension(type=TYPE, data=b"9" * 60_000)), "INVALID_JSON", "data"),
            (Memory(extension=Extension(type=TYPE, data=b" " * 65_537)), "FIELD_TOO_LARGE", "data"),
        ]:
            with pytest.raises(RpcError) as error:
                await mip.AddMemories(parent=cube, memories=[good, wrong])
            assert (error.value.reason, error.value.fields) == (reason, [f"memories[1].extension.{field}"])
        pictures = task(title="Take photos", due="2026-12-01", notes="at the desk")
        good.name, pictures.name = f"{cube}/memories/passport", f"{cube}/memories/photos"
        await mip.AddMemories(parent=cube, memories=[good, pictures])
        assert await found(mip, cube, "renewing passports") == ["passport"]
        merged = await mip.MergeMemories(
            parent=cube, sources=[good.name, pictures.name], merged=Memory(name=f"{cube}/memories/both")
        )
        assert json.loads(merged.memory.extension.data) == {
            "title": "Renew the passport",
            "status": "open",
            "due": "2026-12-01",
            "notes": "Take photos\nat the desk",
        }
        assert await found(mip, cube, "desk") == ["both"]
        other = (await mip.AddMemories(parent=cube, memories=[text("no task")])).memories[0].name
        with pytest.raises(RpcError) as error:
            await mip.MergeMemories(parent=cube, sources=[merged.memory.name, other], merged=Memory())
        assert (error.value.reason, error.value.fields) == ("FIELD_REQUIRED", ["merged"])
        await world.stop()


async def test_its_memories_survive_a_server_without_it_byte_for_byte(site: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    world = World(data, index=BACKEND)
    with beside(site):
        await world.start()
        mip = world.admin
        cube = (await mip.CreateCube(cube_id="c")).cube.name
        passport = task("an identity document", title="Renew the passport", due="2026-12-24")
        passport.name = f"{cube}/memories/passport"
        await mip.AddMemories(parent=cube, memories=[passport, text("a lighthouse", name=f"{cube}/memories/light")])
        assert await found(mip, cube, "passport") == ["passport"]
        assert await found(mip, cube, "identity") == []
        changed = task("an identity document", title="Renew the licence")
        changed.name = passport.name
        await mip.UpdateMemory(memory=changed)
        assert await found(mip, cube, "licence") == ["passport"]
        assert await found(mip, cube, "passport", as_of_revision=2) == ["passport"]
        rolled = await mip.RollbackCube(name=cube, to_revision=2)
        assert await found(mip, cube, "passport") == ["passport"]
        head = rolled.commit
        await world.restart()
        mip = world.admin
        assert await found(mip, cube, "licence") == []
        assert await found(mip, cube, "licence", as_of_revision=3) == ["passport"]
        assert list((data / "index").glob("*.sqlite"))
        assert (await mip.VerifyCube(name=cube)).valid
        before = await mip.GetMemory(name=passport.name, view=VIEW_SEALED)
        await world.stop()

    world = World(data)
    await world.start()
    mip = world.admin
    assert list((await mip.GetCapabilities()).extension_types) == []
    assert not list((data / "index").glob("*.sqlite*")), "what the other backend left would outlive a purge"
    after = await mip.GetMemory(name=passport.name, view=VIEW_SEALED)
    assert after.SerializeToString(deterministic=True) == before.SerializeToString(deterministic=True)
    assert await found(mip, cube, "passport") == []
    assert await found(mip, cube, "identity") == ["passport"]
    assert await found(mip, cube, "identity", as_of_revision=2) == ["passport"]
    assert (await mip.VerifyCube(name=cube, expected_revision=head.revision, expected_head_digest=head.digest)).valid
    updated = await mip.UpdateMemory(memory=Memory(name=passport.name, tags=["home"]), update_mask={"paths": ["tags"]})
    assert updated.memory.extension == passport.extension
    # Nobody checks tasks here: what is none may come in, and must not harm the server that knows tasks.
    odd = Memory(name=f"{cube}/memories/odd", extension=Extension(type=TYPE, data=b"\xff", text="odd words"))
    await mip.AddMemories(parent=cube, memories=[odd])
    assert (await mip.VerifyCube(name=cube)).valid
    await world.stop()

    # The type comes back, with the default index: its words are indexed again.
    world = World(data)
    with beside(site):
        await world.start()
        mip = world.admin
        assert await found(mip, cube, "passport") == ["passport"]
        assert await found(mip, cube, "identity") == []
        assert await found(mip, cube, "odd words") == ["odd"]
        assert (await mip.GetMemory(name=passport.name)).memory.extension == passport.extension
        assert (await mip.VerifyCube(name=cube)).valid
        await world.stop()


BROKEN = """
import xyz_is_not_installed
"""
RAISES = """
raise RuntimeError("no licence")
"""
NO_INDEX = """
class Index:
    name = "x"
    def __init__(self, data_dir): pass
    def open(self): pass
    async def apply(self, cube_uid): pass
"""
NO_TYPE = """
class Index:
    payload = "extension"
"""
RIVAL = """
from memos_server.memories.extension import ExtensionType
class Index(ExtensionType):
    extension_type = "org.example.task"
"""


@pytest.mark.parametrize(
    ("module", "group", "name", "message"),
    [
        (BROKEN, "memos.vec_dbs", "x", r"which third 2\.0 brings, does not load: No module named"),
        (RAISES, "memos.vec_dbs", "x", r"which third 2\.0 brings, does not load: RuntimeError: no licence\."),
        ("Index = None", "memos.vec_dbs", "x", r"refuses its settings \(none\): 'NoneType' object is not callable"),
        (
            NO_INDEX,
            "memos.vec_dbs",
            "x",
            r"is no SearchIndex: apply must take \(cube_uid, dimension, batch\); close is",
        ),
        (NO_INDEX, "memos.vec_dbs", "x", r"open must be `async def`"),
        (
            "",
            "memos.vec_dbs",
            "other",
            r"There is no backend 'x' in memos\.vec_dbs; installed: embedded, example-sqlite",
        ),
        ("", "memos.vec_dbs", "example-sqlite", r"Several packages bring .*: memos-example-plugin, third\."),
        (
            NO_TYPE,
            "memos.memories",
            "x",
            r"'x' of memos\.memories, which third 2\.0 brings, is no MemoryType: blobs is",
        ),
        (RAISES, "memos.memories", "x", r"does not load: RuntimeError: no licence\. Mend or uninstall the package"),
        (RIVAL, "memos.memories", "x", r"TaskType and Index both handle extension org\.example\.task"),
        (RIVAL, "memos.memories", "example-task", r"Several packages bring .*: memos-example-plugin, third\."),
    ],
)
async def test_a_plug_in_that_cannot_be_used_is_named_with_a_remedy(
    site: Path, tmp_path: Path, module: str, group: str, name: str, message: str
) -> None:
    (site / "third.py").write_text(module, encoding="utf-8")
    describe(site, "third", "2.0", {group: {name: "third:Index"}})
    chosen = "example-sqlite" if name == "example-sqlite" else "x" if group == "memos.vec_dbs" else "embedded"
    world = World(tmp_path / "data", index={"backend": chosen})
    with beside(site), pytest.raises(SetupError, match=message) as refused:
        await world.start()
    assert refused.value.remedy


def test_a_server_with_a_broken_plug_in_says_so_without_a_traceback(site: Path, tmp_path: Path) -> None:
    (site / "third.py").write_text(RAISES, encoding="utf-8")
    describe(site, "third", "2.0", {"memos.vec_dbs": {"x": "third:Index"}})
    environment = {**os.environ, "PYTHONPATH": str(site), "NO_COLOR": "1", "MEMOS_INDEX__BACKEND": "x"}
    environment["MEMOS_DATA"] = str(tmp_path / "data")
    command = [sys.executable, "-m", "memos_server", "serve", "--listen", "127.0.0.1:0"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: The backend 'x' of memos.vec_dbs, which third 2.0 brings, does not load: RuntimeError: no licence.",
        "remedy: Install what it needs, or choose another backend in the settings.",
    ]
