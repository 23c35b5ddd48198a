"""The sheet of a preview: every image in its column, its mistakes coloured, names as plain text."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ImageDraw

from pseudolabel.figures.contact_sheet import GAP
from pseudolabel.figures.mistakes import COLOURS
from pseudolabel.figures.preview_sheet import Row, ShownMap, preview_sheet

CELL = 60
NAMES = {0: "background", 1: "cat", 2: "dog"}
PIXELS = np.full((30, 60, 3), 90, np.uint8)
MASK = np.repeat(np.array([[0, 1, 2]], np.uint8), 20, axis=1).repeat(30, axis=0)
TRUTH = np.where(MASK == 2, 0, 2).astype(np.uint8)


def rising(label: int) -> ShownMap:
    values = np.linspace(0, 1, 60, dtype=np.float32)[None].repeat(30, axis=0)
    return ShownMap(label, 7 * values, values)


ROW = Row("first", PIXELS, [rising(1)], MASK, TRUTH)


def column(sheet: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
    left = GAP + index * (CELL + GAP)
    return sheet[:, left : left + CELL]


def has(pixels: NDArray[np.uint8], colour: tuple[int, ...], near: int = 3) -> bool:
    return bool((np.abs(pixels.astype(int) - colour).max(axis=2) <= near).any())


def test_columns_show_what_their_heads_say() -> None:
    sheet = preview_sheet([ROW], NAMES, ["title"], CELL)
    above = slice(0, sheet.shape[0] - 110)  # the legend has the same colours
    assert has(column(sheet, 0)[above], (90, 90, 90), 0)
    for place in (1, 2):
        shown = column(sheet, place)[above]
        assert has(shown, (34, 34, 36), 8), "low is dark"
        assert has(shown, (190, 193, 136), 12), "high is pale yellow"
    for place in (3, 5):
        assert has(column(sheet, place)[above], (0, 128, 0) if place == 5 else (128, 0, 0), 0)
    wrong = column(sheet, 6)[above]
    for kind in ("missed", "false", "wrong class"):
        assert has(wrong, tuple(round(0.8 * level + 0.2 * 90) for level in COLOURS[kind]))
    assert sheet.shape[1] == GAP + 7 * (CELL + GAP)


def test_without_a_truth_there_are_no_columns_for_it_and_further_classes_stand_below() -> None:
    bare = replace(ROW, truth=None)
    single = preview_sheet([bare], NAMES, ["title"], CELL)
    assert single.shape[1] == GAP + 5 * (CELL + GAP)
    two = preview_sheet([replace(bare, maps=[rising(1), rising(2)])], NAMES, ["title"], CELL)
    assert two.shape[0] > single.shape[0] + 30
    broken = preview_sheet([bare, Row("second: not done")], NAMES, ["title"], CELL)
    assert broken.shape[0] > single.shape[0]


def test_names_are_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    plain = ImageDraw.ImageDraw.text

    def text(self: ImageDraw.ImageDraw, xy: object, words: str, *rest: object) -> None:
        written.append(words)
        plain(self, xy, words, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    names = {**NAMES, 1: "ca\x1b[31mt\u202e", 2: "[red]{{ 7 }}"}
    preview_sheet([replace(ROW, caption="id\n\x07")], names, ["ti\ttle"], 400)
    shown = "".join(written)
    assert shown.isprintable()
    for piece in (r"id\n\x07", r"ca\x1b[31mt\u202e", "[red]{{ 7 }}", r"ti\ttle"):
        assert piece in shown
