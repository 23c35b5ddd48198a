"""A small classifier that map methods are tried on: every kind of layer that matters, in milliseconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pseudolabel import draws

Array = NDArray[np.float64]
CLASSES = 4


class Small(nn.Module):
    """Two convolutions with batch norm, one without, total stride 4, a linear head without bias."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 12, 3, stride=2, padding=1),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.Conv2d(12, 10, 1),
            nn.ReLU(),
        )
        self.head = nn.Linear(10, CLASSES, bias=False)
        source = draws.generator("small network")
        with torch.no_grad():
            for tensor in self.state_dict().values():
                if tensor.is_floating_point():
                    tensor.copy_(torch.randn(tensor.shape, generator=source) * 0.5)
            self.head.weight += 0.4  # so that no class finds nothing anywhere
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    assert module.running_var is not None
                    module.running_var.abs_().add_(0.5)
                    module.weight.abs_().add_(0.3)

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) -> (B, 10, h', w')."""
        grid: Tensor = self.trunk(images)
        return grid

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) -> (B, 4)."""
        logits: Tensor = self.head(self.features(images).mean(dim=(2, 3)))
        return logits


@dataclass(frozen=True)
class Functions:
    """A network as float64 functions of one image (3, h, w), for oracles, which know no torch."""

    network: nn.Module
    gradients: dict[tuple[bytes, int], Array] = field(default_factory=dict)  # options share them

    @property
    def weight(self) -> Array:
        """(C, D) of the head."""
        weight: Array = self.network.head.weight.detach().double().numpy()  # type: ignore[union-attr, operator]
        return weight

    def features(self, image: Array) -> Array:
        """(D, h', w')."""
        with torch.no_grad():
            features: Array = self.network.features(torch.from_numpy(image)[None])[0].numpy()  # type: ignore[operator]
        return features

    def layer(self, image: Array, label: int, name: str | None = None) -> tuple[Array, Array]:
        """(D, h', w') output of a module, or the features, and the gradient of one logit by it."""
        kept: list[Tensor] = []
        inputs = torch.from_numpy(image)[None].requires_grad_()
        if name is None:
            kept.append(self.network.features(inputs))  # type: ignore[operator]
            logits = self.network.head(kept[0].mean(dim=(2, 3)))  # type: ignore[operator]
        else:
            hook = self.network.get_submodule(name).register_forward_hook(lambda *run: kept.append(run[2]))
            logits = self.network(inputs)
            hook.remove()
        (gradients,) = torch.autograd.grad(logits[0, label - 1], kept[-1])
        output: Array = kept[-1][0].detach().numpy()
        gradient: Array = gradients[0].numpy()
        return output, gradient

    def logits(self, image: Array) -> Array:
        """(C,)."""
        with torch.no_grad():
            logits: Array = self.network(torch.from_numpy(image)[None])[0].numpy()
        return logits

    def logit(self, image: Array, label: int) -> float:
        """Of one class."""
        return float(self.logits(image)[label - 1])

    def gradient(self, image: Array, label: int) -> Array:
        """(3, h, w) of the logit."""
        key = image.tobytes(), label
        if key not in self.gradients:
            inputs = torch.from_numpy(image)[None].requires_grad_()
            (gradient,) = torch.autograd.grad(self.network(inputs)[0, label - 1], inputs)
            self.gradients[key] = gradient[0].numpy()
        return self.gradients[key]


def functions(network: nn.Module) -> Functions:
    """The network in evaluation mode and float64, its parameters frozen."""
    import copy

    return Functions(copy.deepcopy(network).double().eval().requires_grad_(False))


def random_images(count: int = 3, height: int = 26, width: int = 35) -> Tensor:
    """(B, 3, h, w) float32 like a normalised image: soft blobs and noise, each image its own."""
    source = draws.generator("pictures", height, width)  # the goldens were made with this word
    coarse = torch.randn(count, 3, 4, 5, generator=source)
    soft = nn.functional.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False)
    return soft + 0.3 * torch.randn(count, 3, height, width, generator=source)


def state_of(network: nn.Module) -> Iterator[tuple[str, object]]:
    """All that explaining a network must leave as it was."""
    for name, tensor in network.state_dict().items():
        yield name, tensor.clone()
    for name, parameter in network.named_parameters():
        yield f"{name} wants a gradient", parameter.requires_grad
        yield f"{name} has a gradient", parameter.grad is None
    for name, module in network.named_modules():
        yield f"{name} trains", module.training
        yield f"{name} hooks", (len(module._forward_hooks), len(module._forward_pre_hooks))
