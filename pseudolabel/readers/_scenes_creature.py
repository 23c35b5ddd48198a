"""The creatures of the scenes: a head that tells the class at a glance, and a body that hardly does.

A creature is a bent spine of discs that melt into one another, perhaps with four flippers; its head
sits on the front end and covers the body there. Everything is a signed distance in pixels (negative
inside), so edges come out smooth at any size.

What tells the class: the head's shape, two colours and pattern, always. The body's hue is drawn
round a centre of its class with concentration `tell` (von Mises), its texture's grain with a mild
shift; both overlap widely between classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pseudolabel.readers._scenes_noise import (
    Array,
    cells,
    colour,
    distance,
    mix,
    octaves,
    step,
    turned,
    value_noise,
    waves,
)

DISCS = 9  # along the spine: enough for a smooth outline at the longest aspect
SOFT = 0.22  # how far discs melt into one another, in radii of the body
WHITE, PUPIL = np.array([0.97, 0.97, 0.95], np.float32), np.array([0.05, 0.05, 0.07], np.float32)
LIGHT = (-0.5, -0.45, 0.74)  # towards the light: up, left, out of the image


@dataclass(frozen=True)
class Head:
    """Outline, pattern and colours of a class.

    Attributes:
        outline: signed distance of (y, x), x forward, for a head of radius 1.
        pattern: share in 0..1 of the second colour at (y, x) for a head of radius `size` pixels.
        colours: two (hue, saturation, value).
        area: of the outline at radius 1.
    """

    outline: Callable[[Array, Array], Array]
    pattern: Callable[[Array, Array, float], Array]
    colours: tuple[tuple[float, float, float], tuple[float, float, float]]
    area: float


def _arrow(y: Array, x: Array) -> Array:
    wide = np.abs(y)
    slanted = wide * np.float32(0.84) + x * np.float32(0.54) - np.float32(0.62)
    back = -x - np.float32(0.62)
    result: Array = np.maximum(slanted, back) + _rounding(slanted, back)
    return result


def _rounding(first: Array, second: Array) -> Array:
    """What takes the sharp corner between two edges off."""
    near = np.clip(0.36 - np.abs(first - second), 0, None)
    result: Array = np.float32(0.9) * np.square(near)
    return result


def _disc(y: Array, x: Array) -> Array:
    return distance(y, x) - np.float32(1)


def _flower(y: Array, x: Array) -> Array:
    result: Array = (distance(y, x) - 1 - 0.15 * np.cos(5 * np.arctan2(y, x))) * np.float32(0.85)
    return result


def _diamond(y: Array, x: Array) -> Array:
    side = np.float32(np.sqrt(0.5))
    across, down = np.abs(x + y) * side - np.float32(0.62), np.abs(x - y) * side - np.float32(0.62)
    outside = distance(np.maximum(across, 0), np.maximum(down, 0))
    inside: Array = np.minimum(np.maximum(across, down), 0)
    return outside + inside - np.float32(0.28)


def _hammer(y: Array, x: Array) -> Array:
    reach = np.maximum(np.abs(y) - np.float32(0.72), 0)
    return distance(reach, x - np.float32(0.16) * np.square(y)) - np.float32(0.68)


def _hexagon(y: Array, x: Array) -> Array:
    tall = np.abs(y)
    slanted = np.abs(x) * np.float32(0.866) + tall * np.float32(0.5)
    return np.maximum(slanted, tall) - np.float32(0.93)


def _stripes(y: Array, x: Array, size: float) -> Array:
    bent = x + np.float32(0.35 / size) * np.square(y)
    return waves(bent, 0.5 * size)


def _rings(y: Array, x: Array, size: float) -> Array:
    return waves(distance(y, x) + np.float32(0.1 * size), 0.52 * size)


def _dots(y: Array, x: Array, size: float) -> Array:
    pitch = 0.56 * size
    row = np.round(y / np.float32(pitch))
    shifted = x / np.float32(pitch) + 0.5 * (row % 2)
    near = distance(y / np.float32(pitch) - row, shifted - np.round(shifted)) * np.float32(pitch)
    return step(np.float32(0.33 * pitch) - near)


def _checks(y: Array, x: Array, size: float) -> Array:
    slope = np.float32(2 * np.pi / (0.72 * size))
    return step(np.sin(x * slope) * np.sin(y * slope), float(slope))


def _chevrons(y: Array, x: Array, size: float) -> Array:
    return waves(x + np.abs(y) * np.float32(0.8), 0.6 * size)


def _spokes(y: Array, x: Array, size: float) -> Array:
    away = np.maximum(distance(y, x), 1)
    turn = np.sin(6 * np.arctan2(y, x) + np.float32(np.pi / 2))
    star = step(turn, 6 / float(0.5 * size)) * step(away - np.float32(0.2 * size))
    result: Array = np.maximum(star, step(np.float32(0.24 * size) - away))
    return result


HEADS: dict[str, Head] = {
    "ember": Head(_arrow, _stripes, ((0.065, 0.92, 0.98), (0.02, 0.5, 0.13)), 2.0),
    "lagoon": Head(_disc, _rings, ((0.49, 0.75, 0.88), (0.62, 0.85, 0.3)), np.pi),
    "iris": Head(_flower, _dots, ((0.76, 0.68, 0.66), (0.14, 0.85, 0.98)), 3.18),
    "clover": Head(_diamond, _checks, ((0.36, 0.85, 0.5), (0.2, 0.16, 0.97)), 3.17),
    "coral": Head(_hammer, _chevrons, ((0.97, 0.75, 0.88), (0.03, 0.12, 0.99)), 3.3),
    "frost": Head(_hexagon, _spokes, ((0.58, 0.12, 0.98), (0.59, 0.9, 0.66)), 3.0),
}
CLASSES = tuple(HEADS)
HEAD_REACH = 1.5  # no outline goes further from its middle, in radii


@dataclass(frozen=True)
class Creature:
    """One creature: where it lies and how it is built; lengths in pixels, angles in radians.

    Attributes:
        name: its class.
        centre: (y, x) of the body's middle.
        angle: direction that the head looks in.
        length: of the spine.
        radius: of the body where it is thickest.
        bend: how far the spine's middle is off the straight line, in lengths.
        taper: exponent of the profile; above 1 the thick end is in front.
        thin: radius of the ends as a share of the thickest.
        flippers: four of them or none.
        head: radius of the head.
    """

    name: str
    centre: tuple[float, float]
    angle: float
    length: float
    radius: float
    bend: float
    taper: float
    thin: float
    flippers: bool
    head: float

    def reach(self) -> float:
        """No pixel of the creature is further than this from its centre."""
        return 0.5 * self.length * (1 + abs(self.bend)) + max(2.3 * self.head, self.radius * 1.9) + 2

    def spine(self) -> tuple[Array, Array, Array]:
        """Forward and sideways position and radius (DISCS,) of each disc, tail first."""
        t = np.linspace(0, 1, DISCS, dtype=np.float32)
        forward = (t - np.float32(0.5)) * np.float32(self.length)
        sideways = (4 * t * (1 - t) - np.float32(0.5)) * np.float32(self.bend * self.length)
        profile = self.thin + (1 - self.thin) * np.sin(np.pi * np.clip(t, 0.02, 1) ** self.taper)
        return forward, sideways, (self.radius * profile).astype(np.float32)

    def turned(self, y: Array, x: Array) -> tuple[Array, Array]:
        """Sideways and forward distance from the centre."""
        return turned(y - np.float32(self.centre[0]), x - np.float32(self.centre[1]), self.angle)

    def body_distance(self, y: Array, x: Array) -> tuple[Array, Array]:
        """Signed distance to the body without its head, and the place along the spine in 0..1."""
        across, along = self.turned(y, x)
        forward, sideways, radii = self.spine()
        soft = np.float32(SOFT * self.radius)
        total = np.zeros_like(across)
        place = np.zeros_like(across)
        for k in range(DISCS):
            away = distance(along - forward[k], across - sideways[k]) - radii[k]
            share = np.exp(np.clip(-away / soft, -60, 60))
            total += share
            place += share * np.float32(k / (DISCS - 1))
        outline = -soft * np.log(total + np.float32(1e-26))
        if self.flippers:
            outline = np.minimum(outline, self._flippers(across, along))
        return outline, place / (total + np.float32(1e-26))

    def _flippers(self, across: Array, along: Array) -> Array:
        forward, sideways, radii = self.spine()
        nearest = np.full_like(across, 1e3)
        for k, lean in ((2, -0.55), (DISCS - 3, 0.45)):
            for side in (-1.0, 1.0):
                out = np.float32(radii[k] * 0.8)
                tall = (across - sideways[k]) * np.float32(side) - out
                wide = along - forward[k] - np.float32(lean) * np.maximum(tall, 0)
                past = np.maximum(tall - np.float32(0.55 * self.radius), 0)
                under = np.minimum(tall, 0)
                away = distance(wide, past + np.abs(under)) - np.float32(0.27 * self.radius)
                nearest = np.minimum(nearest, away)
        return nearest

    def face(self) -> tuple[float, float, float]:
        """The head's middle (y, x) in the image and the direction it looks in: the spine goes on there."""
        forward, sideways, radii = (values.tolist() for values in self.spine())
        lean = math.atan2(sideways[-1] - sideways[-3], forward[-1] - forward[-3])
        out = 0.35 * radii[-1] + 0.5 * self.head
        along, across = forward[-1] + out * math.cos(lean), sideways[-1] + out * math.sin(lean)
        sine, cosine = math.sin(self.angle), math.cos(self.angle)
        y = self.centre[0] + across * cosine + along * sine
        x = self.centre[1] + along * cosine - across * sine
        return y, x, self.angle + lean

    def head_axes(self, y: Array, x: Array) -> tuple[Array, Array]:
        """Sideways and forward distance from the middle of the head."""
        top, left, angle = self.face()
        return turned(y - np.float32(top), x - np.float32(left), angle)

    def head_distance(self, y: Array, x: Array) -> Array:
        """Signed distance to the head."""
        across, along = self.head_axes(y, x)
        size = np.float32(self.head)
        return HEADS[self.name].outline(across / size, along / size) * size


@dataclass(frozen=True)
class Coat:
    """How a body is painted.

    Attributes:
        pale, dark: (3,) RGB of its two tones.
        kind: 0 mottled, 1 banded, 2 scaled.
        grain: size of the texture, 1 = usual.
    """

    pale: Array
    dark: Array
    kind: int
    grain: float


def coat(rng: np.random.Generator, name: str, tell: float, beneath: Array) -> Coat:
    """Draw a body's paint: the hue leans towards the class, lightness stands off the ground beneath."""
    index = CLASSES.index(name)
    centre = 2 * np.pi * index / len(CLASSES)
    hue = float(rng.vonmises(centre, tell)) / (2 * np.pi) + 0.02
    lean = (index % 3 - 1) * min(tell, 3.0)
    grain = float(np.exp(rng.normal(0.12 * lean, 0.28)))
    weights = np.ones(3) + 0.4 * min(tell, 3.0) * (np.arange(3) == index // 2)
    kind = int(rng.choice(3, p=weights / weights.sum()))
    best, furthest = None, -1.0
    for _ in range(6):
        saturation, value = rng.uniform(0.3, 0.62), rng.uniform(0.42, 0.88)
        away = float(np.abs(colour(hue, saturation, value) - beneath).sum())
        if away > furthest:
            best, furthest = (saturation, value), away
    assert best is not None
    saturation, value = best
    pale = colour(hue, saturation, value + 0.06)
    return Coat(pale, colour(hue + rng.normal(0, 0.03), saturation + 0.12, value * 0.6), kind, grain)


def _relief(edge: Array, thick: float) -> tuple[Array, Array]:
    """Diffuse light and gleam on a rounded surface that rises from its edge over `thick` pixels."""
    inside = np.clip(-edge / np.float32(thick), 0, 1)
    height = np.sqrt(np.clip(1 - np.square(1 - inside), 0, None)) * np.float32(thick * 0.75)
    down, right = np.gradient(height)
    length = np.sqrt(np.square(down) + np.square(right) + 1)
    diffuse = (-down * LIGHT[0] - right * LIGHT[1] + LIGHT[2]) / length
    gleam = np.clip(diffuse, 0, 1) ** np.float32(18)
    return np.clip(diffuse, 0, 1).astype(np.float32), gleam.astype(np.float32)


def paint_body(
    rng: np.random.Generator, creature: Creature, paint: Coat, y: Array, x: Array, edge: Array, place: Array
) -> Array:
    """(h, w, 3) colours of the body at pixels with signed distance `edge`, lit and rounded."""
    across, along = creature.turned(y, x)
    size = np.float32(5.5 * paint.grain)
    blotches = octaves(rng, (edge.shape[0], edge.shape[1]), float(size) * 2.2, 3)
    if paint.kind == 0:
        pattern = step(blotches - np.float32(0.25), 0.9)
    elif paint.kind == 1:
        bands = np.sin(place * np.float32(creature.length * 0.62 / size) + 0.8 * blotches)
        pattern = step(bands, 1.5)
    else:
        seam, tone = cells(rng, along + 400, across + 400, float(size) * 1.25)
        pattern = 1 - np.clip(seam * 2.6, 0, 1) * (0.75 + 0.25 * tone)
    fine = value_noise(rng, along / 2 + 30, across / 2 + 30)
    painted = mix(paint.pale, paint.dark, np.clip(0.8 * pattern + 0.07 * fine, 0, 1))
    diffuse, gleam = _relief(edge, creature.radius)
    light = (0.42 + 0.72 * diffuse) * (1 - 0.4 * np.exp(np.minimum(edge, 0) / 1.6))
    return painted * light[..., None] + np.float32(0.2) * gleam[..., None]


def paint_head(creature: Creature, y: Array, x: Array, edge: Array) -> Array:
    """(h, w, 3) colours of the head, with two eyes."""
    head = HEADS[creature.name]
    across, along = creature.head_axes(y, x)
    first, second = (colour(*tone) for tone in head.colours)
    painted = mix(first, second, head.pattern(across, along, creature.head))
    diffuse, gleam = _relief(edge, creature.head * 0.8)
    light = (0.5 + 0.62 * diffuse) * (1 - 0.4 * np.exp(np.minimum(edge, 0) / 1.4))
    painted = painted * light[..., None] + np.float32(0.22) * gleam[..., None]
    size = np.float32(0.19 * creature.head)
    for side in (-1.0, 1.0):
        away = distance(
            along - np.float32(0.3 * creature.head), across - np.float32(side * 0.46 * creature.head)
        )
        painted = mix(painted, WHITE, step(size - away))
        ahead = distance(
            along - np.float32(0.36 * creature.head), across - np.float32(side * 0.46 * creature.head)
        )
        painted = mix(painted, PUPIL, step(size * np.float32(0.58) - ahead))
    return painted
