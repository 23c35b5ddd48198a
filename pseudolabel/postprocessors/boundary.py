"""255 along the edges between labels, where pseudo-masks are least to be believed.

    keep(p) = every kept pixel of the square |q - p|_max <= width has the label of p

A pixel that is not kept has no label: next to it there is no edge. Width 1 gives up the two pixels on
either side of an edge; VOC's own void seam is about 5 pixels wide in all.

Source: own choice, after the void seam of VOC's ground truth (Everingham et al. 2010).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from pseudolabel.records import LabelScores
from pseudolabel.registry import SAME, Parameters, component, parameter


class Boundary(Parameters):
    """How wide the seam is."""

    width: int = parameter(
        2, ge=0, unit="pixels of the original image", help="given up on either side of an edge"
    )


@component(Boundary, takes=SAME, gives=SAME, flips=True, strength={"width": 0})
def boundary(label_scores: LabelScores, image: Tensor, params: Boundary) -> LabelScores:
    """The same label scores, fewer pixels kept.

    Args:
        label_scores: values (K+1, H, W) float32.
        image: (H, W, 3) uint8 RGB; not looked at.
        params: see `Boundary`.

    Returns:
        LabelScores of the same values; `keep` false near an edge, and where it was.
    """
    labels = label_scores.rows().float()
    highest = _largest(labels.masked_fill(~label_scores.keep, -torch.inf), params.width)
    lowest = -_largest((-labels).masked_fill(~label_scores.keep, -torch.inf), params.width)
    return LabelScores(label_scores.ids, label_scores.values.clone(), label_scores.keep & (highest == lowest))


def _largest(values: Tensor, width: int) -> Tensor:
    """(H, W): the largest value of the square around every pixel, cut at the image's border."""
    # a window reaching past the image on both sides sees no more than one that just covers it
    across, down = min(width, values.shape[1] - 1), min(width, values.shape[0] - 1)
    rows = functional.max_pool2d(values[None], (1, 2 * across + 1), 1, (0, across))
    return functional.max_pool2d(rows, (2 * down + 1, 1), 1, (down, 0))[0]
