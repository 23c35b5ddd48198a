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
    image = np.random.default_rng(0).integers(0, 256, size=(12, 14, 3)).astype(np.uint8)
    return image, mask


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_equals_a_pixel_at_a_time(alpha):
    image, mask = scene()
    out = overlay(image, mask, alpha)
    for y, x in np.ndindex(mask.shape):
        near = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        edge = any(
            0 <= v < 12 and 0 <= u < 14 and mask[v, u] != mask[y, x] for v, u in near
        ) and mask[y, x] != 0  # fmt: skip
        colour = PALETTE[mask[y, x]].astype(float)
        wanted = (
            colour if edge else image[y, x] if mask[y, x] == 0 else (1 - alpha) * image[y, x] + alpha * colour
        )
        assert np.abs(out[y, x] - wanted).max() <= 1, (y, x)  # shares are in 256ths
    assert out.dtype == np.uint8


def test_outlines_are_as_wide_as_asked_and_inside_the_region():
    _, mask = scene()
    first, second = outlines(mask, 1), outlines(mask, 2)
    assert not second[mask == 0].any()
    assert first.sum() < second.sum()
    assert first[2, 2:12].all()
    assert not first[4, 4]
    assert not second[5, 4]
    assert second[4, 3]


def test_one_pixel_and_no_region():
    image = np.full((1, 1, 3), 7, np.uint8)
    np.testing.assert_array_equal(overlay(image, np.zeros((1, 1), np.uint8)), image)
    np.testing.assert_array_equal(
        overlay(image, np.full((1, 1), 255, np.uint8), 1.0), PALETTE[255][None, None]
    )


def test_inputs_stay_and_misfits_are_refused():
    image, mask = scene()
    before = image.copy()
    overlay(image, mask)
    np.testing.assert_array_equal(image, before)
    with pytest.raises(ValueError, match="image is"):
        overlay(image[1:], mask)
    with pytest.raises(ValueError, match="alpha"):
        overlay(image, mask, 1.5)
