"""The exact CRF against its dense float64 matrix on images, against the lattice, and at its limits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from pseudolabel import registry
from pseudolabel.contracts.inputs import scene
from pseudolabel.contracts.postprocessors import label_scores_of
from pseudolabel.errors import MachineError
from pseudolabel.records import LabelScores
from tests.oracles import postprocessors as oracles

PRESETS = ["irn", "psa", "deeplab"]


def image_of(height: int, width: int) -> torch.Tensor:
    """(H, W, 3) uint8 of scikit-image's cat, small."""
    data = pytest.importorskip("skimage.data")
    photo = torch.from_numpy(data.chelsea().copy()).permute(2, 0, 1)[None].float()
    small = functional.interpolate(photo, size=(height, width), mode="bilinear", antialias=True)
    return small[0].permute(1, 2, 0).round().to(torch.uint8)


def smooth_label_scores(labels: int, height: int, width: int) -> LabelScores:
    """Random smooth scores, every label the strongest somewhere."""
    draw = torch.Generator().manual_seed(labels)
    coarse = torch.randn(1, labels, 4, 5, generator=draw)
    values = functional.interpolate(coarse, size=(height, width), mode="bicubic")[0].mul(1.5).softmax(0)
    assert len(values.argmax(0).unique()) == labels
    return LabelScores(tuple(range(labels)), values, torch.ones(height, width, dtype=torch.bool))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("labels", "height", "width"), [(3, 24, 32), (4, 48, 64)])
def test_equals_the_dense_matrix_on_an_image(preset, labels, height, width) -> None:
    component = registry.get("postprocessors", "crf_exact")
    label_scores, image = smooth_label_scores(labels, height, width), image_of(height, width)
    out = component.run(label_scores, image, component.params(preset=preset))
    exact, _ = oracles.crf(
        label_scores.values.double().numpy(), label_scores.keep.numpy(), image.numpy(), preset
    )
    assert (out.rows().numpy() == exact.argmax(0)).all()
    assert np.abs(out.values.numpy() - exact).mean() <= 1e-5
    assert (label_scores.rows().numpy() != exact.argmax(0)).mean() > 0.01, (
        "the CRF must have changed something"
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_the_lattice_is_near(preset) -> None:
    pytest.importorskip("pydensecrf.densecrf", reason="pydensecrf2 is an extra: pip install .[crf]")
    label_scores, image = smooth_label_scores(3, 48, 64), image_of(48, 64)
    exact, lattice = (registry.get("postprocessors", name) for name in ("crf_exact", "crf"))
    label_scores_exact = exact.run(label_scores, image, exact.params(preset=preset))
    other = lattice.run(label_scores, image, lattice.params(preset=preset))
    assert (label_scores_exact.rows() == other.rows()).float().mean() >= 0.94


@pytest.mark.parametrize(
    "said",
    [
        {"colour_weight": 0.0, "position_xy": 2.0},
        {"position_weight": 0.0, "colour_rgb": 20.0, "colour_xy": 6.0},
        {"position_weight": 0.0, "colour_weight": 0.0},
        {"unary": "scores", "iterations": 3},
        {"preset": "psa", "unary": "labels", "confidence": 0.9},
    ],
    ids=str,
)
def test_free_parameters_mean_what_the_oracle_says(said) -> None:
    component = registry.get("postprocessors", "crf_exact")
    scores, image = scene(3, 20, 28)
    label_scores = label_scores_of(scores)
    params = component.params.model_validate(said)
    expected, _ = oracles.crf_exact(
        label_scores.values.double().numpy(), label_scores.keep.numpy(), image.numpy(), **params.as_dict()
    )
    np.testing.assert_allclose(component.run(label_scores, image, params).values.numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["crf", "crf_exact"])
def test_equal_labels_attract_and_a_vector_of_weights_is_refused(name) -> None:
    """A vector `compat` of the library would turn the sign: equal labels would repel each other."""
    component = registry.get("postprocessors", name)
    with pytest.raises(ValueError, match="colour_weight"):
        component.params.model_validate({"colour_weight": [10.0, 10.0]})
    for package in component.traits.get("packages", ()):
        pytest.importorskip(package)
    values = torch.full((2, 15, 15), 0.4)
    values[0] = 0.6
    values[:, 7, 7] = torch.tensor([0.45, 0.55])
    label_scores = LabelScores((0, 1), values, torch.ones(15, 15, dtype=torch.bool))
    image = torch.full((15, 15, 3), 90, dtype=torch.uint8)
    out = component.run(label_scores, image, component.params(preset="psa"))
    assert out.mask()[7, 7] == 0
    assert out.values[0].min() > 0.9


def test_only_classes_present_and_what_is_not_kept_stay() -> None:
    component = registry.get("postprocessors", "crf_exact")
    scores, image = scene(2, 20, 28)
    label_scores = label_scores_of(scores)
    out = component.run(label_scores, image, component.params())
    assert out.ids == (0, 2, 5)
    assert torch.equal(out.keep, label_scores.keep)
    assert set(out.mask().unique().tolist()) <= {0, 2, 5, 255}
    torch.testing.assert_close(out.values.sum(0), torch.ones(20, 28))


def test_the_matrix_is_never_made() -> None:
    """Attention of the CPU that refuses to tile would make it silently."""
    component = registry.get("postprocessors", "crf_exact")
    for classes in (1, 3, 12):
        scores, image = scene(classes, 20, 28)
        label_scores = label_scores_of(scores)
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION]):
            assert component.run(label_scores, image, component.params()).values.isfinite().all()


def test_too_many_pixels_on_a_cpu_are_refused_with_what_to_do() -> None:
    component = registry.get("postprocessors", "crf_exact")
    scores, image = scene(2, 30, 40)
    label_scores = label_scores_of(scores)
    with pytest.raises(
        MachineError,
        match=r"30 x 40 has 1200 pixels, above pixels_on_cpu 1199; .*name: crf.*long_side: 39",
    ):
        component.run(label_scores, image, component.params(pixels_on_cpu=1199))
    component.run(label_scores, image, component.params(pixels_on_cpu=1199, long_side=39))
    with pytest.raises(MachineError, match="pixels_on_cpu 12000"):
        component.run(*_large(), component.params())


def _large() -> tuple[LabelScores, torch.Tensor]:
    label_scores = LabelScores((0, 1), torch.rand(2, 120, 101), torch.ones(120, 101, dtype=torch.bool))
    return label_scores, torch.zeros(120, 101, 3, dtype=torch.uint8)


def test_long_side_is_the_same_crf_on_a_smaller_image() -> None:
    component = registry.get("postprocessors", "crf_exact")
    label_scores, image = smooth_label_scores(3, 48, 64), image_of(48, 64)
    params = component.params(preset="psa", long_side=32)
    small = functional.interpolate(label_scores.values[None], size=(24, 32), mode="bilinear", antialias=True)[
        0
    ].clamp(1e-5, 1)
    input_image = functional.interpolate(
        image.permute(2, 0, 1)[None].float(), size=(24, 32), mode="bilinear", antialias=True
    )[0].permute(1, 2, 0)
    expected, _ = oracles.crf(
        small.double().numpy(),
        np.ones((24, 32), bool),
        input_image.double().numpy(),
        "psa",
        position_xy=1.5,
        colour_xy=40,
    )
    up = functional.interpolate(torch.from_numpy(expected)[None], size=(48, 64), mode="bilinear")[0]
    out = component.run(label_scores, image, params).values
    np.testing.assert_allclose(out.numpy(), up.numpy(), atol=1e-3)
    full_size = component.run(label_scores, image, component.params(preset="psa"))
    assert torch.equal(
        component.run(label_scores, image, component.params(preset="psa", long_side=64)).values,
        full_size.values,
    )
    assert (out.argmax(0) == full_size.rows()).float().mean() > 0.9
