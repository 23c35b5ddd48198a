"""The suite over every background, and the cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from pseudolabel import registry
from pseudolabel.backgrounds import superpixel as superpixel_module
from pseudolabel.contracts.backgrounds import *  # noqa: F403
from pseudolabel.contracts.inputs import odd_inputs
from pseudolabel.records import Scores


def run(name: str, rows: list[list[float]], **params: object) -> list[int]:
    """A background rule over pixels in a row, a list a class (ids 1, 2, ...)."""
    values = torch.tensor(rows, dtype=torch.float32)[:, None, :]
    component = registry.get("backgrounds", name)
    image = torch.zeros(1, values.shape[2], 3, dtype=torch.uint8)
    scores = Scores(tuple(range(1, len(rows) + 1)), values)
    return component.run(scores, image, component.params.model_validate(params)).mask()[0].tolist()


def test_every_component_of_the_kind_is_here() -> None:
    assert {"constant", "power", "superpixel"} <= set(registry.names("backgrounds"))


def test_constant_by_hand_and_background_wins_the_tie() -> None:
    assert run("constant", [[0.1, 0.25, 0.3, 0.0]], threshold=0.25) == [0, 0, 1, 0]
    assert run("constant", [[0.5, 0.5, 0.1], [0.4, 0.5, 0.6]], threshold=0.2) == [1, 1, 2]
    assert run("constant", [[0.0, 1.0]], threshold=0.0) == [0, 1]
    assert run("constant", [[0.5, 1.0]], threshold=1.0) == [0, 0]


def test_power_by_hand() -> None:
    # (1 - 0.5) ** 1 = 0.5: a tie; ** 2 = 0.25
    assert run("power", [[0.5, 0.6, 0.4]], alpha=1.0) == [0, 1, 0]
    assert run("power", [[0.5, 0.6, 0.3]], alpha=2.0) == [1, 1, 0]


def test_power_of_a_score_that_rounding_put_above_one_is_a_number() -> None:
    above = float(np.nextafter(np.float32(1), np.float32(2)))
    assert run("power", [[above, 0.0]], alpha=0.5) == [1, 0]


@pytest.fixture
def two_superpixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The superpixels of the page: pixels 0 and 1, pixels 2 and 3."""
    regions = np.array([[0, 0, 1, 1]], np.int32)
    monkeypatch.setattr(superpixel_module, "segments", lambda *_: regions)


@pytest.mark.usefixtures("two_superpixels")
def test_superpixel_by_hand() -> None:
    page = [0.4, 0.0, 0.1, 0.05]
    assert run("superpixel", [page], threshold=0.1) == [1, 0, 0, 0]
    assert run("superpixel", [page], threshold=0.07) == [1, 0, 1, 1]
    # relative: the mean of the means is 0.1375; 0.5 of it is 0.06875, 0.6 of it 0.0825
    assert run("superpixel", [page], threshold=0.5, mode="relative") == [1, 0, 1, 1]
    assert run("superpixel", [page], threshold=0.6, mode="relative") == [1, 0, 0, 0]
    # each class has its own superpixels; pixels decide between those kept
    assert run("superpixel", [page, [0.3, 0.3, 0.3, 0.01]], threshold=0.1) == [1, 2, 2, 2]


@pytest.mark.usefixtures("two_superpixels")
def test_superpixel_means_that_equal_the_threshold_are_background() -> None:
    assert run("superpixel", [[0.5, 0.0, 0.25, 0.25]], threshold=0.25) == [0, 0, 0, 0]
    assert run("superpixel", [[0.5, 0.0, 0.25, 0.25]], threshold=0.2499) == [1, 0, 1, 1]


def test_superpixel_refuses_a_threshold_that_nothing_reaches() -> None:
    params = registry.get("backgrounds", "superpixel").params
    with pytest.raises(ValidationError, match=r"threshold 10\.0 is above every mean; take at most 1"):
        params(threshold=10.0)
    assert params(threshold=1.5, mode="relative").as_dict()["threshold"] == 1.5


@pytest.mark.parametrize("case", odd_inputs())
def test_masks_of_odd_inputs_are_not_random(case: str) -> None:
    scores, image = odd_inputs()[case]
    for name in registry.names("backgrounds"):
        component = registry.get("backgrounds", name)
        first, second = (component.run(scores, image, component.params()).mask() for _ in range(2))
        assert torch.equal(first, second)
