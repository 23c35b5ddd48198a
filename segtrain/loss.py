"""The loss of a training: what a loss component gets, and how the forwards of a batch give one value.

One batch is one step of the optimizer. `schedule.accumulate` and ranks split it into several forwards, whose
values are summed. A loss component declares with the trait `additive` what this sum is:

    additive=True   a mean over groups of pixels: value = mean_g (sum over the group / n_g), where n_g counts
                    the group's pixels in the whole batch. The sum is the loss of the whole batch, however
                    the batch is split.
    additive=False  every forward gives the loss of its own pixels, weighted by its share of the batch's
                    labelled pixels. The sum is the mean over forwards; with one forward a batch it is the
                    loss of the whole batch.

Counts come from the labels alone, so they are known before the first forward. Pixels of 255 never count. A
batch without a labelled pixel gives 0 and keeps the graph: its gradients are zero, never NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pseudolabel.records import IGNORE
from pseudolabel.registry import Component, Parameters


@dataclass(frozen=True)
class LossState:
    """What a loss knows beside the pixels of its forward.

    Attributes:
        counts: (G,) float64, pixels of each group in the whole batch, over all forwards and ranks.
    """

    counts: Tensor


@dataclass(frozen=True)
class Loss:
    """A loss component with its parameters."""

    component: Component
    params: Parameters

    @property
    def additive(self) -> bool:
        """Whether the values of a batch's forwards add up to the loss of the batch."""
        return bool(self.component.traits["additive"])

    def counts(self, labels: Tensor) -> Tensor:
        """Pixels of each group: (G,) float64 from (B, h, w) integer labels."""
        groups = self.component.traits.get("groups", labelled)(labels)
        count: Tensor = groups.flatten(1).sum(dim=1).double()
        return count

    def value(self, logits: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
        """What one forward adds to the loss of the batch.

        Args:
            logits: (B, C+1, h, w) of any floating type.
            labels: (B, h, w) int64, 0..C or 255.
            counts: (G,) pixels of each group in the whole batch, the sum of `counts` over its forwards.

        Returns:
            Scalar float32.
        """
        value: Tensor = self.component.run(logits.float(), labels, LossState(counts), self.params)
        if self.additive:
            return value
        share = labelled(labels).sum() / counts.sum().clamp_min(1)
        return value * share.to(value)


def labelled(labels: Tensor) -> Tensor:
    """One group: (1, ...) bool, every labelled pixel."""
    return (labels != IGNORE)[None]


def mean_over_groups(pixels: Tensor, groups: Tensor, state: LossState) -> Tensor:
    """The value of an additive loss.

    Args:
        pixels: (B, h, w) loss of each pixel, finite also where no group has it.
        groups: (G, B, h, w) bool, what the component's trait `groups` gives of the labels.
        state: with the counts of these groups in the whole batch.

    Returns:
        Scalar: the mean over groups of (sum over the group's pixels here / its pixels in the whole batch).
    """
    weights = (1 / state.counts.clamp_min(1) / len(state.counts)).to(pixels)
    # a product with 0, not a choice of pixels: a group without a pixel keeps the graph
    return sum((weights[g] * (pixels * groups[g]).sum() for g in range(len(groups))), pixels.sum() * 0)
