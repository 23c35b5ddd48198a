"""The classifier is features, their mean and a linear head; what cannot be one is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pseudolabel.classifier.network import Classifier
from pseudolabel.errors import DataFault

TINY = "test_resnet"


def test_logits_are_the_head_on_the_mean_of_the_features() -> None:
    torch.manual_seed(0)
    network = Classifier(TINY, 3, output_stride=16).eval()
    images = torch.randn(2, 3, 48, 64)
    with torch.no_grad():
        features, logits = network.features(images), network(images)
    assert features.shape == (2, network.depth, 3, 4)
    weight = network.head.weight.detach().double().numpy()
    mean = features.double().numpy().reshape(2, network.depth, -1).mean(axis=2)
    np.testing.assert_allclose(logits.numpy(), mean @ weight.T, rtol=1e-5, atol=1e-6)
    assert network.head.bias is None


@pytest.mark.parametrize(
    ("backbone", "stride"),
    [(TINY, 8), (TINY, 16), (TINY, 32), ("test_efficientnet", 16), ("test_convnext", 16)],
)
def test_output_stride_is_had_by_dilation(backbone: str, stride: int) -> None:
    network = Classifier(backbone, 2, output_stride=stride).eval()
    assert network.stride == stride
    with torch.no_grad():
        assert network.features(torch.zeros(1, 3, 64, 96)).shape[2:] == (64 // stride, 96 // stride)


def test_lite0_gives_its_last_activation() -> None:
    network = Classifier("tf_efficientnet_lite0", 2, output_stride=16).eval()
    with torch.no_grad():
        features = network.features(torch.randn(1, 3, 64, 64))
    assert features.shape == (1, 1280, 4, 4)
    assert features.min() >= 0
    assert isinstance(network.backbone.bn2.act, nn.ReLU6)


@pytest.mark.parametrize(
    ("backbone", "stride", "told"),
    [
        ("test_vit", 16, r"'test_vit' gives no \(batch, channels, height, width\) grid"),
        ("test_mambaout", 32, "gives no .* grid of features but .*; take a convolutional"),
        ("mobilenetv3_small_050", 16, "has 32 and cannot be made 16; write 32"),
        ("resnet51", 16, "'resnet51' is not a model of timm; did you mean"),
    ],
)
def test_refused(backbone: str, stride: int, told: str) -> None:
    with pytest.raises(DataFault, match=told):
        Classifier(backbone, 2, output_stride=stride)


def test_held_norm_keeps_its_statistics_and_still_learns() -> None:
    network = Classifier(TINY, 2, output_stride=32).train()
    network.hold_norm()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [norm.running_mean.clone() for norm in norms]
    network(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(torch.equal(norm.running_mean, old) for norm, old in zip(norms, before, strict=True))
    assert all(norm.weight.grad is not None for norm in norms)


def test_held_stages_end_where_they_are_said_to() -> None:
    def still(**how: object) -> set[str]:
        network = Classifier(TINY, 2, output_stride=32)
        network.hold_first(**how)  # type: ignore[arg-type]
        return {
            name.split(".")[1]
            for name, parameter in network.named_parameters()
            if not parameter.requires_grad
        }

    assert still(stem=False, stages=0) == set()
    assert still(stem=True, stages=0) == {"conv1", "bn1"}
    assert still(stem=True, stages=2) == still(stem=False, stages=2) == {"conv1", "bn1", "layer1", "layer2"}
