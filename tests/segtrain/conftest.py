"""A made-up data set in VOC layout and a recipe whose network is small enough for a test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pseudolabel import images, masks

NAMES = ("background", "red", "green")
COLOURS = np.array([[40, 40, 40], [220, 30, 30], [30, 200, 30]], np.uint8)
SIZES = ((24, 31), (40, 33), (17, 48), (33, 33), (29, 20), (36, 25), (50, 41))


def draw(size: tuple[int, int], number: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture (H, W, 3) with a red and a green rectangle, and its mask with a border of 255."""
    rng = np.random.default_rng(number)
    height, width = size
    mask = np.zeros(size, np.uint8)
    for label in (1, 2):
        top, left = rng.integers(0, max(1, height // 2)), rng.integers(0, max(1, width // 2))
        mask[top : top + max(1, height // 2), left : left + max(1, width // 3)] = label
    noise = rng.integers(-10, 11, (*size, 3))
    picture = np.clip(COLOURS[mask].astype(int) + noise, 0, 255).astype(np.uint8)
    if height > 2:
        mask[0] = 255
    return picture, mask


@pytest.fixture
def make_voc(tmp_path: Path) -> Callable[..., Path]:
    """Writes a data set; returns its root."""

    def make(
        count: int = 5, val: int = 3, sizes: Sequence[tuple[int, int]] = SIZES, name: str = "voc"
    ) -> Path:
        root = tmp_path / name
        for part, number, first in (("train", count, 0), ("val", val, 100)):
            ids = [f"{part}_{index}" for index in range(number)]
            listed = root / "ImageSets" / "Segmentation"
            listed.mkdir(parents=True, exist_ok=True)
            (listed / f"{part}.txt").write_text("\n".join(ids) + "\n")
            for index, item in enumerate(ids):
                picture, mask = draw(sizes[index % len(sizes)], first + index)
                images.write_picture(root / "JPEGImages" / f"{item}.png", picture)
                masks.write_mask(root / "SegmentationClass" / f"{item}.png", mask)
        (root / "classes.txt").write_text("\n".join(NAMES) + "\n")
        return root

    return make


@pytest.fixture
def recipe_of() -> Callable[..., dict[str, Any]]:
    """A recipe of `seg train` on such a data set; keyword arguments replace its sections' keys."""

    def recipe(root: Path, **sections: Any) -> dict[str, Any]:
        plain: dict[str, Any] = {
            "data": {"reader": "voc", "root": str(root), "split": "train", "labels": "masks"},
            "network": {
                "encoder": "tu-test_efficientnet",
                "weights": "none",
                "mean": [0.5, 0.5, 0.5],
                "std": [0.25, 0.25, 0.25],
            },
            "optimiser": {"lr": 0.005, "clip": 5.0},
            "schedule": {"epochs": 2, "batch": 2},
            "augmentation": {"crop": 32, "scale": [0.8, 1.2]},
        }
        for key, value in sections.items():
            if isinstance(value, dict) and isinstance(plain.get(key), dict):
                plain[key] = {**plain[key], **value}
            else:
                plain[key] = value
        return plain

    return recipe
