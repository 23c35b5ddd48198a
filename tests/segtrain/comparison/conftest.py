"""A comparison small enough for a test: a few scenes, networks of timm's test size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import segtrain

FILES = {
    "classifier.yaml": """
data: {reader: scenes, split: train}
validation: {split: val}
network: {backbone: test_efficientnet, weights: none, mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25]}
optimizer: {lr: 0.01, frozen_norm: false}
schedule: {epochs: 1, batch: 4}
augmentation: {resize: [64, 64], crop: 64}
""",
    "cam.yaml": """
data: {reader: scenes, split: train}
classifier: {checkpoint: nowhere}
maps:
  - method: {name: cam}
    refine: [{name: normalise, method: minmax}]
background: {name: constant, threshold: 0.31}
""",
    "crops.yaml": """
data: {reader: scenes, split: train}
classifier: {checkpoint: nowhere}
maps:
  - method: {name: saliency}
    aggregate: [{name: random_crop, count: 2, size: 32}]
    refine: [{name: normalise}]
background: {name: superpixel, threshold: 0.3, segments: 20}
""",
    "segmentation.yaml": """
data: {reader: scenes, split: train}
network:
  encoder: tu-test_efficientnet
  weights: none
  mean: [0.5, 0.5, 0.5]
  std: [0.25, 0.25, 0.25]
optimizer: {lr: 0.005, clip: 5.0}
schedule: {epochs: 1, batch: 4}
augmentation: {crop: 32}
""",
    "compare.yaml": """
classifier: {recipe: classifier.yaml}
candidates:
  - {name: CAM, recipe: cam.yaml}
  - {name: crop saliency, recipe: crops.yaml}
  - {name: ground truth, masks: truth}
segmentation: segmentation.yaml
data: {train: 8, val: 4, size: 64}
report_on: {split: val}
threshold: train
images: 2
""",
}


@pytest.fixture(scope="session")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of recipes that compare.yaml brings together."""
    folder = tmp_path_factory.mktemp("recipes")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the scenes of these tests are drawn, once."""
    return tmp_path_factory.mktemp("scenes") / "drawn"


@pytest.fixture(scope="session")
def compare(recipes: Path, scenes: Path) -> Callable[..., dict[str, Any]]:
    """Runs the comparison, or another file of that folder, in this process."""

    def run(out: Path, *overrides: str, file: str = "compare.yaml", **options: Any) -> dict[str, Any]:
        return segtrain.compare(
            recipes / file,
            out,
            overrides=[f"data.root={scenes}", *overrides],
            device="cpu",
            **{"workers": 0, "quiet": True, **options},
        )

    return run
