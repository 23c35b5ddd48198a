"""Grounds of the scenes, seen from above, and what lies on them: leaves and pebbles.

Nothing here depends on the classes, so a ground tells nothing about them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pseudolabel.readers._scenes_noise import (
    Array,
    cells,
    colour,
    distance,
    mix,
    octaves,
    standard,
    step,
    turned,
    value_noise,
)

Size = tuple[int, int]
SPARKLE = np.array([0.93, 0.98, 0.96], np.float32)


def axes(rng: np.random.Generator, size: Size) -> tuple[Array, Array]:
    """Pixel coordinates turned by a random angle."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    return turned(y, x, rng.uniform(0, 2 * np.pi))


def sand(rng: np.random.Generator, size: Size) -> Array:
    """Pale sand with ripples and grain."""
    along, _ = axes(rng, size)
    bend = octaves(rng, size, 42, 2)
    period = rng.uniform(9, 16)
    ripples = np.sin((along + 5 * bend) * np.float32(2 * np.pi / period))
    grain = octaves(rng, size, 2.2, 1)
    light = 0.5 + 0.13 * ripples * rng.uniform(0.3, 1) + 0.07 * grain + 0.08 * bend
    base = colour(rng.normal(0.105, 0.012), rng.uniform(0.26, 0.4), rng.uniform(0.72, 0.86))
    return mix(base * np.float32(0.72), np.minimum(base * np.float32(1.18), 1), light)


def grass(rng: np.random.Generator, size: Size) -> Array:
    """Blades of several lengths over darker earth."""
    along, across = axes(rng, size)
    bend = octaves(rng, size, 36, 2)
    fine = value_noise(rng, along / 9 + bend * 0.5, across / 1.9 + bend * 1.6)
    long = value_noise(rng, along / 17 + bend * 0.4, across / 3.4 - bend * 1.2)
    light = standard(0.75 * fine + 0.6 * long + 0.14 * bend) * 0.2 + 0.5
    hue, saturation = rng.normal(0.255, 0.03), rng.uniform(0.4, 0.62)
    dark = colour(hue + 0.04, saturation, rng.uniform(0.2, 0.28))
    pale = colour(hue - 0.03, saturation - 0.05, rng.uniform(0.56, 0.7))
    return mix(dark, pale, np.clip(light, 0, 1))


def gravel(rng: np.random.Generator, size: Size) -> Array:
    """Rounded stones of mixed greys, dark between."""
    along, across = axes(rng, size)
    bend = octaves(rng, size, 26, 2)
    seam, stone = cells(rng, along + 2.2 * bend, across - 2.2 * bend, rng.uniform(8, 17))
    dome = np.clip(seam * 2.4, 0, 1) ** np.float32(0.6)
    speckle = octaves(rng, size, 3, 2)
    light = dome * (0.52 + 0.34 * stone) + 0.045 * speckle
    hue, saturation = rng.uniform(0.04, 0.14), rng.uniform(0.05, 0.2)
    warm = colour(hue, saturation, rng.uniform(0.75, 0.9))
    cool = colour(hue + 0.5, saturation * 0.6, rng.uniform(0.7, 0.85))
    shade: Array = np.clip(0.3 + 0.72 * light, 0, 1)
    return mix(warm, cool, stone) * shade[..., None]


def wood(rng: np.random.Generator, size: Size) -> Array:
    """Boards with grain and seams."""
    along, across = axes(rng, size)
    bend = octaves(rng, size, 60, 2)
    wide = rng.uniform(22, 40)
    shift = across / np.float32(wide)
    board = np.floor(shift)
    tone = np.sin(board * np.float32(12.9)) * np.float32(0.5)
    rings = value_noise(rng, along / 60 + board * 7, across / 5 + bend * 0.9 + board * 3)
    fibre = value_noise(rng, along / 22, across / 1.7 + bend)
    light = 0.52 + 0.2 * rings + 0.1 * fibre + 0.13 * tone
    seam = step(np.abs(shift - board - np.float32(0.5)) * np.float32(wide) - np.float32(wide / 2 - 0.8), 1.5)
    hue = rng.normal(0.075, 0.012)
    dark = colour(hue - 0.01, rng.uniform(0.5, 0.62), rng.uniform(0.28, 0.36))
    pale = colour(hue + 0.015, rng.uniform(0.36, 0.5), rng.uniform(0.7, 0.82))
    return mix(dark, pale, np.clip(light, 0, 1)) * (1 - np.float32(0.6) * seam)[..., None]


def water(rng: np.random.Generator, size: Size) -> Array:
    """Shallow water with light running over it."""
    net = 1 - np.abs(octaves(rng, size, rng.uniform(18, 30), 2, 0.4)) * np.float32(1.5)
    deep = octaves(rng, size, 60, 3)
    hue, saturation = rng.uniform(0.47, 0.58), rng.uniform(0.35, 0.6)
    dark = colour(hue + 0.03, saturation, rng.uniform(0.36, 0.46))
    pale = colour(hue - 0.02, saturation * 0.7, rng.uniform(0.62, 0.74))
    ground = mix(dark, pale, np.clip(0.45 + 0.22 * deep, 0, 1))
    return mix(ground, SPARKLE, np.clip(net, 0, 1) ** np.float32(2.2) * np.float32(0.42))


def earth(rng: np.random.Generator, size: Size) -> Array:
    """Dark soil with crumbs and moss."""
    clods = octaves(rng, size, 14, 4, 0.75)
    moss = octaves(rng, size, 34, 4, 0.6)
    hue = rng.normal(0.07, 0.015)
    dark = colour(hue, rng.uniform(0.35, 0.5), rng.uniform(0.16, 0.24))
    pale = colour(hue + 0.01, rng.uniform(0.3, 0.42), rng.uniform(0.5, 0.62))
    soil = mix(dark, pale, np.clip(0.46 + 0.2 * clods, 0, 1))
    green = colour(rng.uniform(0.2, 0.28), rng.uniform(0.35, 0.55), rng.uniform(0.34, 0.46))
    growth = step(moss - np.float32(rng.uniform(0.3, 1.6)), 0.7)
    return mix(soil, green * (1 + np.float32(0.16) * clods[..., None]), growth * np.float32(0.8))


def snow(rng: np.random.Generator, size: Size) -> Array:
    """Bright snow with blue hollows."""
    drift = octaves(rng, size, 48, 4, 0.5)
    grain = octaves(rng, size, 2.5, 2)
    hue = rng.uniform(0.56, 0.64)
    light = np.clip(0.62 + 0.2 * drift + 0.035 * grain, 0, 1)
    return mix(colour(hue, 0.3, rng.uniform(0.58, 0.68)), colour(hue, 0.03, 0.97), light)


GROUNDS: tuple[Callable[[np.random.Generator, Size], Array], ...] = (
    sand,
    grass,
    gravel,
    wood,
    water,
    earth,
    snow,
)


def ground(rng: np.random.Generator, size: Size) -> Array:
    """(H, W, 3) one ground, or two of them that meet along a rough shore."""
    first = GROUNDS[rng.integers(len(GROUNDS))](rng, size)
    if rng.random() < 0.35:
        second = GROUNDS[rng.integers(len(GROUNDS))](rng, size)
        along, _ = axes(rng, size)
        shore = (along - along.mean()) / 14 + octaves(rng, size, 40, 4) + np.float32(rng.normal(0, 0.8))
        # A darker rim makes the one lie on the other instead of fading into it.
        rim = np.exp(-np.square(shore * 3 - 0.6)) * np.float32(0.3)
        first = mix(first, second, step(shore, 0.35)) * (1 - rim)[..., None]
    return np.clip(first, 0, 1)


def leaf_distance(y: Array, x: Array, length: float, width: float) -> Array:
    """Signed distance (rough) to a leaf along x: two arcs that meet in points; negative inside."""
    radius = (length**2 + width**2) / (2 * width)
    return distance(x, np.abs(y) + np.float32(radius - width)) - np.float32(radius)


def leaf_colours(rng: np.random.Generator) -> tuple[Array, Array]:
    """Blade and rib of a leaf: green, autumn or dry."""
    hue, saturation, value = (
        (rng.uniform(0.2, 0.34), rng.uniform(0.4, 0.7), rng.uniform(0.3, 0.55)),
        (rng.uniform(0.06, 0.13), rng.uniform(0.45, 0.7), rng.uniform(0.45, 0.7)),
        (rng.uniform(0.07, 0.11), rng.uniform(0.2, 0.4), rng.uniform(0.35, 0.6)),
    )[rng.integers(3)]
    return colour(hue, saturation, value), colour(hue - 0.01, saturation * 0.6, value * 1.35)
