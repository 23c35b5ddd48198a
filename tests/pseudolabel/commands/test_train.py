"""`pl train` from a folder to a classifier: exact continuation, refusals, faults in the middle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pseudolabel
from pseudolabel import console
from pseudolabel.classifier import loop
from pseudolabel.classifier.checkpoint import load_classifier
from pseudolabel.errors import DataError, Interrupted, NumericError, UsageError
from pseudolabel.recipes.schema import TrainRecipe
from pseudolabel.records import ImageRecord
from pseudolabel.runs import disk

COLOURS = {"red": (220, 30, 30), "green": (30, 220, 30), "blue": (30, 30, 220)}
FILES = ("classifier.safetensors", "metrics.jsonl", "evaluation.json")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten training and six validation images in VOC layout: squares of one or two colours on grey."""
    root = tmp_path_factory.mktemp("squares")
    rng = np.random.default_rng(0)
    names = list(COLOURS)
    rows = ["id,labels"]
    for split, count in (("train", 10), ("val", 6)):
        ids = []
        for number in range(count):
            present = sorted({number % 3, (number * 7 + 1) % 3 if number % 4 == 0 else number % 3})
            height, width = (40, 48) if number % 2 else (48, 40)
            image = rng.integers(90, 150, (height, width, 3), np.uint8)
            for place, label in enumerate(present):
                image[4 + 18 * place : 20 + 18 * place, 8:30] = COLOURS[names[label]]
            ids.append(f"{split}{number}")
            path = root / "JPEGImages" / f"{ids[-1]}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(image).save(path.with_suffix(".jpg"), quality=95)
            rows.append(f"{ids[-1]},{';'.join(names[label] for label in present)}")
        disk.write_text(root / "ImageSets" / "Segmentation" / f"{split}.txt", "\n".join([*ids, ""]))
    disk.write_text(root / "classes.txt", "\n".join(["background", *names, ""]))
    disk.write_text(root / "labels.csv", "\n".join([*rows, ""]))
    return root


@pytest.fixture
def recipe(images: Path) -> dict[str, Any]:
    """Six steps: two epochs of three batches."""
    return {
        "data": {"reader": "voc", "root": str(images), "split": "train"},
        "validation": {"split": "val"},
        "network": {"backbone": "test_resnet", "weights": "none", "output_stride": 16},
        "optimizer": {"lr": 0.02, "head_factor": 10, "momentum": 0.9, "clip": 5, "frozen_norm": False},
        "schedule": {"epochs": 2, "batch": 4},
        "augmentation": {"resize": [32, 48], "crop": 32},
        "evaluate_at": 32,
    }


def content(run: Path) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in FILES}


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """A signal that comes during step number `steps` of this process."""
    stops: list[console.Stop] = []
    before = console.Stop.__init__
    done = 0

    def remember(self: console.Stop) -> None:
        before(self)
        stops.append(self)

    step = loop._step

    def count(*args: Any) -> float:
        nonlocal done
        done += 1
        if done == steps:
            stops[-1].requested = True
        return step(*args)

    monkeypatch.setattr(console.Stop, "__init__", remember)
    monkeypatch.setattr(loop, "_step", count)


def test_what_a_run_holds(recipe: dict[str, Any], tmp_path: Path) -> None:
    found = pseudolabel.train(recipe, tmp_path / "run", quiet=True, workers=0)
    run = tmp_path / "run"
    evaluation = disk.read_json(run / "evaluation.json")
    assert {key: found[key] for key in evaluation} == evaluation
    assert evaluation["images"] == 6
    assert evaluation["positives"] == {"red": 2, "green": 3, "blue": 3}
    assert evaluation["map"] == pytest.approx(np.mean(list(evaluation["ap"].values())))
    lines = disk.read_json_lines(run / "metrics.jsonl")
    assert [line["epoch"] for line in lines] == [1, 2]
    assert [line["steps"] for line in lines] == [3, 3]
    assert lines[-1]["map"] == evaluation["map"]
    assert lines[0]["lr"] == pytest.approx(0.02 * (1 - 2 / 6) ** 0.9)
    loaded = load_classifier(run)
    assert loaded.space.names == ("background", *COLOURS)
    assert loaded.mean == pytest.approx((0.5, 0.5, 0.5))
    assert TrainRecipe.model_validate_json(json.dumps(loaded.recipe)).schedule.epochs == 2
    assert loaded.fingerprint == disk.digest(
        {k: v for k, v in disk.read_json(run / "fingerprint.json").items() if k not in ("kind", "format")}
    )
    before = content(run)
    again = pseudolabel.train(recipe, run, quiet=True)
    assert {key: again[key] for key in evaluation} == evaluation
    assert content(run) == before


def test_it_learns(recipe: dict[str, Any], tmp_path: Path) -> None:
    more = ["schedule.epochs=6", "optimizer.lr=0.05"]
    found = pseudolabel.train(recipe, tmp_path / "run", overrides=more, quiet=True, workers=0)
    lines = disk.read_json_lines(tmp_path / "run" / "metrics.jsonl")
    assert lines[-1]["loss"] < 0.6 * lines[0]["loss"]
    assert found["map"] >= 0.9


@pytest.mark.parametrize(("cut", "workers"), [(1, 0), (2, 2), (3, 3), (4, 2), (5, 0), (6, 3)])
def test_continued_equals_uninterrupted(
    recipe: dict[str, Any],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    uninterrupted: dict[str, bytes],
    cut: int,
    workers: int,
) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, cut)
        with pytest.raises(Interrupted, match="run is saved; the same command continues"):
            pseudolabel.train(recipe, tmp_path / "run", quiet=True, workers=workers)
    assert not (tmp_path / "run" / "evaluation.json").exists()
    pseudolabel.train(recipe, tmp_path / "run", quiet=True, workers=3 - workers)
    assert content(tmp_path / "run") == uninterrupted


@pytest.fixture(scope="module")
def uninterrupted(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole") / "run"
    pseudolabel.train(recipe.__wrapped__(images), out, quiet=True, workers=1)  # type: ignore[attr-defined]
    return content(out)


def test_a_signal_in_validation_keeps_the_epoch(
    recipe: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    uninterrupted: dict[str, bytes],
) -> None:
    from pseudolabel.classifier import validation

    def interrupted(*_: Any) -> None:
        raise Interrupted("now", 130)

    with monkeypatch.context() as patch:
        patch.setattr(validation, "logits_of", interrupted)
        with pytest.raises(Interrupted):
            pseudolabel.train(recipe, tmp_path / "run", quiet=True, workers=0)
    steps: list[int] = []
    step = loop._step
    monkeypatch.setattr(loop, "_step", lambda *args: steps.append(args[6]) or step(*args))
    pseudolabel.train(recipe, tmp_path / "run", quiet=True, workers=0)
    assert steps == [3, 4, 5]
    assert content(tmp_path / "run") == uninterrupted


def test_a_damaged_state_costs_only_the_steps_since_the_one_before(
    recipe: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    uninterrupted: dict[str, bytes],
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        with pytest.raises(Interrupted):
            pseudolabel.train(recipe, run, quiet=True, workers=0)
    states = run / "checkpoints"
    (states / "last.safetensors").write_bytes((states / "last.safetensors").read_bytes()[:-9])
    pseudolabel.train(recipe, run, quiet=True, workers=0)
    assert "last.safetensors is damaged" in capsys.readouterr().err
    assert content(run) == uninterrupted
    (run / "evaluation.json").unlink()
    for name in ("last", "previous"):
        (states / f"{name}.safetensors").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"not a readable checkpoint.*--overwrite"):
        pseudolabel.train(recipe, run, quiet=True)


def test_more_epochs_extend_and_fewer_are_refused(recipe: dict[str, Any], tmp_path: Path) -> None:
    pseudolabel.train(recipe, tmp_path / "run", quiet=True, workers=0)
    found = pseudolabel.train(recipe, tmp_path / "run", overrides=["schedule.epochs=3"], quiet=True)
    lines = disk.read_json_lines(tmp_path / "run" / "metrics.jsonl")
    assert (found["epochs"], len(lines)) == (3, 3)
    with pytest.raises(UsageError, match=r"has 3 epochs, schedule.epochs asks for 2"):
        pseudolabel.train(recipe, tmp_path / "run", quiet=True)


@pytest.mark.parametrize(
    "change",
    ["seed=1", "optimizer.lr=0.01", "network.output_stride=32", "data.split=val", "network.mean=[0, 0, 0]"],
)
def test_another_training_is_another_folder(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(Interrupted):
            pseudolabel.train(recipe, run, quiet=True, workers=0)
    with pytest.raises(UsageError, match="made by another configuration"):
        pseudolabel.train(recipe, run, overrides=[change], quiet=True)


def test_a_moved_data_set_continues(
    recipe: dict[str, Any],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    uninterrupted: dict[str, bytes],
) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(Interrupted):
            pseudolabel.train(recipe, tmp_path / "run", quiet=True, workers=0)
    shutil.copytree(images, tmp_path / "moved")
    moved = [f"data.root={tmp_path / 'moved'}"]
    pseudolabel.train(recipe, tmp_path / "run", overrides=moved, quiet=True, workers=0)
    assert content(tmp_path / "run")["metrics.jsonl"] == uninterrupted["metrics.jsonl"]


class TestNotFinite:
    """F19: the step is not applied, the last good state stays, the message says where."""

    def spoil(
        self, monkeypatch: pytest.MonkeyPatch, at: int, how: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        loss, calls = torch.nn.functional.multilabel_soft_margin_loss, 0

        def spoilt(*args: Any) -> torch.Tensor:
            nonlocal calls
            calls += 1
            value: torch.Tensor = loss(*args)
            return how(value) if calls == at else value

        monkeypatch.setattr(torch.nn.functional, "multilabel_soft_margin_loss", spoilt)

    @pytest.mark.parametrize("kind", ["loss", "gradient"])
    def test_stops_with_the_last_good_state(
        self,
        recipe: dict[str, Any],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        uninterrupted: dict[str, bytes],
        kind: str,
    ) -> None:
        run = tmp_path / "run"

        def how(value: torch.Tensor) -> torch.Tensor:
            if kind == "loss":
                return value * float("nan")
            value.register_hook(lambda gradient: gradient * float("inf"))
            return value + 0

        with monkeypatch.context() as patch:
            self.spoil(patch, 5, how)
            with pytest.raises(
                NumericError, match=r"step 5, epoch 2: loss .*, gradient norm (nan|inf), lr 0.0"
            ):
                pseudolabel.train(recipe, run, quiet=True, workers=0)
        (problem,) = disk.read_json_lines(run / "problems.jsonl")
        assert problem["code"] == "not_finite"
        assert problem["what"].count("train") == 4  # every id of the batch
        # the state is that of the epoch's end, and the same run without the fault ends as ever
        pseudolabel.train(recipe, run, quiet=True, workers=0)
        assert content(run) == uninterrupted

    def test_half_precision_leaves_out_a_step_that_overflows(
        self, recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def how(value: torch.Tensor) -> torch.Tensor:
            value.register_hook(lambda gradient: gradient * float("inf"))
            return value + 0

        self.spoil(monkeypatch, 2, how)
        found = pseudolabel.train(
            recipe, tmp_path / "run", overrides=["precision=float16"], quiet=True, workers=0
        )
        assert found["map"] is not None

    def test_half_precision_has_a_limit(
        self, recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(loop, "MOST_SKIPPED", 1)

        def how(value: torch.Tensor) -> torch.Tensor:
            value.register_hook(lambda gradient: gradient * float("inf"))
            return value + 0

        loss = torch.nn.functional.multilabel_soft_margin_loss
        monkeypatch.setattr(
            torch.nn.functional, "multilabel_soft_margin_loss", lambda *args: how(loss(*args))
        )
        with pytest.raises(NumericError, match="step 2"):
            pseudolabel.train(
                recipe, tmp_path / "run", overrides=["precision=float16"], quiet=True, workers=0
            )


def test_bf16_trains(recipe: dict[str, Any], tmp_path: Path) -> None:
    found = pseudolabel.train(recipe, tmp_path / "run", overrides=["precision=bf16"], quiet=True, workers=0)
    assert 0 < found["map"] <= 1


class TestRefused:
    """Data that cannot be trained on, before anything is written."""

    def other(self, images: Path, tmp_path: Path) -> Path:
        return Path(shutil.copytree(images, tmp_path / "data"))

    def test_labels_that_nobody_said(
        self, recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from pseudolabel.readers import voc

        known = voc.voc.run

        def unknown(params: Any) -> Any:
            found = known(params)
            first = found.records[0]
            bare = ImageRecord(first.id, first.image, None, first.mask)
            return type(found)((bare, *found.records[1:]), found.space)

        monkeypatch.setattr(voc, "voc", type(voc.voc)("readers", "voc", unknown, voc.voc.params))
        with pytest.raises(DataError, match="data: train0: nobody said its labels; label it or take"):
            pseudolabel.train(recipe, tmp_path / "run", quiet=True)
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("split", ["train", "val"])
    def test_a_broken_image_stops(
        self, recipe: dict[str, Any], images: Path, tmp_path: Path, split: str
    ) -> None:
        root = self.other(images, tmp_path)
        broken = root / "JPEGImages" / f"{split}3.jpg"
        broken.write_bytes(broken.read_bytes()[:-200])
        with pytest.raises(DataError, match=f"{split}3.jpg"):
            pseudolabel.train(
                recipe, tmp_path / "run", overrides=[f"data.root={root}"], quiet=True, workers=2
            )
        assert not (tmp_path / "run" / "evaluation.json").exists()

    def test_a_broken_image_is_left_out_on_request(
        self, recipe: dict[str, Any], images: Path, tmp_path: Path
    ) -> None:
        root = self.other(images, tmp_path)
        broken = root / "JPEGImages" / "train3.jpg"
        broken.write_bytes(broken.read_bytes()[:-200])
        where = [f"data.root={root}"]
        found = pseudolabel.train(
            recipe, tmp_path / "run", overrides=where, quiet=True, workers=0, on_bad="skip"
        )
        assert found["problems"] == 1
        lines = disk.read_json_lines(tmp_path / "run" / "metrics.jsonl")
        assert [line["images"] for line in lines] == [9, 9]

    def test_wrong_recipe_or_weights_write_nothing(self, recipe: dict[str, Any], tmp_path: Path) -> None:
        for change, fault, told in (
            ("network.backbone=resnet51", DataError, "did you mean"),
            ("network.weights=gone.pth", DataError, "gone.pth: no such weights"),
            ("network.weights=package", UsageError, "no package brings 'test_resnet'"),
            ("optimizer.lr=0", UsageError, "optimizer.lr"),
        ):
            with pytest.raises(fault, match=told):
                pseudolabel.train(recipe, tmp_path / "run", overrides=[change], quiet=True)
        assert not (tmp_path / "run").exists()


def test_without_validation_there_is_no_score(recipe: dict[str, Any], tmp_path: Path) -> None:
    del recipe["validation"]
    found = pseudolabel.train(
        recipe, tmp_path / "run", overrides=["schedule.epochs=1"], quiet=True, workers=0
    )
    assert (found["images"], found["map"]) == (0, None)
    assert set(found["ap"].values()) == {None}


def test_noise_is_in_every_step_and_an_interrupted_run_draws_it_again(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy = {**recipe, "noise": {"kind": "bernoulli", "keep": 0.5}}
    seen: list[float] = []
    step = loop._step

    def watch(training: Any, course: Any, images: Any, *rest: Any) -> float:
        seen.append(float((images == 0).all(dim=1).float().mean()))
        return step(training, course, images, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_step", watch)
        pseudolabel.train(noisy, tmp_path / "whole", quiet=True)
    assert len(seen) == 6
    assert all(0.4 < share < 0.6 for share in seen)
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(Interrupted):
            pseudolabel.train(noisy, tmp_path / "cut", quiet=True)
    pseudolabel.train(noisy, tmp_path / "cut", quiet=True)
    assert content(tmp_path / "cut") == content(tmp_path / "whole")
