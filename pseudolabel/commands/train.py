"""`pl train`: images with image-level labels to a classifier."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pseudolabel import console
from pseudolabel.errors import UsageError
from pseudolabel.recipes.loading import load_recipe
from pseudolabel.recipes.overrides import Overrides
from pseudolabel.recipes.schema import TrainRecipe


@dataclass(frozen=True)
class ClassifierSummary:
    """What `pl train` returns.

    Attributes:
        run: the folder.
        classifier: its file.
        epochs: of the run.
        seconds: of this call.
        problems: lines of problems.jsonl.
        failed: images left out because they cannot be read.
        images: of the validation list.
        map: mean average precision, share 0..1, over the classes that have a positive; None where none has.
        classes_averaged: how many those are.
        ap, positives: average precision (None without a positive) and number of positives by class name.
        common: `map` over the classes with `at_least` so many images.
        labels, labels_from: where the labels of the training images came from, see `Dataset`.
    """

    run: str
    classifier: str
    epochs: int
    seconds: float
    problems: int
    failed: int
    images: int
    map: float | None
    classes_averaged: int
    ap: dict[str, float | None]
    positives: dict[str, int]
    common: dict[str, Any]
    labels: str = "given"
    labels_from: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def train(  # most of it is its arguments and what they mean
    recipe: Path | str | Mapping[str, Any] | TrainRecipe,
    out: Path | str,
    *,
    overrides: Overrides = (),
    device: str = "auto",
    workers: int | None = None,
    limit: int | None = None,
    on_bad: Literal["stop", "skip"] = "stop",
    overwrite: bool = False,
    new: bool = False,
    wait: bool = False,
    quiet: bool = False,
) -> ClassifierSummary:
    """Train a classifier, or go on with one that was interrupted.

    Under a launcher such as `torchrun` every batch is dealt over the ranks.

    Args:
        recipe: a YAML file, plain data, or a recipe already read.
        out: the run's folder: classifier.safetensors, metrics.jsonl, evaluation.json, recipe.yaml,
            summary.json, checkpoints/.
        overrides: `schedule.epochs=5` and the like.
        device: auto, cpu, cuda or cuda:n.
        workers: threads that decode; None takes two, or the cores where there are fewer.
        limit: only the first images of the training list, and of the validation list.
        on_bad: an image that cannot be read ends the training (stop), or is left out and listed (skip).
        overwrite, new, wait: for a folder of another run: move it aside, take the next numbered one;
            for a folder in use: wait.
        quiet: no progress.

    Returns:
        The figures of evaluation.json, and what this call did. A finished run of the same recipe and input
        is left as it is.

    Raises:
        UsageError: recipe or folder refused.
        DataError: labels, images or weights refused.
        MachineError: device, package, memory or lock.
        NumericError: a loss is not finite.
        Interrupted: a signal came; the same call goes on.
    """
    from pseudolabel.classifier.start import prepare
    from pseudolabel.classifier.training_run import ClassifierTraining, finished_evaluation
    from pseudolabel.training.device import launch
    from pseudolabel.training.watch import open_run

    begun = time.monotonic()
    if on_bad not in ("stop", "skip"):
        raise UsageError(f"--on-bad {on_bad}: not known; choose stop or skip")
    settled = load_recipe(recipe, TrainRecipe, overrides)
    fabric = launch(device, settled.precision)
    start = prepare(settled, limit)
    options = {"overwrite": overwrite, "new": new, "wait": wait}
    with open_run(fabric, out, "train", start.fingerprint, **options) as (folder, run):
        quiet = quiet or run is None
        finished = finished_evaluation(folder, settled.schedule.epochs) if run is not None else None
        finished = fabric.broadcast(finished)
        if finished is None:
            threads = min(2, os.cpu_count() or 1) if workers is None else workers
            finished = ClassifierTraining(
                start, fabric, folder, run, threads, quiet, on_bad == "skip"
            ).run_to_end()
        elif not quiet:
            console.say(f"{out}: already trained for {settled.schedule.epochs} epochs; nothing to do")
        problems = run.problems if run is not None else ()
        return ClassifierSummary(
            **finished,
            run=str(folder),
            classifier=str(folder / "classifier.safetensors"),
            epochs=settled.schedule.epochs,
            seconds=round(time.monotonic() - begun, 1),
            problems=len(problems),
            failed=sum(problem["code"] == "image" for problem in problems),
        )
