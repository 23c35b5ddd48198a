"""The networks and pictures on which the referees are asked."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from pseudolabel.classifier.network import Classifier
from pseudolabel.contracts.networks import Small, pictures

LABELS = [(1, 3), (2, 4, 1)]


@dataclass(frozen=True)
class Scene:
    """A network, the module that writes its last features, and a convolution before it to be named."""

    network: nn.Module
    last: str
    named: str


def scene(name: str) -> Scene:
    """`small`, `loud` (gradients near 1 at the last features), or a backbone of timm with drawn weights.

    A backbone named `smooth ...` has SiLU for ReLU: where a ReLU is at its kink to within rounding, float32
    falls on either side, whoever computes it, and moves a gradient by up to some per cent.
    """
    if name in ("small", "loud"):
        network: nn.Module = Small().eval()
        if name == "loud":
            head = network.head
            assert isinstance(head, nn.Linear)
            head.weight.data.mul_(7 * 9)  # cells of the features of `pictures()`
        return Scene(network, "trunk", "trunk.3")
    backbone = name.removeprefix("smooth ")
    torch.manual_seed(0)
    network = Classifier(backbone, 4)
    if backbone != name:
        smooth(network)
    last, named = {
        "tf_efficientnet_lite0": ("backbone.bn2", "backbone.conv_head"),
        "resnet18": ("backbone.layer4", "backbone.layer4.1.conv2"),
    }[backbone]
    return Scene(calibrated(network), last, named)


def calibrated(network: nn.Module) -> nn.Module:
    """Batch norms that do something: affine parts drawn, statistics those of pictures; evaluation mode."""
    source = torch.Generator().manual_seed(5)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.copy_(0.7 + 0.6 * torch.rand(module.weight.shape, generator=source))
            module.bias.data.copy_(0.2 * torch.randn(module.bias.shape, generator=source))
            module.momentum = None  # the plain mean of all batches
            module.reset_running_stats()
    with torch.no_grad():
        network.train()(pictures(4, 128, 128))
    return network.eval()


def smooth(network: nn.Module) -> None:
    """SiLU in the place of every ReLU."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, (nn.ReLU, nn.ReLU6)):
                setattr(module, name, nn.SiLU())


def images(name: str) -> torch.Tensor:
    """Two pictures of the scene's size."""
    return pictures(2) if name in ("small", "loud") else pictures(2, 96, 128)
