"""`seg evaluate` and the model card say what was scored and trained on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pseudolabel.figures.text import FORMS
from pseudolabel.masks import read_mask, write_mask
from pseudolabel.runs import disk
from segtrain import evaluate, train
from tests.pseudolabel.finished_run import seal
from tests.segtrain.conftest import NAMES

Make = Callable[..., Path]
Recipe = Callable[..., dict[str, Any]]


def test_says_exactly_what_was_scored(trained: tuple[Path, Path]) -> None:
    run, _ = trained
    evaluate(run, device="cpu", workers=0, quiet=True)
    stored = json.loads((run / "evaluation.json").read_text())
    ids = [f"val_{index}" for index in range(4)]
    assert stored["image_list"] == {"images": 4, "listed": 4, "sha256": disk.digest(sorted(ids))}
    assert (stored["reader"], stored["split"], stored["training_images"]) == ("voc", "val", 0)
    assert (stored["masks"], stored["labels"], stored["labels_from"]) == ("ground truth", None, None)
    assert stored["checkpoint"]["name"] == "last"
    assert stored["checkpoint"]["sha256"] == disk.sha256_file(run / "checkpoints/last.safetensors")
    assert (stored["threshold"], stored["postprocess"]) == (None, [])
    assert {"pseudolabel", "torch"} <= stored["versions"].keys()


def test_the_checkpoint_before_is_not_called_the_last(trained: tuple[Path, Path]) -> None:
    run, _ = trained
    last = run / "checkpoints" / "last.safetensors"
    last.rename(last.with_name("previous.safetensors"))
    assert evaluate(run, device="cpu", workers=0, quiet=True).checkpoint["name"] == "previous"


def test_scoring_training_images_is_said(
    trained: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = trained
    scored = evaluate(run, overrides=["validation=null"], device="cpu", workers=0)
    assert "4 of the 4 scored images were trained on" in capsys.readouterr().err
    stored = json.loads((run / "evaluation.json").read_text())
    assert (stored["split"], stored["training_images"]) == ("train", 4)
    assert "4 of these images were trained on" in FORMS["evaluation"](scored.as_dict())
    asked = ["validation=null", "data.split=val"]
    other = evaluate(run, overrides=asked, device="cpu", workers=0, quiet=True)
    assert (other.split, other.training_images) == ("val", 0)


def test_the_card_and_the_score_say_where_labels_came_from(
    make_voc: Make, recipe_of: Recipe, tmp_path: Path
) -> None:
    root, run = make_voc(count=2, val=1), tmp_path / "pseudo"
    ids = ["train_0", "train_1"]
    for item in ids:
        mask = read_mask(root / "SegmentationClass" / f"{item}.png")
        write_mask(run / "masks" / f"{item}.png", mask)
    seal(run, ids, NAMES)
    disk.write_json(run / "summary.json", {"labels": "given", "labels_from": "masks"})
    sections = {"schedule": {"epochs": 1}, "validation": {"split": "val"}, "masks": str(run)}
    train(recipe_of(root, **sections), tmp_path / "run", device="cpu", workers=0, quiet=True)
    card = (tmp_path / "run" / "MODEL_CARD.md").read_text()
    assert "| image labels of the pseudo-masks | labels: given (masks) |" in card
    scored = evaluate(tmp_path / "run", device="cpu", workers=0, quiet=True)
    assert (scored.masks, scored.labels, scored.labels_from) == ("pseudo-masks", "given", "masks")
