"""A classifier for the training engine: its optimizer, and how a batch of images becomes a loss.

SGD with poly decay a step, the head faster than the backbone, frozen batch norm where asked. Every draw
follows from (seed, epoch, id). Source: IRN (arXiv 1904.05044) and `pl train`'s recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pseudolabel import images
from pseudolabel.classifier.augmentation import Draws, ImageArray, augmented, ground_colour, normalised
from pseudolabel.classifier.network import Classifier
from pseudolabel.classifier.noise import perturbed
from pseudolabel.classifier.terms import Terms, draws_of, shares
from pseudolabel.draws import generator, seed_of
from pseudolabel.errors import DataError
from pseudolabel.recipes.schema import TrainRecipe
from pseudolabel.records import ImageRecord
from pseudolabel.training.engine import Learner, Share, Work
from pseudolabel.training.plan import Plan

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class Example:
    """A training image as it was read and augmented: (crop, crop, 3) uint8 of one epoch."""

    record: ImageRecord
    image: ImageArray
    epoch: int


def learner_of(fabric: Fabric, network: Classifier, terms: Terms, recipe: TrainRecipe) -> Learner:
    """The network and the objectives' own modules on their device, with their optimizer.

    The head learns `head_factor` times faster than the backbone, an own module as its objective says.
    """
    given, schedule = recipe.optimizer, recipe.schedule
    network.to(fabric.device)
    if recipe.channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.hold_first(stem=given.frozen_stem, stages=given.frozen_stages)
    parts = [
        ([p for p in network.backbone.parameters() if p.requires_grad], 1.0),
        (list(network.head.parameters()), given.head_factor),
    ]
    for term in terms.terms:
        if term.own is not None:
            term.own.to(fabric.device)
            parts.append((list(term.own.parameters()), term.lr_factor))
    groups = [
        {"params": parameters, "lr": given.lr, "initial_lr": given.lr, "factor": factor}
        for parameters, factor in parts
        if parameters
    ]
    optimizer = torch.optim.SGD(groups, lr=given.lr, momentum=given.momentum, weight_decay=given.weight_decay)
    plan = Plan(
        seed=recipe.seed,
        epochs=schedule.epochs,
        batch=schedule.batch,
        power=schedule.power,
        clip=given.clip,
        skip=recipe.on_nan == "skip",
        last_batch=schedule.last_batch,
    )
    return Learner(fabric, {"network": network, **terms.modules}, fabric.setup_optimizers(optimizer), plan)


@dataclass(frozen=True)
class ClassifierTask:
    """How a classifier learns from images with labels.

    Attributes:
        records: training images with labels.
        recipe: see `TrainRecipe`.
        mean, std: RGB in 0..1.
        network, terms: on `device`.
    """

    records: Sequence[ImageRecord]
    recipe: TrainRecipe
    mean: Sequence[float]
    std: Sequence[float]
    network: Classifier
    terms: Terms
    device: torch.device

    def work(self, left_out: Callable[[int, DataError], None] | None) -> Work[Example]:
        """The task as functions for the engine; `left_out` as in `Work`."""
        return Work(
            ids=tuple(record.id for record in self.records),
            load=self.load,
            totals=lambda examples: torch.tensor([float(len(examples))], dtype=torch.float64),
            share=self.share,
            tally=lambda totals: (float(totals[0]), {"images": int(totals[0])}),
            ready=self.ready,
            step_seed=self.step_seed,
            figures=self.terms.figures,
            left_out=left_out,
        )

    def load(self, epoch: int, index: int) -> Example:
        """Read and augment an image.

        Raises:
            DataError: it cannot be read.
        """
        record, how = self.records[index], self.recipe.augmentation
        draws = Draws.of(generator(self.recipe.seed, record.id, epoch))
        image = images.read_image(record.image)
        ground = ground_colour(self.mean)
        pixels = augmented(image, draws, resize=how.resize, crop=how.crop, flip=how.flip, ground=ground)
        return Example(record, pixels, epoch)

    def share(self, examples: Sequence[Example], totals: Tensor) -> Share:
        """What some images add to the mean over all images of the batch."""
        recipe, epoch = self.recipe, examples[0].epoch
        batch = normalised([example.image for example in examples], self.mean, self.std, self.device)
        records = [example.record for example in examples]
        ids = [record.id for record in records]
        if recipe.noise is not None:
            batch = perturbed(batch, [(recipe.seed, "noise", id, epoch) for id in ids], recipe.noise)
        layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        targets = targets_of(records, self.network.classes).to(self.device)
        value = self.terms.value(
            self.network,
            batch.contiguous(memory_format=layout),
            targets,
            draws_of(recipe.seed, ids, epoch),
        )
        part = len(examples) / float(totals[0])
        return Share(value.loss * part, shares(value.figures, part))

    def ready(self) -> None:
        """Training mode, batch norm of the backbone held where the recipe says so."""
        self.network.train()
        for module in self.terms.modules.values():
            module.train()
        if self.recipe.optimizer.frozen_norm:
            self.network.hold_norm()

    def step_seed(self, number: int, rank: int) -> int:
        """Seed of a step for backbones that drop out; each rank draws its own."""
        key: tuple[int | str, ...] = (self.recipe.seed, "step", number)
        return seed_of(*key, rank) if rank else seed_of(*key)


def targets_of(records: Sequence[ImageRecord], classes: int) -> Tensor:
    """(B, C) float32, 1 where the image has the class."""
    targets = torch.zeros(len(records), classes)
    for row, record in enumerate(records):
        for label in record.labels or ():
            targets[row, label - 1] = 1
    return targets
