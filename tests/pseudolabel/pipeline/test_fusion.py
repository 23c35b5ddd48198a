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
    before = [one.values.clone() for one in maps]
    found = fused(maps, by, weights)
    expected = oracles.fused([one.values.double().numpy() for one in maps], by, weights)
    np.testing.assert_allclose(found.values.numpy(), expected, rtol=1e-5, atol=1e-7)
    assert found.ids == first.ids
    assert found.values.dtype == torch.float32
    assert float(found.values.min()) >= 0
    assert float(found.values.max()) <= 1 + 1e-6
    assert all(torch.equal(one.values, old) for one, old in zip(maps, before, strict=True))


def test_by_hand() -> None:
    one, other = (Scores((3,), torch.tensor([[values]])) for values in ([0.9, 0.4, 0.0], [0.1, 0.9, 0.5]))
    assert fused([one, other], "mean").values.flatten().tolist() == pytest.approx([0.5, 0.65, 0.25])
    assert fused([one, other], "mean", (3, 1)).values.flatten().tolist() == pytest.approx([0.7, 0.525, 0.125])
    assert fused([one, other], "max").values.flatten().tolist() == pytest.approx([0.9, 0.9, 0.5])
    assert fused([one, other], "geometric").values.flatten().tolist() == pytest.approx([0.3, 0.6, 0.0])
    assert fused([one], "geometric") is one


def test_maps_of_different_images_are_refused() -> None:
    one = Scores((3,), torch.zeros(1, 2, 2))
    with pytest.raises(ValueError, match=r"maps of classes \(3,\) .* and of \(4,\)"):
        fused([one, Scores((4,), torch.zeros(1, 2, 2))], "mean")
    with pytest.raises(ValueError, match="they must be of one image"):
        fused([one, Scores((3,), torch.zeros(1, 2, 3))], "mean")
    with pytest.raises(ValueError, match="1 weights for 2 maps"):
        fused([one, one], "mean", (1.0,))
