"""One training of a segmentation network: started or continued, validated, saved, and written out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pseudolabel import console, weights
from pseudolabel.draws import seed_of
from pseudolabel.errors import UsageError
from pseudolabel.runs import disk, writing
from pseudolabel.training.engine import Around, Learner, fit
from pseudolabel.training.position import Position
from pseudolabel.training.watch import Watch
from segtrain import checkpoint
from segtrain.card import write_card
from segtrain.checkpoint import Header
from segtrain.curves import draw
from segtrain.dataset import Augment, TrainingPairs
from segtrain.inspection import Inspection
from segtrain.learning import SegmentationTask, learner_of
from segtrain.loss import Loss
from segtrain.networks import Architecture, SegmentationNetwork
from segtrain.pairs import PairSet
from segtrain.recipe import SegRecipe, decisive
from segtrain.results import TrainingSummary
from segtrain.scoring import figures_of

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass
class SegmentationTraining:
    """One training from its recipe to its folder.

    Attributes:
        recipe, pairs, validation: what is learned from.
        inspection: of the training pairs.
        fabric: device, precision and ranks.
        folder, run: of the run; `run` is None on a rank that does not write.
        workers: threads that read.
        quiet: say nothing and show no progress.
    """

    recipe: SegRecipe
    pairs: PairSet
    validation: PairSet | None
    inspection: Inspection
    fabric: Fabric
    folder: Path
    run: writing.RunFolder | None
    workers: int
    quiet: bool

    def run_to_end(self, stop: console.Stop) -> TrainingSummary:
        """Train to the last epoch and write the run's files; gives the result of the command.

        Raises:
            Interrupted: a signal came; the state is saved.
            UsageError: the run has more epochs than the recipe.
            DataError, MachineError, NumericError: see `pseudolabel.training.engine.fit`.
        """
        recipe, start = self.recipe, time.monotonic()
        network, learner, taken = self._learner()
        header = self._header(network, 0)
        position = checkpoint.restore(self.folder, learner, header) or Position()
        if position.epoch > recipe.schedule.epochs:
            raise UsageError(
                f"{self.folder}: has {position.epoch} epochs, the recipe {recipe.schedule.epochs}; "
                "choose another folder, or as many epochs or more"
            )
        data = TrainingPairs(self.pairs.pairs, self.pairs.space, self._augment(network), recipe.seed)
        steps = learner.plan.steps(len(data))
        done = position.epoch * steps + position.step
        if position.epoch == recipe.schedule.epochs:
            if not self.quiet:
                console.say(f"{self.folder.name}: has its {position.epoch} epochs; nothing to do")
            return self._result(position, steps, start)
        loss = Loss(recipe.loss.component, recipe.loss.params)
        self._say_start(loss, position, taken)
        task = SegmentationTask(data, network, loss, recipe.seed, self.fabric.device)
        with console.progress(steps * recipe.schedule.epochs, "train", self.quiet, done=done) as bar:
            around = Around(
                workers=self.workers,
                stop=lambda: stop.requested,
                save=lambda: self._save(network, learner, position),
                end_epoch=lambda row: self._end_epoch(network, position, row),
                after_step=Watch(bar, self.run, self.quiet).after_step,
            )
            finished = fit(learner, task.work(), position, around)
        if not finished:
            raise stop.fault(f"stopped in epoch {position.epoch + 1} after step {position.step} of {steps}")
        if self.run is not None:
            self._write_pages(header, taken, position)
        return self._result(position, steps, start)

    def _learner(self) -> tuple[SegmentationNetwork, Learner, weights.Taken]:
        recipe, net = self.recipe, self.recipe.network
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
        return network, learner_of(self.fabric, network, recipe), taken

    def _augment(self, network: SegmentationNetwork) -> Augment:
        given, mean = self.recipe.augmentation, network.architecture.mean
        fill = (round(mean[0] * 255), round(mean[1] * 255), round(mean[2] * 255))
        return Augment(given.scale, given.crop, given.flip, fill)

    def _header(self, network: SegmentationNetwork, epoch: int) -> Header:
        return Header(self.pairs.space, network.architecture, decisive(self.recipe), epoch)

    def _end_epoch(
        self, network: SegmentationNetwork, position: Position, row: dict[str, Any]
    ) -> dict[str, Any]:
        """Validate where it is due, keep the best network; gives the row with the figures."""
        schedule = self.recipe.schedule
        due = row["epoch"] % schedule.validate_every == 0 or row["epoch"] == schedule.epochs
        if self.validation is None or not due:
            return row
        network.eval()
        figures = figures_of(
            network,
            self.validation,
            self.fabric.device,
            average_over=self.recipe.average_over,
            workers=self.workers,
            quiet=self.quiet,
            fabric=self.fabric,
        )
        row |= {key: figures[key] for key in ("images", "miou", "classes_averaged", "iou")}
        score = figures["miou"]
        if score is not None and (position.best is None or score > position.best):
            position.best = score
            if self.run is not None:
                checkpoint.save_best(self.folder, network, self._header(network, row["epoch"]))
        if not self.quiet:
            score_text = "undefined" if score is None else f"{score:.4f}"
            console.say(f"epoch {row['epoch']}: mIoU {score_text} over {figures['classes_averaged']} classes")
        return row

    def _save(self, network: SegmentationNetwork, learner: Learner, position: Position) -> None:
        if self.run is None:
            return
        disk.write_json_lines(self.folder / "metrics.jsonl", position.history)
        checkpoint.save_last(self.folder, learner, position, self._header(network, position.epoch))

    def _write_pages(self, header: Header, taken: weights.Taken, position: Position) -> None:
        card = write_card(
            self.recipe, header, str(taken), self.inspection, position.history, self.pairs.labels
        )
        disk.write_text(self.folder / "MODEL_CARD.md", card)
        disk.write_bytes(self.folder / "curves.png", draw(position.history))

    def _say_start(self, loss: Loss, position: Position, taken: weights.Taken) -> None:
        if self.quiet:
            return
        if position.epoch or position.step:
            console.say(f"going on in epoch {position.epoch + 1} after step {position.step}")
        else:
            console.say(str(taken))
        forwards = self.recipe.schedule.accumulate * self.fabric.world_size
        if forwards > 1 and not loss.additive:
            console.say(
                f"loss: {loss.component.name} does not add up over pixels; the {forwards} forwards "
                "of a batch are averaged, weighted by their labelled pixels"
            )
        note = f", {len(self.inspection.ignored)} masks ignored whole" if self.inspection.ignored else ""
        console.say(f"{len(self.pairs.pairs)} images on {self.fabric.device}, {self.recipe.precision}{note}")

    def _result(self, position: Position, steps: int, start: float) -> TrainingSummary:
        last = position.history[-1]
        scores = [row["miou"] for row in position.history if row.get("miou") is not None]
        return TrainingSummary(
            run=self.folder.name,
            images=len(self.pairs.pairs),
            epochs=position.epoch,
            steps=steps * position.epoch,
            steps_skipped=position.skipped_ever,
            seconds=round(time.monotonic() - start, 2),
            device=str(self.fabric.device),
            loss=last["loss"],
            miou=scores[-1] if scores else None,
            best=position.best,
            failed=self.inspection.looked_at - len(self.pairs.pairs),
        )
