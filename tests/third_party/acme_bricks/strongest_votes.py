"""Strongest votes: what the few features that speak loudest for a class say of each place.

    map_c(p) = ReLU( mean of the `top` largest of W_ck A_k(p) over k ),   h' x w'

Source: ours, an example made of Zhou et al. 2016 (arXiv 1512.04150).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pseudolabel.maps._bound import Key
from pseudolabel.maps._explained import Explained
from pseudolabel.records import Evidence, Targets
from pseudolabel.registry import RAW, Parameters, brick, parameter


class StrongestVotes(Parameters):
    """How many."""

    top: int = parameter(3, ge=1, unit="features", help="features that are listened to at each place")


def positive(values: Tensor, params: StrongestVotes) -> Tensor:
    """Votes (T, 1, h', w') -> (T, h', w') >= 0."""
    return values[:, 0].relu()


@brick(
    StrongestVotes,
    room="methods",
    gives=RAW,
    place="paste",
    finish=positive,
    twins="acme_bricks.twins",
)
def strongest_votes(
    model: Explained, images: Tensor, targets: Targets, keys: Sequence[Key], params: StrongestVotes
) -> Evidence:
    """Mean of the strongest votes (T, 1, h', w') of each target."""

    def part(pictures: Tensor, wanted: Targets) -> Evidence:
        at, columns = model.index(wanted)
        with torch.no_grad():
            features = model.features(model.place(pictures))
            raw = model.raw(features)
            votes = model.rows(raw[at], columns)[:, :, None, None] * features[at]
            strongest = votes.topk(min(params.top, votes.shape[1]), dim=1).values
            logits, totals = model.grouped(raw)
        return Evidence(strongest.mean(dim=1, keepdim=True), logits[at, columns], totals[at])

    return model.in_parts(images, targets, part)
