"""Superpixels by the engine that a recipe names.

Every engine is a file of this folder with a function of its name, and follows the same four parameters as
far as they mean something to it; labels of two engines are not interchangeable.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pseudolabel.registry import Parameters, parameter
from pseudolabel.superpixels import cache

NEEDS = {"cv_slic": "cv2", "seeds": "cv2"}  # engine -> module of a package that is an extra

_folder: ContextVar[Path | None] = ContextVar("folder of kept superpixels", default=None)


class Superpixels(Parameters):
    """How the superpixels are made."""

    engine: Literal["slic", "felzenszwalb", "cv_slic", "seeds"] = parameter(
        "slic", help="what makes the superpixels; cv_slic and seeds need the extra opencv"
    )
    segments: int = parameter(200, ge=1, unit="superpixels an image", help="about how many are made")
    compactness: float = parameter(10.0, gt=0, help="higher makes squarer superpixels, blinder to colour")
    sigma: float = parameter(1.0, ge=0, unit="pixels of the original image", help="smoothing before")


def segments(image: NDArray[np.uint8], params: Superpixels) -> NDArray[np.int32]:
    """Cut an image into superpixels.

    Args:
        image: (H, W, 3) uint8 RGB of any size from 1 x 1 on.
        params: see `Superpixels`; a class that extends it will do.

    Returns:
        (H, W) int32 labels 0..n-1, none left out, 1 <= n <= H * W; the same for the same input, whichever
        thread asks.

    Raises:
        MachineError: the engine's package is not installed; the folder of `kept_in` cannot be written.
    """
    chosen = {key: getattr(params, key) for key in Superpixels.model_fields}
    folder = _folder.get()
    if folder is None:
        return _computed(image, **chosen)
    packages = ("opencv-contrib-python-headless", "numpy") if chosen["engine"] in NEEDS else ("scikit-image",)
    return cache.kept(folder, image, chosen, packages, lambda: _computed(image, **chosen))


@contextlib.contextmanager
def kept_in(folder: Path | None) -> Iterator[None]:
    """Within this block superpixels are read from a folder where they are there, and else put there.

    Holds for the calling thread; a worker process enters it anew. None makes them anew each time.
    """
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


def _computed(
    image: NDArray[np.uint8], engine: str, segments: int, compactness: float, sigma: float
) -> NDArray[np.int32]:
    make = getattr(importlib.import_module(f"pseudolabel.superpixels.{engine}"), engine)
    labels: NDArray[np.int32] = make(image, segments, compactness, sigma)
    return labels
