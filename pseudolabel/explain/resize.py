"""Bilinear resize and its adjoint, the gradient of an image before it of one after it.

    out = R_y X R_x^T,   adjoint(G) = R_y^T G R_x,   <R_y X R_x^T, G> = <X, R_y^T G R_x>

R has the weights of `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`, with
`antialias` those of its triangle filter.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import interpolate


@lru_cache(maxsize=256)
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


@dataclass(frozen=True)
class Resize:
    """From (H, W) = source to (h, w) = target.

    A CPU runs the library's kernels, which look at two pixels a side; elsewhere, and with antialias, it is
    two products with matrices. On a GPU only they promise the same bits every time.
    """

    source: tuple[int, int]
    target: tuple[int, int]
    antialias: bool = False

    def __call__(self, images: Tensor) -> Tensor:
        """(..., H, W) -> (..., h, w)."""
        if self._direct(images):
            planes = images.reshape(1, -1, *self.source)
            out = interpolate(planes, size=self.target, mode="bilinear", align_corners=False)
            return out.reshape(*images.shape[:-2], *self.target)
        rows, columns = self._matrices(images)
        return rows @ (images @ columns.T)

    def back(self, gradients: Tensor) -> Tensor:
        """The gradient (..., H, W) with respect to the image, of one (..., h, w) after the resize."""
        if self._direct(gradients):
            planes = gradients.reshape(1, -1, *self.target).contiguous()
            shape = [1, planes.shape[1], *self.source]
            planes_back: Tensor = torch.ops.aten.upsample_bilinear2d_backward(
                planes, list(self.target), shape, False, None, None
            )
            return planes_back.reshape(*gradients.shape[:-2], *self.source)
        rows, columns = self._matrices(gradients)
        return rows.T @ (gradients @ columns)

    def _direct(self, values: Tensor) -> bool:
        return values.device.type == "cpu" and not self.antialias

    def _matrices(self, values: Tensor) -> tuple[Tensor, Tensor]:
        rows, columns = (
            resize_matrix(before, after, antialias=self.antialias, device=values.device).to(values.dtype)
            for before, after in zip(self.source, self.target, strict=True)
        )
        return rows, columns
