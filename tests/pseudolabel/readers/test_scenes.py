"""Scenes: they follow from the seed, are written whole or not at all, and heads tell what bodies do not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pseudolabel.errors import DataError, MachineError
from pseudolabel.images import read_image
from pseudolabel.masks import read_mask
from pseudolabel.readers import _scenes_draw as drawing
from pseudolabel.readers._scenes_creature import CLASSES, HEAD_REACH, HEADS, Creature
from pseudolabel.readers.scenes import Scenes, scenes
from pseudolabel.records import Dataset
from pseudolabel.runs.disk import sha256_file

SMALL = {"train": 3, "val": 2, "size": 64}


def read(root: Path, **settings: object) -> Dataset:
    dataset: Dataset = scenes.run(Scenes.model_validate({"root": str(root), **SMALL, **settings}))
    return dataset


def tree(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): sha256_file(path) for path in sorted(root.rglob("*")) if path.is_file()
    }


@pytest.fixture(scope="module")
def drawn() -> list[drawing.Scene]:
    """Scenes of a middle size, enough for statistics."""
    return [drawing.draw(1, "train", index, 96, 1.0) for index in range(90)]


def test_the_same_seed_gives_the_same_files_and_another_one_others(tmp_path: Path) -> None:
    first, second = read(tmp_path / "a", split="val"), read(tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert [record.id for record in first.records] == ["val_00000", "val_00001"]
    assert [record.id for record in second.records] == ["train_00000", "train_00001", "train_00002"]
    other = read(tmp_path / "c", seed=1)
    assert sha256_file(other.records[0].image) != sha256_file(second.records[0].image)
    more = read(tmp_path / "d", train=5)
    assert sha256_file(more.records[2].image) == sha256_file(second.records[2].image)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c", "d"]


def test_a_file_holds_what_was_drawn(tmp_path: Path) -> None:
    for index, record in enumerate(read(tmp_path / "a", split="val").records):
        scene = drawing.draw(0, "val", index, 64, 1.0)
        assert record.mask is not None
        np.testing.assert_array_equal(read_mask(record.mask), scene.mask)
        difference = read_image(record.image).astype(int) - scene.image
        assert abs(difference).mean() < 4  # grey levels that JPEG loses on fine texture
        assert record.labels == scene.labels


def test_other_parameters_or_another_folder_are_refused(tmp_path: Path) -> None:
    read(tmp_path / "a")
    before = tree(tmp_path / "a")
    message = (
        r"scenes.json: holds other scenes \(train 3 instead of 4, tell 1.0 instead of 2.0\); give `root`"
    )
    with pytest.raises(DataError, match=message):
        read(tmp_path / "a", train=4, tell=2.0)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match=r"mine: holds something else than scenes; give `root`"):
        read(tmp_path / "mine")
    with pytest.raises(DataError, match=r"thesis.txt: holds something else"):
        read(tmp_path / "mine/thesis.txt")
    with pytest.raises(MachineError, match="cannot be written"):
        read(tmp_path / "mine/thesis.txt/below")
    assert (tmp_path / "mine/thesis.txt").read_text() == "years of work"
    assert tree(tmp_path / "a") == before
    (tmp_path / "empty").mkdir()
    assert len(read(tmp_path / "empty").records) == 3


def test_an_image_that_went_missing_is_named(tmp_path: Path) -> None:
    read(tmp_path / "a").records[1].image.unlink()
    with pytest.raises(DataError, match=r"train.txt:2: no image .*train_00001.jpg"):
        read(tmp_path / "a")


READ = """
import sys
from pseudolabel.readers.scenes import Scenes, scenes
print(len(scenes.run(Scenes(root=sys.argv[1], train=int(sys.argv[2]), val=2, size=64)).records))
"""


def start(root: Path, train: int) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", READ, str(root), str(train)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_at_once_both_end_well(tmp_path: Path) -> None:
    both = [start(tmp_path / "a", 3), start(tmp_path / "a", 3)]
    for process in both:
        out, error = process.communicate(timeout=300)
        assert (process.returncode, out) == (0, "3\n"), error
    read(tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_killed_while_writing_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    process = start(tmp_path / "a", 2000)
    deadline = time.monotonic() + 300
    while not any(tmp_path.rglob("train_00003.jpg")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "a").exists()
    assert [path.name for path in tmp_path.iterdir()] == [f".a.partial-{process.pid}"]
    read(tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert tree(tmp_path / "a").keys() == tree_of(3, 2)


def tree_of(train: int, val: int) -> set[str]:
    names = [f"train_{index:05d}" for index in range(train)] + [f"val_{index:05d}" for index in range(val)]
    images = {f"JPEGImages/{name}.jpg" for name in names}
    masks = {f"{folder}/{name}.png" for name in names for folder in ("SegmentationClass", "PartClass")}
    lists = {"ImageSets/Segmentation/train.txt", "ImageSets/Segmentation/val.txt"}
    return images | masks | lists | {"classes.txt", "labels.csv", "scenes.json"}


def test_an_error_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(*arguments: object) -> drawing.Scene:
        if arguments[2] == 2:
            raise MachineError("disk full")
        return drawing.draw(0, "train", 0, 64, 1.0)

    monkeypatch.setattr("pseudolabel.readers.scenes.draw", draw)
    with pytest.raises(MachineError, match="disk full"):
        read(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_outlines_are_ignored_and_nothing_else_is(drawn: list[drawing.Scene]) -> None:
    for scene in drawn:
        mask = scene.mask.astype(int)
        for first, second in ((mask[1:], mask[:-1]), (mask[:, 1:], mask[:, :-1])):
            apart = (first != second) & (first != 255) & (second != 255)
            assert not apart.any(), "two classes touch without 255 between"
        ignored = mask == 255
        assert 0.01 < ignored.mean() < 0.3
        # Every ignored pixel lies at an outline: no 5 x 5 square is all 255.
        windows = np.lib.stride_tricks.sliding_window_view(ignored, (5, 5))
        assert not windows.all(axis=(2, 3)).any()


def test_scenes_vary_as_they_should(drawn: list[drawing.Scene]) -> None:
    counts = np.bincount([label for scene in drawn for label in scene.labels], minlength=7)[1:]
    assert counts.min() >= 10
    assert {1, 2, 3} <= {len(scene.labels) for scene in drawn}
    assert {scene.mask.shape for scene in drawn} == set(drawing.shapes(96))
    shown = np.mean([((scene.mask > 0) & (scene.mask < 255)).mean() for scene in drawn])
    assert 0.12 < shown < 0.35
    heads = sum((scene.parts == 1).sum() for scene in drawn)
    bodies = sum((scene.parts == 2).sum() for scene in drawn)
    assert 0.15 < heads / (heads + bodies) < 0.27


@pytest.mark.parametrize("name", CLASSES)
def test_a_head_is_as_large_as_it_says_and_stays_within_reach(name: str) -> None:
    y, x = np.mgrid[-3:3:0.02, -3:3:0.02].astype(np.float32)
    inside = HEADS[name].outline(y, x) < 0
    assert inside.sum() * 0.02**2 == pytest.approx(HEADS[name].area, rel=0.05)
    assert np.hypot(y, x)[inside].max() < HEAD_REACH
    creature = Creature(name, (0.0, 0.0), 2.0, 60.0, 20.0, 0.22, 1.4, 0.7, True, 16.0)
    y, x = np.mgrid[-120:120, -120:120].astype(np.float32)
    outline = np.minimum(creature.head_distance(y, x), creature.body_distance(y, x)[0]) < 0
    assert np.hypot(y, x)[outline].max() < creature.reach()


def features(scene: drawing.Scene, part: int) -> NDArray[np.float64] | None:
    """Mean and deviation of the colours of the heads or of the bodies."""
    pixels = scene.image[scene.parts == part].astype(float)
    return None if len(pixels) < 40 else np.concatenate([pixels.mean(0), pixels.std(0)])


def test_heads_tell_the_class_and_bodies_hardly_do(drawn: list[drawing.Scene]) -> None:
    right = {}
    for part in (drawing.PART, drawing.BODY):
        labelled = [
            (label, row)
            for scene in drawn
            for label in scene.labels[: len(scene.labels) == 1]
            if (row := features(scene, part)) is not None
        ]
        labels, rows = np.array([label for label, _ in labelled]), np.array([row for _, row in labelled])
        assert len(labels) >= 25
        distances = ((rows[:, None] - rows[None]) ** 2).sum(-1)
        np.fill_diagonal(distances, np.inf)
        right[part] = float((labels[distances.argmin(1)] == labels).mean())
    assert right[drawing.PART] > 0.9
    assert right[drawing.BODY] < 0.6


def test_drawing_is_quick(drawn: list[drawing.Scene]) -> None:
    assert drawn
    start = time.process_time()
    for index in range(10):
        drawing.draw(0, "val", index, 160, 1.0)
    # 15 ms on an idle core; the bound leaves kind for a slow or a busy one
    assert (time.process_time() - start) / 10 < 0.12
