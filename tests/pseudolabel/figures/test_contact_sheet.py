"""Contact sheets: every image in its cell, whole, in its shape."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pseudolabel.figures.contact_sheet import GAP, NONE, contact_sheet


def plain(height: int, width: int, colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    return np.full((height, width, 3), colour, np.uint8)


def box(sheet: NDArray[np.uint8], colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Top, left, height and width of the pixels of a colour, which must fill their rectangle."""
    rows, columns = np.nonzero((sheet == colour).all(axis=2))
    top, left = rows.min(), columns.min()
    height, width = rows.max() - top + 1, columns.max() - left + 1
    assert len(rows) == height * width
    return int(top), int(left), int(height), int(width)


def test_images_stand_in_their_cells_in_their_shape() -> None:
    red, green, blue = (200, 0, 0), (0, 180, 0), (0, 0, 220)
    rows = [[plain(40, 80, red), plain(80, 40, green)], [plain(10, 10, blue), None]]
    sheet = contact_sheet(rows, ["one", "two"], ["first", "second"], cell=60)
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] == GAP + 2 * (60 + GAP)
    top, left, height, width = box(sheet, red)
    assert (height, width, left) == (30, 60, GAP)
    other, right, tall, narrow = box(sheet, green)
    assert (tall, narrow) == (60, 30)
    assert right == GAP + 60 + GAP + 15  # in the middle of its cell
    assert top == other + 15
    below = box(sheet, blue)
    assert below[2:] == (60, 60)
    assert below[0] > other + 60
    empty = box(sheet, NONE)
    assert (empty[0], empty[2], empty[3]) == (below[0], 60, 60)


def test_heads_and_captions_are_written_and_cut_to_their_place() -> None:
    cell = plain(20, 20, (200, 0, 0))
    bare = contact_sheet([[cell]], [" "], [" "], cell=50)
    for heads, captions in ((["W" * 80], [" "]), ([" "], ["W" * 80]), (["猫\n$x^{"], ["\x1b[31m"])):
        sheet = contact_sheet([[cell]], heads, captions, cell=50)
        assert sheet.shape == bare.shape
        assert (sheet != bare).any()
        assert box(sheet, (200, 0, 0)) == box(bare, (200, 0, 0))  # no letter lies on an image
        assert (sheet[:, -2:] == 255).all()  # nor beyond the sheet


def test_without_captions_the_sheet_is_lower_and_inputs_stay() -> None:
    cell = plain(20, 20, (200, 0, 0))
    kept = cell.copy()
    low, high = (contact_sheet([[cell]] * 2, ["a"], texts) for texts in (None, ["b", "c"]))
    assert low.shape[0] < high.shape[0]
    np.testing.assert_array_equal(cell, kept)


def test_notes_stand_under_their_cells_and_an_empty_caption_takes_no_place() -> None:
    cell = plain(20, 20, (200, 0, 0))
    bare = contact_sheet([[cell, None]], ["a", "b"], cell=50)
    noted = contact_sheet([[cell, None]], ["a", "b"], cell=50, notes=[["", "W"]], blank=(9, 9, 9))
    below = noted[box(noted, (9, 9, 9))[0] + 50 :]
    assert noted.shape[0] > bare.shape[0]
    assert (below[:, : 50 + GAP] == 255).all()
    assert (below[:, 50 + GAP :] < 255).any()
    two = contact_sheet([[cell], [cell]], ["a"], ["", "both"], cell=50)
    assert two.shape[0] < contact_sheet([[cell], [cell]], ["a"], ["one", "two"], cell=50).shape[0]
    with pytest.raises(ValueError, match="notes are not one a cell"):
        contact_sheet([[cell]], ["a"], notes=[["b", "c"]])


@pytest.mark.parametrize(
    ("rows", "heads", "captions", "message"),
    [
        ([], ["a"], None, "nothing to show"),
        ([[None]], [], None, "nothing to show"),
        ([[None]], ["a", "b"], None, "another number of images than 2 heads"),
        ([[None]], ["a"], ["b", "c"], "2 captions for 1 rows"),
    ],
)
def test_what_does_not_fit_is_refused(rows: list, heads: list, captions: list, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=message):
        contact_sheet(rows, heads, captions)
