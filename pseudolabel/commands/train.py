"""`pl train`: images with image-level labels to a classifier."""

from __future__ import annotations

import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pseudolabel import console, weights
from pseudolabel.errors import DataError, UsageError
from pseudolabel.recipes.loading import load_recipe, plain_data
from pseudolabel.recipes.schema import TrainRecipe, validation_step
from pseudolabel.recipes.yaml import dump_recipe
from pseudolabel.records import Dataset, ImageRecord, LabelSpace
from pseudolabel.runs import disk, layout, writing

if TYPE_CHECKING:
    import torch

    from pseudolabel.classifier.loop import Surroundings
    from pseudolabel.classifier.network import Classifier

METRICS = "metrics.jsonl"
RARE = 5  # training images; a class with fewer is worth a word


@dataclass(frozen=True)
class _Start:
    """All that decides a training, before anything is written."""

    recipe: TrainRecipe
    training: Dataset
    validation: Dataset | None
    network: Classifier
    mean: weights.RGB
    std: weights.RGB
    fingerprint: dict[str, Any]


def train(
    recipe: Path | str | Mapping[str, Any] | TrainRecipe,
    out: Path | str,
    *,
    overrides: Sequence[str] = (),
    device: str = "auto",
    workers: int | None = None,
    overwrite: bool = False,
    new: bool = False,
    wait: bool = False,
    quiet: bool = False,
    on_bad: Literal["stop", "skip"] = "stop",
) -> dict[str, Any]:
    """Train a classifier, or go on with one that was interrupted.

    Args:
        recipe: a YAML file, plain data, or a recipe already read.
        out: the run's folder: classifier.safetensors, metrics.jsonl, evaluation.json, recipe.yaml,
            summary.json, checkpoints/.
        overrides: `schedule.epochs=5` and the like.
        device: auto, cpu, cuda or cuda:n.
        workers: threads that decode; None takes two, or the cores where there are fewer.
        overwrite, new, wait: for a folder of another run: move it aside, take the next numbered one;
            for a folder in use: wait.
        quiet: no progress.
        on_bad: an image that cannot be read ends the training, or is left out and told.

    Returns:
        evaluation.json's content with `run`, `classifier`, `epochs`, `seconds` of this call, and
        `problems` (a number). A finished run of the same recipe and input is left as it is.

    Raises:
        UsageError: recipe or folder refused.
        DataError: labels, images or weights refused.
        MachineError: device, package, memory or lock.
        NumericError: a loss is not finite.
        Interrupted: a signal came; the same call goes on.
    """
    from pseudolabel.training.allocator import keep_pages
    from pseudolabel.training.device import pick

    begun = time.monotonic()
    chosen = load_recipe(recipe, TrainRecipe, overrides)
    where = pick(device)
    if where.type == "cpu":
        keep_pages()
    start = _prepare(chosen)
    with writing.open_run(out, "train", start.fingerprint, overwrite=overwrite, new=new, wait=wait) as run:
        found = _finished(run.path, chosen.schedule.epochs)
        if found is None:
            threads = min(2, os.cpu_count() or 1) if workers is None else workers
            found = _train(run, start, where, threads, quiet, on_bad == "skip")
        elif not quiet:
            console.say(f"{out}: already trained for {chosen.schedule.epochs} epochs; nothing to do")
        return {
            **found,
            "run": str(run.path),
            "classifier": str(run.path / "classifier.safetensors"),
            "epochs": chosen.schedule.epochs,
            "seconds": round(time.monotonic() - begun, 1),
            "problems": len(run.problems),
        }


def _prepare(chosen: TrainRecipe) -> _Start:
    """Read data and weights and compare them; writes nothing."""
    import torch

    from pseudolabel.classifier.network import Classifier
    from pseudolabel.draws import seed_of

    training = _dataset(chosen.data, "data")
    validation = None
    if chosen.validation is not None:
        validation = _dataset(validation_step(chosen.data, chosen.validation), "validation")
        if validation.space != training.space:
            raise DataError(
                f"validation: classes {', '.join(validation.space.names)} are not those of data, "
                f"{', '.join(training.space.names)}; give both one class list"
            )
    kept = chosen.network
    decided = weights.digest(kept.backbone, kept.weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(chosen.seed, "network"))
        network = Classifier(kept.backbone, training.space.foreground, output_stride=kept.output_stride)
    mean, std = kept.mean, kept.std
    if mean is None or std is None:
        own = weights.normalisation(kept.backbone, kept.weights)
        mean, std = mean or own[0], std or own[1]
    return _Start(
        chosen,
        training,
        validation,
        network,
        mean,
        std,
        _fingerprint(chosen, decided, training, validation, mean, std),
    )


def _dataset(step: Any, key: str) -> Dataset:
    """Read a data set whose every image must have labels."""
    reader, params = step.component, step.params
    found: Dataset = reader.run(params)
    if not found.records:
        raise DataError(f"{key}: the list is empty; look at {key}.split")
    for record in found.records:
        if record.labels is None:
            raise DataError(f"{key}: {record.id}: nobody said its labels; label it or take it off the list")
    return found


def _fingerprint(
    chosen: TrainRecipe,
    decided: str,
    training: Dataset,
    validation: Dataset | None,
    mean: weights.RGB,
    std: weights.RGB,
) -> dict[str, Any]:
    """All that decides the bytes but the number of epochs, which may be raised later."""
    recipe = plain_data(chosen)
    del recipe["data"], recipe["validation"], recipe["schedule"]["epochs"]
    if chosen.noise is None:
        del recipe["noise"]  # a key that runs of before it lack
    recipe["network"] |= {"weights": decided, "mean": list(mean), "std": list(std)}
    return {
        "recipe": recipe,
        "classes": list(training.space.names),
        "images": _input(training.records),
        "validation": _input(validation.records) if validation else None,
    }


def _input(records: Sequence[ImageRecord]) -> dict[str, Any]:
    """Number and digest of a list: ids, labels and sizes of the files."""
    try:
        rows = [[record.id, list(record.labels or ()), record.image.stat().st_size] for record in records]
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}); mend the list") from error
    return {"count": len(records), "digest": disk.digest(rows)}


def _finished(folder: Path, epochs: int) -> dict[str, Any] | None:
    """The evaluation of a run that has already come to its last epoch."""
    if not (folder / layout.EVALUATION).is_file() or not (folder / METRICS).is_file():
        return None
    done = len(disk.read_json_lines(folder / METRICS))
    if done > epochs:
        raise UsageError(
            f"{folder}: has {done} epochs, schedule.epochs asks for {epochs}; raise it or take another folder"
        )
    evaluation: dict[str, Any] = disk.read_json(folder / layout.EVALUATION)
    return evaluation if done == epochs else None


def _train(
    run: writing.RunFolder, start: _Start, where: torch.device, threads: int, quiet: bool, skip: bool
) -> dict[str, Any]:
    """Train to the end and write what a run holds; evaluation.json comes last."""
    from pseudolabel.classifier import loop
    from pseudolabel.classifier.checkpoint import FILE, save_classifier
    from pseudolabel.classifier.resumption import Course, Resumption

    chosen, begun = start.recipe, time.monotonic()
    say: Callable[[str], None] = (lambda text: None) if quiet else console.say
    disk.write_text(run.path / layout.RECIPE, dump_recipe(chosen))
    network = start.network
    training = loop.training_of(network, chosen, where)
    resumption = Resumption(run.path / "checkpoints", disk.digest(start.fingerprint), console.say)
    course = resumption.load(training)
    if course is None:
        course = Course()
        say(str(weights.load_backbone(network.backbone, chosen.network.backbone, chosen.network.weights)))
        _tell_counts(start.training, say)
    else:
        say(f"going on after epoch {course.epoch}, step {course.position}")
    batch = chosen.schedule.batch
    steps = loop.steps_of(len(start.training.records), batch)
    before = course.epoch * steps + course.position
    with (
        console.interruptible() as stop,
        console.progress(steps * chosen.schedule.epochs, "training steps", quiet, done=before) as bar,
    ):

        def finished_epoch(history: list[dict[str, Any]]) -> None:
            disk.write_json_lines(run.path / METRICS, [_short(line) for line in history])
            last = history[-1]
            shown = "" if last.get("map") is None else f", mAP {last['map']:.4f}"
            say(f"epoch {last['epoch']} of {chosen.schedule.epochs}: loss {last['loss'] or 0:.4f}{shown}")

        around: Surroundings = loop.Surroundings(
            device=where,
            workers=threads,
            resumption=resumption,
            stop=lambda: stop.requested,
            stopped=lambda: stop.fault(f"{run.path.name} is saved"),
            advance=bar.advance,
            problem=run.problem,
            skip_broken=skip,
            finished_epoch=finished_epoch,
        )
        validate = _validator(start, where, threads, around)
        course = loop.fit(
            training, course, start.training.records, chosen, start.mean, start.std, validate, around
        )
    disk.write_json_lines(run.path / METRICS, [_short(line) for line in course.history])
    save_classifier(
        run.path / FILE,
        network,
        start.training.space,
        start.mean,
        start.std,
        plain_data(chosen),
        disk.digest(start.fingerprint),
    )
    evaluation: dict[str, Any] = course.history[-1]["evaluation"]
    disk.write_json(run.path / layout.SUMMARY, _summary(start, where, threads, steps, before, begun))
    disk.write_json(run.path / layout.EVALUATION, evaluation)
    return evaluation


def _validator(
    start: _Start, where: torch.device, threads: int, around: Surroundings
) -> Callable[[], dict[str, Any]]:
    """What an epoch's line says of the validation images."""
    from pseudolabel.classifier import loop, validation

    view = validation.View(
        mean=start.mean,
        std=start.std,
        long_side=start.recipe.evaluate_at,
        batch=start.recipe.schedule.batch,
        workers=threads,
        device=where,
        channels_last=start.recipe.channels_last,
        autocast=loop.autocast_of(start.recipe.precision, where),
        noise=start.recipe.noise if start.recipe.noise and start.recipe.noise.validation else None,
        seed=start.recipe.seed,
    )

    def advance(_: int) -> None:
        if around.stop():
            raise around.stopped()

    def validate() -> dict[str, Any]:
        records: Sequence[ImageRecord] = start.validation.records if start.validation else ()
        logits = validation.logits_of(start.network, records, view, advance)
        found = validation.score(logits, records, start.training.space)
        return {"map": found["map"], "evaluation": found}

    return validate


def _short(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line of metrics.jsonl: the figures of an epoch without the table of classes."""
    return {key: value for key, value in line.items() if key != "evaluation"}


def _tell_counts(training: Dataset, say: Callable[[str], None]) -> None:
    """Classes that nobody learns from, or hardly."""
    counts = Counter(label for record in training.records for label in record.labels or ())
    space: LabelSpace = training.space
    rare = [f"{space.names[c]} {counts[c]}" for c in range(1, len(space.names)) if counts[c] < RARE]
    if rare:
        say(f"classes with fewer than {RARE} training images: {', '.join(rare)}")


def _summary(
    start: _Start, where: torch.device, threads: int, steps: int, before: int, begun: float
) -> dict[str, Any]:
    """Time and surroundings of the last call; nothing of it decides bytes."""
    import timm
    import torch

    seconds = time.monotonic() - begun
    done = steps * start.recipe.schedule.epochs - before
    return {
        "images": len(start.training.records),
        "seconds": round(seconds, 2),
        "steps": done,
        "images_per_second": round(done * start.recipe.schedule.batch / seconds, 2),
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "workers": threads,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "timm": timm.__version__,
        },
    }
