"""The suite over every postprocessor; the CRF against its library by hand and against the formula."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from pseudolabel import registry
from pseudolabel.contracts.inputs import scene
from pseudolabel.contracts.postprocessors import *  # noqa: F403
from pseudolabel.contracts.postprocessors import label_scores_of
from pseudolabel.errors import MachineError
from tests.oracles import postprocessors as oracles

PRESETS = ["irn", "psa", "deeplab"]


@pytest.fixture
def densecrf():
    return pytest.importorskip("pydensecrf.densecrf", reason="pydensecrf2 is an extra: pip install .[crf]")


def test_a_missing_package_is_named_with_the_remedy(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    component = registry.get("postprocessors", "crf")
    scores, image = scene()
    with pytest.raises(
        MachineError, match=r"needs pydensecrf2.*pip install pseudolabel\[crf\].*crf_exact.*leave crf out"
    ):
        component.run(label_scores_of(scores), image, component.params())


def test_settings_are_the_preset_but_for_what_is_said() -> None:
    params = registry.get("postprocessors", "crf").params(preset="psa", unary="labels", colour_rgb=5.0)
    settings = vars(params.settings())
    assert settings == {
        "unary": "labels", "position_xy": 3, "position_weight": 3, "colour_xy": 80, "colour_rgb": 5.0,
        "colour_weight": 10, "iterations": 10, "confidence": 0.7,
    }  # fmt: skip


def by_hand(densecrf, values, image, preset):
    """The calls of the authors' own code."""
    from pydensecrf.utils import unary_from_labels, unary_from_softmax

    rows, height, width = values.shape
    field = densecrf.DenseCRF2D(width, height, rows)
    if preset == "irn":
        field.setUnaryEnergy(unary_from_labels(values.argmax(0), rows, gt_prob=0.7, zero_unsure=False))
        field.addPairwiseGaussian(sxy=3, compat=3)
        field.addPairwiseBilateral(sxy=50, srgb=5, rgbim=image.copy(), compat=10)
    elif preset == "psa":
        field.setUnaryEnergy(np.ascontiguousarray(unary_from_softmax(values)))
        field.addPairwiseGaussian(sxy=3, compat=3)
        field.addPairwiseBilateral(sxy=80, srgb=13, rgbim=image.copy(), compat=10)
    else:
        field.setUnaryEnergy(np.ascontiguousarray(unary_from_softmax(values)))
        field.addPairwiseGaussian(sxy=1, compat=3)
        field.addPairwiseBilateral(sxy=67, srgb=3, rgbim=image.copy(), compat=4)
    return np.array(field.inference(10)).reshape(values.shape)


@pytest.mark.parametrize("preset", PRESETS)
def test_crf_is_the_library_bit_for_bit(densecrf, preset) -> None:
    component = registry.get("postprocessors", "crf")
    scores, image = scene()
    label_scores = label_scores_of(scores)
    label_scores.keep[:] = True
    out = component.run(label_scores, image, component.params(preset=preset)).values.numpy()
    np.testing.assert_array_equal(out, by_hand(densecrf, label_scores.values.numpy(), image.numpy(), preset))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.usefixtures("densecrf")
def test_crf_is_near_the_formula(preset) -> None:
    component = registry.get("postprocessors", "crf")
    scores, image = scene(3, 20, 28)
    label_scores = label_scores_of(scores)
    out = component.run(label_scores, image, component.params(preset=preset))
    exact, _ = oracles.crf(
        label_scores.values.double().numpy(), label_scores.keep.numpy(), image.numpy(), preset
    )
    before, rows = label_scores.rows().numpy(), exact.argmax(0)
    agree = (out.rows().numpy() == rows).mean()
    assert agree >= 0.96, "the lattice errs by some per cent of the labels"
    assert np.abs(out.values.numpy() - exact).mean() <= 0.02
    assert (before == rows).mean() < agree, "the CRF must have changed more than the lattice errs"
    torch.testing.assert_close(out.values.sum(0), torch.ones(20, 28))
