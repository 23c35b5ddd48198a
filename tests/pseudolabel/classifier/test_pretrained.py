"""A published network as it is: its own logits, and what of it can be explained, found by value."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from pseudolabel.classifier._build import create
from pseudolabel.classifier._cut import Cut
from pseudolabel.classifier.pretrained import Pretrained, pretrained
from pseudolabel.errors import DataError, UsageError

IMAGES = torch.randn(2, 3, 75, 112, generator=torch.Generator().manual_seed(0))


def published(name: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return create(name, None, "classifier", headless=False).eval()


@pytest.mark.parametrize(
    ("name", "pooled", "target"),
    [
        ("test_resnet", True, None),
        ("test_efficientnet", True, None),
        ("test_convnext", False, None),  # a norm between the mean and the head
        ("mobilenetv3_small_050", False, None),  # a convolution between them
        ("test_mambaout", False, None),
        ("test_vit", False, "backbone.blocks.5.norm1"),  # a class token
        ("test_vit2", False, None),  # the mean of the tokens, then a norm
        ("torchvision/resnet18", True, None),
        ("torchvision/squeezenet1_1", False, None),  # a convolution gives the logits, then the mean
    ],
)
def test_what_can_be_explained_is_found_by_value(name: str, pooled: bool, target: str | None) -> None:
    original = published(name)
    network = Pretrained(original, name)
    assert (network.pooled, network.target, network.head.out_features) == (pooled, target, 1000)
    with torch.no_grad():
        expected = original.forward_head(original.forward_features(IMAGES))  # type: ignore[operator]
        actual = network(IMAGES)
        features = network.features(IMAGES)
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(network.classify(features), actual)
        grid = network.grid(features, (75, 112))
    assert grid.dim() == 4
    assert grid.shape[1] == network.depth
    assert not network.training
    if pooled:
        torch.testing.assert_close(network.head(features.mean(dim=(2, 3))), expected, rtol=1e-5, atol=1e-6)


def test_cells_of_a_class_token_network_reach_the_logits_up_to_its_target_and_no_further() -> None:
    network = Pretrained(published("test_vit"), "test_vit")
    assert network.target is not None
    kept: dict[str, torch.Tensor] = {}
    for name in (network.target, "backbone.blocks.5.norm2", "backbone.blocks.5", "backbone.norm"):
        module = network.get_submodule(name)
        module.register_forward_hook(lambda module, inputs, output, name=name: kept.update({name: output}))
    logits = network(IMAGES.clone().requires_grad_())
    gradients = torch.autograd.grad(logits[:, 5].sum(), list(kept.values()))
    reaching = {
        name: bool((gradient[:, 1:] != 0).any()) for name, gradient in zip(kept, gradients, strict=True)
    }
    assert reaching == {name: name == network.target for name in kept}


def test_a_head_of_zeros_is_not_taken_for_a_linear_one() -> None:
    original = published("test_convnext")
    nn.init.zeros_(original.head.fc.weight)  # type: ignore[union-attr, arg-type]
    nn.init.zeros_(original.head.fc.bias)  # type: ignore[union-attr, arg-type]
    with pytest.raises(DataError, match="logits of 'test_convnext' depend on no grid"):
        Pretrained(original, "test_convnext")


def test_dropout_is_off() -> None:
    original = create("torchvision/mobilenet_v2", None, "classifier", headless=False)
    network = Pretrained(original, "torchvision/mobilenet_v2")
    with torch.no_grad():
        assert torch.equal(network(IMAGES), network(IMAGES))


def test_a_cut_network_is_the_network() -> None:
    from torchvision import models

    with torch.random.fork_rng():
        torch.manual_seed(0)
        own = models.get_model("densenet121", weights=None).eval()  # a relu of no module before the mean
    cut = Cut(own, "densenet121", "classifier", headless=False).eval()
    assert cut.state_dict().keys() == own.state_dict().keys()
    with torch.no_grad():
        features = cut.forward_features(IMAGES)
        assert features.shape[1:] == (1024, 2, 3)
        assert features.min() >= 0
        torch.testing.assert_close(cut.forward_head(features), own(IMAGES))


class Crooked(nn.Module):
    """Its logits see the image beside the features."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = nn.Conv2d(3, 4, 3, stride=2), nn.Conv2d(4, 4, 3, stride=2)
        self.fc = nn.Linear(4, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        first = self.stem(images)
        return self.fc(self.last(first).mean(dim=(2, 3)) + first.mean(dim=(2, 3)))


class Fixed(nn.Module):
    """Looks at the size of its image, as vision transformers do."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert images.shape[2] == 224
        return images


@pytest.mark.parametrize("model", [Fixed(), nn.Sequential(nn.Flatten(), nn.LazyLinear(3))])
def test_what_cannot_be_cut_is_refused(model: nn.Module) -> None:
    with pytest.raises(DataError, match="'odd' has no grid of features that can be cut out; take another"):
        Cut(model, "odd", "classifier", headless=False)


def test_the_cut_lies_where_all_the_rest_comes_from() -> None:
    cut = Cut(Crooked().eval(), "crooked", "classifier", headless=False)
    with torch.no_grad():
        assert cut.forward_features(IMAGES).shape == (2, 4, 37, 55)  # the stem's, not the last ones


class TestWeights:
    """Weights come with the head, from a file or a package."""

    def test_from_a_file(self, tmp_path: Path) -> None:
        original = published("test_resnet")
        torch.save(original.state_dict(), tmp_path / "w.pth")
        network, source = pretrained("test_resnet", str(tmp_path / "w.pth"), output_stride=16)
        own = network.backbone.state_dict()
        assert all(torch.equal(tensor, own[name]) for name, tensor in original.state_dict().items())
        assert network.stride == 16
        assert "w.pth, none left" in source
        assert not any(parameter.requires_grad for parameter in network.parameters())

    def test_without_the_head(self, tmp_path: Path) -> None:
        state = {n: t for n, t in published("test_resnet").state_dict().items() if not n.startswith("fc")}
        torch.save(state, tmp_path / "w.pth")
        with pytest.raises(DataError, match=r"w.pth: lacks 2 of \d+ tensors, first 'fc.weight'"):
            pretrained("test_resnet", str(tmp_path / "w.pth"))

    def test_another_stride(self, tmp_path: Path) -> None:
        torch.save(published("mobilenetv3_small_050").state_dict(), tmp_path / "w.pth")
        with pytest.raises(DataError, match="has 32 and cannot be made 16; write 32 or leave it out"):
            pretrained("mobilenetv3_small_050", str(tmp_path / "w.pth"), output_stride=16)

    def test_no_package(self) -> None:
        with pytest.raises(UsageError, match="no package brings 'test_resnet'"):
            pretrained("test_resnet", "package")

    def test_package_with_its_head(self) -> None:
        from pseudolabel import weights

        network, source = pretrained("tf_efficientnet_lite0", "package")
        assert network.pooled
        assert "none left" in source
        state = weights.package_state("tf_efficientnet_lite0")
        assert torch.equal(network.head.bias, state["classifier.bias"])  # type: ignore[arg-type]
