"""`pseudolabel.to_mask`: refiners, background and postprocessors of one image, and every refusal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pseudolabel as pl
from pseudolabel.errors import UsageError
from pseudolabel.records import Scores


@pytest.fixture(name="image")
def image_fixture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def raw() -> Scores:
    """Two classes in units of their own, each winning somewhere, neither at the bottom."""
    rows, columns = torch.linspace(0, 1, 48)[:, None], torch.linspace(0, 1, 64)[None]
    return Scores((1, 2), torch.stack([3 + 40 * rows * columns, 0.1 * rows * (1 - columns)]))


def test_to_mask_runs_the_steps_in_order(image: np.ndarray) -> None:
    scores = raw()
    kept = scores.values.clone()
    low, high = scores.values.amin(dim=(1, 2), keepdim=True), scores.values.amax(dim=(1, 2), keepdim=True)
    unit = (scores.values - low) / (high - low)
    line: Any = {
        "refine": [("normalise", {"method": "minmax"})],
        "background": ("constant", {"threshold": 0.3}),
    }
    rows = torch.cat([torch.full((1, 48, 64), 0.3), unit]).argmax(0)
    mask = pl.to_mask(scores, image, **line)
    assert (mask.dtype, mask.shape) == (np.uint8, (48, 64))
    assert np.array_equal(mask, rows.numpy())
    assert set(np.unique(mask)) == {0, 1, 2}
    assert torch.equal(scores.values, kept)
    bounded = pl.to_mask(scores, Image.fromarray(image), postprocess=["boundary"], **line)
    assert 255 in np.unique(bounded)
    assert np.array_equal(bounded[bounded != 255], mask[bounded != 255])
    assert not pl.to_mask(
        Scores((), torch.zeros(0, 48, 64)), image, background="constant", refine=["normalise"]
    ).any()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            {"refine": []},
            r"background: 'constant' takes scores in 0\.\.1, the map gives raw ones; put \{name: normalise\}",
        ),
        ({"refine": ["normalize"]}, r"refine\.0\.name: 'normalize' is not known; did you mean 'normalise'\?"),
        ({"background": ("constant", {"threshold": 2})}, r"background\.threshold: 2 is not"),
        ({"postprocess": "crf"}, r"postprocess: 'crf' is no list of steps; write \['crf'\]"),
        (
            {"image": np.zeros((48, 63, 3), np.uint8)},
            r"image: is 48 x 63, its scores 48 x 64; give the image that was",
        ),
        ({"image": torch.zeros(3, 48, 64)}, r"image: a Tensor is no PIL image and no uint8 array"),
        ({"scores": Scores((255,), torch.ones(1, 48, 64))}, r"scores: ids 255\.\.255 are not in 1\.\.254"),
    ],
)
def test_to_mask_refuses_in_one_line(image: np.ndarray, call: dict[str, Any], said: str) -> None:
    usual = {"scores": Scores((1,), torch.rand(1, 48, 64)), "refine": ["normalise"], "background": "constant"}
    with pytest.raises(UsageError, match=said) as refused:
        pl.to_mask(**{"image": image, **usual, **call})
    assert "\n" not in str(refused.value)
