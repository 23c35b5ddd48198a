"""The training loop: steps that follow from (seed, epoch, index) alone and can be cut anywhere.

One step: forward, the loss over the whole effective batch, backward, clip, SGD at a polynomial rate. A
loss or gradient that is not finite leaves parameters, optimizer and batch-norm statistics as they were.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from pseudolabel.draws import seed_of
from pseudolabel.errors import NumericError
from pseudolabel.records import IGNORE
from pseudolabel.training.order import batches, epoch_order
from pseudolabel.training.schedule import poly
from segtrain.dataset import TrainingPairs
from segtrain.loss import Loss
from segtrain.networks import SegmentationNetwork

if TYPE_CHECKING:
    from lightning_fabric import Fabric

MOST_SKIPPED_IN_A_ROW = 10  # steps
MOST_SKIPPED = 0.01  # share of all steps
LONGEST_SCALING = 100  # steps in a row that float16's loss scaling may leave out

Outcome = Literal["done", "skipped", "scaled"]


@dataclass
class Position:
    """Where a training stands: everything beside tensors that a continued run needs.

    Attributes:
        epoch, step: finished epochs, and finished steps of the epoch that runs.
        loss, counted: sum of the losses of this epoch and steps in it.
        unlabelled, skipped, scaled: steps of this epoch without a labelled pixel, left out for a value
            that is not finite, left out by float16's loss scaling.
        in_a_row, skipped_ever, scaled_in_a_row: what the limits look at.
        best: highest validation mIoU, or None.
        history: a row for each finished epoch.
    """

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    counted: int = 0
    unlabelled: int = 0
    skipped: int = 0
    scaled: int = 0
    in_a_row: int = 0
    skipped_ever: int = 0
    scaled_in_a_row: int = 0
    best: float | None = None
    history: list[dict[str, Any]] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """As JSON-able data; `Position(**plain)` gives it back."""
        return asdict(self)

    def next_epoch(self, row: dict[str, Any]) -> None:
        """Close the epoch that ran with its row."""
        self.history.append(row)
        self.epoch, self.step = self.epoch + 1, 0
        self.loss, self.counted, self.unlabelled, self.skipped, self.scaled = 0.0, 0, 0, 0, 0


@dataclass(frozen=True)
class Plan:
    """What decides the steps.

    Attributes:
        seed: root of order, draws and dropout.
        epochs, batch, accumulate, power: see the recipe.
        clip: largest gradient norm, or None.
        skip: leave a step out that is not finite, rather than stop.
    """

    seed: int
    epochs: int
    batch: int
    accumulate: int = 1
    power: float = 0.9
    clip: float | None = None
    skip: bool = False

    def epoch_batches(self, epoch: int, count: int) -> list[list[int]]:
        """Indices of every batch of an epoch."""
        return batches(epoch_order(self.seed, epoch, count), self.batch)

    def steps(self, count: int) -> int:
        """Steps of an epoch, the same for every epoch."""
        return len(batches(list(range(count)), self.batch))

    def rest(self, position: Position, count: int) -> Iterator[tuple[int, int, list[int]]]:
        """(epoch, step, indices) of every step that is still to be done."""
        for epoch in range(position.epoch, self.epochs):
            for step, indices in enumerate(self.epoch_batches(epoch, count)):
                if epoch > position.epoch or step >= position.step:
                    yield epoch, step, indices


@dataclass(frozen=True)
class StepReport:
    """What one step did; `loss` is over the whole effective batch."""

    epoch: int
    step: int
    ids: tuple[str, ...]
    loss: float
    norm: float
    lr: float
    outcome: Outcome
    unlabelled: bool


@dataclass
class Learner:
    """Network and optimizer as Fabric set them up, and how a step is made from a batch."""

    fabric: Fabric
    network: SegmentationNetwork
    module: Any  # the network as Fabric wrapped it
    optimizer: Any
    loss: Loss
    plan: Plan

    def step(
        self, images: Tensor, labels: Tensor, *, number: int, total: int
    ) -> tuple[float, float, Outcome]:
        """One step on this rank's share of a batch.

        Args:
            images: (B, 3, c, c) uint8; labels: (B, c, c) uint8.
            number, total: this step of all steps, for rate and dropout.

        Returns:
            Loss, gradient norm (0 where no backward ran), outcome.
        """
        factor = poly(number, total, self.plan.power)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        torch.manual_seed(seed_of("dropout", self.plan.seed, number, self.fabric.global_rank))
        counts = self._sum(self.loss.counts(labels).to(self.fabric.device))
        before = [buffer.clone() for buffer in self.network.buffers()]
        self.optimizer.zero_grad()
        loss, parts = 0.0, min(self.plan.accumulate, len(images))
        shares = zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True)
        for part, (images, wanted) in enumerate(shares):
            with self.fabric.no_backward_sync(self.module, enabled=part < parts - 1):
                logits = self.module(self.fabric.to_device(images))
                value = self.loss.value(logits, self.fabric.to_device(wanted).long(), counts)
                loss += float(self._sum(value.detach().double()))
                if not math.isfinite(loss):
                    self._restore(before)
                    return loss, 0.0, "skipped"
                self.fabric.backward(value * self.fabric.world_size)
        limit = math.inf if self.plan.clip is None else self.plan.clip
        clipped: Any = self.fabric.clip_gradients(
            self.module, self.optimizer, max_norm=limit, error_if_nonfinite=False
        )
        norm = float(clipped)
        if math.isfinite(norm):
            self.optimizer.step()
            return loss, norm, "done"
        self._restore(before)
        if self.scaler is None:
            return loss, norm, "skipped"
        self.optimizer.step()  # the scaler leaves the step out and lowers its scale
        return loss, norm, "scaled"

    @property
    def scaler(self) -> Any:
        """The loss scaler of float16, or None."""
        return getattr(self.fabric.strategy.precision, "scaler", None)

    def _restore(self, before: list[Tensor]) -> None:
        with torch.no_grad():
            for buffer, value in zip(self.network.buffers(), before, strict=True):
                buffer.copy_(value)
        self.optimizer.zero_grad()

    def _sum(self, value: Tensor) -> Tensor:
        if self.fabric.world_size == 1:
            return value
        total: Tensor = self.fabric.all_reduce(value, reduce_op="sum")  # type: ignore[assignment]
        return total


def fit(
    learner: Learner,
    data: TrainingPairs,
    position: Position,
    *,
    workers: int,
    end_epoch: Callable[[dict[str, Any]], dict[str, Any]],
    after_step: Callable[[StepReport], None],
    after_epoch: Callable[[], None],
    stop: Callable[[], bool],
) -> bool:
    """Train from a position to the end of the plan.

    Args:
        learner: network, optimizer and plan.
        data: the training pairs.
        position: where to go on; moved along.
        workers: threads that read; they change nothing but the speed.
        end_epoch: takes the row of a finished epoch and gives it back with what it found, before
            the row enters the history; the place for validation.
        after_step: called on every rank after each step, with the position moved past it.
        after_epoch: called when the position stands at the start of the next epoch.
        stop: asked before each step; True ends the training there.

    Returns:
        True at the end of the plan, False where `stop` ended it.

    Raises:
        DataError: an image or mask changed since the check.
        NumericError: a loss or gradient that is not finite, and the plan does not skip it (any more).
    """
    plan, fabric = learner.plan, learner.fabric
    per_epoch = plan.steps(len(data))
    total = per_epoch * plan.epochs
    todo = list(plan.rest(position, len(data)))
    shares = [[(epoch, index) for index in _share(row, fabric)] for epoch, _, row in todo]
    learner.module.train()
    loaded = data.batches(shares, workers)
    for epoch, step, row in todo:
        if _any_rank(fabric, stop()):
            return False
        images, labels = next(loaded)
        if fabric.global_rank >= len(row):  # nothing left for this rank: it takes part without a pixel
            labels = torch.full_like(labels, IGNORE)
        number = epoch * per_epoch + step
        loss, norm, outcome = learner.step(images, labels, number=number, total=total)
        unlabelled = _all_ranks(fabric, bool((labels == IGNORE).all()))
        ids = tuple(data.pairs[index].id for index in row)
        rate = float(learner.optimizer.param_groups[0]["lr"])
        report = StepReport(epoch, step, ids, loss, norm, rate, outcome, unlabelled)
        _count(position, report)
        after_step(report)
        _check_limits(plan, position, report, total)
        if position.step == per_epoch:
            row_of = _row(position, rate)
            position.next_epoch(end_epoch(row_of))
            after_epoch()
            learner.module.train()
    return True


def _share(row: list[int], fabric: Fabric) -> list[int]:
    return row[fabric.global_rank :: fabric.world_size] or row[:1]


def _any_rank(fabric: Fabric, flag: bool) -> bool:
    if fabric.world_size == 1:
        return flag
    votes: Any = fabric.all_reduce(torch.tensor(float(flag), device=fabric.device), reduce_op="sum")
    return bool(votes > 0)


def _all_ranks(fabric: Fabric, flag: bool) -> bool:
    return not _any_rank(fabric, not flag)


def _count(position: Position, report: StepReport) -> None:
    position.step += 1
    position.unlabelled += report.unlabelled
    position.skipped += report.outcome == "skipped"
    position.scaled += report.outcome == "scaled"
    position.skipped_ever += report.outcome == "skipped"
    position.in_a_row = position.in_a_row + 1 if report.outcome == "skipped" else 0
    position.scaled_in_a_row = position.scaled_in_a_row + 1 if report.outcome == "scaled" else 0
    if report.outcome == "done" and not report.unlabelled:
        position.loss += report.loss
        position.counted += 1


def _row(position: Position, rate: float) -> dict[str, Any]:
    """What a finished epoch says of itself; no time and no machine, so that it repeats."""
    return {
        "epoch": position.epoch + 1,
        "loss": position.loss / position.counted if position.counted else None,
        "lr": rate,
        "steps": position.step,
        "steps_unlabelled": position.unlabelled,
        "steps_skipped": position.skipped,
        "steps_scaled": position.scaled,
    }


def describe(report: StepReport) -> str:
    """A step that was not done, in one line."""
    return (
        f"epoch {report.epoch + 1}, step {report.step + 1}: loss {report.loss:.4g}, gradient norm "
        f"{report.norm:.4g}, learning rate {report.lr:.3g}, images {', '.join(report.ids)}"
    )


def _check_limits(plan: Plan, position: Position, report: StepReport, total: int) -> None:
    remedy = "lower optimizer.lr, set optimizer.clip, or look at these images; the last good checkpoint stays"
    if position.scaled_in_a_row > LONGEST_SCALING:
        raise NumericError(
            f"{describe(report)}: {LONGEST_SCALING} steps in a row overflow float16; take bf16"
        )
    if report.outcome != "skipped":
        return
    if not plan.skip:
        raise NumericError(f"{describe(report)}: not finite; {remedy}, or set on_nan=skip")
    if position.in_a_row > MOST_SKIPPED_IN_A_ROW:
        raise NumericError(f"{describe(report)}: {MOST_SKIPPED_IN_A_ROW} steps in a row skipped; {remedy}")
    if position.skipped_ever > max(1, int(MOST_SKIPPED * total)):
        raise NumericError(f"{describe(report)}: more than {MOST_SKIPPED:.0%} of all steps skipped; {remedy}")
