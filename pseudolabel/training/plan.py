"""What decides the steps of a training: the same plan gives the same steps on every rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pseudolabel.training.order import LastBatch, batches, epoch_order
from pseudolabel.training.schedule import poly


@dataclass(frozen=True)
class Plan:
    """Order, number and rate of the steps.

    Attributes:
        seed: root of the order.
        epochs: passes over the items.
        batch: items of one step, over all ranks.
        accumulate: forwards that each rank splits its share of a batch into.
        power: exponent of the polynomial decay.
        clip: largest gradient norm, or None.
        skip: a step whose loss or gradient is not finite is left out; otherwise it ends the training.
        last_batch: what becomes of an incomplete last batch, see `batches`.
    """

    seed: int
    epochs: int
    batch: int
    accumulate: int = 1
    power: float = 0.9
    clip: float | None = None
    skip: bool = False
    last_batch: LastBatch = "keep"

    def epoch_batches(self, epoch: int, count: int) -> list[list[int]]:
        """Indices of every batch of an epoch over `count` items."""
        return batches(epoch_order(self.seed, epoch, count), self.batch, self.last_batch)

    def steps(self, count: int) -> int:
        """Steps of an epoch, the same for every epoch."""
        return len(batches(list(range(count)), self.batch, self.last_batch))

    def factor(self, number: int, total: int) -> float:
        """Factor on the learning rate at step `number` of `total`, counted over all epochs."""
        return poly(number, total, self.power)

    def items(self, epoch: int, step: int, count: int, rank: int, world: int) -> Iterator[tuple[int, int]]:
        """(epoch, index) of every item that one rank still has to load, in the order it needs them.

        Args:
            epoch, step: finished epochs, and finished steps of the epoch that runs.
            count: items of an epoch.
            rank, world: this rank and the number of ranks.
        """
        for running in range(epoch, self.epochs):
            done = step if running == epoch else 0
            for row in self.epoch_batches(running, count)[done:]:
                for index in row[rank::world]:
                    yield running, index
