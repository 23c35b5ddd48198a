"""A segmentation network for the training engine: its optimizer, and how pairs become a loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pseudolabel.draws import seed_of
from pseudolabel.training.engine import Learner, Share, Work
from pseudolabel.training.plan import Plan
from segtrain.dataset import Pixels, TrainingPairs
from segtrain.loss import Loss
from segtrain.networks import SegmentationNetwork
from segtrain.recipe import SegRecipe

if TYPE_CHECKING:
    from lightning_fabric import Fabric

AugmentedPair = tuple[Pixels, Pixels]  # (crop, crop, 3) and (crop, crop) uint8


def learner_of(fabric: Fabric, network: SegmentationNetwork, recipe: SegRecipe) -> Learner:
    """The network on its device with its optimizer: decoder and head learn `decoder_factor` times faster."""
    given, schedule = recipe.optimizer, recipe.schedule
    network.to(fabric.device)
    if recipe.channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    groups = network.groups(given.lr, given.decoder_factor)
    optimizer = torch.optim.SGD(
        [{**group, "initial_lr": group["lr"], "factor": 1.0} for group in groups],
        momentum=given.momentum,
        weight_decay=given.weight_decay,
    )
    plan = Plan(
        seed=recipe.seed,
        epochs=schedule.epochs,
        batch=schedule.batch,
        accumulate=schedule.accumulate,
        power=schedule.power,
        clip=given.clip,
        skip=recipe.on_nan == "skip",
    )
    return Learner(fabric, {"network": network}, fabric.setup_optimizers(optimizer), plan)


@dataclass(frozen=True)
class SegmentationTask:
    """How a segmentation network learns from pairs.

    Attributes:
        data: the training pairs.
        network: on `device`.
        loss: over the labelled pixels.
        seed: root of the draws for dropout.
    """

    data: TrainingPairs
    network: SegmentationNetwork
    loss: Loss
    seed: int
    device: torch.device

    def work(self) -> Work[AugmentedPair]:
        """The task as functions for the engine."""
        return Work(
            ids=tuple(pair.id for pair in self.data.pairs),
            load=lambda epoch, index: self.data[epoch, index],
            totals=self.totals,
            share=self.share,
            tally=tally,
            ready=self.ready,
            step_seed=lambda number, rank: seed_of("dropout", self.seed, number, rank),
        )

    def ready(self) -> None:
        """Training mode; a frozen norm stays as it is."""
        self.network.train()

    def totals(self, pairs: Sequence[AugmentedPair]) -> Tensor:
        """(G,) labelled pixels of each group that the loss averages over."""
        masks = [mask for _, mask in pairs] or [np.zeros((0, 0), np.uint8)]
        return self.loss.counts(torch.from_numpy(np.stack(masks)))

    def share(self, pairs: Sequence[AugmentedPair], totals: Tensor) -> Share:
        """What some pairs add to the loss of the batch."""
        pixels = torch.from_numpy(np.stack([image for image, _ in pairs])).permute(0, 3, 1, 2)
        labels = torch.from_numpy(np.stack([mask for _, mask in pairs]))
        logits = self.network(pixels.to(self.device))
        return Share(self.loss.value(logits, labels.to(self.device).long(), totals.to(self.device)))


def tally(totals: Tensor) -> tuple[float, Mapping[str, int]]:
    """A batch without a labelled pixel has no weight in the epoch's loss, and is counted."""
    unlabelled = not bool(totals.any())
    return float(not unlabelled), {"steps_unlabelled": int(unlabelled)}
