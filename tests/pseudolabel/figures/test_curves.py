"""The curve over thresholds: a readable PNG whatever is undefined, the same bytes for the same figures."""

import io

import numpy as np
import pytest
from PIL import Image

from pseudolabel.figures.curves import sweep_curves


def rows(**figures):
    return [{"threshold": t / 10, **{k: v[t] for k, v in figures.items()}} for t in range(4)]


@pytest.mark.parametrize("best", [None, 2])
def test_is_an_image(best):
    figures = rows(miou=[0.3, None, 0.5, 0.4], dr_recall=[None] * 4, fg_precision=[0.4, 0.5, 0.6, 0.7])
    data = sweep_curves(figures, best, "background.threshold", "18 images of val")
    assert data == sweep_curves(figures, best, "background.threshold", "18 images of val")
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (1280, 800)
        pixels = np.asarray(image.convert("RGB")).astype(int)
    red = (np.abs(pixels - (0xC0, 0x39, 0x2B)).max(axis=2) < 30).sum()
    assert (red > 100) == (best is not None), "the best row is marked in red"


def test_nothing_defined():
    assert sweep_curves(rows(miou=[None] * 4), None, "background.threshold", "1 image")[:4] == b"\x89PNG"
