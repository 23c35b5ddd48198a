"""The classifier is features, their mean and a linear head; what cannot be one is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pseudolabel.classifier.network import Classifier
from pseudolabel.errors import DataError

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
    ("backbone", "stride", "message"),
    [
        (
            "test_maxvit",
            32,
            "does not take images of any size .96 x 160: .*; take another network, such as",
        ),
        ("test_vit_relpos", 16, "does not take images of any size"),
        ("test_vit", 32, "has 16 and cannot be made 32; write 16"),
        ("torchvision/resnet51", 32, "'resnet51' is not a classifier of torchvision; did you mean 'resnet"),
        ("torchvision/mobilenet_v2", 16, "has 32 and cannot be made 16; write 32"),
        ("mobilenetv3_small_050", 16, "has 32 and cannot be made 16; write 32"),
        ("resnet51", 16, "'resnet51' is not a model of timm; did you mean"),
    ],
)
def test_refused(backbone: str, stride: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Classifier(backbone, 2, output_stride=stride)


@pytest.mark.parametrize("backbone", ["test_vit", "test_vit3"])
def test_features_of_a_transformer_are_its_patch_tokens_in_their_places(backbone: str) -> None:
    torch.manual_seed(1)
    network = Classifier(backbone, 2, output_stride=16).eval()
    images = torch.randn(2, 3, 40, 75)  # neither side is a multiple of the patch
    with torch.no_grad():
        actual = network.features(images)
        (expected,) = network.backbone.forward_intermediates(
            images, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True
        )
        logits = network(images)
    assert actual.shape == (2, network.depth, 3, 5)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(logits, actual.mean(dim=(2, 3)) @ network.head.weight.T)
    assert (network.pooled, network.target) == (True, None)


def test_channels_last_grids_are_turned() -> None:
    network = Classifier("test_mambaout", 2, output_stride=32).eval()
    images = torch.randn(1, 3, 64, 100)
    with torch.no_grad():
        expected = network.backbone.forward_features(images)
        actual = network.features(images)
    assert expected.shape == (1, 2, 4, 64)
    torch.testing.assert_close(actual, expected.movedim(3, 1))
    torch.testing.assert_close(network.grid(actual, (64, 100)), actual)


def test_grid_of_a_layer() -> None:
    network = Classifier("test_vit", 2, output_stride=16).eval()
    tokens = torch.randn(1, 1 + 6, 64)
    grid = network.grid(tokens, (32, 48))
    torch.testing.assert_close(grid[0, :, 1, 2], tokens[0, 1 + 5])  # second row, third column
    torch.testing.assert_close(network.grid(tokens[:, 1:], (32, 48)), grid)  # before the class token came
    torch.testing.assert_close(network.grid(grid, (32, 48)), grid)
    for shape in ((1, 8, 64), (1, 2, 7, 16), (1, 64), (1, 6, 13, 2)):
        with pytest.raises(DataError, match=r"is no grid of features of an image of 32 x 48; take another"):
            network.grid(torch.zeros(shape), (32, 48))


def test_grid_of_an_odd_image_has_a_last_cell_that_is_not_whole() -> None:
    network = Classifier("test_mambaout", 2, output_stride=32).eval()
    values = torch.randn(1, 3, 5, 64)
    for size in ((96, 160), (70, 130), (96, 129)):
        torch.testing.assert_close(network.grid(values, size), values.movedim(3, 1))
    with pytest.raises(DataError, match="no grid"):
        network.grid(values, (96, 400))


@pytest.mark.parametrize(("backbone", "stride"), [("torchvision/resnet18", 32), ("torchvision/resnet50", 16)])
def test_torchvision_networks_end_at_their_last_grid(backbone: str, stride: int) -> None:
    from torchvision import models

    torch.manual_seed(2)
    network = Classifier(backbone, 2, output_stride=stride).eval()
    own = models.get_model(backbone.removeprefix("torchvision/"), weights=None)
    assert not hasattr(network.backbone, "fc")
    own.load_state_dict(network.backbone.state_dict(), strict=False)
    images = torch.randn(1, 3, 70, 96)
    with torch.no_grad():
        grid = network.features(images)
    assert network.stride == stride
    if stride == 32:
        outputs: list[torch.Tensor] = []
        own.layer4.register_forward_hook(lambda module, inputs, output: outputs.append(output))
        with torch.no_grad():
            own.eval()(images)
        torch.testing.assert_close(grid, outputs[0])
    else:
        assert grid.shape[2:] == (5, 6)


@pytest.mark.parametrize(
    ("backbone", "stride"), [("test_vit", 16), ("test_mambaout", 32), ("torchvision/resnet18", 32)]
)
def test_every_kind_learns(backbone: str, stride: int) -> None:
    network = Classifier(backbone, 2, output_stride=stride).train()
    network.hold_norm()
    network(torch.randn(2, 3, 64, 64)).square().sum().backward()
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert all(name.startswith("backbone.head.") for name in without), without  # what no head of ours uses


def test_held_stem_of_a_transformer_is_its_patch_embedding() -> None:
    network = Classifier("test_vit", 2, output_stride=16)
    network.hold_first(stem=True, stages=1)
    still = [name.split(".") for name, p in network.named_parameters() if not p.requires_grad]
    assert {parts[1] for parts in still} == {"cls_token", "pos_embed", "patch_embed", "blocks"}
    assert {parts[2] for parts in still if parts[1] == "blocks"} == {"0"}
    with pytest.raises(DataError, match=r"frozen_stem: .* does not say what its stem is; write false"):
        Classifier("torchvision/resnet18", 2).hold_first(stem=True, stages=0)


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


@pytest.mark.parametrize(
    ("backbone", "stride"), [("test_vit", 16), ("test_mambaout", 32), ("torchvision/resnet18", 32)]
)
def test_grad_cam_is_cam_on_every_kind_of_backbone(backbone: str, stride: int) -> None:
    from pseudolabel import registry
    from pseudolabel.explain.method import build
    from pseudolabel.explain.model import Explained
    from pseudolabel.records import Targets

    torch.manual_seed(5)
    model = Explained(Classifier(backbone, 3, output_stride=stride))
    images, targets = torch.randn(2, 3, 70, 101), Targets((0, 0, 1), (1, 3, 2))
    values = {}
    for name in ("cam", "grad_cam"):
        component = registry.get("methods", name)
        bound = build((component, component.params()))
        values[name] = bound.explain(model, images, targets, [(0, "a"), (0, "b")]).values
    cells = values["cam"][0, 0].numel()
    assert cells > 1
    assert values["cam"].std() > 0
    torch.testing.assert_close(values["grad_cam"] * cells, values["cam"], rtol=1e-4, atol=1e-5)
