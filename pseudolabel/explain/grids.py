"""Where the cells of a layer's output are: rows and columns last, channels last, or a row of tokens.

Told from shapes and the size of the image alone, never by the network's name.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

from torch import Tensor

from pseudolabel.errors import DataError

COARSEST = 64  # pixels of the input that a cell stands for

Size = tuple[int, int]


def grid_of(values: Tensor, size: Size, prefixes: Iterable[int]) -> Tensor:
    """Output of a module, or its gradient, as (B, D, h', w').

    Four axes are channels first, unless only axes 1 and 2 fit the image.

    Args:
        values: what the module gave.
        size: (h, w) of the network's input.
        prefixes: how many tokens may stand before those of the grid, the likeliest first.

    Raises:
        DataError: its axes are no grid.
    """
    if values.dim() == 4:
        first, last = (fits((values.shape[axis], values.shape[axis + 1]), size) for axis in (1, 2))
        return values.permute(0, 3, 1, 2) if first and not last else values
    if values.dim() == 3:
        cells = _token_cells(values.shape[1], size, prefixes)
        if cells is not None:
            tokens = values[:, values.shape[1] - cells[0] * cells[1] :].transpose(1, 2)
            return tokens.reshape(*tokens.shape[:2], *cells)
    raise DataError(
        f"layer: an output of shape {tuple(values.shape)} is no grid of features of an image of "
        f"{size[0]} x {size[1]}; take another layer"
    )


def fits(cells: Size, size: Size) -> bool:
    """Whether these may be the cells of one stride over an image, its last cell whole or not."""
    if not 0 < cells[0] <= size[0] or not 0 < cells[1] <= size[1]:
        return False
    ways = product((0, 1), repeat=2)
    return any(
        (size[0] + a * (stride - 1)) // stride == cells[0]
        and (size[1] + b * (stride - 1)) // stride == cells[1]
        for a, b in ways
        for stride in range(size[0] // (cells[0] + 1), size[0] // max(cells[0] - 1, 1) + 1)
        if stride > 0
    )


def _token_cells(count: int, size: Size, prefixes: Iterable[int]) -> Size | None:
    """(h', w') of so many tokens, those before the grid left out."""
    for prefix in prefixes:
        for stride, exact in product(range(1, COARSEST + 1), (True, False)):
            more = 0 if exact else stride - 1
            cells = (size[0] + more) // stride, (size[1] + more) // stride
            if cells[0] * cells[1] == count - prefix > 1:
                return cells
    return None
