"""Made-up images for trainings of a second: squares of one or two colours on grey, in VOC layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pseudolabel.runs import disk

FILES = ("classifier.safetensors", "metrics.jsonl", "evaluation.json")
COLOURS = {"red": (220, 30, 30), "green": (30, 220, 30), "blue": (30, 30, 220)}


def write_squares(root: Path) -> Path:
    """Ten training and six validation images with labels and masks."""
    rng = np.random.default_rng(0)
    names = list(COLOURS)
    rows = ["id,labels"]
    for split, count in (("train", 10), ("val", 6)):
        ids = []
        for number in range(count):
            present = sorted({number % 3, (number * 7 + 1) % 3 if number % 4 == 0 else number % 3})
            height, width = (40, 48) if number % 2 else (48, 40)
            image = rng.integers(90, 150, (height, width, 3), np.uint8)
            mask = np.zeros((height, width), np.uint8)
            for place, label in enumerate(present):
                image[4 + 18 * place : 20 + 18 * place, 8:30] = COLOURS[names[label]]
                mask[4 + 18 * place : 20 + 18 * place, 8:30] = label + 1
            ids.append(f"{split}{number}")
            for folder, suffix in (("JPEGImages", ".jpg"), ("SegmentationClass", ".png")):
                (root / folder).mkdir(parents=True, exist_ok=True)
                drawn = Image.fromarray(image if suffix == ".jpg" else mask)
                drawn.save(
                    root / folder / (ids[-1] + suffix), **({"quality": 95} if suffix == ".jpg" else {})
                )
            rows.append(f"{ids[-1]},{';'.join(names[label] for label in present)}")
        disk.write_text(root / "ImageSets" / "Segmentation" / f"{split}.txt", "\n".join([*ids, ""]))
    disk.write_text(root / "classes.txt", "\n".join(["background", *names, ""]))
    disk.write_text(root / "labels.csv", "\n".join([*rows, ""]))
    return root


def classifier_recipe(root: Path) -> dict[str, Any]:
    """Six steps: two epochs of three batches."""
    return {
        "data": {"reader": "voc", "root": str(root), "split": "train"},
        "validation": {"split": "val"},
        "network": {"backbone": "test_resnet", "weights": "none", "output_stride": 16},
        "optimizer": {"lr": 0.02, "head_factor": 10, "momentum": 0.9, "clip": 5, "frozen_norm": False},
        "schedule": {"epochs": 2, "batch": 4},
        "augmentation": {"resize": [32, 48], "crop": 32},
        "evaluate_at": 32,
    }


def segmentation_recipe(root: Path) -> dict[str, Any]:
    """Six steps of a segmentation network on the same images."""
    return {
        "data": {"reader": "voc", "root": str(root), "split": "train", "labels": "masks"},
        "validation": {"split": "val"},
        "network": {
            "encoder": "tu-test_efficientnet",
            "weights": "none",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.25, 0.25, 0.25],
        },
        "optimizer": {"lr": 0.005, "clip": 5.0},
        "schedule": {"epochs": 2, "batch": 4},
        "augmentation": {"crop": 32, "scale": [0.8, 1.2]},
    }


def classifier_files(run: Path) -> dict[str, bytes]:
    """What a finished run of `pl train` holds, by name."""
    return {name: (run / name).read_bytes() for name in FILES}
