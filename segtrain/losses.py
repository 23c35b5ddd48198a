"""Losses that survive a batch without a labelled pixel.

A loss gives, for each of its G groups of pixels, a sum over the labelled pixels of the group. The value is
the mean over groups of (sum / pixels of the group in the whole effective batch). Counts come from the
labels alone, so parts of a batch and ranks can be added up: the value does not depend on how the batch is
split. A group without a pixel gives 0 and keeps the graph: gradients are zero, never NaN.

    cross_entropy           G = 1: every labelled pixel
    balanced_cross_entropy  G = 2: background, classes
    per pixel               -sum_c q_c log softmax(z)_c,  q = (1 - e) onehot(y) + e / classes

Source: cross entropy ignoring 255 as in kazuto1011/deeplab-pytorch; balanced as in AdvCAM and RIB.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pseudolabel.records import BACKGROUND, IGNORE


def everything(labels: Tensor) -> Tensor:
    """One group: (1, ...) bool, every labelled pixel."""
    return (labels != IGNORE)[None]


def ground_and_classes(labels: Tensor) -> Tensor:
    """Two groups: (2, ...) bool, background and labelled classes."""
    return torch.stack([labels == BACKGROUND, (labels != BACKGROUND) & (labels != IGNORE)])


GROUPS: dict[str, Callable[[Tensor], Tensor]] = {
    "cross_entropy": everything,
    "balanced_cross_entropy": ground_and_classes,
}


@dataclass(frozen=True)
class PixelLoss:
    """A loss over labelled pixels.

    Attributes:
        name: which groups of pixels are averaged, see `GROUPS`.
        label_smoothing: share 0..1 of the target that is spread over all classes.
    """

    name: str = "cross_entropy"
    label_smoothing: float = 0.0

    def counts(self, labels: Tensor) -> Tensor:
        """Pixels of each group: (G,) float64 from (B, h, w) integer labels."""
        groups = GROUPS[self.name](labels)
        return groups.flatten(1).sum(dim=1).double()

    def value(self, logits: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
        """This part's share of the loss.

        Args:
            logits: (B, C+1, h, w) float.
            labels: (B, h, w) int64, 0..C or 255.
            counts: (G,) pixels of each group in the whole effective batch.

        Returns:
            Scalar float32; the shares of all parts add up to the loss of the batch.
        """
        pixels = functional.cross_entropy(
            logits.float(),
            labels,
            ignore_index=IGNORE,
            reduction="none",
            label_smoothing=self.label_smoothing,
        )
        weights = (1 / counts.clamp_min(1) / len(counts)).to(pixels)
        groups = GROUPS[self.name](labels)
        # an ignored pixel is 0 by reduction="none", so that a product with 0 keeps the graph
        return sum((weights[g] * (pixels * groups[g]).sum() for g in range(len(groups))), pixels.sum() * 0)
