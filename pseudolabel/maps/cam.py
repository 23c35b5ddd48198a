"""Class activation map: where the features vote for the class.

    CAM_c(p) = ReLU( sum_k W_ck A_k(p) ),   h' x w'

One forward serves any number of classes; no gradient. On the image: bilinear, align_corners=False.

Source: Zhou et al. 2016, "Learning deep features for discriminative localization" (arXiv 1512.04150);
single scale and no flip as in the authors' study (sammarfy/WS3_lib).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pseudolabel.maps._bound import Key
from pseudolabel.maps._explained import Explained
from pseudolabel.records import Evidence, Targets
from pseudolabel.registry import RAW, Parameters, brick


class Cam(Parameters):
    """Nothing to set: single scale, no flip."""


def finish(values: Tensor, params: Cam) -> Tensor:
    """Signed votes (T, 1, h', w') -> (T, h', w') >= 0."""
    return values[:, 0].relu()


@brick(Cam, gives=RAW, place="paste", finish=finish)
def cam(model: Explained, images: Tensor, targets: Targets, keys: Sequence[Key], params: Cam) -> Evidence:
    """Signed class activation of each target at feature size.

    Args:
        model: the frozen classifier.
        images: (B, 3, h, w) float32, normalised.
        targets: T >= 1 pairs of image and class id 1..C.
        keys: not looked at; nothing is drawn.
        params: see `Cam`.

    Returns:
        values (T, 1, h', w') float32 before the ReLU, logits (T,).
    """

    def part(pictures: Tensor, wanted: Targets) -> Evidence:
        with torch.no_grad():
            features = model.features(model.place(pictures))
            logits = model.logits_of(features)
            rows = torch.tensor(wanted.images, device=model.device)
            columns = torch.tensor(wanted.classes, device=model.device) - 1
            present, which = torch.unique(columns, return_inverse=True)
            # (P, D) x (B, D, h', w'): every class of the batch on every image, far below the trunk's cost
            votes = torch.einsum("pd,bdhw->bphw", model.head[present], features)
            values = votes[rows, which][:, None]
            return Evidence(values, logits[rows, columns], logits.logsumexp(dim=1)[rows])

    return model.in_parts(images, targets, part)
