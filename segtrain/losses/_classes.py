"""Probabilities and labels of the classes that are present, over all pixels of a forward."""

from __future__ import annotations

import torch
from torch import Tensor

from pseudolabel.records import IGNORE


def of_present_classes(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities and truth of the K classes that the labels hold, both 0 at pixels of 255.

    Args:
        logits: (B, C+1, h, w) float.
        labels: (B, h, w) int64, 0..C or 255.

    Returns:
        Probabilities and truth, each (K, B h w) of the logits' type; K is 0 without a labelled pixel.
    """
    flat = labels.flatten()
    probabilities = logits.softmax(dim=1).transpose(0, 1).flatten(1) * (flat != IGNORE)
    truth = flat == torch.arange(len(probabilities), device=labels.device)[:, None]
    present = truth.any(dim=1)  # choosing rows makes a GPU wait once, and spares the sort of absent classes
    return probabilities[present], truth[present].to(probabilities)


def mean_over_classes(losses: Tensor) -> Tensor:
    """The mean of (K,) losses; 0 with a graph where K is 0."""
    return losses.sum() / max(1, len(losses))
