"""The exact CRF against its dense float64 matrix on pictures, against the lattice, and at its limits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from pseudolabel import registry
from pseudolabel.contracts.finishers import belief_of
from pseudolabel.contracts.inputs import scene
from pseudolabel.errors import EnvironmentFault
from pseudolabel.records import Belief
from tests.twins import finishers as twins

PRESETS = ["irn", "psa", "deeplab"]


def photograph(height: int, width: int) -> torch.Tensor:
    """(H, W, 3) uint8 of scikit-image's cat, small."""
    data = pytest.importorskip("skimage.data")
    found = torch.from_numpy(data.chelsea().copy()).permute(2, 0, 1)[None].float()
    small = functional.interpolate(found, size=(height, width), mode="bilinear", antialias=True)
    return small[0].permute(1, 2, 0).round().to(torch.uint8)


def smooth_belief(labels: int, height: int, width: int) -> Belief:
    """Random smooth scores, every label the strongest somewhere."""
    draw = torch.Generator().manual_seed(labels)
    coarse = torch.randn(1, labels, 4, 5, generator=draw)
    values = functional.interpolate(coarse, size=(height, width), mode="bicubic")[0].mul(1.5).softmax(0)
    assert len(values.argmax(0).unique()) == labels
    return Belief(tuple(range(labels)), values, torch.ones(height, width, dtype=torch.bool))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("labels", "height", "width"), [(3, 24, 32), (4, 48, 64)])
def test_equals_the_dense_matrix_on_a_photograph(preset, labels, height, width) -> None:
    brick = registry.get("finishers", "crf_exact")
    belief, image = smooth_belief(labels, height, width), photograph(height, width)
    out = brick.run(belief, image, brick.params(preset=preset))
    exact, _ = twins.crf(belief.values.double().numpy(), belief.keep.numpy(), image.numpy(), preset)
    assert (out.rows().numpy() == exact.argmax(0)).all()
    assert np.abs(out.values.numpy() - exact).mean() <= 1e-5
    assert (belief.rows().numpy() != exact.argmax(0)).mean() > 0.01, "the CRF must have changed something"


@pytest.mark.parametrize("preset", PRESETS)
def test_the_lattice_is_near(preset) -> None:
    pytest.importorskip("pydensecrf.densecrf", reason="pydensecrf2 is an extra: pip install .[crf]")
    belief, image = smooth_belief(3, 48, 64), photograph(48, 64)
    exact, lattice = (registry.get("finishers", name) for name in ("crf_exact", "crf"))
    one = exact.run(belief, image, exact.params(preset=preset))
    other = lattice.run(belief, image, lattice.params(preset=preset))
    assert (one.rows() == other.rows()).float().mean() >= 0.94


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
def test_free_parameters_mean_what_the_twin_says(said) -> None:
    brick = registry.get("finishers", "crf_exact")
    scores, image = scene(3, 20, 28)
    belief = belief_of(scores)
    params = brick.params.model_validate(said)
    expected, _ = twins.crf_exact(
        belief.values.double().numpy(), belief.keep.numpy(), image.numpy(), **params.as_dict()
    )
    np.testing.assert_allclose(brick.run(belief, image, params).values.numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["crf", "crf_exact"])
def test_equal_labels_attract_and_a_vector_of_weights_is_refused(name) -> None:
    """A vector `compat` of the library would turn the sign: equal labels would repel each other."""
    brick = registry.get("finishers", name)
    with pytest.raises(ValueError, match="colour_weight"):
        brick.params.model_validate({"colour_weight": [10.0, 10.0]})
    for package in brick.traits.get("needs", ()):
        pytest.importorskip(package)
    values = torch.full((2, 15, 15), 0.4)
    values[0] = 0.6
    values[:, 7, 7] = torch.tensor([0.45, 0.55])
    belief = Belief((0, 1), values, torch.ones(15, 15, dtype=torch.bool))
    image = torch.full((15, 15, 3), 90, dtype=torch.uint8)
    out = brick.run(belief, image, brick.params(preset="psa"))
    assert out.mask()[7, 7] == 0
    assert out.values[0].min() > 0.9


def test_only_classes_present_and_what_is_not_kept_stay() -> None:
    brick = registry.get("finishers", "crf_exact")
    scores, image = scene(2, 20, 28)
    belief = belief_of(scores)
    out = brick.run(belief, image, brick.params())
    assert out.ids == (0, 2, 5)
    assert torch.equal(out.keep, belief.keep)
    assert set(out.mask().unique().tolist()) <= {0, 2, 5, 255}
    torch.testing.assert_close(out.values.sum(0), torch.ones(20, 28))


def test_the_matrix_is_never_made() -> None:
    """Attention of the CPU that refuses to tile would make it silently."""
    brick = registry.get("finishers", "crf_exact")
    for classes in (1, 3, 12):
        scores, image = scene(classes, 20, 28)
        belief = belief_of(scores)
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION]):
            assert brick.run(belief, image, brick.params()).values.isfinite().all()


def test_too_many_pixels_on_a_cpu_are_refused_with_what_to_do() -> None:
    brick = registry.get("finishers", "crf_exact")
    scores, image = scene(2, 30, 40)
    belief = belief_of(scores)
    with pytest.raises(
        EnvironmentFault,
        match=r"30 x 40 has 1200 pixels, above pixels_on_cpu 1199; .*name: crf.*long_side: 39",
    ):
        brick.run(belief, image, brick.params(pixels_on_cpu=1199))
    brick.run(belief, image, brick.params(pixels_on_cpu=1199, long_side=39))
    with pytest.raises(EnvironmentFault, match="pixels_on_cpu 12000"):
        brick.run(*_large(), brick.params())


def _large() -> tuple[Belief, torch.Tensor]:
    belief = Belief((0, 1), torch.rand(2, 120, 101), torch.ones(120, 101, dtype=torch.bool))
    return belief, torch.zeros(120, 101, 3, dtype=torch.uint8)


def test_long_side_is_the_same_crf_on_a_smaller_picture() -> None:
    brick = registry.get("finishers", "crf_exact")
    belief, image = smooth_belief(3, 48, 64), photograph(48, 64)
    params = brick.params(preset="psa", long_side=32)
    small = functional.interpolate(belief.values[None], size=(24, 32), mode="bilinear", antialias=True)[
        0
    ].clamp(1e-5, 1)
    picture = functional.interpolate(
        image.permute(2, 0, 1)[None].float(), size=(24, 32), mode="bilinear", antialias=True
    )[0].permute(1, 2, 0)
    expected, _ = twins.crf(
        small.double().numpy(),
        np.ones((24, 32), bool),
        picture.double().numpy(),
        "psa",
        position_xy=1.5,
        colour_xy=40,
    )
    up = functional.interpolate(torch.from_numpy(expected)[None], size=(48, 64), mode="bilinear")[0]
    out = brick.run(belief, image, params).values
    np.testing.assert_allclose(out.numpy(), up.numpy(), atol=1e-3)
    whole = brick.run(belief, image, brick.params(preset="psa"))
    assert torch.equal(
        brick.run(belief, image, brick.params(preset="psa", long_side=64)).values, whole.values
    )
    assert (out.argmax(0) == whole.rows()).float().mean() > 0.9
