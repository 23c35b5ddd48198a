"""Maps as colours over a grey image."""

from __future__ import annotations

import numpy as np
import pytest

from pseudolabel.figures.heat import grey, heat, ramp


def test_colours_rise_evenly_from_dark_to_light() -> None:
    lightness = grey(ramp()[None])[0].astype(int)
    assert lightness[0] < 5
    assert lightness[-1] > 240
    assert (np.diff(lightness) >= -1).all()
    assert np.diff(lightness).max() <= 3


def test_values_get_their_colour_and_the_image_its_share() -> None:
    image = np.full((1, 5, 3), (200, 100, 50), np.uint8)
    luma = (77 * 200 + 150 * 100 + 29 * 50 + 128) // 256
    assert (grey(image) == luma).all()
    values = np.array([[-9, 2, 3, 4, 9]], np.float32)
    coloured = heat(image, values, 2, 4, share=1)
    assert coloured[0].tolist() == ramp()[[0, 0, 128, 255, 255]].tolist()
    half = heat(image, values, 2, 4, share=0.5)
    assert half[0].tolist() == ((coloured[0].astype(int) + luma + 1) // 2).tolist()
    assert (heat(image, values, 0, 0, share=1) == ramp()[0]).all()


def test_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"image is \(2, 3\), its map \(3, 2\)"):
        heat(np.zeros((2, 3, 3), np.uint8), np.zeros((3, 2), np.float32), 0, 1)
