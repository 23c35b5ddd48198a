"""Fusion of several maps against an oracle, a pixel at a time, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pseudolabel.contracts.inputs import scene
from pseudolabel.pipeline.fusion import By, fused
from pseudolabel.records import Scores
from tests.oracles import fusion as oracles


@pytest.mark.parametrize("weights", [None, (1.0, 2.0, 0.5), (0.0, 1.0, 3.0)])
@pytest.mark.parametrize("by", ["mean", "max", "geometric"])
def test_equals_its_oracle(by: By, weights: tuple[float, ...] | None) -> None:
    first, _ = scene()
    maps = [first, first.replace(first.values.flip(1)), first.replace(first.values.flip(2).square())]
    if by == "max":
        weights = None
    before = [scores.values.clone() for scores in maps]
    actual = fused(maps, by, weights)
    expected = oracles.fused([scores.values.double().numpy() for scores in maps], by, weights)
    np.testing.assert_allclose(actual.values.numpy(), expected, rtol=1e-5, atol=1e-7)
    assert actual.ids == first.ids
    assert actual.values.dtype == torch.float32
    assert float(actual.values.min()) >= 0
    assert float(actual.values.max()) <= 1 + 1e-6
    assert all(torch.equal(scores.values, old) for scores, old in zip(maps, before, strict=True))


def test_by_hand() -> None:
    first, other = (Scores((3,), torch.tensor([[values]])) for values in ([0.9, 0.4, 0.0], [0.1, 0.9, 0.5]))
    assert fused([first, other], "mean").values.flatten().tolist() == pytest.approx([0.5, 0.65, 0.25])
    assert fused([first, other], "mean", (3, 1)).values.flatten().tolist() == pytest.approx(
        [0.7, 0.525, 0.125]
    )
    assert fused([first, other], "max").values.flatten().tolist() == pytest.approx([0.9, 0.9, 0.5])
    assert fused([first, other], "geometric").values.flatten().tolist() == pytest.approx([0.3, 0.6, 0.0])
    assert fused([first], "geometric") is first


def test_maps_of_different_images_are_refused() -> None:
    first = Scores((3,), torch.zeros(1, 2, 2))
    with pytest.raises(ValueError, match=r"maps of classes \(3,\) .* and of \(4,\)"):
        fused([first, Scores((4,), torch.zeros(1, 2, 2))], "mean")
    with pytest.raises(ValueError, match="they must be of one image"):
        fused([first, Scores((3,), torch.zeros(1, 2, 3))], "mean")
    with pytest.raises(ValueError, match="1 weights for 2 maps"):
        fused([first, first], "mean", (1.0,))
