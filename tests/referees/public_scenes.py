"""The models of other people on which `pseudolabel.explain` is compared with captum and torchcam.

Random weights from a seed, in float64: where a ReLU is at its kink to within rounding, float32 falls on
either side, whoever computes it.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import pseudolabel.classifier.network

# isort: split
import timm
import torchvision

import pseudolabel as pl
from pseudolabel.contracts.networks import random_images
from tests.referees.scenes import calibrated

CLASSES = [1, 3]  # logit indices
CROPS = {"count": 20, "chunk": 8, "size": 64}
SEED = 7
SIDE = 64  # pixels, of the transformer
FEATURES = {
    "resnet18": ("layer4", "fc"),
    "sequential": ("3", "6"),
}  # last features and linear head, for torchcam


def model(name: str) -> nn.Module:
    """resnet18 of torchvision, a ViT of timm or a sequence written by hand, of 5 classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        if name == "resnet18":
            network = calibrated(torchvision.models.resnet18(num_classes=5))
        elif name == "vit":
            network = timm.create_model("test_vit", num_classes=5, img_size=SIDE)
            with torch.no_grad():  # timm starts heads and position embeddings near 0
                for parameter in network.parameters():
                    parameter += 0.05 * torch.randn(parameter.shape)
        else:
            network = nn.Sequential(
                nn.Conv2d(3, 8, 3, stride=2, padding=1),
                nn.ReLU(),
                nn.Conv2d(8, 12, 3, stride=2, padding=1),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(12, 5),
            )
    return network.double().eval()


def image(name: str) -> Tensor:
    """(1, 3, H, W) float64 normalised; of the one size that the ViT takes."""
    return random_images(1, *((SIDE, SIDE) if name == "vit" else (48, 80))).double()


def wide() -> Tensor:
    """(1, 3, H, W) float64 normalised, for crops."""
    return random_images(1, 48, 80).double()


def ours(name: str, what: str) -> NDArray[np.floating]:
    """Our maps (K, H, W) of cam, saliency or crops of saliency."""
    if what == "crops":
        aggregate = [("random_crop", CROPS)]
        return pl.explain(model(name), wide(), CLASSES[:1], aggregate=aggregate, seed=SEED).values.numpy()
    return pl.explain(model(name), image(name), CLASSES, method=what).values.numpy()


def cases() -> list[tuple[str, str]]:
    """(model, what) of all that is compared; a ViT has no CAM."""
    wanted = [
        (name, what) for name in ("resnet18", "vit", "sequential") for what in ("cam", "saliency", "crops")
    ]
    wanted.remove(("vit", "cam"))
    return wanted


def error(actual: NDArray[np.floating], wanted: NDArray[np.floating]) -> float:
    """The largest difference, relative to the largest value."""
    assert actual.shape == wanted.shape
    return float(np.abs(actual - wanted).max() / np.abs(wanted).max())
