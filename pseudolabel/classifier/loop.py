"""Training: multi-label soft margin, SGD with poly decay a step, frozen batch norm where asked.

The order of images and every draw follow from (seed, epoch, id), so that any number of workers and any
interruption give the same weights. Source: IRN (arXiv 1904.05044) and `pl train`'s recipe.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from math import isfinite
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pseudolabel import images
from pseudolabel.classifier.augmentation import (
    Draws,
    ImageArray,
    augmented,
    ground_colour,
    normalised,
)
from pseudolabel.classifier.feed import ahead
from pseudolabel.classifier.network import Classifier
from pseudolabel.classifier.noise import perturbed
from pseudolabel.classifier.resumption import Course, Resumption, Training
from pseudolabel.draws import generator, seed_of
from pseudolabel.errors import DataError, MachineError, NumericError
from pseudolabel.recipes.schema import Optimizer, TrainRecipe
from pseudolabel.records import ImageRecord
from pseudolabel.training.order import batches, epoch_order
from pseudolabel.training.schedule import poly

BETWEEN_SAVES = 600  # seconds; beside the save at each epoch's end
MOST_SKIPPED = 10  # steps in a row that half precision may leave out


@dataclass(frozen=True)
class Surroundings:
    """What a training is told and what it tells.

    Attributes:
        device: where the network is.
        workers: threads that decode.
        resumption: the state files.
        stop: whether a signal asks to end after this step.
        stopped: what to raise then.
        advance: told one step is done.
        problem: told (file, code, what is wrong, remedy) of what could not be done.
        skip_broken: an image that cannot be read is left out of its batch, instead of ending the run.
        finished_epoch: told the history after each epoch.
    """

    device: torch.device
    workers: int
    resumption: Resumption
    stop: Callable[[], bool]
    stopped: Callable[[], Exception]
    advance: Callable[[int], None]
    problem: Callable[[str, str, str, str], None]
    skip_broken: bool
    finished_epoch: Callable[[list[dict[str, Any]]], None]


@dataclass(frozen=True)
class _Job:
    epoch: int
    rows: list[int]


def training_of(network: Classifier, recipe: TrainRecipe, device: torch.device) -> Training:
    """The network, moved to the device, with its optimizer: the head learns `head_factor` times faster."""
    given: Optimizer = recipe.optimizer
    network.to(device)
    if recipe.channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.hold_first(stem=given.frozen_stem, stages=given.frozen_stages)
    body = [parameter for parameter in network.backbone.parameters() if parameter.requires_grad]
    groups = [
        {"params": body, "lr": given.lr, "factor": 1.0},
        {"params": list(network.head.parameters()), "lr": given.lr, "factor": given.head_factor},
    ]
    optimizer = torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=given.lr,
        momentum=given.momentum,
        weight_decay=given.weight_decay,
    )
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "float16")
    return Training(network, optimizer, scaler)


def autocast_of(precision: str, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    """A context for each forward: none for float32."""
    if precision == "float32":
        return nullcontext
    dtype = {"bf16": torch.bfloat16, "float16": torch.float16}[precision]
    return lambda: torch.autocast(device.type, dtype=dtype)


def fit(
    training: Training,
    course: Course,
    records: Sequence[ImageRecord],
    recipe: TrainRecipe,
    mean: Sequence[float],
    std: Sequence[float],
    validate: Callable[[], dict[str, Any]],
    around: Surroundings,
) -> Course:
    """Train from where `course` stands to the last epoch.

    Args:
        training: on the device.
        course: a new one, or what `Resumption.load` gave.
        records: training images with labels.
        recipe: see `TrainRecipe`.
        mean, std: RGB in 0..1.
        validate: gives the figures of an epoch's line; leaves the network in evaluation mode.
        around: see `Surroundings`.

    Returns:
        The course at its end; its history has a line an epoch.

    Raises:
        NumericError: a loss or gradient is not finite; the state files are those from before.
        DataError: an image cannot be read.
        MachineError: the device has too little memory for the batch.
    """
    steps = steps_of(len(records), recipe.schedule.batch)
    epochs = recipe.schedule.epochs
    feed = ahead(
        _jobs(course, recipe, len(records)),
        _loader(records, recipe, ground_colour(mean)),
        workers=around.workers,
        depth=around.workers + 2,
    )
    saved = time.monotonic()
    cuda = [around.device] if around.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        while course.epoch < epochs:
            training.network.train()
            if recipe.optimizer.frozen_norm:
                training.network.hold_norm()
            for job, found in islice(feed, steps - course.position):
                step = course.epoch * steps + course.position
                rate = _rate(recipe, step, steps)
                torch.manual_seed(seed_of(recipe.seed, "step", step))  # for backbones that drop out
                taken = _whole(job.rows, found, records, around)
                if taken:
                    images = normalised([p for _, p in taken], mean, std, around.device)
                    chosen = [records[row] for row, _ in taken]
                    if recipe.noise is not None:
                        keys = [(recipe.seed, "noise", record.id, job.epoch) for record in chosen]
                        images = perturbed(images, keys, recipe.noise)
                    course.loss += len(taken) * _step(
                        training, course, images, chosen, recipe, rate, step, around
                    )
                    course.images += len(taken)
                course.position += 1
                around.advance(1)
                late = time.monotonic() - saved > BETWEEN_SAVES
                if late or around.stop():
                    around.resumption.save(training, course)
                    saved = time.monotonic()
                if around.stop():
                    raise around.stopped()
            rate = _rate(recipe, (course.epoch + 1) * steps - 1, steps)
            line = {
                "epoch": course.epoch + 1,
                "steps": steps,
                "images": course.images,
                "loss": course.loss / course.images if course.images else None,
                "lr": rate,
                **_validated(validate, training, course, around),
            }
            course.history.append(line)
            course.epoch, course.position, course.loss, course.images = course.epoch + 1, 0, 0.0, 0
            around.resumption.save(training, course)
            saved = time.monotonic()
            around.finished_epoch(course.history)
    return course


def steps_of(count: int, batch: int) -> int:
    """Steps of an epoch."""
    return len(batches(list(range(count)), batch))


def _rate(recipe: TrainRecipe, step: int, steps: int) -> float:
    """The backbone's learning rate at a step, counted over all epochs of so many steps."""
    schedule = recipe.schedule
    return recipe.optimizer.lr * poly(step, steps * schedule.epochs, schedule.power)


def _validated(
    validate: Callable[[], dict[str, Any]], training: Training, course: Course, around: Surroundings
) -> dict[str, Any]:
    """The epoch's figures; a signal in the middle saves the trained epoch before it goes on."""
    try:
        return validate()
    except BaseException:
        around.resumption.save(training, course)
        raise


def _jobs(course: Course, recipe: TrainRecipe, count: int) -> Iterator[_Job]:
    """The batches still to do, over all epochs."""
    for epoch in range(course.epoch, recipe.schedule.epochs):
        rows = batches(epoch_order(recipe.seed, epoch, count), recipe.schedule.batch)
        start = course.position if epoch == course.epoch else 0
        yield from (_Job(epoch, row) for row in rows[start:])


def _loader(
    records: Sequence[ImageRecord], recipe: TrainRecipe, ground: Sequence[int]
) -> Callable[[_Job], list[ImageArray | DataError]]:
    """What the threads do: read and augment; a fault is handed on as a value, to be raised in order."""
    how = recipe.augmentation

    def load_one(record: ImageRecord, epoch: int) -> ImageArray | DataError:
        draws = Draws.of(generator(recipe.seed, record.id, epoch))
        try:
            image = images.read_image(record.image)
        except DataError as fault:
            return fault
        return augmented(image, draws, resize=how.resize, crop=how.crop, flip=how.flip, ground=ground)

    return lambda job: [load_one(records[row], job.epoch) for row in job.rows]


def _whole(
    rows: Sequence[int],
    found: Sequence[ImageArray | DataError],
    records: Sequence[ImageRecord],
    around: Surroundings,
) -> list[tuple[int, ImageArray]]:
    """The images that could be read; each other one is told or ends the run."""
    whole: list[tuple[int, ImageArray]] = []
    for row, image in zip(rows, found, strict=True):
        if isinstance(image, DataError):
            if not around.skip_broken:
                raise image
            around.problem(records[row].image.name, "image", str(image), "mend it or take it off the list")
        else:
            whole.append((row, image))
    return whole


def targets_of(records: Sequence[ImageRecord], classes: int) -> Tensor:
    """(B, C) float32, 1 where the image has the class."""
    targets = torch.zeros(len(records), classes)
    for row, record in enumerate(records):
        for label in record.labels or ():
            targets[row, label - 1] = 1
    return targets


def _step(
    training: Training,
    course: Course,
    images: Tensor,
    records: Sequence[ImageRecord],
    recipe: TrainRecipe,
    rate: float,
    step: int,
    around: Surroundings,
) -> float:
    """One step of the optimizer; gives the loss. Nothing has moved where it raises."""
    network, optimizer, scaler = training.network, training.optimizer, training.scaler
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
    optimizer.zero_grad(set_to_none=True)
    try:
        with autocast_of(recipe.precision, around.device)():
            logits = network(images.contiguous(memory_format=layout))
        targets = targets_of(records, network.classes).to(around.device)
        loss = functional.multilabel_soft_margin_loss(logits.float(), targets)
        value = float(loss.detach())
        norm = float("nan")
        if isfinite(value):
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            scaler.unscale_(optimizer)
            learning = [p for p in network.parameters() if p.requires_grad]
            norm = float(torch.nn.utils.clip_grad_norm_(learning, recipe.optimizer.clip or float("inf")))
    except torch.OutOfMemoryError as error:
        optimizer.zero_grad(set_to_none=True)
        raise MachineError(
            f"step {step + 1}: {around.device} has too little memory for {len(records)} images of "
            f"{recipe.augmentation.crop} pixels; lower schedule.batch or augmentation.crop"
        ) from error
    finite = isfinite(norm)
    course.skipped = 0 if finite else course.skipped + 1
    may_skip = scaler.is_enabled() and isfinite(value) and course.skipped <= MOST_SKIPPED
    if not finite and not may_skip:
        ids = ", ".join(record.id for record in records)
        told = (
            f"step {step + 1}, epoch {course.epoch + 1}: loss {value:g}, gradient norm {norm:g}, lr {rate:g}"
        )
        around.problem(f"step {step + 1}", "not_finite", f"{told}; images {ids}", "lower optimizer.lr")
        raise NumericError(
            f"{told}; images {', '.join(r.id for r in records[:4])}{', ...' if len(records) > 4 else ''}; "
            "the last good state stays, lower optimizer.lr or set optimizer.clip"
        )
    scaler.step(optimizer)  # leaves the step out where half precision overflowed
    scaler.update()
    return value
