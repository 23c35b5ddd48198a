"""Average precision without interpolation.

    AP = sum_n (R_n - R_{n-1}) P_n

over the distinct scores from the highest down; equal scores enter together, so that their order in the
list cannot matter. A class without a positive has none.

torchmetrics (1.9.0) has the same definition, ties included, and agrees to 6e-8 on scores in 0..1. It is not
used because it puts scores outside 0..1 through a float32 sigmoid first, so that logits above about 17 all
become 1 and tie: of the logits 17, 18, 19, 25 with only the last one positive it gives AP 0.25 instead of 1.
It also sums in float32, and its import takes 1.7 s and needs torchvision.

Source: the definition of scikit-learn's `average_precision_score`; not VOC's 11-point form.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def average_precision(scores: NDArray[np.floating], present: NDArray[np.bool_]) -> float | None:
    """AP of one class.

    Args:
        scores: (N,) finite, higher is surer.
        present: (N,) whether the class is there.

    Returns:
        In 0..1, or None where no image has the class.
    """
    positives = int(present.sum())
    if not positives:
        return None
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.append(ordered[1:] != ordered[:-1], True)  # the last of each run of equal scores
    hits = np.cumsum(present[order], dtype=np.int64)[last]
    taken = np.flatnonzero(last) + 1
    recall_steps = np.diff(hits, prepend=0) / positives
    return float(np.sum(recall_steps * (hits / taken)))
