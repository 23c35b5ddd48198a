"""How a network lays out its features: rows and columns last, channels last, or a row of tokens.

Found by comparing what two image sizes give, never by the network's name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pseudolabel.errors import DataError
from pseudolabel.explain.grids import fits

SIZES = ((96, 160), (130, 224))  # pixels; the second is no multiple of any usual stride
COARSEST = 64  # pixels a cell
HALVINGS = 5  # of a token grid on its way through a network with stages
OTHERS = "take another network, such as resnet50, tf_efficientnet_lite0 or vit_small_patch16_224"

Size = tuple[int, int]
Kind = Literal["rows", "channels last", "tokens"]


@dataclass(frozen=True)
class Layout:
    """Where the cells of a network's outputs are.

    Attributes:
        kind: of the last features: (B, D, h', w'), (B, h', w', D) or (B, P + h' * w', D).
        depth: D.
        stride: pixels of the input a cell stands for.
        prefix: P, tokens before those of the grid.
        cells: (h, w) of the input -> (h', w') of the finest token grid; None where there are no tokens.
    """

    kind: Kind
    depth: int
    stride: int
    prefix: int = 0
    cells: Callable[[Size], Size] | None = None

    def grid(self, values: Tensor, size: Size) -> Tensor:
        """Output of any module (or its gradient) as (B, D, h', w').

        Args:
            values: what the module gave.
            size: (h, w) of the network's input.

        Raises:
            DataError: its axes are no grid, or may be one in two ways.
        """
        if values.dim() == 4 and self.kind == "rows":
            return values
        if values.dim() == 4:
            first, last = (fits((values.shape[a], values.shape[a + 1]), size) for a in (1, 2))
            if first != last:
                return values.permute(0, 3, 1, 2) if first else values
        if values.dim() == 3 and self.cells is not None:
            layout = self._token_grid(values.shape[1], size)
            if layout is not None:
                prefix, (rows, columns) = layout
                cells = values[:, prefix:].transpose(1, 2)
                return cells.reshape(*cells.shape[:2], rows, columns)
        raise DataError(
            f"layer: an output of shape {tuple(values.shape)} is no grid of features of an image of "
            f"{size[0]} x {size[1]}; take another layer"
        )

    def _token_grid(self, count: int, size: Size) -> tuple[int, Size] | None:
        """Prefix and grid of so many tokens; networks with stages halve the grid as they go."""
        assert self.cells is not None
        rows, columns = self.cells(size)
        for halvings in range(HALVINGS + 1):
            part = 1 << halvings
            grid = (-(-rows // part), -(-columns // part))
            for prefix in dict.fromkeys((self.prefix, 0)):
                if count - prefix == grid[0] * grid[1]:
                    return prefix, grid
        return None


def layout_of(model: nn.Module, features: Callable[[Tensor], Any], name: str, key: str) -> Layout:
    """Find out how the features lie, by a forward of each of two sizes.

    Args:
        model: the network, on the CPU; its mode is put back afterwards.
        features: (B, 3, h, w) -> its last features.
        name, key: of the network and of its section in the recipe, for messages.

    Raises:
        DataError: it takes images of one size alone, or gives no grid.
    """
    training = model.training
    model.eval()
    shapes: list[tuple[int, ...]] = []
    try:
        for size in SIZES:
            try:
                with torch.no_grad():
                    output = features(torch.zeros(1, 3, *size))
            except Exception as error:  # a network may refuse a size in any way
                raise DataError(
                    f"{key}.backbone: {name!r} does not take images of any size ({size[0]} x {size[1]}: "
                    f"{_first_line(error)}); {OTHERS}"
                ) from error
            shapes.append(tuple(output.shape) if isinstance(output, Tensor) else ())
    finally:
        model.train(training)
    layout = _compare(model, shapes)
    if layout is None:
        raise DataError(
            f"{key}.backbone: {name!r} gives no (batch, channels, height, width) grid of features but "
            f"{' and '.join(map(str, shapes))} for images of two sizes; {OTHERS}"
        )
    return layout


def _compare(model: nn.Module, shapes: list[tuple[int, ...]]) -> Layout | None:
    """The one layout that fits both shapes, or None."""
    shape, second = shapes
    if len(shape) != len(second) or len(shape) not in (3, 4):
        return None
    fixed = [axis for axis in range(1, len(shape)) if shape[axis] == second[axis]]
    declared = getattr(model, "num_features", None)
    if len(fixed) != 1 or declared not in (None, shape[fixed[0]]):
        return None
    depth = shape[fixed[0]]
    if len(shape) == 4 and fixed[0] in (1, 3):
        first = 2 if fixed[0] == 1 else 1
        stride = round(SIZES[1][1] / second[first + 1])
        return Layout("rows" if fixed[0] == 1 else "channels last", depth, stride)
    if len(shape) == 3 and fixed[0] == 2:
        return _tokens(model, depth, (shape[1], second[1]))
    return None


def _tokens(model: nn.Module, depth: int, counts: tuple[int, int]) -> Layout | None:
    prefix = int(getattr(model, "num_prefix_tokens", 0))
    declared: Callable[[Size], Size] | None = getattr(
        getattr(model, "patch_embed", None), "dynamic_feat_size", None
    )
    ways = [declared] if declared is not None else [_every(stride) for stride in range(1, COARSEST + 1)]
    layouts = []
    for cells in ways:
        layout = Layout("tokens", depth, 1, prefix, cells)
        grids = [layout._token_grid(count, size) for count, size in zip(counts, SIZES, strict=True)]
        if all(grid is not None and grid[0] == prefix for grid in grids):
            assert grids[1] is not None
            stride = round(SIZES[1][1] / grids[1][1][1])
            layouts.append(Layout("tokens", depth, stride, prefix, cells))
    strides = {layout.stride for layout in layouts}
    return layouts[-1] if len(strides) == 1 else None


def _every(stride: int) -> Callable[[Size], Size]:
    def cells(size: Size) -> Size:
        return -(-size[0] // stride), -(-size[1] // stride)

    return cells


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__
