"""Maps of a vision transformer: tokens are a grid once the network says how."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pseudolabel._torchvision  # noqa: F401

# isort: split
import timm

from pseudolabel import registry
from pseudolabel.contracts.networks import random_images
from pseudolabel.errors import DataError
from pseudolabel.explain.method import build
from pseudolabel.explain.model import Explained
from pseudolabel.records import Targets

KEYS = [(0, "a"), (0, "b")]
LABELS = [(1, 3), (2,)]


class Tokens(nn.Module):
    """The least that explains timm's ViT: a class token before a row-major grid of patches of 16 pixels."""

    pooled = False
    target = "vit.blocks.2.norm1"

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.vit = timm.create_model(
            "vit_tiny_patch16_224",
            pretrained=False,
            num_classes=5,
            depth=3,
            img_size=64,
            dynamic_img_size=True,
        )
        self.head = self.vit.head

    def features(self, images: Tensor) -> Tensor:
        grid: Tensor = self.vit.forward_features(images)
        return grid

    def classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self.vit.forward_head(features)
        return logits

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.features(images))

    def grid(self, values: Tensor, size: tuple[int, int]) -> Tensor:
        height, width = size[0] // 16, size[1] // 16
        if values.dim() != 3 or values.shape[1] != 1 + height * width:
            raise DataError(f"layer: {tuple(values.shape)} is no row of tokens")
        return values[:, 1:].transpose(1, 2).unflatten(2, (height, width))


def explained(name: str, layer: str | None = None, fold: bool = True) -> Tensor:
    component = registry.get("methods", name)
    line = build((component, component.params.model_validate({"layer": layer} if layer else {})))
    model = Explained(Tokens(), fold=fold)
    return line.explain(model, random_images(2, 64, 96), Targets.of(LABELS), KEYS).values


@pytest.mark.parametrize("layer", [None, "blocks.0.norm1", "blocks.1.norm2", "blocks.1"])
def test_grad_cam_of_tokens_by_hand(layer: str | None) -> None:
    actual = explained("grad_cam", layer)
    assert tuple(actual.shape) == (3, 1, 4, 6)
    network, kept = Tokens().eval(), []
    module = network.get_submodule("vit." + (layer or "blocks.2.norm1"))
    module.register_forward_hook(lambda _, __, output: kept.append(output))
    logits = network(random_images(2, 64, 96))
    for row, (image, label) in zip(actual[:, 0], [(0, 1), (0, 3), (1, 2)], strict=True):
        (gradient,) = torch.autograd.grad(logits[image, label - 1], kept[0], retain_graph=True)
        tokens, slopes = kept[0][image, 1:].detach().numpy(), gradient[image, 1:].numpy()
        wanted = np.zeros((4, 6))
        for y, x in np.ndindex(4, 6):
            wanted[y, x] = (slopes.mean(axis=0) * tokens[6 * y + x]).sum()
        np.testing.assert_allclose(row, wanted, rtol=1e-3, atol=1e-5 * np.abs(wanted).max())


def test_saliency_of_a_transformer() -> None:
    actual = explained("saliency")
    images = random_images(2, 64, 96).requires_grad_()
    (wanted,) = torch.autograd.grad(Tokens().eval()(images)[0, 2], images)
    torch.testing.assert_close(actual[1], wanted[0], rtol=1e-3, atol=1e-5 * float(wanted.abs().amax()))


def test_the_choice_is_told_and_what_has_no_grid_is_refused() -> None:
    model = Explained(Tokens())
    assert model.layer_name() == "vit.blocks.2.norm1"
    assert model.layer_name("blocks.1.norm1") == "vit.blocks.1.norm1"
    with pytest.raises(DataError, match=r"layer: \(2, 5\) is no row of tokens"):
        explained("grad_cam", "vit.head")
    with pytest.raises(DataError, match="take grad_cam"):
        explained("cam")
    # the last norm feeds the class token alone: no gradient reaches the patches
    assert not explained("grad_cam", "vit.norm").any()
