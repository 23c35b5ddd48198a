"""Strongest votes: what the few features that speak loudest for a class say of each place.

    map_c(p) = ReLU( mean of the `top` largest of W_ck A_k(p) over k ),   h' x w'

Source: ours, an example made of Zhou et al. 2016 (arXiv 1512.04150).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pseudolabel.explain.method import Key
from pseudolabel.explain.model import Explained
from pseudolabel.records import Attribution, Targets
from pseudolabel.registry import RAW, Parameters, component, parameter


class StrongestVotes(Parameters):
    """How many."""

    top: int = parameter(3, ge=1, unit="features", help="features that are listened to at each place")


def positive(values: Tensor, params: StrongestVotes) -> Tensor:
    """Votes (T, 1, h', w') -> (T, h', w') >= 0."""
    return values[:, 0].relu()


@component(
    StrongestVotes,
    kind="methods",
    gives=RAW,
    project="paste",
    reduce=positive,
    oracles="acme_components.oracles",
)
def strongest_votes(
    model: Explained, images: Tensor, targets: Targets, keys: Sequence[Key], params: StrongestVotes
) -> Attribution:
    """Mean of the strongest votes (T, 1, h', w') of each target."""

    def part(input_images: Tensor, wanted: Targets) -> Attribution:
        at, columns = model.index(wanted)
        with torch.no_grad():
            features = model.features(model.on_device(input_images))
            raw = model.raw(features)
            votes = model.rows(raw[at], columns)[:, :, None, None] * features[at]
            strongest = votes.topk(min(params.top, votes.shape[1]), dim=1).values
            logits, totals = model.grouped(raw)
        return Attribution(strongest.mean(dim=1, keepdim=True), logits[at, columns], totals[at])

    return model.in_parts(images, targets, part)
