"""The training engine: steps that follow from (seed, epoch, index) alone and can be cut anywhere.

One step: the loss over the whole batch in one or more forwards, backward, gradients added over the ranks,
clip, optimizer at a polynomial rate. A loss or gradient that is not finite leaves parameters, optimizer and
batch-norm statistics as they were. What is learned from what is handed in as functions, see `Work`.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from pseudolabel.errors import DataError, MachineError
from pseudolabel.training import limits, ranks, state
from pseudolabel.training.feed import ahead
from pseudolabel.training.plan import Plan
from pseudolabel.training.position import Outcome, Position, StepReport

if TYPE_CHECKING:
    from lightning_fabric import Fabric

BETWEEN_SAVES = 600.0  # seconds; beside the save at the end of each epoch
AHEAD = 16  # items that may wait for each reading thread

T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """What some items of a batch add to its loss; the shares of all items of all ranks are added up.

    Attributes:
        loss: scalar float32 with a graph.
        figures: further shares by name, for metrics.jsonl; the names are `Work.figures`.
    """

    loss: Tensor
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Work(Generic[T]):
    """What is learned, as functions.

    Attributes:
        ids: of the items that an epoch goes through.
        load: (epoch, index) to an item, in a thread; raises DataError.
        totals: items to (G,) float64 on the CPU: what `share` has to know of the whole batch; added over
            the ranks. No item gives G zeros.
        share: items of one forward, at least one, and the totals to their share of the loss.
        tally: totals to the weight of the step in the epoch's mean loss, and to counts for the epoch's row.
        ready: brings the modules into training mode, at the start of each epoch.
        step_seed: (number of the step, rank) to the seed of torch's own generator, for dropout.
        figures: names of the further figures of a share.
        left_out: gets (index, fault) of an item that cannot be loaded, which is then left out; None: such
            an item ends the training.
    """

    ids: Sequence[str]
    load: Callable[[int, int], T]
    totals: Callable[[Sequence[T]], Tensor]
    share: Callable[[Sequence[T], Tensor], Share]
    tally: Callable[[Tensor], tuple[float, Mapping[str, int]]]
    ready: Callable[[], None]
    step_seed: Callable[[int, int], int]
    figures: tuple[str, ...] = ()
    left_out: Callable[[int, DataError], None] | None = None


@dataclass(frozen=True)
class Result:
    """What one step gave, the same on every rank; see `StepReport`."""

    loss: float
    norm: float
    outcome: Outcome
    totals: Tensor
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Learner:
    """What learns, on its device: modules, optimizer, and the plan of its steps.

    Attributes:
        fabric: device, precision and ranks.
        modules: by name, which is the prefix of their tensors in a state file.
        optimizer: as Fabric set it up; each group has `initial_lr` and `factor`, its rate is
            initial_lr * decay * factor.
        plan: see `Plan`.
    """

    fabric: Fabric
    modules: Mapping[str, nn.Module]
    optimizer: Any
    plan: Plan

    @property
    def scaler(self) -> Any:
        """The loss scaler of float16, or None."""
        return getattr(self.fabric.strategy.precision, "scaler", None)

    def step(self, work: Work[T], items: Sequence[T], *, number: int, total: int) -> Result:
        """One step on this rank's share of a batch.

        Args:
            work: what is learned.
            items: of this rank; may be empty.
            number, total: this step of all steps, for rate and dropout.

        Raises:
            MachineError: the device has too little memory.
        """
        fabric, factor = self.fabric, self.plan.factor(number, total)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor * group["factor"]
        torch.manual_seed(work.step_seed(number, fabric.global_rank))
        own = torch.cat([torch.tensor([float(len(items))], dtype=torch.float64), work.totals(items)])
        everyone = ranks.add(fabric, own)
        totals = everyone[1:]
        if not everyone[0]:
            return Result(0.0, math.nan, "empty", totals)
        before = [buffer.clone() for buffer in self._buffers()]
        self.optimizer.zero_grad()
        try:
            reported = self._backward(work, items, totals)
        except torch.OutOfMemoryError as error:
            self._restore(before)
            raise MachineError(
                f"step {number + 1}: {fabric.device} has too little memory for {len(items)} images; "
                "lower schedule.batch or augmentation.crop"
            ) from error
        loss, *rest = ranks.add(fabric, torch.tensor(reported, dtype=torch.float64)).tolist()
        figures = dict(zip(work.figures, rest, strict=True))
        if not all(map(math.isfinite, (loss, *rest))):
            self._restore(before)
            return Result(loss, math.nan, "skipped", totals)
        norm, outcome = self._move(before)
        return Result(loss, norm, outcome, totals, figures)

    def _backward(self, work: Work[T], items: Sequence[T], totals: Tensor) -> list[float]:
        """Gradients of this rank's items; gives loss and figures, and stops where one is not finite."""
        reported = [0.0] * (1 + len(work.figures))
        for part in _split(items, self.plan.accumulate):
            with self.fabric.autocast():
                share = work.share(part, totals)
            values = (float(share.loss.detach().double()), *(share.figures[name] for name in work.figures))
            reported = [a + b for a, b in zip(reported, values, strict=True)]
            if not all(map(math.isfinite, reported)):
                break
            self.fabric.backward(share.loss)
        return reported

    def _move(self, before: list[Tensor]) -> tuple[float, Outcome]:
        """One move of the optimizer; gives the norm of the gradient and what became of the step."""
        ranks.add_gradients(
            self.fabric, [p for group in self.optimizer.param_groups for p in group["params"]]
        )
        most = math.inf if self.plan.clip is None else self.plan.clip
        module = next(iter(self.modules.values()))  # Fabric clips the parameters of the optimizer
        clipped: Any = self.fabric.clip_gradients(
            module, self.optimizer, max_norm=most, error_if_nonfinite=False
        )
        norm = float(clipped)
        if math.isfinite(norm):
            self.optimizer.step()
            ranks.take_first(self.fabric, self._buffers())  # batch statistics of one rank, as in DDP
            return norm, "done"
        self._restore(before)
        if self.scaler is None:
            return norm, "skipped"
        self.optimizer.step()  # the scaler leaves the step out and lowers its scale
        return norm, "scaled"

    def _buffers(self) -> Iterator[Tensor]:
        for module in self.modules.values():
            yield from module.buffers()

    def _restore(self, before: list[Tensor]) -> None:
        with torch.no_grad():
            for buffer, value in zip(self._buffers(), before, strict=True):
                buffer.copy_(value)
        self.optimizer.zero_grad()

    def save(self, folder: Path, position: Position, meta: Mapping[str, Any]) -> None:
        """Write all that a continued run needs, see `state.save_last`; `meta` goes into the header."""
        slots, optimizer = state.pack_optimizer(self.optimizer)
        tensors = {
            f"{name}.{key}": value
            for name, module in self.modules.items()
            for key, value in module.state_dict().items()
        }
        tensors |= {f"optimizer.{name}": value for name, value in slots.items()}
        scaler = self.scaler.state_dict() if self.scaler is not None else {}
        head = {**meta, "position": position.plain(), "optimizer": optimizer, "scaler": scaler}
        state.save_last(folder, tensors, head)

    def load(
        self,
        folder: Path,
        check: Callable[[Path, Mapping[str, Tensor], Mapping[str, Any]], None],
        say: Callable[[str], None],
    ) -> Position | None:
        """Go back to where the newest readable state of a folder left off.

        Args:
            folder: of the state files.
            check: looks at file, tensors and metadata before anything is copied; raises DataError.
            say: gets a line for each damaged state.

        Returns:
            The position, or None where there is no state.

        Raises:
            DataError: no state can be read, or `check` refuses it.
        """
        newest = state.load_last(folder, say)
        if newest is None:
            return None
        file, tensors, meta = newest
        check(file, tensors, meta)
        for name, module in self.modules.items():
            module.load_state_dict(_below(tensors, f"{name}."), strict=True)
        state.unpack_optimizer(self.optimizer, _below(tensors, "optimizer."), meta["optimizer"])
        if self.scaler is not None and meta["scaler"]:
            self.scaler.load_state_dict(meta["scaler"])
        return Position(**meta["position"])


@dataclass(frozen=True)
class Around:
    """What a training asks and tells while it runs.

    Attributes:
        workers: threads that load; they change nothing but the speed.
        stop: asked before each step; True on any rank ends the training there, saved.
        save: writes the state of a position, on the rank that does.
        end_epoch: takes the row of a finished epoch and gives it back with the figures of validation, before
            the row enters the history. Where it raises, the trained epoch is saved first.
        after_step: called on every rank after each step, with the position moved past it.
        after_epoch: called when the position stands, saved, at the start of the next epoch.
    """

    workers: int
    stop: Callable[[], bool]
    save: Callable[[], None]
    end_epoch: Callable[[dict[str, Any]], dict[str, Any]]
    after_step: Callable[[StepReport], None] = lambda report: None
    after_epoch: Callable[[], None] = lambda: None


def fit(learner: Learner, work: Work[T], position: Position, around: Around) -> bool:
    """Train from a position to the end of the plan.

    Args:
        learner: modules, optimizer and plan.
        work: what is learned.
        position: where to go on; moved along.
        around: see there.

    Returns:
        True at the end of the plan, False where `around.stop` ended it.

    Raises:
        DataError: an item cannot be loaded, and is not to be left out.
        NumericError: a loss or gradient that is not finite, and the plan does not skip it (any more).
        MachineError: the device has too little memory for the batch.
    """
    plan, fabric, count = learner.plan, learner.fabric, len(work.ids)
    rank, world = fabric.global_rank, fabric.world_size
    per_epoch = plan.steps(count)
    total = per_epoch * plan.epochs
    for module in learner.modules.values():
        ranks.take_first(fabric, module.state_dict().values())
    loading = ahead(
        plan.items(position.epoch, position.step, count, rank, world),
        lambda key: _load(work, *key),
        workers=around.workers,
        depth=max(AHEAD * around.workers, 2 * plan.batch),
    )
    saved = time.monotonic()
    devices = [fabric.device] if fabric.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), contextlib.closing(loading) as loaded:
        for epoch in range(position.epoch, plan.epochs):
            work.ready()
            for row in plan.epoch_batches(epoch, count)[position.step :]:
                if ranks.any_rank(fabric, around.stop()):
                    around.save()
                    return False
                items = _readable(work, list(islice(loaded, len(row[rank::world]))))
                result = learner.step(work, items, number=epoch * per_epoch + position.step, total=total)
                report = _report(learner, work, position, row, result)
                position.count(report)
                around.after_step(report)
                limits.check(position, report, skip=plan.skip, total=total)
                if result.outcome == "done" and time.monotonic() - saved > BETWEEN_SAVES:
                    around.save()
                    saved = time.monotonic()
            _end_epoch(learner, position, around, number=(epoch + 1) * per_epoch - 1, total=total)
            saved = time.monotonic()
    return True


def _report(
    learner: Learner, work: Work[T], position: Position, row: Sequence[int], result: Result
) -> StepReport:
    """What the step at a position did with the items of its row."""
    weight, counts = work.tally(result.totals)
    return StepReport(
        epoch=position.epoch,
        step=position.step,
        ids=tuple(work.ids[index] for index in row),
        loss=result.loss,
        norm=result.norm,
        lr=float(learner.optimizer.param_groups[0]["lr"]),
        outcome=result.outcome,
        weight=weight,
        figures=result.figures,
        counts=counts,
    )


def _end_epoch(learner: Learner, position: Position, around: Around, *, number: int, total: int) -> None:
    """Validate, close the epoch, save; an end in the middle of validation saves the trained epoch."""
    rate = learner.optimizer.param_groups[0]["initial_lr"] * learner.plan.factor(number, total)
    try:
        row = around.end_epoch(position.row(rate))
    except BaseException:
        around.save()
        raise
    position.next_epoch(row)
    around.save()
    around.after_epoch()


def _load(work: Work[T], epoch: int, index: int) -> T | DataError:
    """An item, or why it cannot be loaded, where such an item may be left out."""
    try:
        return work.load(epoch, index)
    except DataError as fault:
        if work.left_out is None:
            raise
        return fault


def _readable(work: Work[T], loaded: Sequence[tuple[tuple[int, int], T | DataError]]) -> list[T]:
    """The items that could be loaded; `left_out` gets each other one."""
    items: list[T] = []
    for (_, index), item in loaded:
        if not isinstance(item, DataError):
            items.append(item)
        elif work.left_out is not None:
            work.left_out(index, item)
    return items


def _split(items: Sequence[T], parts: int) -> Iterator[Sequence[T]]:
    """Consecutive parts of nearly equal size, the larger ones first; fewer where there are fewer items."""
    parts = min(parts, len(items))
    start = 0
    for part in range(parts):
        end = start + len(items) // parts + (part < len(items) % parts)
        yield items[start:end]
        start = end


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
