"""What a recipe does to some images on one sheet: maps before and after refining, mask, truth, mistakes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pseudolabel.console import escape
from pseudolabel.figures.contact_sheet import FAINT, GAP, INK, PAPER, TEXT, Colour, contact_sheet
from pseudolabel.figures.heat import heat, ramp
from pseudolabel.figures.mistakes import COLOURS, MEANING, mistakes
from pseudolabel.figures.overlays import overlay
from pseudolabel.masks import PALETTE, colour
from pseudolabel.records import BACKGROUND, IGNORE

CELL = 240  # pixels, long side of an image
BAR = 90  # pixels, length of the bar of colours
SWATCH = 12  # pixels
BRIGHT = 99.5  # percentile of a raw map that has the last colour: single pixels outshine the rest
SMALLEST = 0.005  # share of an image below which a class is not written under a mask


@dataclass(frozen=True, eq=False)
class ShownMap:
    """One class of one image.

    Attributes:
        label: class id.
        raw, refined: (H, W) float32 before and after the refiners.
        unit: whether the refined one has the range 0..1; else it is shown from its lowest to its highest.
    """

    label: int
    raw: NDArray[np.float32]
    refined: NDArray[np.float32]
    unit: bool = True


@dataclass(frozen=True, eq=False)
class Row:
    """One image.

    Attributes:
        caption: what is said of it.
        pixels: (H, W, 3) uint8, or None where it could not be read.
        maps: its classes, the first to be shown first.
        mask: (H, W) uint8, or None where there is none.
        truth: (H, W) uint8, or None.
    """

    caption: str
    pixels: NDArray[np.uint8] | None = None
    maps: Sequence[ShownMap] = field(default_factory=tuple)
    mask: NDArray[np.uint8] | None = None
    truth: NDArray[np.uint8] | None = None


_Line = list[tuple[NDArray[np.uint8] | None, str]]


def preview_sheet(
    rows: Sequence[Row], names: Mapping[int, str], title: Sequence[str], cell: int = CELL
) -> NDArray[np.uint8]:
    """Draw the sheet.

    Args:
        rows: the images in order, at least one.
        names: of the class ids, background included; plain text, control characters are escaped.
        title: lines on top.
        cell: long side of an image on the sheet, pixels.

    Returns:
        (H, W, 3) uint8. The maps of an image's further classes stand below those of its first; truth and
        mistakes have columns only where some image has a truth.
    """
    scored = any(row.truth is not None for row in rows)
    heads = ["image", "raw map", "refined map", "mask", "overlay"]
    if scored:
        heads += ["truth", "mistakes"]
    cells = [line for row in rows for line in _lines(row, names, scored)]
    grid = contact_sheet(
        [[shown for shown, _ in line] for _, line in cells],
        heads,
        [escape(caption) for caption, _ in cells],
        cell,
        [[escape(note) for _, note in line] for _, line in cells],
        PAPER,
    )
    entries: list[list[tuple[Colour | None, str]]] = [
        [(None, f"low to high; raw: lowest value to {BRIGHT:g}th percentile of the map, refined: 0 to 1")],
        [(_tuple(PALETTE[label]), escape(names.get(label, str(label)))) for label in _shown(rows)],
    ]
    if scored:
        entries.append([(COLOURS[kind], MEANING[kind]) for kind in COLOURS])
    width = grid.shape[1]
    return np.concatenate([_title(title, width), grid, _legend(entries, width)])


def _lines(row: Row, names: Mapping[int, str], scored: bool) -> list[tuple[str, _Line]]:
    """The lines of an image: a caption (the last has one) and cells, each an image and its note."""
    pixels, mask, truth = row.pixels, row.mask, row.truth
    if pixels is None:
        return [(row.caption, [(None, "")] * (7 if scored else 5))]
    masks: _Line = [(None, ""), (None, "")]
    if mask is not None:
        masks = [(colour(mask), _shares(mask, names)), (overlay(pixels, mask), "")]
    if scored and truth is not None:
        masks.append((colour(truth), _shares(truth, names)))
        masks.append((None if mask is None else mistakes(pixels, mask, truth), ""))
    elif scored:
        masks += [(None, ""), (None, "")]
    maps = [_pair(pixels, class_map, names) for class_map in row.maps] or [[(None, ""), (None, "")]]
    first: _Line = [(pixels, " x ".join(map(str, pixels.shape[:2]))), *maps[0], *masks]
    empty: _Line = [(None, "")]
    lines = [first, *([*empty, *pair, *(empty * len(masks))] for pair in maps[1:])]
    return [("", line) for line in lines[:-1]] + [(row.caption, lines[-1])]


def _pair(pixels: NDArray[np.uint8], class_map: ShownMap, names: Mapping[int, str]) -> _Line:
    """The map of a class before and after refining."""
    name = names.get(class_map.label, str(class_map.label))
    raw, refined = class_map.raw, class_map.refined
    low, high = float(raw.min()), float(raw.max())
    bounds = (0.0, 1.0) if class_map.unit else (float(refined.min()), float(refined.max()))
    bright = float(np.percentile(raw, BRIGHT))
    return [
        (heat(pixels, raw, low, bright), f"{name}: {low:.3g} to {high:.3g}"),
        (heat(pixels, refined, *bounds), f"{name}: {refined.min():.3g} to {refined.max():.3g}"),
    ]


def _shares(mask: NDArray[np.uint8], names: Mapping[int, str]) -> str:
    """What a mask holds beside background, the largest first."""
    counts = np.bincount(mask.ravel(), minlength=256) / mask.size
    labels = [label for label in np.argsort(-counts, kind="stable") if label not in (BACKGROUND, IGNORE)]
    said = [f"{names.get(int(c), str(c))} {100 * counts[c]:.0f} %" for c in labels if counts[c] >= SMALLEST]
    if counts[IGNORE] >= SMALLEST:
        said.append(f"unknown {100 * counts[IGNORE]:.0f} %")
    return ", ".join(said) or "background only"


def _shown(rows: Iterable[Row]) -> list[int]:
    """Classes in any mask or truth, background and 255 left out."""
    ids: set[int] = set()
    for row in rows:
        for mask in (row.mask, row.truth):
            if mask is not None:
                ids.update(np.unique(mask).tolist())
    return sorted(ids - {BACKGROUND, IGNORE})


def _title(lines: Sequence[str], width: int) -> NDArray[np.uint8]:
    """Lines of text on top, the first larger; a long one goes on in the next."""
    step, small = TEXT + GAP, ImageFont.load_default(TEXT)
    lines = [part for line in lines for part in _wrapped(escape(line), small, width - 4 * GAP)]
    strip = Image.new("RGB", (width, GAP + 4 + step * len(lines)), PAPER)
    pen = ImageDraw.Draw(strip)
    for index, line in enumerate(lines):
        font = ImageFont.load_default(TEXT if index else TEXT + 4)
        pen.text((GAP, GAP + index * step + 4 * (index > 0)), line, FAINT if index else INK, font)
    return np.asarray(strip, dtype=np.uint8)


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """The text in lines that fit, broken between words."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append("  " + word)
        else:
            lines[-1] = longer
    return lines


def _legend(groups: Sequence[Sequence[tuple[Colour | None, str]]], width: int) -> NDArray[np.uint8]:
    """Swatches with their meaning, a group a line or more; None stands for the bar of the maps."""
    font = ImageFont.load_default(TEXT)
    step, placed, y = TEXT + GAP, [], GAP
    for group in filter(None, groups):
        x = GAP
        for swatch, text in group:
            own = (BAR if swatch is None else SWATCH) + 6
            wide = own + round(font.getlength(text)) + 3 * GAP
            if x > GAP and x + wide > width:
                x, y = GAP, y + step
            placed.append((x, y, own, swatch, text))
            x += wide
        y += step
    strip = Image.new("RGB", (width, y + GAP), PAPER)
    pen = ImageDraw.Draw(strip)
    pen.line((GAP, 0, width - GAP, 0), fill=(220, 224, 228))
    for x, top, own, swatch, text in placed:
        if swatch is None:
            bar = Image.fromarray(np.tile(ramp()[None], (SWATCH, 1, 1))).resize((BAR, SWATCH))
            strip.paste(bar, (x, top + 1))
        else:
            pen.rectangle((x, top + 1, x + SWATCH, top + 1 + SWATCH), fill=swatch, outline=FAINT)
        pen.text((x + own, top), text, INK, font)
    return np.asarray(strip, dtype=np.uint8)


def _tuple(values: NDArray[np.uint8]) -> Colour:
    red, green, blue = values.tolist()
    return red, green, blue
