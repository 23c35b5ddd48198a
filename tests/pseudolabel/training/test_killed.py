"""Trainings killed in the middle of an epoch or of a save, then continued: bytes of an undisturbed run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pseudolabel
import segtrain
from tests.pseudolabel.training.small_data import classifier_recipe, segmentation_recipe, write_squares

SCRIPT = Path(__file__).with_name("killed.py")
TRAIN: dict[str, Callable[..., Any]] = {"pl": pseudolabel.train, "seg": segtrain.train}
RECIPES = {"pl": classifier_recipe, "seg": segmentation_recipe}
FILES = {
    "pl": ("classifier.safetensors", "metrics.jsonl", "evaluation.json"),
    "seg": ("metrics.jsonl", "checkpoints/best.safetensors", "MODEL_CARD.md"),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_squares(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def undisturbed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    out = tmp_path_factory.mktemp("undisturbed")
    for name, train in TRAIN.items():
        train(RECIPES[name](root), out / name, device="cpu", workers=0, quiet=True)
    return {name: content(name, out / name) for name in TRAIN}


def content(trainer: str, run: Path) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in (*FILES[trainer], "checkpoints/last.safetensors")}


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["pl", "seg"])
@pytest.mark.parametrize(
    ("moment", "number", "left"),
    [
        ("step", 2, {"last"}),  # in the first epoch
        ("step", 6, {"last", "previous"}),  # the last step of all
        ("moves", 1, {"next"}),  # the first state of all
        ("moves", 5, {"next", "previous"}),  # in the middle of the second epoch
    ],
)
def test_killed_and_continued_equals_undisturbed(
    trainer: str,
    moment: str,
    number: int,
    left: set[str],
    root: Path,
    undisturbed: dict[str, dict[str, bytes]],
    tmp_path: Path,
) -> None:
    recipe, run = RECIPES[trainer](root), tmp_path / "run"
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    command = [sys.executable, str(SCRIPT), trainer, str(tmp_path / "recipe.json"), str(run), moment]
    ended = subprocess.run(
        [*command, str(number)],
        capture_output=True,
        text=True,
        check=False,
        cwd=SCRIPT.parents[3],
        timeout=300,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    names = {file.stem for file in (run / "checkpoints").iterdir()}
    assert names - {"best"} == left
    TRAIN[trainer](recipe, run, device="cpu", workers=2, quiet=True)
    assert content(trainer, run) == undisturbed[trainer]
    assert not (run / "checkpoints" / "next.safetensors").exists()
