"""What the ranks of a training tell one another; with one rank every function gives back what it got.

Gradients are added up here, not by `DistributedDataParallel`, since an objective may run several forwards
of a network, or of a module of its own, and an image list may leave a rank without an item: a sum over what
each rank has is exact in all these cases. Every rank must call the same functions in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from lightning_fabric import Fabric

T = TypeVar("T")


def add(fabric: Fabric, value: Tensor) -> Tensor:
    """Sum over the ranks of a tensor of any shape on any device, on the device it came from."""
    if fabric.world_size == 1:
        return value
    total: Any = fabric.all_reduce(value.to(fabric.device), reduce_op="sum")
    return total.to(value.device) if isinstance(total, Tensor) else value


def any_rank(fabric: Fabric, flag: bool) -> bool:
    """Whether a flag is set on at least one rank."""
    return bool(add(fabric, torch.tensor(float(flag))) > 0)


def gather(fabric: Fabric, value: T) -> list[T]:
    """A small plain value of every rank, in the order of the ranks."""
    if fabric.world_size == 1:
        return [value]
    values: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(values, value)
    return values


def add_gradients(fabric: Fabric, parameters: Sequence[nn.Parameter]) -> None:
    """Replace each gradient by its sum over the ranks.

    A parameter that has no gradient on any rank keeps none: neither decay nor momentum then moves it.
    """
    if fabric.world_size == 1:
        return
    has = add(fabric, torch.tensor([float(p.grad is not None) for p in parameters])) > 0
    used = [parameter for parameter, flag in zip(parameters, has.tolist(), strict=True) if flag]
    for group in _by_type(used):
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in group])
        parts = add(fabric, flat).split_with_sizes([p.numel() for p in group])
        for parameter, part in zip(group, parts, strict=True):
            if parameter.grad is None:
                parameter.grad = torch.empty_like(parameter)
            parameter.grad.copy_(part.view_as(parameter))


@torch.no_grad()
def take_first(fabric: Fabric, tensors: Iterable[Tensor]) -> None:
    """Give every rank the values that the first rank has."""
    if fabric.world_size == 1:
        return
    for group in _by_type(tensors):
        flat = torch.cat([tensor.reshape(-1) for tensor in group])
        if fabric.global_rank > 0:
            flat.zero_()
        parts = add(fabric, flat).split_with_sizes([tensor.numel() for tensor in group])
        for tensor, part in zip(group, parts, strict=True):
            tensor.copy_(part.view_as(tensor))


X = TypeVar("X", bound=Tensor)


def _by_type(tensors: Iterable[X]) -> list[list[X]]:
    groups: dict[torch.dtype, list[X]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.dtype, []).append(tensor)
    return list(groups.values())
