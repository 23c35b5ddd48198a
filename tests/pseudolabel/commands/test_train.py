"""`pl train` from a folder to a classifier: exact continuation, refusals, faults in the middle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pseudolabel
from pseudolabel import cli, console
from pseudolabel.classifier.checkpoint import load_classifier
from pseudolabel.classifier.terms import Terms
from pseudolabel.errors import DataError, Interrupted, UsageError
from pseudolabel.figures.text import FORMS
from pseudolabel.recipes.schema import TrainRecipe
from pseudolabel.records import ImageRecord
from pseudolabel.runs import disk
from pseudolabel.training.engine import Learner, Result
from tests.pseudolabel.training.small_data import COLOURS, classifier_files


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """A signal that comes during step number `steps` of this process."""
    stops: list[console.Stop] = []
    before = console.Stop.__init__
    done = 0

    def remember(self: console.Stop) -> None:
        before(self)
        stops.append(self)

    step = Learner.step

    def count(*args: Any, **options: Any) -> Result:
        nonlocal done
        done += 1
        if done == steps:
            stops[-1].requested = True
        return step(*args, **options)

    monkeypatch.setattr(console.Stop, "__init__", remember)
    monkeypatch.setattr(Learner, "step", count)


def test_what_a_run_holds(recipe: dict[str, Any], tmp_path: Path) -> None:
    summary = pseudolabel.train(recipe, tmp_path / "run", quiet=True, workers=0)
    run = tmp_path / "run"
    evaluation = disk.read_json(run / "evaluation.json")
    assert {key: summary.as_dict()[key] for key in evaluation} == evaluation
    assert evaluation["images"] == 6
    for stored in (evaluation, disk.read_json(run / "summary.json")):
        assert (stored["labels"], stored["labels_from"]) == ("given", "csv")
    assert "labels: given (csv)" in FORMS["evaluation"](summary.as_dict())
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
    before = classifier_files(run)
    again = pseudolabel.train(recipe, run, quiet=True)
    assert {key: again.as_dict()[key] for key in evaluation} == evaluation
    assert classifier_files(run) == before


def test_it_learns(recipe: dict[str, Any], tmp_path: Path) -> None:
    more = ["schedule.epochs=6", "optimizer.lr=0.05"]
    summary = pseudolabel.train(recipe, tmp_path / "run", overrides=more, quiet=True, workers=0)
    lines = disk.read_json_lines(tmp_path / "run" / "metrics.jsonl")
    assert lines[-1]["loss"] < 0.6 * lines[0]["loss"]
    assert summary.map >= 0.9


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
    assert classifier_files(tmp_path / "run") == uninterrupted


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
    step = Learner.step
    monkeypatch.setattr(
        Learner, "step", lambda *args, **options: steps.append(options["number"]) or step(*args, **options)
    )
    pseudolabel.train(recipe, tmp_path / "run", quiet=True, workers=0)
    assert steps == [3, 4, 5]
    assert classifier_files(tmp_path / "run") == uninterrupted


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
    assert "last.safetensors: not a readable checkpoint" in capsys.readouterr().err
    assert classifier_files(run) == uninterrupted
    (run / "evaluation.json").unlink()
    for name in ("last", "previous"):
        (states / f"{name}.safetensors").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"not a readable checkpoint.*--overwrite"):
        pseudolabel.train(recipe, run, quiet=True)


def test_more_epochs_extend_and_fewer_are_refused(recipe: dict[str, Any], tmp_path: Path) -> None:
    pseudolabel.train(recipe, tmp_path / "run", quiet=True, workers=0)
    summary = pseudolabel.train(recipe, tmp_path / "run", overrides=["schedule.epochs=3"], quiet=True)
    lines = disk.read_json_lines(tmp_path / "run" / "metrics.jsonl")
    assert (summary.epochs, len(lines)) == (3, 3)
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
    assert classifier_files(tmp_path / "run")["metrics.jsonl"] == uninterrupted["metrics.jsonl"]


def test_bf16_trains(recipe: dict[str, Any], tmp_path: Path) -> None:
    summary = pseudolabel.train(recipe, tmp_path / "run", overrides=["precision=bf16"], quiet=True, workers=0)
    assert 0 < summary.map <= 1


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
            dataset = known(params)
            first = dataset.records[0]
            bare = ImageRecord(first.id, first.image, None, first.mask)
            return type(dataset)((bare, *dataset.records[1:]), dataset.space)

        monkeypatch.setattr(voc, "voc", type(voc.voc)("readers", "voc", unknown, voc.voc.params))
        with pytest.raises(DataError, match="data: train0: no labels given; label it or take"):
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
        summary = pseudolabel.train(
            recipe, tmp_path / "run", overrides=where, quiet=True, workers=0, on_bad="skip"
        )
        assert summary.problems == 1
        lines = disk.read_json_lines(tmp_path / "run" / "metrics.jsonl")
        assert [line["images"] for line in lines] == [9, 9]

    def test_wrong_recipe_or_weights_write_nothing(self, recipe: dict[str, Any], tmp_path: Path) -> None:
        for change, fault, message in (
            ("network.backbone=resnet51", DataError, "did you mean"),
            ("network.weights=gone.pth", DataError, "gone.pth: no such weights"),
            ("network.weights=package", UsageError, "no package brings 'test_resnet'"),
            ("optimizer.lr=0", UsageError, "optimizer.lr"),
        ):
            with pytest.raises(fault, match=message):
                pseudolabel.train(recipe, tmp_path / "run", overrides=[change], quiet=True)
        assert not (tmp_path / "run").exists()


def test_without_validation_there_is_no_score(recipe: dict[str, Any], tmp_path: Path) -> None:
    del recipe["validation"]
    summary = pseudolabel.train(
        recipe, tmp_path / "run", overrides=["schedule.epochs=1"], quiet=True, workers=0
    )
    assert (summary.images, summary.map) == (0, None)
    assert set(summary.ap.values()) == {None}


def test_noise_is_in_every_step_and_an_interrupted_run_draws_it_again(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy = {**recipe, "noise": {"kind": "bernoulli", "keep": 0.5}}
    means: list[float] = []
    value = Terms.value

    def watch(terms: Terms, network: Any, images: torch.Tensor, *rest: Any) -> Any:
        means.append(float((images == 0).all(dim=1).float().mean()))
        return value(terms, network, images, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Terms, "value", watch)
        pseudolabel.train(noisy, tmp_path / "whole", quiet=True)
    assert len(means) == 6
    assert all(0.4 < share < 0.6 for share in means)
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(Interrupted):
            pseudolabel.train(noisy, tmp_path / "cut", quiet=True)
    pseudolabel.train(noisy, tmp_path / "cut", quiet=True)
    assert classifier_files(tmp_path / "cut") == classifier_files(tmp_path / "whole")


def test_limit_takes_the_first_images_of_each_list(recipe: dict[str, Any], tmp_path: Path) -> None:
    summary = pseudolabel.train(recipe, tmp_path / "run", limit=4, quiet=True, workers=0)
    assert summary.images == 4
    assert sum(summary.positives.values()) == 5
    assert disk.read_json(tmp_path / "run" / "summary.json")["images"] == 4
    with pytest.raises(UsageError, match="made by another configuration"):
        pseudolabel.train(recipe, tmp_path / "run", quiet=True, workers=0)


def test_an_image_left_out_makes_the_exit_code_1(
    recipe: dict[str, Any],
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = Path(shutil.copytree(images, tmp_path / "data"))
    broken = root / "JPEGImages" / "train3.jpg"
    broken.write_bytes(broken.read_bytes()[:-200])
    (tmp_path / "recipe.yaml").write_text(
        json.dumps({**recipe, "data": {**recipe["data"], "root": str(root)}})
    )
    command = ["pl", "train", str(tmp_path / "recipe.yaml"), "-o", str(tmp_path / "run"), "--json"]
    options = ["--on-bad", "skip", "--set", "schedule.epochs=1", "--limit", "6", "--device", "cpu"]
    monkeypatch.setattr("sys.argv", [*command, *options])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    printed = json.loads(capsys.readouterr().out)
    assert (printed["failed"], printed["images"]) == (1, 6)
