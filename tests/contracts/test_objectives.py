"""The suite over every objective, and the cases worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from pseudolabel import registry
from pseudolabel.contracts.objectives import *  # noqa: F403

LOGITS = torch.tensor([[0.0, 2.0], [-1.0, 0.0]])


class Fixed(torch.nn.Module):
    """Logits that depend on no image."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return LOGITS


def loss(name: str, targets: list[list[float]], **params: Any) -> float:
    component = registry.get("objectives", name)
    value = component.run(
        Fixed(), torch.zeros(2, 3, 4, 4), torch.tensor(targets), None, component.params.model_validate(params)
    )
    return float(value.loss)


def softplus(value: float) -> float:
    return math.log(1 + math.exp(value))


def test_every_component_of_the_kind_is_here() -> None:
    assert {"soft_margin", "bce", "focal"} <= set(registry.names("objectives"))


def test_soft_margin_by_hand() -> None:
    expected = (math.log(2) + softplus(-2) + softplus(-1) + math.log(2)) / 4
    assert loss("soft_margin", [[1, 1], [0, 1]]) == pytest.approx(expected)


def test_bce_by_hand() -> None:
    targets: list[list[float]] = [[1, 1], [0, 1]]
    assert loss("bce", targets) == pytest.approx(loss("soft_margin", targets))
    assert loss("bce", targets, over="sum") == pytest.approx(2 * loss("soft_margin", targets))
    expected = (3 * math.log(2) + 3 * softplus(-2) + softplus(-1) + 3 * math.log(2)) / 4
    assert loss("bce", targets, positive_weight=3.0) == pytest.approx(expected)
    # a quarter of each target moved to one half: 7/8 and 1/8
    both = [(0, 7 / 8), (2, 7 / 8), (-1, 1 / 8), (0, 7 / 8)]
    smooth = sum(t * softplus(-z) + (1 - t) * softplus(z) for z, t in both) / 4
    assert loss("bce", targets, label_smoothing=0.25) == pytest.approx(smooth)


def test_focal_by_hand() -> None:
    targets: list[list[float]] = [[1, 0], [0, 1]]
    assert loss("focal", targets, gamma=0.0, alpha=None) == pytest.approx(loss("soft_margin", targets))
    wrong = 1 / (1 + math.exp(-2))  # the answer for class 2 of the first image is wrong by this much
    small = 1 / (1 + math.exp(1))
    terms = [
        0.25 * 0.25 * math.log(2),
        0.75 * wrong**2 * softplus(2),
        0.75 * small**2 * softplus(-1),
        0.25 * 0.25 * math.log(2),
    ]
    assert loss("focal", targets) == pytest.approx(sum(terms) / 4)
    assert loss("focal", targets, alpha=None, gamma=0.5) > loss("focal", targets, alpha=None, gamma=2.0)
