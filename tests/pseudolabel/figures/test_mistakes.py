"""Right and wrong pixels: who is what, and whether the colours can be told apart."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from pseudolabel.figures.mistakes import COLOURS, MEANING, kinds, mistakes

#                        right missed  missed (open)  false  wrong  right background, unknown x 3
MASK = np.array([[1, 0, 255, 2, 2, 0, 255, 0, 1, 255]], np.uint8)
TRUTH = np.array([[1, 2, 1, 0, 1, 0, 0, 255, 255, 255]], np.uint8)
KIND = ["right", "missed", "missed", "false", "wrong class", None, None, None, None, None]

# Machado, Oliveira and Fernandes 2009, severity 1, for linear RGB
SIGHTS = {
    "normal": np.eye(3),
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


def test_every_pixel_is_of_its_kind() -> None:
    regions = kinds(MASK, TRUTH)
    assert set(regions) == set(COLOURS) == set(MEANING)
    for place, kind in enumerate(KIND):
        assert [name for name, pixels in regions.items() if pixels[0, place]] == ([kind] if kind else [])


def test_each_kind_has_its_colour_and_the_rest_is_grey() -> None:
    image = np.full((1, 10, 3), (120, 120, 120), np.uint8)
    out = mistakes(image, MASK, TRUTH)
    for place, kind in enumerate(KIND):
        if kind is None:
            assert len(set(out[0, place].tolist())) == 1
            assert out[0, place, 0] > 190  # paler than the image
        else:
            wanted = 0.8 * np.array(COLOURS[kind]) + 0.2 * 120
            assert np.abs(out[0, place] - wanted).max() <= 0.5
    assert (image == 120).all()


def lab(colour: tuple[int, ...], sight: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIE L*a*b* (D65) of an sRGB colour as it is seen."""
    levels = np.array(colour) / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    white = matrix.sum(axis=1)
    ratio = matrix @ (sight @ linear).clip(0, 1) / white
    x, y, z = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("sight", SIGHTS)
def test_colours_are_told_apart_by_every_sight(sight: str) -> None:
    matrix = np.array(SIGHTS[sight])
    for first, other in itertools.combinations(COLOURS.values(), 2):
        # 2.3 is just noticeable; red against green of equal lightness falls below 10 for a protanope
        assert np.linalg.norm(lab(first, matrix) - lab(other, matrix)) > 30


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"mask is \(1, 10\), its truth \(10, 1\)"):
        kinds(MASK, TRUTH.T)
    with pytest.raises(ValueError, match=r"image is \(10, 1\), its mask \(1, 10\)"):
        mistakes(np.zeros((10, 1, 3), np.uint8), MASK, TRUTH)
