"""Scores weighed by another classifier's probability of their class.

    out_c = sigmoid(y_c) S_c,   y the logits of the other classifier on the whole image

Source: made for a test.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pseudolabel.classifier.checkpoint import LoadedClassifier
from pseudolabel.records import Scores
from pseudolabel.registry import SAME, Need, Parameters, component, parameter


class Confidence(Parameters):
    """Which classifier."""

    run: str = parameter(help="a run of `pl train`")


@component(
    Confidence,
    kind="refiners",
    takes=SAME,
    gives=SAME,
    needs={"classifier": Need("network", "run")},
    flips=True,
    by_class=True,
    oracles="tests.third_party.needy_components.oracles",
)
def confidence(scores: Scores, image: Tensor, params: Confidence, classifier: LoadedClassifier) -> Scores:
    """Scores of one image, weighed by the probability of their class."""
    mean, std = torch.tensor(classifier.mean), torch.tensor(classifier.std)
    inputs = ((image.float() / 255 - mean) / std).permute(2, 0, 1)[None]
    probabilities = classifier.network(inputs).sigmoid()[0, [label - 1 for label in scores.ids]]
    return scores.replace(scores.values * probabilities[:, None, None])
