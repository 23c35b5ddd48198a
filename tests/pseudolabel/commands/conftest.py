"""Images of coloured squares, a recipe of `pl train` on them, and the files of an undisturbed run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import pseudolabel
from tests.pseudolabel.training.small_data import classifier_files, classifier_recipe, write_squares


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten training and six validation images."""
    return write_squares(tmp_path_factory.mktemp("squares"))


@pytest.fixture
def recipe(images: Path) -> dict[str, Any]:
    """Six steps: two epochs of three batches."""
    return classifier_recipe(images)


@pytest.fixture(scope="session")
def uninterrupted(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole") / "run"
    pseudolabel.train(classifier_recipe(images), out, quiet=True, workers=1)
    return classifier_files(out)
