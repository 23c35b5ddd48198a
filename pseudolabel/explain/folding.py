"""Batch norm folded into the convolution before it, for any network, by watching one forward.

    w' = w * gamma / sqrt(var + eps),   b' = (b - mean) * gamma / sqrt(var + eps) + beta

A pair is folded where the norm reads exactly the tensor that the convolution wrote. Works where symbolic
tracing does not: timm's SAME-padded convolutions and its batch norm with an activation inside.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

AGREEMENT = 1e-4  # relative to the largest value; folding moves logits by float32 rounding, about 1e-6


@dataclass(frozen=True, eq=False)
class Fold:
    """A norm that was folded: the convolution now writes scale * z + shift for the z that it wrote.

    Attributes:
        convolution: as it is now.
        place: what stands where the norm stood.
        scale, shift: (D, 1, 1).
    """

    convolution: nn.Conv2d
    place: nn.Module
    scale: Tensor
    shift: Tensor

    def undone(self, output: Tensor) -> Tensor:
        """What the convolution wrote before; 0 in channels that the norm made constant."""
        return (output - self.shift) / self.scale.masked_fill(self.scale == 0, 1)

    def redone(self, output: Tensor) -> Tensor:
        """What the norm made of it."""
        return output * self.scale + self.shift


def folded(network: nn.Module, sample: Tensor) -> tuple[nn.Module, list[Fold]]:
    """A copy of a network in evaluation mode with its batch norms folded away.

    Args:
        network: in evaluation mode, parameters frozen; left as it is.
        sample: (1, 3, h, w) input of one forward that finds the pairs and compares the two networks.

    Returns:
        The copy and its folds. Where the copy's output differs by more than 1e-4 relative (a
        convolution that changes its weights as it runs), the network itself and none.
    """
    copied = copy.deepcopy(network)
    pairs = _pairs(copied, sample)
    if not pairs:
        return network, []
    with torch.no_grad():
        wanted = network(sample)
        folds = [_fold(convolution, norm) for convolution, norm in pairs]
        _replace(copied, {id(norm): fold.place for (_, norm), fold in zip(pairs, folds, strict=True)})
        try:
            logits = copied(sample)
        except (AttributeError, RuntimeError, TypeError):  # somebody reads the norm's own attributes
            return network, []
        scale = wanted.abs().amax()
        if not bool((logits - wanted).abs().amax() <= AGREEMENT * scale):
            return network, []
    return copied, folds


def _pairs(network: nn.Module, sample: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Convolutions and norms that each ran once, the norm on exactly what the convolution wrote."""
    wrote: dict[int, tuple[nn.Conv2d, Tensor, int]] = {}  # the tensor is kept, so that its id stays its own
    runs: dict[int, int] = {}
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def after_convolution(module: nn.Module, inputs: Any, output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        runs[id(module)] = runs.get(id(module), 0) + 1
        wrote[id(output)] = (module, output, output._version)

    def before_norm(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.BatchNorm2d)
        runs[id(module)] = runs.get(id(module), 0) + 1
        convolution, output, version = wrote.get(id(inputs[0]), (None, None, 0))
        if convolution is not None and output is not None and output._version == version:
            pairs.append((convolution, module))

    hooks = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(after_convolution))
        elif _foldable(module):
            hooks.append(module.register_forward_pre_hook(before_norm))
    try:
        with torch.no_grad():
            network(sample)
    finally:
        for hook in hooks:
            hook.remove()
    return [(c, n) for c, n in pairs if runs[id(c)] == 1 and runs[id(n)] == 1]


def _foldable(module: nn.Module) -> bool:
    """Plain batch norm, or one with `drop` and `act` after it (timm), on running statistics."""
    if not isinstance(module, nn.BatchNorm2d) or module.running_mean is None:
        return False
    return type(module) is nn.BatchNorm2d or (hasattr(module, "drop") and hasattr(module, "act"))


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> Fold:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean, scale = norm.running_mean.double(), (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -mean * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    bias = shift if convolution.bias is None else shift + convolution.bias.double() * scale
    weight = convolution.weight.double() * scale[:, None, None, None]
    kind = convolution.weight.dtype
    convolution.weight = nn.Parameter(weight.to(kind), requires_grad=False)
    convolution.bias = nn.Parameter(bias.to(kind), requires_grad=False)
    return Fold(convolution, _after(norm), scale.to(kind)[:, None, None], shift.to(kind)[:, None, None])


def _after(norm: nn.BatchNorm2d) -> nn.Module:
    """What stays in the norm's place."""
    if type(norm) is nn.BatchNorm2d:
        return nn.Identity()
    return nn.Sequential(OrderedDict(drop=norm.drop, act=norm.act))  # type: ignore[arg-type]


def _replace(network: nn.Module, places: dict[int, nn.Module]) -> None:
    for parent in network.modules():
        for name, child in parent.named_children():
            if id(child) in places:
                setattr(parent, name, places[id(child)])
