"""A folder of plain images: every one once, by its path."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pseudolabel.errors import DataError
from pseudolabel.readers.folder import Folder, folder
from tests.oracles.readers import image


def ids(root: Path, **settings: object) -> list[str]:
    dataset = folder.run(Folder.model_validate({"root": str(root), **settings}))
    assert dataset.space.foreground == 0
    assert all(record.labels is None and record.mask is None for record in dataset.records)
    return [record.id for record in dataset.records]


def refused(message: str, root: Path, **settings: object) -> None:
    with pytest.raises(DataError, match=message) as caught:
        ids(root, **settings)
    assert "\n" not in str(caught.value)


def test_folders_below_are_looked_into_when_asked(tmp_path: Path) -> None:
    for name in ("2.jpg", "10.jpg", "x/1.jpg"):
        image(tmp_path / name, 4, 4)
    assert ids(tmp_path) == ["10", "2", "x/1"]
    assert ids(tmp_path, recursive=False) == ["10", "2"]


@pytest.mark.parametrize("names", [("a.jpg", "a.png"), ("a.jpg", "A.jpg"), ("x/a.jpg", "X/a.jpg")])
def test_ids_that_share_a_file_name_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        image(tmp_path / name, 4, 4)
    refused(r"a\.(jpg|png).*[aA]\.(jpg|png)", tmp_path)


def test_what_holds_nothing_is_refused(tmp_path: Path) -> None:
    refused("no such folder; check data.root", tmp_path / "none")
    (tmp_path / "notes.txt").write_text("x")
    image(tmp_path / "x/1.jpg", 4, 4)
    refused(r"holds no image \(\.jpg.*; recursive: true looks", tmp_path, recursive=False)
    (tmp_path / "x/1.jpg").unlink()
    refused("holds no image", tmp_path)


def test_links_and_devices_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    image(root / "a.jpg", 4, 4)
    image(tmp_path / "outside/b.jpg", 4, 4)
    (root / "inside.jpg").symlink_to(root / "a.jpg")
    (root / "away").symlink_to(tmp_path / "outside")  # a folder behind a link is not looked into
    assert ids(root) == ["a", "inside"]
    (tmp_path / "link").symlink_to(root)
    assert ids(tmp_path / "link") == ["a", "inside"]
    (root / "c.jpg").symlink_to(tmp_path / "outside/b.jpg")
    refused("c.jpg is a link that leaves", root)
    (root / "c.jpg").unlink()
    os.mkfifo(root / "d.png")
    refused("d.png is not a regular file", root)
    (root / "d.png").unlink()
    (root / "e.png").symlink_to(root / "nowhere.png")
    refused("e.png: a link that leads nowhere", root)
