"""Overlays: palette colours inside, full colour on outlines, background untouched."""

import numpy as np
import pytest

from pseudolabel.figures.overlays import outlines, overlay
from pseudolabel.masks import PALETTE


def scene():
    mask = np.zeros((12, 14), np.uint8)
    mask[2:9, 2:7] = 1
    mask[2:9, 7:12] = 15
    mask[9, 2:12] = 255
    rgb = np.random.default_rng(0).integers(0, 256, size=(12, 14, 3)).astype(np.uint8)
    return rgb, mask


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_equals_a_pixel_at_a_time(alpha):
    rgb, mask = scene()
    found = overlay(rgb, mask, alpha)
    for y, x in np.ndindex(mask.shape):
        near = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        edge = any(
            0 <= v < 12 and 0 <= u < 14 and mask[v, u] != mask[y, x] for v, u in near
        ) and mask[y, x] != 0  # fmt: skip
        colour = PALETTE[mask[y, x]].astype(float)
        wanted = (
            colour if edge else rgb[y, x] if mask[y, x] == 0 else (1 - alpha) * rgb[y, x] + alpha * colour
        )
        assert np.abs(found[y, x] - wanted).max() <= 1, (y, x)  # shares are in 256ths
    assert found.dtype == np.uint8


def test_outlines_are_as_wide_as_asked_and_inside_the_region():
    _, mask = scene()
    one, two = outlines(mask, 1), outlines(mask, 2)
    assert not two[mask == 0].any()
    assert one.sum() < two.sum()
    assert one[2, 2:12].all()
    assert not one[4, 4]
    assert not two[5, 4]
    assert two[4, 3]


def test_one_pixel_and_no_region():
    rgb = np.full((1, 1, 3), 7, np.uint8)
    np.testing.assert_array_equal(overlay(rgb, np.zeros((1, 1), np.uint8)), rgb)
    np.testing.assert_array_equal(overlay(rgb, np.full((1, 1), 255, np.uint8), 1.0), PALETTE[255][None, None])


def test_inputs_stay_and_misfits_are_refused():
    rgb, mask = scene()
    before = rgb.copy()
    overlay(rgb, mask)
    np.testing.assert_array_equal(rgb, before)
    with pytest.raises(ValueError, match="image is"):
        overlay(rgb[1:], mask)
    with pytest.raises(ValueError, match="alpha"):
        overlay(rgb, mask, 1.5)
