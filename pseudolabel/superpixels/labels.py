"""Labels of regions, numbered without gaps."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def numbered(labels: NDArray[Any]) -> NDArray[np.int32]:
    """The same regions as 0..n-1 in the order of their old labels, which are whole and not negative."""
    there = np.zeros(int(labels.max()) + 1, np.bool_)
    there[labels] = True
    table = np.cumsum(there, dtype=np.int32) - 1
    numbers: NDArray[np.int32] = table[labels].astype(np.int32, copy=False)
    return numbers


def grid(height: int, width: int, segments: int) -> NDArray[np.int32]:
    """(H, W) int32: rectangles, as square as may be, about so many."""
    side = max(1.0, (height * width / segments) ** 0.5)
    rows, columns = max(1, round(height / side)), max(1, round(width / side))
    down = np.arange(height, dtype=np.int32) * rows // height
    across = np.arange(width, dtype=np.int32) * columns // width
    return numbered(down[:, None] * columns + across)
