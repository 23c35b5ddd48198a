"""Training: cut anywhere and continued it gives the same bytes; nothing bad is ever applied or kept."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import segtrain
from pseudolabel import console, masks
from pseudolabel.errors import DataError, Interrupted, NumericError, UsageError
from pseudolabel.runs import disk, writing
from pseudolabel.training.engine import Learner, Result
from pseudolabel.training.state import load_state
from segtrain.loss import Loss

Recipe = Callable[..., dict[str, Any]]
Make = Callable[..., Path]


class StopAfter(console.Stop):
    """Asks to stop when it was looked at so many times."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    def __getattribute__(self, name: str) -> Any:
        if name == "requested":
            self.looks -= 1
            return self.looks < 0
        return super().__getattribute__(name)


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Ends the next trainings after so many steps."""

    def plan(steps: int) -> None:
        @contextlib.contextmanager
        def interruptible() -> Iterator[console.Stop]:
            yield StopAfter(steps)

        monkeypatch.setattr(console, "interruptible", interruptible)

    return plan


def train(recipe: dict[str, Any], out: Path, **options: Any) -> dict[str, Any]:
    return segtrain.train(recipe, out, device="cpu", quiet=True, **{"workers": 0, **options})


def digests(run: Path, *names: str) -> dict[str, str]:
    names = names or ("checkpoints/last.safetensors", "checkpoints/best.safetensors", "metrics.jsonl")
    return {name: disk.sha256_file(run / name) for name in (*names, "MODEL_CARD.md", "curves.png")}


def test_cut_at_every_step_gives_the_same_bytes(
    make_voc: Make, recipe_of: Recipe, stop_after: Callable[[int], None], tmp_path: Path
) -> None:
    recipe = recipe_of(
        make_voc(count=8, val=2), schedule={"epochs": 3, "batch": 2}, validation={"split": "val"}
    )
    uninterrupted = train(recipe, tmp_path / "whole")
    assert uninterrupted.steps == 12
    cut = tmp_path / "cut"
    stop_after(0)
    with pytest.raises(Interrupted, match="stopped in epoch 1 after step 0 of 4"):
        train(recipe, cut)
    stop_after(1)
    for step in range(1, 12):
        with pytest.raises(Interrupted):
            train(recipe, cut, workers=(0, 2, 3)[step % 3])
        _, meta = load_state(cut / "checkpoints" / "last.safetensors")
        position = meta["position"]
        assert position["epoch"] * 4 + position["step"] == step
    finished = train(recipe, cut)
    assert digests(cut) == digests(tmp_path / "whole")
    assert finished.best == uninterrupted.best
    before = {path: path.stat().st_mtime_ns for path in (cut / "checkpoints").iterdir()}
    assert train(recipe, cut).steps == 12  # a finished run stays as it is
    assert {path: path.stat().st_mtime_ns for path in (cut / "checkpoints").iterdir()} == before


def test_a_damaged_last_checkpoint_gives_way_to_the_one_before(
    make_voc: Make, recipe_of: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_of(make_voc(count=4), schedule={"epochs": 3, "batch": 2})
    train(recipe, tmp_path / "whole")
    train({**recipe, "schedule": {"epochs": 3, "batch": 2}}, tmp_path / "run")
    last = tmp_path / "run" / "checkpoints" / "last.safetensors"
    last.write_bytes(last.read_bytes()[:5000])
    train(recipe, tmp_path / "run")
    assert "last.safetensors: not a readable checkpoint" in capsys.readouterr().err
    names = ("checkpoints/last.safetensors", "metrics.jsonl")
    assert digests(tmp_path / "run", *names) == digests(tmp_path / "whole", *names)


def test_more_epochs_extend_and_fewer_are_refused(make_voc: Make, recipe_of: Recipe, tmp_path: Path) -> None:
    root = make_voc(count=2)
    train(recipe_of(root, schedule={"epochs": 1}), tmp_path / "run")
    longer = train(recipe_of(root, schedule={"epochs": 2}), tmp_path / "run")
    assert longer.epochs == 2
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2
    with pytest.raises(UsageError, match="has 2 epochs, the recipe 1"):
        train(recipe_of(root, schedule={"epochs": 1}), tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "recipe.seed: 0 -> 1"),
        ({"optimizer": {"lr": 0.01}}, "recipe.optimizer.lr: 0.005 -> 0.01"),
        ({"augmentation": {"flip": False}}, "recipe.augmentation.flip: True -> False"),
    ],
)
def test_another_recipe_is_refused_with_the_difference(
    change: dict[str, Any], message: str, make_voc: Make, recipe_of: Recipe, tmp_path: Path
) -> None:
    root = make_voc(count=2)
    train(recipe_of(root, schedule={"epochs": 1}), tmp_path / "run")
    before = digests(tmp_path / "run", "checkpoints/last.safetensors")
    with pytest.raises(UsageError, match=message):
        train(recipe_of(root, **{"schedule": {"epochs": 1}, **change}), tmp_path / "run")
    assert digests(tmp_path / "run", "checkpoints/last.safetensors") == before


def test_other_masks_are_another_configuration(make_voc: Make, recipe_of: Recipe, tmp_path: Path) -> None:
    root = make_voc(count=2)
    recipe = recipe_of(root, schedule={"epochs": 1})
    train(recipe, tmp_path / "run")
    mask = masks.read_mask(root / "SegmentationClass" / "train_0.png")
    mask[5, 5] = 2 - mask[5, 5]
    masks.write_mask(root / "SegmentationClass" / "train_0.png", mask)
    with pytest.raises(UsageError, match="inputs: "):
        train(recipe, tmp_path / "run")


@pytest.mark.parametrize(("count", "batch", "steps"), [(1, 4, 1), (2, 4, 1), (5, 4, 1), (6, 4, 2), (3, 1, 3)])
def test_every_number_of_images_trains(
    count: int, batch: int, steps: int, make_voc: Make, recipe_of: Recipe, tmp_path: Path
) -> None:
    root = make_voc(count=count, val=1, sizes=[(1, 1), (2, 70), (65, 3), (33, 31)])
    summary = train(
        recipe_of(root, schedule={"epochs": 1, "batch": batch}, validation={"split": "val"}), tmp_path / "run"
    )
    assert summary.steps == steps
    assert summary.loss is None or math.isfinite(summary.loss)


def test_learns(make_voc: Make, recipe_of: Recipe, tmp_path: Path) -> None:
    root = make_voc(count=6, val=2)
    recipe = recipe_of(
        root,
        schedule={"epochs": 12, "batch": 3, "validate_every": 12},
        optimizer={"lr": 0.02},
        validation={"split": "train"},
    )
    train(recipe, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < rows[0]["loss"] / 2
    assert rows[-1]["miou"] > 0.6
    assert [("miou" in row) for row in rows] == [False] * 11 + [True]


def test_accumulation_changes_batch_norm_alone(make_voc: Make, recipe_of: Recipe, tmp_path: Path) -> None:
    root = make_voc(count=4)
    losses = []
    for parts in (1, 2):
        recipe = recipe_of(root, schedule={"epochs": 1, "batch": 4, "accumulate": parts})
        losses.append(train(recipe, tmp_path / str(parts)).loss)
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.2)  # each part has batch statistics of its own


class Poison:
    """Makes the loss or a gradient not finite at given steps."""

    def __init__(self, steps: set[int], where: str) -> None:
        self.steps, self.where, self.number = steps, where, -1
        self.states: list[dict[str, torch.Tensor]] = []

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        genuine_step, genuine_value = Learner.step, Loss.value

        def step(learner: Learner, *args: Any, **options: Any) -> Any:
            self.number = options["number"]
            before = snapshot(learner)
            result = genuine_step(learner, *args, **options)
            if result.outcome != "done":
                after = snapshot(learner)
                assert all(torch.equal(before[name], after[name]) for name in before)
                assert before.keys() == after.keys()
            return result

        def value(loss: Any, logits: torch.Tensor, *args: Any) -> torch.Tensor:
            bad = self.number in self.steps
            if bad and self.where == "gradient":
                logits.register_hook(lambda gradient: gradient * math.inf)
            loss_value = genuine_value(loss, logits, *args)
            return loss_value * math.nan if bad and self.where == "loss" else loss_value

        monkeypatch.setattr(Learner, "step", step)
        monkeypatch.setattr(Loss, "value", value)


def snapshot(learner: Learner) -> dict[str, torch.Tensor]:
    """Network with its buffers, and momentum."""
    tensors = {name: value.clone() for name, value in learner.modules["network"].state_dict().items()}
    for index, slots in learner.optimizer.state_dict()["state"].items():
        tensors |= {f"{index}.{slot}": value.clone() for slot, value in slots.items() if value is not None}
    return tensors


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_stop_keeps_the_last_good_checkpoint(
    where: str, make_voc: Make, recipe_of: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(make_voc(count=4), schedule={"epochs": 3, "batch": 2})
    Poison({3}, where).install(monkeypatch)
    with pytest.raises(NumericError, match=r"epoch 2, step 2: loss .*gradient norm .*learning rate .*train_"):
        train(recipe, tmp_path / "run")
    tensors, meta = load_state(tmp_path / "run" / "checkpoints" / "last.safetensors")
    assert meta["position"]["epoch"] == 1
    assert all(torch.isfinite(value).all() for value in tensors.values() if value.is_floating_point())
    rows = disk.read_json_lines(tmp_path / "run" / "problems.jsonl")
    assert [row["code"] for row in rows] == ["not_finite"]
    assert "train_" in rows[0]["file"]


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_skip_goes_on(
    where: str, make_voc: Make, recipe_of: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(make_voc(count=4), schedule={"epochs": 2, "batch": 2}, on_nan="skip")
    Poison({2}, where).install(monkeypatch)
    summary = train(recipe, tmp_path / "run")
    assert summary.steps_skipped == 1
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["steps_skipped"] for row in rows] == [0, 1]
    assert all(math.isfinite(row["loss"]) for row in rows)


def test_skip_has_a_limit(
    make_voc: Make, recipe_of: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(make_voc(count=4), schedule={"epochs": 3, "batch": 2}, on_nan="skip")
    Poison({2, 4}, "loss").install(monkeypatch)
    with pytest.raises(NumericError, match="more than 1% of all steps skipped"):
        train(recipe, tmp_path / "run")


def test_steps_of_255_are_counted_and_move_nothing_but_the_momentum(
    make_voc: Make, recipe_of: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(make_voc(count=6), schedule={"epochs": 1, "batch": 2})
    losses: dict[str, list[float]] = {}
    genuine = Learner.step

    def blank_third(learner: Learner, work: Any, pairs: Any, **options: Any) -> Result:
        if options["number"] == 1:
            pairs = [(image, np.full_like(mask, 255)) for image, mask in pairs]
        result = genuine(learner, work, pairs, **options)
        losses.setdefault("blank", []).append(result.loss)
        return result

    def zero_by_hand(learner: Learner, work: Any, pairs: Any, **options: Any) -> Result:
        if options["number"] == 1:
            network = learner.modules["network"]
            for group in learner.optimizer.param_groups:
                group["lr"] = group["initial_lr"] * (1 - 1 / 3) ** 0.9
            torch.manual_seed(0)
            images = torch.from_numpy(np.stack([image for image, _ in pairs]))
            network(images.permute(0, 3, 1, 2))  # batch norm sees these images
            for parameter in network.parameters():
                parameter.grad = torch.zeros_like(parameter)
            learner.optimizer.step()
            result = Result(0.0, 0.0, "done", torch.zeros(1))
        else:
            result = genuine(learner, work, pairs, **options)
        losses.setdefault("hand", []).append(result.loss)
        return result

    for name, step in (("blank", blank_third), ("hand", zero_by_hand)):
        monkeypatch.setattr(Learner, "step", step)
        train(recipe, tmp_path / name)
    assert losses["blank"] == losses["hand"]
    assert losses["blank"][1] == 0
    row = json.loads((tmp_path / "blank" / "metrics.jsonl").read_text())
    monkeypatch.setattr(Learner, "step", genuine)
    assert row["steps_unlabelled"] == 1
    assert row["loss"] == pytest.approx(sum(losses["blank"]) / 2), "a mean over the labelled steps"


def test_masks_of_255_are_counted_and_a_set_of_them_is_refused(
    make_voc: Make, recipe_of: Recipe, tmp_path: Path
) -> None:
    root = make_voc(count=2)
    file = root / "SegmentationClass" / "train_0.png"
    masks.write_mask(file, masks.read_mask(file) * 0 + 255)
    recipe = recipe_of(root, schedule={"epochs": 2, "batch": 1}, augmentation={"flip": False})
    recipe["data"]["labels"] = None
    (root / "labels.csv").write_text("id,labels\ntrain_0,red green\ntrain_1,red green\n")
    summary = train(recipe, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["steps_unlabelled"] for row in rows] == [1, 1]
    assert math.isfinite(summary.loss)
    masks.write_mask(
        root / "SegmentationClass" / "train_1.png",
        masks.read_mask(root / "SegmentationClass" / "train_1.png") * 0 + 255,
    )
    with pytest.raises(DataError, match="every pixel of every mask is 255"):
        train(recipe, tmp_path / "other")


def test_a_mask_that_changes_while_training_stops_it(
    make_voc: Make, recipe_of: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_voc(count=4)
    recipe = recipe_of(root, schedule={"epochs": 3, "batch": 2})
    genuine = Learner.step

    def spoil(learner: Learner, *args: Any, **options: Any) -> Any:
        if options["number"] == 2:
            for index in range(4):
                masks.write_mask(
                    root / "SegmentationClass" / f"train_{index}.png", masks.PALETTE[:7, :3] * 0 + 9
                )
        return genuine(learner, *args, **options)

    monkeypatch.setattr(Learner, "step", spoil)
    with pytest.raises(DataError, match=r"train_\d.png: mask is 7 x 3, its image"):
        train(recipe, tmp_path / "run")
    _, meta = load_state(tmp_path / "run" / "checkpoints" / "last.safetensors")
    assert meta["position"]["epoch"] == 1


def test_trains_on_a_folder_and_on_a_run(make_voc: Make, recipe_of: Recipe, tmp_path: Path) -> None:
    root = make_voc(count=2)
    own = recipe_of(root, schedule={"epochs": 1})
    folder = {**own, "masks": str(root / "SegmentationClass")}
    run = tmp_path / "generated"
    ids = ["train_0", "train_1"]
    with writing.open_run(run, "generate", {"made": "by hand"}) as folder_of_run:
        for item in ids:
            data = (root / "SegmentationClass" / f"{item}.png").read_bytes()
            disk.write_bytes(run / "masks" / f"{item}.png", data)
            folder_of_run.record({"id": item, "size": len(data), "sha256": disk.sha256_bytes(data)})
        with pytest.raises(DataError, match="the run is not finished; run the same command again"):
            train({**own, "masks": str(run)}, tmp_path / "early")
        folder_of_run.complete(ids)
    outs = []
    for name, recipe in (("own", own), ("folder", folder), ("run", {**own, "masks": str(run)})):
        train(recipe, tmp_path / name)
        outs.append(load_state(tmp_path / name / "checkpoints" / "last.safetensors")[0])
    assert all(torch.equal(outs[0][name], other[name]) for other in outs[1:] for name in outs[0])
    masks.write_mask(run / "masks" / "train_1.png", masks.read_mask(run / "masks" / "train_1.png") * 0)
    with pytest.raises(
        DataError, match=r"train_1.png: differs from its line in the manifest; generate it again"
    ):
        train({**own, "masks": str(run)}, tmp_path / "spoilt")


def test_pages_and_files_of_a_run(make_voc: Make, recipe_of: Recipe, tmp_path: Path) -> None:
    recipe = recipe_of(make_voc(count=2, val=1), schedule={"epochs": 1}, validation={"split": "val"})
    train(recipe, tmp_path / "run")
    card = (tmp_path / "run" / "MODEL_CARD.md").read_text()
    assert "| 1 | red | " in card
    assert "validation mIoU" in card
    assert str(tmp_path) not in card, "a report holds no path of the machine"
    assert (tmp_path / "run" / "curves.png").read_bytes().startswith(b"\x89PNG")
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["best.safetensors", "last.safetensors"]
