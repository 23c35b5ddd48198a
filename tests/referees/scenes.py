"""The networks and images on which the referees are asked."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pseudolabel.classifier.network import Classifier
from pseudolabel.contracts.networks import Small, random_images


@dataclass(frozen=True)
class Scene:
    """A network, the module that writes its last features, and a convolution before it to be named."""

    network: nn.Module
    last: str
    named: str


LAYERS = {
    "small": ("trunk", "trunk.3"),
    "tf_efficientnet_lite0": ("backbone.bn2", "backbone.conv_head"),
    "resnet18": ("backbone.layer4", "backbone.layer4.1.conv2"),
}


def scene(name: str, images: Tensor) -> Scene:
    """`small`, or a backbone of timm with drawn weights.

    One named `smooth ...` has SiLU for ReLU: where a ReLU is at its kink to within rounding, float32 falls
    on either side, whoever computes it, and that moves a gradient by up to some per cent. One named
    `loud ...` has gradients near 1 at the last features of these images.
    """
    backbone = name.split()[-1]
    if backbone == "small":
        network: nn.Module = Small().eval()
    else:
        torch.manual_seed(0)
        network = Classifier(backbone, 4)
        if "smooth" in name:
            smooth(network)
        calibrated(network)
    if "loud" in name:
        weight = network.head.weight.data
        cells = network.features(images)[0, 0].numel()
        weight.copy_(cells * weight.sign() * (0.5 + weight.abs()))
    return Scene(network, *LAYERS[backbone])


def calibrated(network: nn.Module) -> nn.Module:
    """Batch norms that do something: affine parts drawn, statistics those of images; evaluation mode."""
    source = torch.Generator().manual_seed(5)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.copy_(0.7 + 0.6 * torch.rand(module.weight.shape, generator=source))
            module.bias.data.copy_(0.2 * torch.randn(module.bias.shape, generator=source))
            module.momentum = None  # the plain mean of all batches
            module.reset_running_stats()
    with torch.no_grad():
        network.train()(random_images(4, 128, 128))
    return network.eval()


def smooth(network: nn.Module) -> None:
    """SiLU in the place of every ReLU."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, (nn.ReLU, nn.ReLU6)):
                setattr(module, name, nn.SiLU())
