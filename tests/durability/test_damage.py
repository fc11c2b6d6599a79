"""Damaged files of a data folder: nothing is lost silently, the damage is named, the derived is made anew.

Each sort of damage is done to copies of one folder, as a killed server left it, with a write-ahead log. One copy is
served, one is examined by the doctor.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from memos_server.backup import make
from memos_server.backup_restore import restore
from memos_server.configs.errors import SetupError
from memos_server.configs.settings import Settings, load
from memos_server.doctor import Check, examine
from memos_server.errors import MipError
from tests.conftest import World
from tests.durability import promises
from tests.durability.promises import Promised
from tests.support.mip import text

SEED = int(os.environ.get("MEMOS_TEST_SEED", "20261121"))


class Left(NamedTuple):
    """A folder that a killed server left, and what the server had promised.

    Attributes:
        data: The folder.
        promised: The promises.
        token: The administrator's token.
    """

    data: Path
    promised: Promised
    token: str


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Left:
    """A folder with commits in the record and in its log, an index, blobs; copied while nothing is being written."""
    return asyncio.run(_left(tmp_path_factory.mktemp("left")))


async def _left(folder: Path) -> Left:
    promised = Promised()
    world = World(folder / "data")
    for life in range(2):
        stop = asyncio.Event()

        def note(data: tuple[str, object], stop: asyncio.Event = stop, enough: int = 40 * (life + 1)) -> None:
            promised.add([data])
            if len(promised.memories) > enough:
                stop.set()

        await world.start()
        await promises.begin(world.admin, note)
        load = [
            promises.write(world.admin, f"d{life}{n}", note, random.Random(SEED + 10 * life + n), stop)
            for n in range(2)
        ]
        await asyncio.gather(*load)
        if not life:
            await world.stop()
    # The log was emptied by the last purge.
    for number in range(10):
        await promises.add(world.admin, f"00000000-0000-4000-8000-{number:012d}", [text(f"last{number} words")], note)
    assert (await world.admin.VerifyCube(name=promises.CUBE)).valid
    shutil.copytree(world.data, folder / "left")
    token = (world.data / "admin.token").read_text().strip()
    await world.stop()
    return Left(folder / "left", promised, token)


class Served(NamedTuple):
    """What a server and the doctor say of a folder.

    Attributes:
        refused: Why the server does not start; empty when it does.
        broken: What of the promises does not hold.
        checks: What the doctor found, by name; of several with one name, the first.
    """

    refused: str
    broken: list[str]
    checks: dict[str, Check]


async def tried(left: Left, folder: Path, damage: Callable[[Path], object], *, repair: bool = True) -> Served:
    """Damages copies of the folder; serves one and lets the doctor examine the other."""
    for copy in ("served", "examined"):
        shutil.copytree(left.data, folder / copy)
        damage(folder / copy)
    world = World(folder / "served")
    refused, broken = "", []
    try:
        await world.start()
    except SetupError as error:
        refused = f"{error.message} {error.remedy}"
    except MipError as error:
        refused = f"{error.reason}: {error.message} {error.remedy}"
    else:
        broken = await promises.broken(
            world.caller(left.token), left.promised, random.Random(SEED), world.server.address
        )
        await world.stop()
    settings = Settings(data=folder / "examined", listen="127.0.0.1:0", **world.settings)
    checks: dict[str, Check] = {}
    for check in await examine(settings, repair=repair):
        checks.setdefault(check.name, check)
    return Served(refused, broken, checks)


def flip(path: Path, place: float) -> None:
    """Changes one byte of a file, at a share of its length."""
    content = bytearray(path.read_bytes())
    content[min(int(len(content) * place), len(content) - 1)] ^= 0x5A
    path.write_bytes(content)


def garble(path: Path) -> None:
    """Puts a zero into the middle of a file of text; another letter of a key might be another key."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] = 0
    path.write_bytes(content)


def cut(path: Path, share: float) -> None:
    """Cuts a file to a share of its length."""
    os.truncate(path, int(path.stat().st_size * share))


def record_of(data: Path) -> dict[str, bytes]:
    """Returns the bytes of the record and of its log, where they are there."""
    paths = (data / "record.sqlite", data / "record.sqlite-wal")
    return {path.name: path.read_bytes() for path in paths if path.exists()}


async def test_the_folder_is_sound_before_it_is_damaged(left: Left, tmp_path: Path) -> None:
    served = await tried(left, tmp_path, lambda data: None)
    assert (served.refused, served.broken) == ("", [])
    assert {name: check.status for name, check in served.checks.items()} == {
        "model": "warn",
        "server.json": "repaired",
        "folder": "ok",
        "record": "ok",
        "cubes/c": "ok",
        "cubes": "ok",
    }


RECORD: dict[str, tuple[Callable[[Path], object], str]] = {
    "the record is missing": (lambda data: (data / "record.sqlite").unlink(), "record.sqlite is missing or empty"),
    "the record is empty": (lambda data: cut(data / "record.sqlite", 0), "record.sqlite is missing or empty"),
    "the record is no database": (lambda data: (data / "record.sqlite").write_bytes(b"x" * 99999), "is damaged"),
    "the log's first page is damaged": (lambda data: flip(data / "record.sqlite-wal", 0.001), "damaged or cut off"),
    "the log is damaged early": (lambda data: flip(data / "record.sqlite-wal", 0.3), "damaged or cut off"),
    "the log is damaged late": (lambda data: flip(data / "record.sqlite-wal", 0.999), "damaged or cut off"),
    "the log's header is damaged": (lambda data: flip(data / "record.sqlite-wal", 0.0), "damaged in its header"),
    "the log is cut in half": (lambda data: cut(data / "record.sqlite-wal", 0.5), "damaged or cut off"),
    "the log has lost its end": (lambda data: cut(data / "record.sqlite-wal", 0.99), "damaged or cut off"),
}
"""Damage for which a server must not start, and what it says: commits that were acknowledged are missing."""


@pytest.mark.parametrize("what", RECORD)
async def test_a_server_does_not_start_on_a_record_that_has_lost_commits(what: str, left: Left, tmp_path: Path) -> None:
    damage, message = RECORD[what]
    served = await tried(left, tmp_path, damage)
    assert served.refused.startswith("DATA_CORRUPT: ")
    assert message in served.refused
    assert "backup" in served.refused
    assert served.checks["record"].status == "fail"
    assert message in served.checks["record"].message
    assert served.checks["record"].remedy == "Restore a backup into a new folder: memos restore BACKUP --data DIR."


@pytest.mark.parametrize("what", RECORD)
def test_no_backup_is_made_of_a_record_that_has_lost_commits(what: str, left: Left, tmp_path: Path) -> None:
    damage, message = RECORD[what]
    data = shutil.copytree(left.data, tmp_path / "data")
    damage(data)
    before = record_of(data)
    with pytest.raises(SetupError) as caught:
        make(Settings(data=data), tmp_path / "backup")
    assert (message if "record.sqlite" in before else "no data folder with a record") in caught.value.message
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    # For whoever looks what can still be found in them.
    assert record_of(data) == before


async def test_a_backup_changes_nothing_in_the_record_that_a_killed_server_left(left: Left, tmp_path: Path) -> None:
    data = shutil.copytree(left.data, tmp_path / "data")
    before = record_of(data)
    assert len(before) == 2
    make(Settings(data=data), tmp_path / "backup")
    assert record_of(data) == before
    restore(tmp_path / "backup", tmp_path / "restored")
    world = World(tmp_path / "restored")
    await world.start()
    assert not await promises.broken(world.caller(left.token), left.promised, random.Random(SEED), world.server.address)
    await world.stop()


async def test_a_log_that_is_gone_shows_against_a_head_known_elsewhere(left: Left, tmp_path: Path) -> None:
    """Nothing in the folder tells a log that was deleted from one that was never written; a client's head does."""
    served = await tried(left, tmp_path, lambda data: (data / "record.sqlite-wal").unlink())
    assert any("its tail was cut off" in one for one in served.broken)


HARMLESS: dict[str, tuple[Callable[[Path], object], str]] = {
    "the record's header, which the log holds too": (lambda data: flip(data / "record.sqlite", 0.0), "record"),
    "SQLite's shared memory is missing": (lambda data: (data / "record.sqlite-shm").unlink(), "record"),
    "SQLite's shared memory is damaged": (lambda data: flip(data / "record.sqlite-shm", 0.001), "record"),
    "SQLite's shared memory is cut": (lambda data: cut(data / "record.sqlite-shm", 0.3), "record"),
    "the lock's number is damaged": (lambda data: (data / "lock").write_bytes(b"\xff" * 99), "folder"),
    "the lock is missing": (lambda data: (data / "lock").unlink(), "folder"),
    "server.json is damaged": (lambda data: (data / "server.json").write_bytes(b"{"), "server.json"),
    "server.json is missing": (lambda data: (data / "server.json").unlink(), "folder"),
    "the token of the administrator is missing": (lambda data: (data / "admin.token").unlink(), "folder"),
    "the token of the administrator is damaged": (lambda data: flip(data / "admin.token", 0.5), "folder"),
    "the token of the administrator is cut": (lambda data: cut(data / "admin.token", 0.5), "folder"),
    "the key of page tokens is missing": (lambda data: (data / "keys" / "page-tokens.key").unlink(), "folder"),
    "the index's version is damaged": (lambda data: flip(data / "index" / "VERSION", 0.0), "cubes/c"),
    "the index's version is missing": (lambda data: (data / "index" / "VERSION").unlink(), "cubes/c"),
    "the index is missing": (lambda data: shutil.rmtree(data / "index"), "cubes/c"),
}
"""Damage that loses nothing: the server starts, keeps every promise, and the doctor is content or has made it anew."""


@pytest.mark.parametrize("what", HARMLESS)
async def test_damage_of_what_is_derived_is_mended(what: str, left: Left, tmp_path: Path) -> None:
    damage, check = HARMLESS[what]
    served = await tried(left, tmp_path, damage)
    assert (served.refused, served.broken) == ("", [])
    assert {one.status for one in served.checks.values()} <= {"ok", "warn", "repaired"}
    assert served.checks[check].status in ("ok", "repaired")


@pytest.mark.parametrize(
    "damage", [lambda path: flip(path, 0.4), lambda path: cut(path, 0.6), lambda path: cut(path, 0)]
)
@pytest.mark.parametrize("pattern", ["manifest*", "data-*.bin"])
async def test_every_damaged_index_file_is_made_anew(
    pattern: str, damage: Callable[[Path], None], left: Left, tmp_path: Path
) -> None:
    served = await tried(left, tmp_path, lambda data: [damage(path) for path in (data / "index").rglob(pattern)])
    assert (served.refused, served.broken) == ("", [])
    assert served.checks["cubes/c"].status == "repaired"


REFUSED: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "FORMAT is damaged": (lambda data: (data / "FORMAT").write_bytes(b"\xff\x00"), "folder", "FORMAT"),
    "FORMAT is empty": (lambda data: cut(data / "FORMAT", 0), "folder", "FORMAT"),
    "FORMAT is missing": (lambda data: (data / "FORMAT").unlink(), "folder", "FORMAT"),
    "the key of tokens is damaged": (
        lambda data: garble(data / "keys" / "token.ed25519.pem"),
        "folder",
        "token.ed25519.pem",
    ),
    "the key of tokens is cut": (
        lambda data: cut(data / "keys" / "token.ed25519.pem", 0.5),
        "folder",
        "token.ed25519.pem",
    ),
    "the key of tokens is empty": (
        lambda data: cut(data / "keys" / "token.ed25519.pem", 0),
        "folder",
        "token.ed25519.pem",
    ),
}
"""Damage of what cannot be made anew: the server names the file and what to do."""


@pytest.mark.parametrize("what", REFUSED)
async def test_damage_of_what_cannot_be_made_anew_is_named(what: str, left: Left, tmp_path: Path) -> None:
    damage, check, file = REFUSED[what]
    served = await tried(left, tmp_path, damage)
    assert file in served.refused
    assert served.checks[check].status == "fail"
    assert file in served.checks[check].message
    assert served.checks[check].remedy


async def test_damaged_settings_are_named(left: Left, tmp_path: Path) -> None:
    shutil.copytree(left.data, tmp_path / "data")
    (tmp_path / "data" / "memos.toml").write_bytes(b"[[[\xff")
    with pytest.raises(SetupError, match=r"memos\.toml"):
        load({"data": tmp_path / "data"}, None)


async def test_a_damaged_key_of_page_tokens_is_made_anew_when_asked(left: Left, tmp_path: Path) -> None:
    def damage(data: Path) -> None:
        cut(data / "keys" / "page-tokens.key", 0.5)

    for repair, status in ((False, "fail"), (True, "repaired")):
        served = await tried(left, tmp_path / str(repair), damage, repair=repair)
        assert "page-tokens.key does not hold 32 bytes" in served.refused
        assert served.checks["page-tokens.key"].status == status
        assert served.checks["folder"].status == ("ok" if repair else "fail")


@pytest.mark.parametrize(
    "damage",
    [lambda path: flip(path, 0.5), lambda path: cut(path, 0.5), lambda path: path.unlink(), lambda path: cut(path, 0)],
    ids=["another byte", "cut", "missing", "empty"],
)
async def test_a_damaged_blob_is_named_and_all_else_is_served(
    damage: Callable[[Path], None], left: Left, tmp_path: Path
) -> None:
    digest = max(left.promised.blobs)

    def damage_one(data: Path) -> None:
        (path,) = (data / "blobs").rglob(digest.removeprefix("sha256:"))
        damage(path)

    served = await tried(left, tmp_path, damage_one)
    assert not served.refused
    assert {one.split()[0] for one in served.broken} == {"verify:", "the"}
    assert any(one.startswith(f"the blob {digest} cannot be read: DATA_LOSS/DATA_CORRUPT") for one in served.broken)
    check = served.checks["cubes/c"]
    assert (check.status, check.message[:5]) == ("fail", "blob ")
    assert check.remedy == "Put the blob's file back from a backup, or upload its bytes again (memos blob put)."


@pytest.mark.parametrize("place", range(12))
async def test_a_damaged_page_of_the_record_is_named_or_nothing_is_lost(place: int, left: Left, tmp_path: Path) -> None:
    """One byte anywhere in the database, its log being empty."""
    rng = random.Random(SEED + place)
    share = rng.random()
    whole = left.data.with_name("whole")
    if not whole.exists():
        shutil.copytree(left.data, whole)
        world = World(whole)
        await world.start()
        await world.stop()
    sound = Left(whole, left.promised, left.token)
    served = await tried(sound, tmp_path, lambda data: flip(data / "record.sqlite", share))
    failed = [check for check in served.checks.values() if check.status == "fail"]
    assert failed or not (served.refused or served.broken)
    said = [served.refused, *served.broken]
    assert [one for one in said if "INTERNAL" in one and "incident" not in one] == []
