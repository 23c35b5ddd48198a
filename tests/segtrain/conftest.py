"""A made-up data set in VOC layout and a recipe whose network is small enough for a test."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segtrain
from pseudolabel import images, masks

NAMES = ("background", "red", "green")
COLOURS = np.array([[40, 40, 40], [220, 30, 30], [30, 200, 30]], np.uint8)
SIZES = ((24, 31), (40, 33), (17, 48), (33, 33), (29, 20), (36, 25), (50, 41))


def draw(size: tuple[int, int], number: int) -> tuple[np.ndarray, np.ndarray]:
    """An image (H, W, 3) with a red and a green rectangle, and its mask with a border of 255."""
    rng = np.random.default_rng(number)
    height, width = size
    mask = np.zeros(size, np.uint8)
    for label in (1, 2):
        top, left = rng.integers(0, max(1, height // 2)), rng.integers(0, max(1, width // 2))
        mask[top : top + max(1, height // 2), left : left + max(1, width // 3)] = label
    noise = rng.integers(-10, 11, (*size, 3))
    image = np.clip(COLOURS[mask].astype(int) + noise, 0, 255).astype(np.uint8)
    if height > 2:
        mask[0] = 255
    return image, mask


def write_voc(root: Path, count: int = 5, val: int = 3, sizes: Sequence[tuple[int, int]] = SIZES) -> Path:
    """A data set in VOC layout with the lists train and val."""
    for part, number, first in (("train", count, 0), ("val", val, 100)):
        ids = [f"{part}_{index}" for index in range(number)]
        listed = root / "ImageSets" / "Segmentation"
        listed.mkdir(parents=True, exist_ok=True)
        (listed / f"{part}.txt").write_text("\n".join(ids) + "\n")
        for index, item in enumerate(ids):
            image, mask = draw(sizes[index % len(sizes)], first + index)
            images.write_image(root / "JPEGImages" / f"{item}.png", image)
            masks.write_mask(root / "SegmentationClass" / f"{item}.png", mask)
    (root / "classes.txt").write_text("\n".join(NAMES) + "\n")
    return root


def plain_recipe(root: Path, **sections: Any) -> dict[str, Any]:
    """A recipe of `seg train`; keyword arguments replace its sections' keys."""
    plain: dict[str, Any] = {
        "data": {"reader": "voc", "root": str(root), "split": "train", "labels": "masks"},
        "network": {
            "encoder": "tu-test_efficientnet",
            "weights": "none",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.25, 0.25, 0.25],
        },
        "optimizer": {"lr": 0.005, "clip": 5.0},
        "schedule": {"epochs": 2, "batch": 2},
        "augmentation": {"crop": 32, "scale": [0.8, 1.2]},
    }
    for key, value in sections.items():
        if isinstance(value, dict) and isinstance(plain.get(key), dict):
            plain[key] = {**plain[key], **value}
        else:
            plain[key] = value
    return plain


@pytest.fixture
def make_voc(tmp_path: Path) -> Callable[..., Path]:
    """Writes a data set; returns its root."""
    return lambda **options: write_voc(tmp_path / "voc", **options)


@pytest.fixture
def recipe_of() -> Callable[..., dict[str, Any]]:
    """Makes a recipe on such a data set."""
    return plain_recipe


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data set `voc` and the run `run` of three epochs on it."""
    folder = tmp_path_factory.mktemp("trained")
    root = write_voc(folder / "voc", count=4, val=4)
    recipe = plain_recipe(root, schedule={"epochs": 3}, optimizer={"lr": 0.02}, validation={"split": "val"})
    segtrain.train(recipe, folder / "run", device="cpu", workers=0, quiet=True)
    return folder


@pytest.fixture
def trained(trained_once: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A run of `seg train` and the root of its data, both free to be spoilt."""
    for name in ("voc", "run"):
        shutil.copytree(trained_once / name, tmp_path / name)
    recipe = tmp_path / "run" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace(str(trained_once), str(tmp_path)))
    return tmp_path / "run", tmp_path / "voc"
