"""`seg train`: images and masks to a segmentation network."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pseudolabel import console, weights
from pseudolabel.errors import DataError, UsageError
from pseudolabel.recipes.loading import load_recipe
from pseudolabel.recipes.yaml import dump_recipe
from pseudolabel.runs import disk, layout, writing
from segtrain.inspection import Inspection
from segtrain.pairs import PairSet, pair_up, read_data
from segtrain.recipe import SegRecipe, decisive

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from segtrain.checkpoint import Header
    from segtrain.loop import Learner, Position, StepReport

TIMED = 5  # steps before the time is estimated; the first warms up
SAVE_EVERY = 600.0  # seconds between checkpoints within an epoch


def train(
    recipe: Path | str | Mapping[str, Any] | SegRecipe,
    out: Path | str,
    *,
    overrides: Sequence[str] = (),
    device: str = "auto",
    workers: int = 2,
    on_bad: str = "stop",
    overwrite: bool = False,
    new: bool = False,
    wait: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Train a network; a run that was stopped goes on where it was, to the same bits on a CPU.

    Args:
        recipe: of `seg train`.
        out: folder of the run.
        overrides: `schedule.epochs=2` and the like.
        device: auto, cpu, cuda or cuda:n.
        workers: threads that read; no byte depends on them.
        on_bad: an image that cannot be read: stop, or skip (leave it out and say so).
        overwrite, new, wait: what to do about a folder that is in use, see `writing.open_run`.
        quiet: show no progress.

    Returns:
        `images`, `epochs`, `steps`, `seconds`, `loss`, `miou` (of the last validation), `best`, `run`.

    Raises:
        DataError: a mask or image has a fault; all of them are told, and nothing was written.
        UsageError, MachineError, NumericError, Interrupted: see `pseudolabel.errors`.
    """
    settled = load_recipe(recipe, SegRecipe, overrides)
    pairs, seen = _checked(settled, on_bad, quiet)
    validation, validated = None, None
    if settled.validation is not None:
        validation, validated = _checked_validation(settled, pairs, quiet)
    fingerprint = {
        "recipe": decisive(settled),
        "classes": list(pairs.space.names),
        "weights": weights.digest(settled.network.encoder, settled.network.weights),
        "inputs": disk.digest(seen.inputs),
        "validation": disk.digest(validated.inputs if validated is not None else []),
    }

    from segtrain.runtime import launch

    fabric = launch(device, settled.precision)
    with contextlib.ExitStack() as stack:
        folder = Path(out)
        run: writing.RunFolder | None = None
        if fabric.global_rank == 0:
            run = stack.enter_context(
                writing.open_run(
                    out,
                    "seg train",
                    fingerprint,
                    overwrite=overwrite,
                    new=new,
                    wait=wait,
                    items="checkpoints",
                )
            )
            folder = run.path
            disk.write_text(folder / layout.RECIPE, dump_recipe(settled))
        folder = Path(fabric.broadcast(str(folder)))
        quiet = quiet or fabric.global_rank > 0
        stop = stack.enter_context(console.interruptible())
        training = _Training(settled, pairs, validation, seen, fabric, folder, run, workers, quiet)
        return training.run_to_end(stop)


def _checked(recipe: SegRecipe, on_bad: str, quiet: bool) -> tuple[PairSet, Inspection]:
    """The training pairs after a look at every one of them."""
    from segtrain.inspection import inspect

    if on_bad not in ("stop", "skip"):
        raise UsageError(f"--on-bad {on_bad}: not known; choose stop or skip")
    pairs = pair_up(read_data(recipe.data), recipe.masks)
    with console.progress(len(pairs.pairs), "check training pairs", quiet) as bar:
        seen = inspect(pairs, bar.advance)
    faults = seen.faults
    if on_bad == "skip":
        bad = {fault.id for fault in faults if fault.code == "image"}
        faults = [fault for fault in faults if fault.id not in bad]
        kept = tuple(pair for pair in pairs.pairs if pair.id not in bad)
        if bad and kept:
            console.say(f"{len(bad)} of {len(pairs.pairs)} images cannot be read and are left out")
        pairs = PairSet(kept, pairs.space, pairs.folder, pairs.run)
        if not kept:
            raise DataError("data: no image can be read; look at its root and split")
    _refuse(faults, "training")
    if len(seen.ignored) == len(pairs.pairs):
        raise DataError("masks: every pixel of every mask is 255; there is nothing to learn")
    return pairs, seen


def _checked_validation(recipe: SegRecipe, training: PairSet, quiet: bool) -> tuple[PairSet, Inspection]:
    from segtrain.inspection import inspect

    pairs = pair_up(read_data(recipe.data, recipe.validation))
    if pairs.space != training.space:
        raise DataError("validation: its classes are not those of the training data; use one class list")
    with console.progress(len(pairs.pairs), "check validation pairs", quiet) as bar:
        seen = inspect(pairs, bar.advance)
    _refuse(seen.faults, "validation")
    return pairs, seen


def _refuse(faults: Sequence[Any], what: str) -> None:
    if faults:
        files = len({fault.file for fault in faults})
        lines = "\n".join(str(fault) for fault in faults)
        raise DataError(f"{files} files of the {what} data have faults:\n{lines}")


@dataclass
class _Training:
    """One training from its recipe to its folder."""

    recipe: SegRecipe
    pairs: PairSet
    validation: PairSet | None
    seen: Inspection
    fabric: Fabric
    folder: Path
    run: writing.RunFolder | None
    workers: int
    quiet: bool

    def run_to_end(self, stop: console.Stop) -> dict[str, Any]:
        import torch

        from segtrain import checkpoint
        from segtrain.dataset import TrainingPairs
        from segtrain.loop import Position, fit

        recipe, start = self.recipe, time.monotonic()
        learner, taken = self._learner()
        header = self._header(learner, 0)
        position = checkpoint.restore(self.folder, learner, header) or Position()
        if position.epoch > recipe.schedule.epochs:
            raise UsageError(
                f"{self.folder}: has {position.epoch} epochs, the recipe {recipe.schedule.epochs}; "
                "choose another folder, or as many epochs or more"
            )
        data = TrainingPairs(self.pairs.pairs, self.pairs.space, self._augment(learner), recipe.seed)
        steps = learner.plan.steps(len(data))
        done = position.epoch * steps + position.step
        if done == steps * recipe.schedule.epochs:
            if not self.quiet:
                console.say(f"{self.folder.name}: has its {position.epoch} epochs; nothing to do")
            return self._result(position, steps, start)
        self._say_start(learner, position, taken)
        devices = [self.fabric.device] if self.fabric.device.type == "cuda" else []
        with (
            torch.random.fork_rng(devices=devices),
            console.progress(steps * recipe.schedule.epochs, "train", self.quiet, done=done) as bar,
        ):
            watch = _Watch(self, learner, position, bar, steps)
            finished = fit(
                learner,
                data,
                position,
                workers=self.workers,
                end_epoch=lambda row: self._end_epoch(learner, position, row),
                after_step=watch.after_step,
                after_epoch=lambda: self._save(learner, position),
                stop=lambda: stop.requested,
            )
        if not finished:
            self._save(learner, position)
            raise stop.fault(f"stopped in epoch {position.epoch + 1} after step {position.step} of {steps}")
        if self.run is not None:
            self._write_pages(header, taken, position)
        return self._result(position, steps, start)

    def _learner(self) -> tuple[Learner, weights.Taken]:
        import torch

        from pseudolabel.draws import seed_of
        from segtrain.loop import Learner, Plan
        from segtrain.loss import Loss
        from segtrain.networks import Architecture, SegmentationNetwork

        recipe, net, schedule = self.recipe, self.recipe.network, self.recipe.schedule
        if net.mean is None or net.std is None:
            mean, std = weights.normalisation(net.encoder, net.weights)
        architecture = Architecture(
            net.decoder, net.encoder, net.output_stride, net.mean or mean, net.std or std
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of("network", recipe.seed))
            network = SegmentationNetwork(
                architecture, len(self.pairs.space.names), recipe.optimizer.frozen_norm
            )
        taken = weights.load_backbone(network.network.encoder, net.encoder, net.weights)
        if recipe.channels_last:
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.SGD(
            network.groups(recipe.optimizer.lr, recipe.optimizer.decoder_factor),
            momentum=recipe.optimizer.momentum,
            weight_decay=recipe.optimizer.weight_decay,
        )
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        module, wrapped = self.fabric.setup(network, optimizer)
        plan = Plan(
            seed=recipe.seed,
            epochs=schedule.epochs,
            batch=schedule.batch,
            accumulate=schedule.accumulate,
            power=schedule.power,
            clip=recipe.optimizer.clip,
            skip=recipe.on_nan == "skip",
        )
        loss = Loss(recipe.loss.component, recipe.loss.params)
        return Learner(self.fabric, network, module, wrapped, loss, plan), taken

    def _augment(self, learner: Learner) -> Any:
        from segtrain.dataset import Augment

        given, mean = self.recipe.augmentation, learner.network.architecture.mean
        fill = (round(mean[0] * 255), round(mean[1] * 255), round(mean[2] * 255))
        return Augment(given.scale, given.crop, given.flip, fill)

    def _header(self, learner: Learner, epoch: int) -> Header:
        from segtrain.checkpoint import Header

        return Header(self.pairs.space, learner.network.architecture, decisive(self.recipe), epoch)

    def _end_epoch(self, learner: Learner, position: Position, row: dict[str, Any]) -> dict[str, Any]:
        """Validate where it is due, keep the best network; gives the row with what was found."""
        from segtrain import checkpoint
        from segtrain.commands.evaluate import figures_of

        schedule = self.recipe.schedule
        due = row["epoch"] % schedule.validate_every == 0 or row["epoch"] == schedule.epochs
        if self.validation is None or not due:
            return row
        learner.network.eval()
        found = figures_of(
            learner.network,
            self.validation,
            self.fabric.device,
            average_over=self.recipe.average_over,
            workers=self.workers,
            quiet=self.quiet,
            fabric=self.fabric,
        )
        row |= {key: found[key] for key in ("images", "miou", "classes_averaged", "iou")}
        score = found["miou"]
        if score is not None and (position.best is None or score > position.best):
            position.best = score
            if self.run is not None:
                checkpoint.save_best(self.folder, learner.network, self._header(learner, row["epoch"]))
        if not self.quiet:
            told = "undefined" if score is None else f"{score:.4f}"
            console.say(f"epoch {row['epoch']}: mIoU {told} over {found['classes_averaged']} classes")
        return row

    def _save(self, learner: Learner, position: Position) -> None:
        from segtrain import checkpoint

        if self.run is None:
            return
        disk.write_json_lines(self.folder / "metrics.jsonl", position.history)
        checkpoint.save_last(self.folder, learner, position, self._header(learner, position.epoch))

    def _write_pages(self, header: Header, taken: weights.Taken, position: Position) -> None:
        from segtrain.card import write_card
        from segtrain.curves import draw

        card = write_card(self.recipe, header, str(taken), self.seen, position.history)
        disk.write_text(self.folder / "MODEL_CARD.md", card)
        disk.write_bytes(self.folder / "curves.png", draw(position.history))

    def _say_start(self, learner: Learner, position: Position, taken: weights.Taken) -> None:
        if self.quiet:
            return
        if position.epoch or position.step:
            console.say(f"going on in epoch {position.epoch + 1} after step {position.step}")
        else:
            console.say(str(taken))
        forwards = learner.plan.accumulate * self.fabric.world_size
        if forwards > 1 and not learner.loss.additive:
            console.say(
                f"loss: {learner.loss.component.name} does not add up over pixels; the {forwards} forwards "
                "of a batch are averaged, weighted by their labelled pixels"
            )
        note = f", {len(self.seen.ignored)} masks ignored whole" if self.seen.ignored else ""
        console.say(f"{len(self.pairs.pairs)} images on {self.fabric.device}, {self.recipe.precision}{note}")

    def _result(self, position: Position, steps: int, start: float) -> dict[str, Any]:
        last = position.history[-1]
        scores = [row["miou"] for row in position.history if row.get("miou") is not None]
        return {
            "run": self.folder.name,
            "images": len(self.pairs.pairs),
            "epochs": position.epoch,
            "steps": steps * position.epoch,
            "steps_skipped": position.skipped_ever,
            "seconds": round(time.monotonic() - start, 2),
            "device": str(self.fabric.device),
            "loss": last["loss"],
            "miou": scores[-1] if scores else None,
            "best": position.best,
        }


class _Watch:
    """What happens after each step: progress, an estimate of the time, problems, a checkpoint at times."""

    def __init__(
        self, training: _Training, learner: Learner, position: Position, bar: console.Bar, steps: int
    ) -> None:
        self.training, self.learner, self.position, self.bar, self.steps = (
            training,
            learner,
            position,
            bar,
            steps,
        )
        self.saved = self.last = time.monotonic()
        self.times: list[float] = []

    def after_step(self, report: StepReport) -> None:
        from segtrain.loop import describe

        now = time.monotonic()
        self.times.append(now - self.last)
        self.last = now
        self.bar.advance()
        if len(self.times) == TIMED and not self.training.quiet:
            each = statistics.median(self.times[1:])
            left = self.bar.total - self.bar.done
            console.say(
                f"about {console.duration(each * left)} for {left} steps of {each:.2f} s, and validation"
            )
        run = self.training.run
        if run is not None and report.outcome != "done":
            what = "loss_not_finite" if report.outcome == "skipped" else "float16_overflow"
            run.problem(", ".join(report.ids), what, describe(report), "the step was left out")
        if now - self.saved > SAVE_EVERY and report.outcome == "done":
            self.training._save(self.learner, self.position)
            self.saved = now
