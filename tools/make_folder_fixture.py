"""Makes the fixture of a data folder as this version writes it: tests/data/folders/vN.tar.xz, and vN.json beside it.

A new version of the folder's format gets a fixture once, in the change that makes the version; it is never made again,
because it stands for what servers of that version have written. Ids, times and keys in it are random; the keys are
those of this fixture alone and open nothing else.

    python tools/make_folder_fixture.py
"""

from __future__ import annotations

import asyncio
import io
import json
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from memos_server.configs.data_folder import FORMAT_VERSION  # noqa: E402
from memos_server.configs.settings import Settings  # noqa: E402
from memos_server.main import serving  # noqa: E402
from tests.support.folder_story import answers, fill  # noqa: E402
from tests.support.mip import Mip  # noqa: E402

FOLDERS = ROOT / "tests" / "data" / "folders"
LEFT_OUT = {"lock", "server.json"}


async def make(data: Path) -> dict[str, object]:
    """Fills a folder and returns what its server answered."""
    settings = Settings(
        data=data, listen="127.0.0.1:0", embedder={"backend": "none"}, embedding={"default_model": "none"}
    )
    async with serving(settings) as server:
        mip = Mip(server.address, (data / "admin.token").read_text().strip())
        await fill(mip)
        said = await answers(mip)
        await mip.close()
    return said


def pack(data: Path) -> bytes:
    """Returns the folder as a compressed archive without owners and times."""

    def plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.uid = info.gid = info.mtime = 0
        info.uname = info.gname = ""
        return info

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz", preset=9) as archive:
        for path in sorted(data.rglob("*")):
            if path.name not in LEFT_OUT:
                archive.add(path, arcname=str(path.relative_to(data)), recursive=False, filter=plain)
    return packed.getvalue()


def main() -> int:
    """Writes the two files; an existing fixture stays."""
    target = FOLDERS / f"v{FORMAT_VERSION}.tar.xz"
    if target.exists():
        print(f"{target} exists: a format's fixture is made once", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        said = asyncio.run(make(data))
        packed = pack(data)
    FOLDERS.mkdir(parents=True, exist_ok=True)
    target.write_bytes(packed)
    target.with_name(f"v{FORMAT_VERSION}.json").write_text(
        json.dumps(said, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    print(f"{target}: {len(packed)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
