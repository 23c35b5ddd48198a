"""Bilinear resize as a matrix, so that its adjoint is the transposed matrix.

    out = R_y X R_x^T,   adjoint(G) = R_y^T G R_x,   <R_y X R_x^T, G> = <X, R_y^T G R_x>

R has the weights of `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`, with
`antialias` those of its triangle filter. Two products with the matrix also give the same bits on every
device run, which the library's backward of the resize does not promise.
"""

from __future__ import annotations

import torch
from torch import Tensor


def resize_matrix(
    source: int, target: int, *, antialias: bool = False, device: torch.device | str = "cpu"
) -> Tensor:
    """Weights (target, source) float32 of a bilinear resize along one axis; every row sums to 1."""
    ratio = source / target
    centre = (torch.arange(target, dtype=torch.float64, device=device) + 0.5) * ratio
    if antialias and ratio > 1:
        place = torch.arange(source, dtype=torch.float64, device=device) + 0.5
        weights = (1 - (place[None] - centre[:, None]).abs() / ratio).clamp(min=0)
        return (weights / weights.sum(dim=1, keepdim=True)).float()
    position = (centre - 0.5).clamp(min=0)
    lower = position.floor().long().clamp(max=source - 1)
    upper = (lower + 1).clamp(max=source - 1)
    share = (position - lower)[:, None]
    matrix = torch.zeros(target, source, dtype=torch.float64, device=device)
    matrix.scatter_add_(1, lower[:, None], 1 - share)
    matrix.scatter_add_(1, upper[:, None], share)
    return matrix.float()


def resize(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(..., H, W) -> (..., h, w) with matrices (h, H) and (w, W)."""
    return rows @ (images @ columns.T)


def adjoint(gradients: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The gradient (..., H, W) with respect to the image, of one (..., h, w) after `resize`."""
    return rows.T @ (gradients @ columns)


def axes_of(
    source: tuple[int, int], target: tuple[int, int], antialias: bool, device: torch.device | str
) -> tuple[Tensor, Tensor]:
    """The two matrices that resize (H, W) = source to (h, w) = target."""
    rows, columns = (
        resize_matrix(before, after, antialias=antialias, device=device)
        for before, after in zip(source, target, strict=True)
    )
    return rows, columns
