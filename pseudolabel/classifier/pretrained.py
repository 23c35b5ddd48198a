"""A classifier as it is, with its own head: 1000 ImageNet logits, for instance.

Whether its logits are a linear head on the mean of its features is found by value, from one forward; where
they are not (a norm, a convolution or a class token comes between), the head is run as it stands. Which
layer Grad-CAM and its kin explain is found from the gradient: the last features, or, where the logits do
not see their cells (a class token reads the last block alone), the last layer whose cells they do see.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pseudolabel import draws, weights
from pseudolabel.classifier._build import create
from pseudolabel.classifier._layout import SIZES, Size, layout_of
from pseudolabel.errors import DataError

AGREEMENT = 1e-4  # relative; the same sums in another order differ by about 1e-6


class Pretrained(nn.Module):
    """A network with its head, as `pseudolabel.explain.model.ExplainableNetwork` wants one.

    Args:
        backbone: of timm or `torchvision/NAME`, with weights and head, in evaluation mode.
        name: its name, for messages.

    Attributes:
        backbone: the network itself; names of its layers begin with `backbone.`.
        depth, stride: channels of the features and pixels a cell stands for.
        head: the last linear layer where `pooled`, else only its `out_features`.
        pooled, target, side: see `ExplainableNetwork`.

    Raises:
        DataError: no grid of features, or nothing in the network depends on its cells.
    """

    side = min(SIZES[0])

    def __init__(self, backbone: nn.Module, name: str) -> None:
        super().__init__()
        network: Any = backbone.eval()
        self.backbone = network
        self.layout = layout_of(network, network.forward_features, name, "classifier")
        self.depth, self.stride = self.layout.depth, self.layout.stride
        linear, logits = self._linear(name)
        self.pooled = linear is not None
        self.head = _Logits(logits) if linear is None else linear
        self.target = None if self.pooled else self._target(name)
        self.eval()

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) normalised -> the last features: (B, D, h', w') where pooled, else as they come."""
        values: Tensor = self.backbone.forward_features(images)
        return self.grid(values, (images.shape[2], images.shape[3])) if self.pooled else values

    def classify(self, features: Tensor) -> Tensor:
        """Last features -> (B, R) raw logits."""
        logits: Tensor
        logits = self.head(features.mean((2, 3))) if self.pooled else self.backbone.forward_head(features)
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) normalised -> (B, R) raw logits."""
        return self.classify(self.features(images))

    def grid(self, values: Tensor, size: Size) -> Tensor:
        """Output of any module as (B, D, h', w'), given the (h, w) of the input.

        Raises:
            DataError: it has no grid.
        """
        return self.layout.grid(values, size)

    def _linear(self, name: str) -> tuple[nn.Linear | None, int]:
        """The linear layer that reads the mean of the features and writes the logits, and their number."""
        calls: list[tuple[nn.Linear, Tensor, Tensor]] = []

        def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            assert isinstance(module, nn.Linear)
            calls.append((module, inputs[0], output))

        hooks = [m.register_forward_hook(note) for m in self.modules() if isinstance(m, nn.Linear)]
        images = _probe()
        try:
            with torch.no_grad():
                features = self.backbone.forward_features(images)
                calls.clear()
                logits = self.backbone.forward_head(features)
        finally:
            for hook in hooks:
                hook.remove()
        if not isinstance(logits, Tensor) or logits.dim() != 2:
            raise DataError(f"classifier.backbone: {name!r} does not classify whole images; take another")
        mean = self.grid(features, SIZES[0]).mean(dim=(2, 3))
        for module, given, written in calls:
            if _equal(given, mean) and _equal(written, logits):
                return module, logits.shape[1]
        return None, logits.shape[1]

    def _target(self, name: str) -> str | None:
        """None where the logits see the cells of the last features, else the last layer of which they do."""
        images = _probe()
        size: Size = (images.shape[2], images.shape[3])
        ends: list[tuple[str, Tensor]] = []

        def note(layer: str) -> Any:
            return lambda module, inputs, output: ends.append((layer, output))

        hooks = [module.register_forward_hook(note(layer)) for layer, module in self._candidates()]
        try:
            with torch.enable_grad():
                features = self.backbone.forward_features(images.requires_grad_())
                logits = self.backbone.forward_head(features)
                mixed = logits @ torch.randn(logits.shape[1], generator=draws.generator("target"))
        finally:
            for hook in hooks:
                hook.remove()
        outputs = [
            (layer, values) for layer, values in ends if isinstance(values, Tensor) and values.requires_grad
        ]
        gradients = torch.autograd.grad(
            mixed.sum(), [features, *(values for _, values in outputs)], allow_unused=True
        )
        if self._reaches(gradients[0], size):
            return None
        for (layer, _), gradient in zip(reversed(outputs), reversed(gradients[1:]), strict=True):
            if self._reaches(gradient, size):
                return layer
        raise DataError(
            f"classifier.backbone: the logits of {name!r} depend on no grid of features; take another network"
        )

    def _candidates(self) -> list[tuple[str, nn.Module]]:
        """Layers that a person would name: norms, and members of a sequence of layers."""
        modules = dict(self.named_modules())
        return [
            (name, module)
            for name, module in modules.items()
            if "norm" in type(module).__name__.lower()
            or isinstance(modules.get(name.rpartition(".")[0]), (nn.Sequential, nn.ModuleList))
        ]

    def _reaches(self, gradient: Tensor | None, size: Size) -> bool:
        """Whether a gradient is one of the grid's cells, and not zero everywhere."""
        if gradient is None:
            return False
        try:
            cells = self.grid(gradient, size)
        except DataError:
            return False
        return cells.shape[1] == self.depth and bool((cells != 0).any())


class _Logits(nn.Module):
    """The number of a network's logits where no single layer stands for its head."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.out_features = count


def pretrained(backbone: str, source: str, *, output_stride: int | None = None) -> tuple[Pretrained, str]:
    """A network as it was published.

    Args:
        backbone: of timm, or `torchvision/NAME`.
        source: package, hub, or the path of a .safetensors or .pth file with the head's tensors in it.
        output_stride: by dilation; None leaves the network's own.

    Returns:
        The network in evaluation mode, on the CPU, and a line on its weights.

    Raises:
        DataError: no such network, no grid, it cannot have this stride, or the weights are another's.
        MachineError: the package is not installed, or the hub does not answer.
        UsageError: there is no package for this backbone.
    """
    with torch.random.fork_rng(devices=[]):  # the start values are overwritten; nobody's draws move
        model = create(backbone, output_stride, "classifier", headless=False)
    taken = weights.load_backbone(model, backbone, source)
    network = Pretrained(model, backbone)
    if output_stride is not None and network.stride != output_stride:
        raise DataError(
            f"classifier.output_stride: {backbone!r} has {network.stride} and cannot be made "
            f"{output_stride}; write {network.stride} or leave it out"
        )
    return network.requires_grad_(False), str(taken)


def _probe() -> Tensor:
    return torch.randn(1, 3, *SIZES[0], generator=draws.generator("pretrained"))


def _equal(tensor: Tensor, other: Tensor) -> bool:
    if tensor.shape != other.shape:
        return False
    return bool((tensor - other).abs().amax() <= AGREEMENT * other.abs().amax())
