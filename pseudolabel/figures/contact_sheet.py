"""Images in a grid with captions: a row an image, a column a way to see it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
GAP = 8  # pixels between cells
TEXT = 13  # pixels high
INK, PAPER, FAINT = (32, 38, 46), (255, 255, 255), (120, 128, 138)
NONE = (240, 242, 244)  # a cell without an image


def contact_sheet(  # long: the checks and the drawing of one page, top to bottom
    rows: Sequence[Sequence[NDArray[np.uint8] | None]],
    heads: Sequence[str],
    captions: Sequence[str] | None = None,
    cell: int = 180,
    notes: Sequence[Sequence[str]] | None = None,
    blank: Colour = NONE,
) -> NDArray[np.uint8]:
    """Lay images out in a grid.

    Args:
        rows: of each image its images, (H, W, 3) uint8 of any size, one a head; None leaves a blank
            cell.
        heads: what the columns show.
        captions: a text under each row, or None; an empty text takes no place, so that a row that goes on
            in the next has its caption below both.
        cell: long side of an image on the sheet, pixels.
        notes: a text under each cell, one an image, or None; an empty text leaves its place free.
        blank: colour of a cell without an image.

    Returns:
        (H, W, 3) uint8; images keep their shape and are resized to fit their cell. Letters that the
        built-in font lacks show as boxes.

    Raises:
        ValueError: no row, a row of another length than the heads, or texts that do not fit the rows.
    """
    if not rows or not heads:
        raise ValueError("contact_sheet: there is nothing to show")
    if any(len(row) != len(heads) for row in rows):
        raise ValueError(f"contact_sheet: a row has another number of images than {len(heads)} heads")
    if captions is not None and len(captions) != len(rows):
        raise ValueError(f"contact_sheet: {len(captions)} captions for {len(rows)} rows")
    if notes is not None and [len(row) for row in notes] != [len(row) for row in rows]:
        raise ValueError("contact_sheet: notes are not one a cell")
    font = ImageFont.load_default(TEXT)
    line = TEXT + GAP
    heights = [_height(row, cell) for row in rows]
    captioned = [text != "" for text in captions] if captions is not None else [False] * len(rows)
    below = len(rows) * (GAP + line * (notes is not None)) + line * sum(captioned)
    width = GAP + len(heads) * (cell + GAP)
    sheet = Image.new("RGB", (width, GAP + line + sum(heights) + below), PAPER)
    pen = ImageDraw.Draw(sheet)
    for column, head in enumerate(heads):
        pen.text((_left(column, cell), GAP), _fitted(head, font, cell), INK, font)
    top = GAP + line
    for index, row in enumerate(rows):
        for column, image in enumerate(row):
            left = _left(column, cell)
            if image is None:
                pen.rectangle((left, top, left + cell - 1, top + heights[index] - 1), fill=blank)
                continue
            size = _size(image.shape[:2], cell)
            resized = Image.fromarray(image).resize(size[::-1], Image.Resampling.LANCZOS)
            sheet.paste(resized, (left + (cell - size[1]) // 2, top + (heights[index] - size[0]) // 2))
        top += heights[index] + 2
        if notes is not None:
            for column, note in enumerate(notes[index]):
                pen.text((_left(column, cell), top), _fitted(note, font, cell), FAINT, font)
            top += line
        if captions is not None and captioned[index]:
            pen.text((GAP, top), _fitted(captions[index], font, width - 2 * GAP), INK, font)
            top += line
        top += GAP - 2
    return np.asarray(sheet, dtype=np.uint8)


def _left(column: int, cell: int) -> int:
    return GAP + column * (cell + GAP)


def _size(shape: tuple[int, ...], cell: int) -> tuple[int, int]:
    """(height, width) of an image whose long side is the cell's."""
    scale = cell / max(shape)
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def _height(row: Sequence[NDArray[np.uint8] | None], cell: int) -> int:
    return max((_size(image.shape[:2], cell)[0] for image in row if image is not None), default=cell)


def _fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text on one line, its end cut off where it is wider than its place."""
    shown = " ".join(text.split())
    if font.getlength(shown) <= width:
        return shown
    while shown and font.getlength(shown + "...") > width:
        shown = shown[:-1]
    return shown + "..."
