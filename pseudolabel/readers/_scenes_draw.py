"""One scene: ground, creatures one over another, leaves on top, and the masks that belong to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from pseudolabel.draws import seed_of
from pseudolabel.readers import _scenes_ground as grounds
from pseudolabel.readers._scenes_creature import (
    CLASSES,
    HEAD_REACH,
    HEADS,
    Coat,
    Creature,
    coat,
    paint_body,
    paint_head,
)
from pseudolabel.readers._scenes_noise import Array, mix, octaves, step, turned, value_noise
from pseudolabel.records import BACKGROUND, IGNORE

PART, BODY = 1, 2
COARSE = 4  # pixels between samples where a scene is only planned
ATTEMPTS = 24  # poses tried before a creature is left out
SEEN = 0.5  # share of a creature that must stay in sight
HEAD_SEEN = 0.7  # share of its head; less would leave a label that nothing shows
SHARES = (0.17, 0.28)  # area of the head within the creature; outlines then take some of it
HIDDEN = 0.6  # share of a head that lies over its body


@dataclass(frozen=True, eq=False)
class Scene:
    """An image with what is known of it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) uint8, 0 ground, 1..C classes, 255 within a pixel of any outline.
        parts: (H, W) uint8, 1 head, 2 body, 0 ground, 255 exactly where the mask has it.
        labels: ascending class ids that have a pixel in the mask.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    parts: NDArray[np.uint8]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Leaf:
    """A leaf: (y, x) of its middle, direction, half length and half width in pixels."""

    centre: tuple[float, float]
    angle: float
    length: float
    width: float

    def axes(self, y: Array, x: Array) -> tuple[Array, Array]:
        """Distance across and along the rib."""
        return turned(y - np.float32(self.centre[0]), x - np.float32(self.centre[1]), self.angle)

    def distance(self, y: Array, x: Array) -> Array:
        """Signed distance, negative inside."""
        return grounds.leaf_distance(*self.axes(y, x), self.length, self.width)


def shapes(size: int) -> tuple[tuple[int, int], ...]:
    """The image sizes (H, W) of a data set whose long side is `size` pixels."""
    short, middle = round(size * 0.8), round(size * 0.9)
    return ((short, size), (size, short), (middle, middle))


def draw(seed: int, split: str, index: int, size: int, tell: float) -> Scene:
    """Draw the scene `index` of a split; it follows from the arguments and nothing else.

    Args:
        seed, split, index: what tells scenes apart.
        size: long side in pixels, >= 64.
        tell: how much bodies tell their class (concentration of their hue), >= 0.
    """
    rng = np.random.Generator(np.random.PCG64(seed_of("scenes", seed, split, index)))
    options = shapes(size)
    height, width = options[rng.choice(len(options), p=[0.5, 0.25, 0.25])]
    canvas = grounds.ground(rng, (height, width))
    creatures, leaves = _plan(rng, height, width)
    for leaf in _litter(rng, height, width, creatures):
        _lay_leaf(rng, canvas, leaf)
    beneath = canvas.reshape(-1, 3).mean(axis=0)
    owner = np.zeros((height, width), np.int16)
    part = np.zeros((height, width), bool)
    for number, creature in enumerate(creatures, start=1):
        paint = coat(rng, creature.name, tell, beneath)
        _lay_creature(rng, canvas, creature, paint, owner, part, number)
    for leaf in leaves:
        _lay_leaf(rng, canvas, leaf)
        y, x = _pixels((0, height), (0, width))
        owner[leaf.distance(y, x) < 0] = 0
    border = _border(owner)
    table = np.array([BACKGROUND, *(CLASSES.index(c.name) + 1 for c in creatures)], np.uint8)
    mask = np.where(border, np.uint8(IGNORE), table[owner])
    inside = np.where(owner == 0, np.uint8(0), np.where(part, np.uint8(PART), np.uint8(BODY)))
    parts = np.where(border, np.uint8(IGNORE), inside)
    labels = tuple(int(value) for value in np.unique(mask) if value not in (BACKGROUND, IGNORE))
    return Scene(_develop(rng, canvas), mask, parts, labels)


def _plan(rng: np.random.Generator, height: int, width: int) -> tuple[list[Creature], list[Leaf]]:
    """Creatures, lowest first, and the leaves over them; every head stays in sight."""
    count = int(rng.choice((1, 2, 3), p=(0.4, 0.38, 0.22)))
    margin = min(height, width) // 2
    y, x = _pixels((-margin, height + margin), (-margin, width + margin), COARSE)
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    creatures: list[Creature] = []
    regions: list[tuple[NDArray[np.bool_], NDArray[np.bool_]]] = []
    for _ in range(count):
        for _ in range(ATTEMPTS):
            new = _creature(rng, height, width, count)
            head = new.head_distance(y, x) < 0
            outline = head | (new.body_distance(y, x)[0] < 0)
            if _in_sight([*regions, (head, outline)], inside, []):
                creatures.append(new)
                regions.append((head, outline))
                break
    leaves: list[Leaf] = []
    covers: list[NDArray[np.bool_]] = []
    for creature in creatures:
        if rng.random() > 0.45:
            continue
        for _ in range(6):
            leaf = _leaf_near(rng, creature)
            cover = leaf.distance(y, x) < 0
            if _in_sight(regions, inside, [*covers, cover]):
                leaves.append(leaf)
                covers.append(cover)
                break
    return creatures, leaves


def _in_sight(
    regions: list[tuple[NDArray[np.bool_], NDArray[np.bool_]]],
    inside: NDArray[np.bool_],
    covers: list[NDArray[np.bool_]],
) -> bool:
    """Whether enough of every creature and of its head is seen, the last one lying on top."""
    free = inside.copy()
    for cover in covers:
        free &= ~cover
    for head, outline in reversed(regions):
        if (outline & free).sum() < SEEN * outline.sum() or (head & free).sum() < HEAD_SEEN * head.sum():
            return False
        free &= ~outline
    return True


def _creature(rng: np.random.Generator, height: int, width: int, count: int) -> Creature:
    name = CLASSES[rng.integers(len(CLASSES))]
    total = min(height, width) * float(rng.uniform(0.62, 0.95)) * (1.0, 0.88, 0.76)[count - 1]
    slender = float(rng.uniform(1.3, 3.0))  # spine to radius
    radius = total / (slender + 2.6)
    length = radius * slender
    thin = float(rng.uniform(0.4, 0.75))
    # A band along the spine with a half disc at each end; 1.4 for flippers and what melting adds.
    area = 1.4 * (2 * radius * length * (0.64 + 0.36 * thin) + np.pi * (radius * thin) ** 2)
    share = float(rng.uniform(*SHARES))
    head = np.sqrt(share * area / (1 - HIDDEN * share) / HEADS[name].area)
    low = 0.22 if count == 1 else 0.14
    centre = (float(rng.uniform(low, 1 - low)) * height, float(rng.uniform(low, 1 - low)) * width)
    return Creature(
        name=name,
        centre=centre,
        angle=float(rng.uniform(0, 2 * np.pi)),
        length=length,
        radius=radius,
        bend=float(rng.uniform(-0.22, 0.22)),
        taper=float(rng.uniform(0.75, 1.5)),
        thin=thin,
        flippers=bool(rng.random() < 0.55),
        head=float(head),
    )


def _leaf_near(rng: np.random.Generator, creature: Creature) -> Leaf:
    """A leaf over the rear or a flank."""
    back = float(rng.uniform(-0.2, 0.7)) * creature.length
    aside = float(rng.normal(0, 0.8)) * creature.radius
    sine, cosine = np.sin(creature.angle), np.cos(creature.angle)
    y = creature.centre[0] - back * sine + aside * cosine
    x = creature.centre[1] - back * cosine - aside * sine
    length = creature.radius * float(rng.uniform(0.8, 1.4))
    return Leaf((y, x), float(rng.uniform(0, 2 * np.pi)), length, length * float(rng.uniform(0.3, 0.5)))


def _litter(rng: np.random.Generator, height: int, width: int, creatures: list[Creature]) -> list[Leaf]:
    """Leaves on the ground, under the creatures."""
    leaves = []
    for _ in range(int(rng.integers(0, 5))):
        length = float(rng.uniform(0.06, 0.13)) * min(height, width)
        centre = (float(rng.uniform(0, height)), float(rng.uniform(0, width)))
        leaves.append(
            Leaf(centre, float(rng.uniform(0, 2 * np.pi)), length, length * float(rng.uniform(0.3, 0.55)))
        )
    return leaves


def _pixels(rows: tuple[int, int], columns: tuple[int, int], pitch: int = 1) -> tuple[Array, Array]:
    """Pixel centres of a window, in pixels."""
    y, x = np.mgrid[rows[0] : rows[1] : pitch, columns[0] : columns[1] : pitch].astype(np.float32)
    return y, x


def _window(centre: tuple[float, float], reach: float, height: int, width: int) -> tuple[slice, slice]:
    rows = slice(max(0, int(centre[0] - reach)), max(0, min(height, int(centre[0] + reach) + 1)))
    return rows, slice(max(0, int(centre[1] - reach)), max(0, min(width, int(centre[1] + reach) + 1)))


def _shade(canvas: Array, rows: slice, columns: slice, cover: Array, drop: float, strength: float) -> None:
    """Throw the soft shadow of `cover`, which lies in a window of the canvas, away from the light."""
    offset, kind = max(1, round(drop)), round(3 * drop) + 2
    padded = np.pad((cover * 255).astype(np.uint8), kind)
    soft = np.asarray(Image.fromarray(padded).filter(ImageFilter.GaussianBlur(drop * 0.9)), np.float32)
    top, left = rows.start - kind + offset, columns.start - kind + offset
    view = canvas[max(top, 0) : top + soft.shape[0], max(left, 0) : left + soft.shape[1]]
    soft = soft[max(-top, 0) :, max(-left, 0) :][: view.shape[0], : view.shape[1]]
    view *= 1 - soft[..., None] * np.float32(strength / 255)


def _lay_creature(
    rng: np.random.Generator,
    canvas: Array,
    creature: Creature,
    paint: Coat,
    owner: NDArray[np.int16],
    part: NDArray[np.bool_],
    number: int,
) -> None:
    """Paint a creature over the canvas and enter it in `owner` and `part`, all three changed in place."""
    height, width = owner.shape
    rows, columns = _window(creature.centre, creature.reach(), height, width)
    y, x = _pixels((rows.start, rows.stop), (columns.start, columns.stop))
    body, place = creature.body_distance(y, x)
    head = creature.head_distance(y, x)
    outline = np.minimum(body, head)
    _shade(canvas, rows, columns, step(-outline), 0.2 * creature.radius + 1, 0.55)
    view = canvas[rows, columns]
    view = mix(view, paint_body(rng, creature, paint, y, x, body, place), step(-body))
    # The head throws a little shade on the neck, which keeps the two apart.
    view = view * (1 - 0.35 * np.exp(-np.maximum(head, 0) / 2) * step(-body))[..., None]
    canvas[rows, columns] = view
    top, left, _ = creature.face()
    near, beside = _window((top, left), HEAD_REACH * creature.head + 2, height, width)
    y, x = _pixels((near.start, near.stop), (beside.start, beside.stop))
    edge = creature.head_distance(y, x)
    canvas[near, beside] = mix(canvas[near, beside], paint_head(creature, y, x, edge), step(-edge))
    owner[rows, columns][outline < 0] = number
    part[rows, columns][outline < 0] = head[outline < 0] < 0


def _lay_leaf(rng: np.random.Generator, canvas: Array, leaf: Leaf) -> None:
    """Paint a leaf over the canvas, in place."""
    height, width = canvas.shape[:2]
    rows, columns = _window(leaf.centre, leaf.length + 2, height, width)
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    y, x = _pixels((rows.start, rows.stop), (columns.start, columns.stop))
    across, along = leaf.axes(y, x)
    edge = leaf.distance(y, x)
    blade, rib = grounds.leaf_colours(rng)
    _shade(canvas, rows, columns, step(-edge), 1.6, 0.45)
    tone = 1 + 0.16 * value_noise(rng, along / 3 + 40, across / 3 + 40) + 0.12 * np.sign(across)
    veins = np.abs(np.sin((along + 1.2 * np.abs(across)) * np.float32(1.1)))
    painted = mix(blade * tone[..., None], rib, 0.25 * step(veins - np.float32(0.93), 0.2))
    painted = mix(painted, rib, step(np.float32(0.5) - np.abs(across)))
    painted = painted * (1 - 0.35 * np.exp(np.minimum(edge, 0) / 1.3))[..., None]
    canvas[rows, columns] = mix(canvas[rows, columns], painted, step(-edge))


def _border(owner: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Pixels that touch (4 neighbours) another owner: two pixels wide, one on each side."""
    border = np.zeros(owner.shape, bool)
    differs = owner[1:] != owner[:-1]
    border[1:] |= differs
    border[:-1] |= differs
    differs = owner[:, 1:] != owner[:, :-1]
    border[:, 1:] |= differs
    border[:, :-1] |= differs
    return border


def _develop(rng: np.random.Generator, canvas: Array) -> NDArray[np.uint8]:
    """Light across the image, exposure and a little grain; (H, W, 3) uint8."""
    height, width = canvas.shape[:2]
    light = 1 + np.float32(0.06) * octaves(rng, (height, width), 90, 1)
    y, x = _pixels((0, height), (0, width))
    corner = np.square(y / height - 0.5) + np.square(x / width - 0.5)
    exposure = float(np.exp(rng.normal(0, 0.08)))
    lit = canvas * (light * (1.03 - 0.32 * corner) * np.float32(exposure))[..., None]
    grain = rng.standard_normal((height, width, 1), dtype=np.float32) * np.float32(0.012)
    pixels: NDArray[np.uint8] = (np.clip(lit + grain, 0, 1) * 255 + np.float32(0.5)).astype(np.uint8)
    return pixels
