"""Cross entropy of each pixel.

CE = -sum_c q_c log softmax(z)_c,   q = (1 - e) onehot(y) + e / classes,   e = label_smoothing
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from pseudolabel.records import IGNORE
from pseudolabel.registry import Parameters, parameter


class Smoothed(Parameters):
    """How sure the target is."""

    label_smoothing: float = parameter(
        0.0, ge=0, lt=1, unit="share 0..1", help="share of the target that is spread over all classes"
    )


def cross_entropy_of_pixels(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """(B, h, w) from logits (B, C+1, h, w); 0 at pixels of 255. Without smoothing it is -log p_t."""
    return functional.cross_entropy(
        logits, labels, ignore_index=IGNORE, reduction="none", label_smoothing=label_smoothing
    )
