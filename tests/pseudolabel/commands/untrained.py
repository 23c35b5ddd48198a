"""Eight tagged images, a classifier that was never trained, and a recipe on them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pseudolabel.classifier.checkpoint import save_classifier
from pseudolabel.classifier.network import Classifier
from pseudolabel.records import LabelSpace

NAMES = ("background", "cat", "dog", "sheep")
SIZES = [(48, 64), (64, 48), (48, 64), (48, 64), (40, 40), (64, 48), (48, 64), (31, 33)]
TAGS = ["cat", "dog;sheep", "cat;dog;sheep", "sheep", "dog", "cat", "dog", "cat;sheep"]
VOLATILE = {"summary.json", "recipe.yaml"}


def image(index: int, size: tuple[int, int]) -> Image.Image:
    """Soft colours with an edge, each its own."""
    source = np.random.default_rng(index)
    coarse = Image.fromarray(source.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((size[1], size[0]), Image.Resampling.BICUBIC)).copy()
    pixels[size[0] // 4 : size[0] // 2, size[1] // 3 :] //= 2
    return Image.fromarray(pixels)


@pytest.fixture(scope="module", name="place")
def place_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with eight tagged images of four sizes and a classifier that was never trained."""
    root = tmp_path_factory.mktemp("generate")
    (root / "images").mkdir()
    rows = ["id,labels"]
    for index, (size, tags) in enumerate(zip(SIZES, TAGS, strict=True)):
        image(index, size).save(root / "images" / f"p{index}.png")
        rows.append(f"p{index},{tags}")
    (root / "tags.csv").write_text("\n".join([*rows, ""]))
    (root / "classes.txt").write_text("\n".join([*NAMES, ""]))
    save_tiny(root / "run")
    return root


def save_tiny(folder: Path, change: Callable[[Classifier], object] = lambda network: None) -> Path:
    """A classifier with drawn weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        network = Classifier("test_resnet", 3, output_stride=8)
    torch.nn.init.normal_(network.head.weight, 0.1, 1.0, generator=torch.Generator().manual_seed(3))
    change(network)
    path = folder / "classifier.safetensors"
    save_classifier(path, network, LabelSpace(NAMES), (0.5,) * 3, (0.25,) * 3, {}, "none")
    return path


def recipe(root: Path, **changed: Any) -> dict[str, Any]:
    """CAM with a constant background, maps stored."""
    data = {"reader": "table", "root": str(root), "images": "images", "labels": "tags.csv"}
    return {
        "data": {**data, "classes": "classes.txt"},
        "classifier": {"checkpoint": str(root / "run")},
        "maps": [{"method": {"name": "cam"}, "refine": [{"name": "normalise"}]}],
        "background": {"name": "constant"},
        "output": {"maps": True},
        "batch": 3,
        **changed,
    }


CROPS = {
    "maps": [
        {
            "method": {"name": "saliency"},
            "aggregate": [{"name": "random_crop", "count": 5, "size": 32, "chunk": 2}],
            "refine": [{"name": "normalise"}, {"name": "competition"}, {"name": "normalise"}],
        }
    ],
    "background": {"name": "superpixel", "segments": 20},
}


def digests(run: Path) -> dict[str, str]:
    """sha256 of every file that must not depend on how the work was done."""
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name not in VOLATILE and path.name != ".lock"
    }


def lines(run: Path) -> dict[str, dict[str, Any]]:
    return {line["id"]: line for line in map(json.loads, (run / "manifest.jsonl").read_text().splitlines())}


def problems(run: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (run / "problems.jsonl").read_text().splitlines()]


def broken_copy(place: Path, root: Path, **files: bytes) -> Path:
    """The folder with some images replaced."""
    shutil.copytree(place, root)
    for name, data in files.items():
        (root / "images" / f"{name}.png").write_bytes(data)
    return root
