"""One training of a classifier: started or continued, validated, saved, and written out at its end."""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pseudolabel import console, weights
from pseudolabel.classifier import validation
from pseudolabel.classifier.checkpoint import FILE, save_classifier
from pseudolabel.classifier.learning import ClassifierTask, learner_of
from pseudolabel.classifier.start import TrainingStart
from pseudolabel.classifier.terms import Terms
from pseudolabel.errors import DataError, UsageError
from pseudolabel.recipes.loading import plain_data
from pseudolabel.recipes.yaml import dump_recipe
from pseudolabel.records import Dataset
from pseudolabel.runs import disk, layout, writing
from pseudolabel.training import ranks
from pseudolabel.training.engine import Around, Learner, fit
from pseudolabel.training.position import Position
from pseudolabel.training.watch import Watch

if TYPE_CHECKING:
    from lightning_fabric import Fabric

METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
RARE = 5  # training images; a class with fewer is worth a word


def finished_evaluation(folder: Path, epochs: int) -> dict[str, Any] | None:
    """The evaluation of a run that has already come to its last epoch; None of any other.

    Raises:
        UsageError: it has more epochs.
    """
    if not (folder / layout.EVALUATION).is_file() or not (folder / METRICS).is_file():
        return None
    done = len(disk.read_json_lines(folder / METRICS))
    if done > epochs:
        raise UsageError(
            f"{folder}: has {done} epochs, schedule.epochs asks for {epochs}; raise it or take another folder"
        )
    evaluation: dict[str, Any] = disk.read_json(folder / layout.EVALUATION)
    return evaluation if done == epochs else None


class ClassifierTraining:
    """One training from where it stands to the files of its run; evaluation.json comes last.

    Args:
        start: what it begins with.
        fabric: device, precision and ranks.
        folder, run: of the run; `run` is None on a rank that does not write.
        workers: threads that decode.
        quiet: say nothing and show no progress.
        skip: an image that cannot be read is left out and listed, instead of ending the training.
    """

    def __init__(
        self,
        start: TrainingStart,
        fabric: Fabric,
        folder: Path,
        run: writing.RunFolder | None,
        workers: int,
        quiet: bool,
        skip: bool,
    ) -> None:
        self.start, self.fabric, self.folder, self.run = start, fabric, folder, run
        self.workers, self.quiet, self.skip = workers, quiet, skip
        self.digest = disk.digest(start.fingerprint)
        self.unreadable: list[tuple[str, str]] = []  # on this rank, not yet listed: file, what is wrong

    def run_to_end(self) -> dict[str, Any]:
        """Train to the last epoch and write the run's files; gives its evaluation.

        Raises:
            Interrupted: a signal came; the state is saved.
            DataError, MachineError, NumericError: see `pseudolabel.training.engine.fit`.
        """
        begun, start, recipe = time.monotonic(), self.start, self.start.recipe
        terms = Terms.of(recipe.objective, start.network, start.training.space.foreground, recipe.seed)
        terms.check_ranks(self.fabric.world_size)
        learner = learner_of(self.fabric, start.network, terms, recipe)
        position = self._begin(learner)
        steps = learner.plan.steps(len(start.training.records))
        done = position.epoch * steps + position.step
        task = ClassifierTask(
            start.training.records, recipe, start.mean, start.std, start.network, terms, self.fabric.device
        )
        with (
            console.interruptible() as stop,
            console.progress(steps * recipe.schedule.epochs, "training steps", self.quiet, done=done) as bar,
        ):
            around = Around(
                workers=self.workers,
                stop=lambda: stop.requested,
                save=lambda: self._save(learner, position),
                end_epoch=lambda row: self._validate(row, stop),
                after_step=Watch(bar, self.run, self.quiet).after_step,
                after_epoch=lambda: self._tell_epoch(position),
            )
            finished = fit(learner, task.work(self._left_out if self.skip else None), position, around)
            self._list_unreadable()
            if not finished:
                raise stop.fault(f"{self.folder.name} is saved")
        evaluation: dict[str, Any] = {**position.history[-1]["evaluation"], **self._labels()}
        if self.run is not None:
            self._write(position, self._summary(steps * recipe.schedule.epochs - done, begun), evaluation)
        return evaluation

    def _begin(self, learner: Learner) -> Position:
        """Where the training stands; a new one takes the weights that the recipe names."""
        recipe, network = self.start.recipe, self.start.network
        if self.run is not None:
            disk.write_text(self.folder / layout.RECIPE, dump_recipe(recipe))
        say = console.say if self.run is not None else (lambda text: None)  # once, not on every rank
        position = learner.load(self.folder / CHECKPOINTS, self._check, say)
        if position is not None:
            self._say(f"going on after epoch {position.epoch}, step {position.step}")
            return position
        taken = weights.load_backbone(network.backbone, recipe.network.backbone, recipe.network.weights)
        self._say(str(taken))
        _tell_counts(self.start.training, self._say)
        return Position()

    def _check(self, file: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        if meta.get("fingerprint") != self.digest:
            raise DataError(f"{file}: the state of another run; train into a new folder")

    def _save(self, learner: Learner, position: Position) -> None:
        if self.run is not None:
            learner.save(self.folder / CHECKPOINTS, position, {"fingerprint": self.digest})

    def _validate(self, row: dict[str, Any], stop: console.Stop) -> dict[str, Any]:
        """What an epoch's row says of the validation images."""
        start, recipe = self.start, self.start.recipe
        self._list_unreadable()
        view = validation.Preprocessing(
            mean=start.mean,
            std=start.std,
            long_side=recipe.evaluate_at,
            batch=recipe.schedule.batch,
            workers=self.workers,
            channels_last=recipe.channels_last,
            noise=recipe.noise if recipe.noise and recipe.noise.validation else None,
            seed=recipe.seed,
        )

        def advance(_: int) -> None:
            if stop.requested and self.fabric.world_size == 1:  # other ranks would wait for this one
                raise stop.fault(f"{self.folder.name} is saved")

        records = start.validation.records if start.validation else ()
        logits = validation.logits_of(start.network, records, view, self.fabric, advance)
        evaluation = validation.score(logits, records, start.training.space)
        return {**row, "map": evaluation["map"], "evaluation": evaluation}

    def _left_out(self, index: int, fault: DataError) -> None:
        self.unreadable.append((self.start.training.records[index].image.name, str(fault)))

    def _list_unreadable(self) -> None:
        """List the images that could not be read on any rank; all ranks call it together."""
        for rows in ranks.gather(self.fabric, self.unreadable):
            for file, what in rows:
                if self.run is not None:
                    self.run.problem(file, "image", what, "mend it or take it off the list")
        self.unreadable = []

    def _tell_epoch(self, position: Position) -> None:
        if self.run is not None:
            disk.write_json_lines(self.folder / METRICS, map(_short, position.history))
        row = position.history[-1]
        shown = "" if row.get("map") is None else f", mAP {row['map']:.4f}"
        epochs = self.start.recipe.schedule.epochs
        self._say(f"epoch {row['epoch']} of {epochs}: loss {row['loss'] or 0:.4f}{shown}")

    def _write(self, position: Position, summary: Mapping[str, Any], evaluation: Mapping[str, Any]) -> None:
        start = self.start
        disk.write_json_lines(self.folder / METRICS, map(_short, position.history))
        save_classifier(
            self.folder / FILE,
            start.network,
            start.training.space,
            start.mean,
            start.std,
            plain_data(start.recipe),
            self.digest,
        )
        disk.write_json(self.folder / layout.SUMMARY, summary)
        disk.write_json(self.folder / layout.EVALUATION, evaluation)

    def _summary(self, steps: int, begun: float) -> dict[str, Any]:
        """Time and surroundings of the last call; nothing of it decides bytes."""
        import timm

        seconds, device = time.monotonic() - begun, self.fabric.device
        return {
            "images": len(self.start.training.records),
            **self._labels(),
            "seconds": round(seconds, 2),
            "steps": steps,
            "images_per_second": round(steps * self.start.recipe.schedule.batch / seconds, 2),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "ranks": self.fabric.world_size,
            "threads": torch.get_num_threads(),
            "workers": self.workers,
            "versions": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "timm": timm.__version__,
            },
        }

    def _labels(self) -> dict[str, Any]:
        """Where the labels of the training images came from."""
        return {"labels": "given", "labels_from": self.start.training.labels_from}

    def _say(self, text: str) -> None:
        if not self.quiet:
            console.say(text)


def _short(row: Mapping[str, Any]) -> dict[str, Any]:
    """A line of metrics.jsonl: the figures of an epoch without the table of classes."""
    return {key: value for key, value in row.items() if key != "evaluation"}


def _tell_counts(training: Dataset, say: Callable[[str], None]) -> None:
    """Classes that nobody learns from, or hardly."""
    counts = Counter(label for record in training.records for label in record.labels or ())
    names = training.space.names
    rare = [f"{names[c]} {counts[c]}" for c in range(1, len(names)) if counts[c] < RARE]
    if rare:
        say(f"classes with fewer than {RARE} training images: {', '.join(rare)}")
