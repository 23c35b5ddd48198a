"""OpenCV's superpixels live in its extra modules, which come with a wheel of their own."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pseudolabel.errors import MachineError


@functools.cache
def opencv(engine: str) -> Any:
    """The module cv2, set to one thread: labels must not depend on the machine.

    Raises:
        MachineError: it is not installed, or without the extra modules.
    """
    remedy = (
        "`pip install pseudolabel[opencv]`, or take engine slic or felzenszwalb, which come with scikit-image"
    )
    try:
        import cv2
    except ImportError as error:
        raise MachineError(f"superpixels: engine '{engine}' needs OpenCV, {error}; {remedy}") from error
    if not hasattr(cv2, "ximgproc"):
        raise MachineError(
            f"superpixels: engine '{engine}' needs OpenCV's extra modules, which this OpenCV lacks; {remedy}"
        )
    cv2.setNumThreads(1)
    return cv2


def smoothed(cv2: Any, image: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    """The image after a Gaussian of `sigma` pixels; 0 leaves it as it is."""
    if sigma == 0:
        return np.ascontiguousarray(image)
    soft: NDArray[np.uint8] = cv2.GaussianBlur(image, (0, 0), sigma)
    return soft
