"""Two thresholds worked out by hand, and as IRN writes it down."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pseudolabel import registry
from pseudolabel.contracts.inputs import scene
from pseudolabel.records import Scores


def run(scores: list[list[float]], **params: float) -> list[int]:
    values = torch.tensor(scores, dtype=torch.float32)[:, None]
    component = registry.get("backgrounds", "double_threshold")
    image = torch.zeros(1, values.shape[2], 3, dtype=torch.uint8)
    given = Scores(tuple(range(1, len(scores) + 1)), values)
    return component.run(given, image, component.params.model_validate(params)).mask()[0].tolist()


def test_by_hand() -> None:
    assert run([[0.0, 0.05, 0.06, 0.3, 0.31, 1.0]]) == [0, 0, 255, 255, 1, 1]
    assert run([[0.4, 0.2], [0.5, 0.2]]) == [2, 255]
    assert run([[0.2, 0.25, 0.3]], high=0.25, low=0.25) == [0, 0, 1], "nothing is between equal thresholds"
    assert run([[0.0, 0.5]], high=1.0, low=0.0) == [0, 255]


def test_is_irn_rule_of_two_argmaxes() -> None:
    scores, image = scene()
    component = registry.get("backgrounds", "double_threshold")
    values = scores.values.numpy()

    def argmax(constant: float) -> np.ndarray:
        keys = np.array((0, *scores.ids))
        return keys[np.concatenate([np.full((1, *values.shape[1:]), np.float32(constant)), values]).argmax(0)]

    foreground, background = argmax(0.3), argmax(0.05)
    expected = foreground.copy()
    expected[foreground == 0] = 255
    expected[foreground + background == 0] = 0
    assert {0, 255} < set(np.unique(expected))
    np.testing.assert_array_equal(component.run(scores, image, component.params()).mask().numpy(), expected)


def test_thresholds_the_wrong_way_round_are_refused() -> None:
    component = registry.get("backgrounds", "double_threshold")
    with pytest.raises(ValueError, match=r"low 0\.5 is above high 0\.3; swap them"):
        component.params(low=0.5)
