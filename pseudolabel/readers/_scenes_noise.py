"""Noise and edges that the scenes are drawn with: smooth, several octaves, any direction.

Arrays are float32, sizes height first, lengths in pixels.
"""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.floating[Any]]  # float32 throughout; the operators' types say less
TABLE = 64  # cells after which value noise repeats; an image spans fewer


def octaves(
    rng: np.random.Generator, size: tuple[int, int], cell: float, count: int, gain: float = 0.55
) -> Array:
    """Noise of zero mean and unit deviation: `count` octaves, the coarsest with cells of `cell` pixels."""
    height, width = size
    total = np.zeros(size, np.float32)
    weight = 1.0
    for _ in range(count):
        rows, columns = height / cell, width / cell
        grid = rng.standard_normal((int(rows) + 5, int(columns) + 5), dtype=np.float32)
        top, left = 1 + rng.random(2)
        box = (left, top, left + columns, top + rows)
        layer = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC, box=box)
        total += np.float32(weight) * np.asarray(layer)
        cell = max(cell / 2, 1.0)
        weight *= gain
    return standard(total)


def standard(values: Array) -> Array:
    """The values moved to zero mean and unit deviation."""
    values = values - values.mean()
    return values / max(float(values.std()), 1e-6)


def value_noise(rng: np.random.Generator, along: Array, across: Array) -> Array:
    """Noise in -1..1 at coordinates counted in cells, so that it follows any turned or bent axes."""
    table = rng.uniform(-1, 1, (TABLE, TABLE)).astype(np.float32)
    row, column = np.floor(along), np.floor(across)
    y, x = along - row, across - column
    y, x = y * y * (3 - 2 * y), x * x * (3 - 2 * x)
    top, left = row.astype(np.int64) % TABLE, column.astype(np.int64) % TABLE
    bottom, right = (top + 1) % TABLE, (left + 1) % TABLE
    upper = table[top, left] * (1 - x) + table[top, right] * x
    lower = table[bottom, left] * (1 - x) + table[bottom, right] * x
    result: Array = upper * (1 - y) + lower * y
    return result


def cells(rng: np.random.Generator, y: Array, x: Array, cell: float) -> tuple[Array, Array]:
    """Irregular cells (a jittered grid): distance to the seam in cells, and a value in 0..1 per cell."""
    points = rng.random((TABLE, TABLE, 3), dtype=np.float32)
    down, right, values = points[..., 0] * 0.7 + 0.15, points[..., 1] * 0.7 + 0.15, points[..., 2]
    y, x = y / np.float32(cell), x / np.float32(cell)
    row, column = np.floor(y), np.floor(x)
    y, x = y - row, x - column
    base = (row.astype(np.int32) % TABLE) * TABLE, column.astype(np.int32) % TABLE
    nearest = np.full(row.shape, 9.0, np.float32)
    second = nearest.copy()
    value = np.zeros(row.shape, np.float32)
    for below in (-1, 0, 1):
        for beside in (-1, 0, 1):
            index = (base[0] + below * TABLE) % (TABLE * TABLE) + (base[1] + beside) % TABLE
            tall = down.ravel()[index] + np.float32(below) - y
            wide = right.ravel()[index] + np.float32(beside) - x
            away = tall * tall + wide * wide
            closer = away < nearest
            np.minimum(second, np.maximum(nearest, away), out=second)
            np.copyto(value, values.ravel()[index], where=closer)
            np.minimum(nearest, away, out=nearest)
    return np.sqrt(second) - np.sqrt(nearest), value


def turned(down: Array, right: Array, angle: float) -> tuple[Array, Array]:
    """Offsets in a frame that looks in the direction `angle`: sideways and forward."""
    sine, cosine = np.float32(np.sin(angle)), np.float32(np.cos(angle))
    return down * cosine - right * sine, right * cosine + down * sine


def distance(y: Array, x: Array) -> Array:
    """Length of (y, x); ten times as fast as `hypot`, which guards ranges that no image has."""
    result: Array = np.sqrt(y * y + x * x)
    return result


def step(values: Array, softness: float = 1.0) -> Array:
    """0 below zero and 1 above it, with a ramp `softness` wide in the middle."""
    result: Array = np.clip(values / np.float32(softness) + np.float32(0.5), 0, 1)
    return result


def waves(phase: Array, period: float) -> Array:
    """Bands along a length in pixels: 0 and 1 by turns, edges one pixel wide."""
    slope = 2 * np.pi / period
    return step(np.sin(phase * np.float32(slope)), slope)


def colour(hue: float, saturation: float, value: float) -> Array:
    """(3,) RGB in 0..1; the hue is taken round the circle."""
    clipped = min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0)
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, *clipped), np.float32)


def mix(first: Array, second: Array, share: Array) -> Array:
    """(..., 3) colours between two, by a share (...) in 0..1."""
    result: Array = first + (second - first) * share[..., None]
    return result
