"""The suite over every refiner, and the cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from pseudolabel import registry
from pseudolabel.contracts.refiners import *  # noqa: F403
from pseudolabel.records import Scores
from pseudolabel.refiners import superpixel_mean as superpixel_mean_module
from tests.oracles import refiners as oracles


def run(name: str, rows: list[list[float]], **params: object) -> list[list[float]]:
    """A refiner over pixels in a row: a list a class."""
    values = torch.tensor(rows, dtype=torch.float32)[:, None, :]
    component = registry.get("refiners", name)
    image = torch.zeros(1, values.shape[2], 3, dtype=torch.uint8)
    scores = Scores(tuple(range(1, len(rows) + 1)), values)
    return component.run(scores, image, component.params.model_validate(params)).values[:, 0].tolist()


def test_every_component_of_the_kind_is_here() -> None:
    assert {"competition", "normalise", "smooth"} <= set(registry.names("refiners"))


def test_competition_by_hand() -> None:
    assert run("competition", [[0.8], [0.4]]) == pytest.approx(np.array([[0.6], [0.0]]))
    assert run("competition", [[0.9], [0.5], [0.1]]) == pytest.approx(
        np.array([[0.6], [0.0], [0.0]]), abs=1e-7
    )
    assert run("competition", [[0.8, 0.0, 3.5]]) == [[pytest.approx(0.8), 0.0, 3.5]]
    assert run("competition", [[-0.8], [-0.4]], weight=0.25) == [[0.0], [0.0]]
    assert run("competition", [[0.8], [0.4]], weight=0.25) == pytest.approx(np.array([[0.7], [0.2]]))


def test_normalise_by_hand() -> None:
    assert run("normalise", [[1.0, 2.0, 5.0]], method="minmax") == [[0.0, 0.25, 1.0]]
    assert run("normalise", [[1.0, 2.0, 5.0], [7.0, 7.0, 7.0]], method="minmax") == [[0, 0.25, 1], [0, 0, 0]]
    # over the image: lowest 1, highest 9
    assert run("normalise", [[1.0, 5.0], [3.0, 9.0]], method="minmax", per="image") == [[0, 0.5], [0.25, 1]]
    # five samples: 0.6 of the way is place 2.4, its nearest sample the third
    assert run("normalise", [[4.0, 0.0, 1.0, 9.0, 2.0]], quantile=0.6) == [[1, 0, 0.5, 1, 1]]
    assert run("normalise", [[3.0, -2.0, 1.0]], method="max")[0] == pytest.approx(
        [3 / 3.00001, 0, 1 / 3.00001]
    )
    assert run("normalise", [[-3.0, -2.0]], method="max") == [[0.0, 0.0]]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 10, 101, 1001])
@pytest.mark.parametrize("share", [0.005, 0.5, 0.995, 1.0])
def test_normalise_takes_the_sample_that_numpy_takes(size: int, share: float) -> None:
    values = np.random.default_rng(size).normal(size=size).astype(np.float32)
    low, high = values.min(), np.quantile(values, share, method="nearest")
    expected = (np.minimum(values, high) - low) / (high - low) if high > low else np.zeros(size)
    np.testing.assert_allclose(run("normalise", [values.tolist()], quantile=share)[0], expected, rtol=1e-5)


def test_a_map_of_fewer_pixels_than_the_quantile_cuts_off_becomes_zero() -> None:
    row = [0.0] * 999 + [5.0]
    assert max(run("normalise", [row])[0]) == 0
    assert max(run("normalise", [row], method="minmax")[0]) == 1


def test_smooth_by_hand() -> None:
    assert run("smooth", [[0.0, 9.0, 0.0, 0.0]], size=3)[0] == pytest.approx([1, 1, 1, 0])  # 9 / (3 x 3)
    near = np.exp(-1 / 8)  # sigma 2
    middle = 1 / (1 + 2 * near)
    expected = np.array([near, 1, near]) * middle * middle
    got = run("smooth", [[0.0, 1.0, 0.0]], kernel="gaussian", size=3, sigma=2.0)[0]
    assert got == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (63, 64), (65, 129), (5, 257)])
@pytest.mark.parametrize("size", [3, 13, 151])
def test_smooth_at_every_seam(shape: tuple[int, int], size: int) -> None:
    if size == 151 and shape == (3, 500):
        pytest.skip("the oracle would take seconds; (5, 257) shows the same")
    values = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    component = registry.get("refiners", "smooth")
    params = component.params(kernel="gaussian", size=size, sigma=20.0)
    image = torch.zeros(*shape, 3, dtype=torch.uint8)
    out = component.run(Scores((1,), values), image, params).values.numpy()
    expected = oracles.smooth((1,), values.double().numpy(), None, **params.as_dict())
    np.testing.assert_allclose(out, expected, rtol=2e-5)


def test_an_even_kernel_is_refused_with_the_next_odd_ones() -> None:
    params = registry.get("refiners", "smooth").params
    with pytest.raises(ValidationError, match="12 is even and has no middle; take 11 or 13"):
        params(size=12)
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        params(size=-1)


def test_superpixel_mean_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    regions = np.array([[0, 0, 1, 1]], np.int32)
    monkeypatch.setattr(superpixel_mean_module, "segments", lambda *_: regions)
    assert run("superpixel_mean", [[0.4, 0.0, 0.1, 0.05], [1, 3, 0, -1]]) == pytest.approx(
        np.array([[0.2, 0.2, 0.075, 0.075], [2, 2, -0.5, -0.5]])
    )


def on_halves(name: str, **params: object) -> np.ndarray:
    """A refiner on a score of 1 in one corner of an image with a dark left and a bright right half."""
    image = torch.full((12, 16, 3), 20, dtype=torch.uint8)
    image[:, 8:] = 220
    values = torch.zeros(1, 12, 16)
    values[0, :6, :8] = 1
    component = registry.get("refiners", name)
    return (
        component.run(Scores((1,), values), image, component.params.model_validate(params)).values[0].numpy()
    )


def test_affinity_spreads_over_like_colours_and_stops_at_an_edge() -> None:
    out = on_halves("affinity", dilations=(1, 2), iterations=30)
    assert out[:, 8:].max() < 1e-3  # of 1, over an edge of ten deviations
    assert out[9, :6].min() > 0.05
    assert on_halves("affinity", dilations=(1, 2), iterations=1)[9, :6].max() == 0, "too far for one step"


def test_affinity_by_hand() -> None:
    # a flat image: the mean of the eight neighbours, the border's pixels again beyond the border
    assert run("affinity", [[0.0, 9.0, 0.0, 0.0]], dilations=(1,), iterations=1)[0] == pytest.approx(
        [27 / 8, 18 / 8, 27 / 8, 0]
    )


def test_random_walk_spreads_over_like_colours_and_stops_at_an_edge() -> None:
    out = on_halves("random_walk", cell=1, radius=2.0, steps=200)
    assert out[:, 8:].max() < 1e-6
    assert out[9, :7].min() > 0.3


def test_random_walk_by_hand() -> None:
    # alike everywhere: each place takes the mean of itself and of those at most one away
    row = [[0.0, 9.0, 0.0, 0.0]]
    assert run("random_walk", row, cell=1, radius=1.0, steps=1)[0] == pytest.approx([4.5, 3, 3, 0])
    # the mean of 4.5 and 3, of 4.5 and twice 3, of twice 3 and 0, of 3 and 0
    assert run("random_walk", row, cell=1, radius=1.0, steps=2)[0] == pytest.approx([3.75, 3.5, 2, 1.5])
    # two cells of two pixels, 4.5 and 0: both 2.25 after one step
    assert run("random_walk", row, cell=2, radius=1.0, steps=1)[0] == pytest.approx([2.25] * 4)


def test_orders_of_the_paper_differ() -> None:
    """Raw maps compete before or after normalisation: the two orders must not be mixed up."""
    first = run("normalise", run("competition", [[4.0, 2.0, 0.0], [1.0, 1.0, 0.0]]), method="minmax")
    second = run("competition", run("normalise", [[4.0, 2.0, 0.0], [1.0, 1.0, 0.0]], method="minmax"))
    assert first == pytest.approx(np.array([[1.0, 3 / 7, 0], [0, 0, 0]]))
    assert second == pytest.approx(np.array([[0.5, 0.0, 0], [0.5, 0.75, 0]]))
