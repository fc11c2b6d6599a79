"""Servers over one record share a folder of keys: each takes the tokens of all, whoever made the keys."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from memos_server.api.tokens import TokenSigner, audience_of
from memos_server.configs.data_folder import DataFolder


def test_servers_with_one_folder_of_keys_take_each_others_tokens(tmp_path: Path) -> None:
    folders = [DataFolder(tmp_path / name, tmp_path / "keys") for name in ("one", "two")]
    for folder in folders:
        folder.open()
    one, two = (TokenSigner.open(folder.token_key, audience_of(folder.token_key)) for folder in folders)
    assert two.verify(one.issue("principals/p", 60).token).principal == "principals/p"
    assert folders[0].page_token_key() == folders[1].page_token_key()
    assert not (tmp_path / "one" / "keys").exists()
    for folder in folders:
        folder.close()


def test_servers_that_start_together_make_the_keys_once(tmp_path: Path) -> None:
    folders = [DataFolder(tmp_path / str(number), tmp_path / "keys") for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        audiences = set(pool.map(lambda folder: audience_of(folder.token_key), folders))
        pages = set(pool.map(DataFolder.page_token_key, folders))
    assert (len(audiences), len(pages)) == (1, 1)
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == ["page-tokens.key", "token.ed25519.pem"]
