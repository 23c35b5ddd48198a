"""The classifier: a timm backbone's feature grid, global average pooling, a linear head without bias.

    logit_c = w_c . mean_{y,x} A(y, x),   A = features, (D, h', w')

so the class activation map of class c is w_c . A(y, x). Source: Zhou et al. 2016 (arXiv 1512.04150).
"""

from __future__ import annotations

from typing import Any

import pseudolabel._torchvision  # noqa: F401

# isort: split
import timm
import torch
from torch import Tensor, nn

from pseudolabel.errors import DataFault
from pseudolabel.records import nearest

NATURAL = 32  # output stride of nearly every backbone when nothing is dilated


class Classifier(nn.Module):
    """Multi-label classifier over C foreground classes; column c - 1 of the logits is class c.

    Args:
        backbone: name of a timm model.
        classes: C.
        output_stride: pixels of the input a feature cell stands for; below the backbone's own by dilation.

    Attributes:
        stride: the output stride as measured.
        depth: D, channels of the features.

    Raises:
        DataFault: no such backbone, it gives no feature grid, or it cannot have this output stride.
    """

    def __init__(self, backbone: str, classes: int, *, output_stride: int = NATURAL) -> None:
        super().__init__()
        self.name = backbone
        self.classes = classes
        self.output_stride = output_stride
        self.backbone = _create(backbone, output_stride)
        self.depth, self.stride = _probe(self.backbone, backbone)
        if self.stride != output_stride:
            raise DataFault(
                f"network.output_stride: {backbone!r} has {self.stride} and cannot be made {output_stride}; "
                f"write {self.stride} or take another backbone"
            )
        self.head = nn.Linear(self.depth, classes, bias=False)

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) normalised pictures -> (B, D, h', w') features after the last activation."""
        found: Tensor = self.backbone.forward_features(images)  # type: ignore[operator]
        return found

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) normalised pictures -> (B, C) logits."""
        logits: Tensor = self.head(self.features(images).mean(dim=(2, 3)))
        return logits

    def hold_norm(self) -> None:
        """Batch norm keeps and uses its running statistics, until `train()`; its affine part still learns."""
        for module in self.backbone.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()

    def hold_first(self, *, stem: bool, stages: int) -> None:
        """The stem, and this many stages after it, do not learn; stages above 0 hold the stem as well."""
        for parameter in self._first(stages + 1 if stem or stages else 0):
            parameter.requires_grad_(False)

    def _first(self, groups: int) -> list[nn.Parameter]:
        """Parameters of the first groups of layers: the stem, then stage by stage."""
        if not groups:
            return []
        matcher = getattr(self.backbone, "group_matcher", None)
        if matcher is None:
            raise DataFault(
                f"optimiser.frozen_stem: {self.name!r} does not say what its stem is; write false"
            )
        layer = timm.models.group_parameters(self.backbone, matcher(coarse=True), reverse=True)
        return [parameter for name, parameter in self.backbone.named_parameters() if layer[name] < groups]


def _create(backbone: str, output_stride: int) -> nn.Module:
    if not timm.is_model(backbone):
        raise DataFault(f"network.backbone: {backbone!r} is not a model of timm; {_near(backbone)}")
    options: dict[str, Any] = {"pretrained": False, "num_classes": 0, "global_pool": ""}
    if output_stride != NATURAL:
        try:
            made: nn.Module = timm.create_model(backbone, **options, output_stride=output_stride)
            return made
        except (TypeError, AssertionError, ValueError, NotImplementedError, RuntimeError):
            pass  # it cannot dilate; perhaps its own stride is the one asked for
    plain: nn.Module = timm.create_model(backbone, **options)
    return plain


def _near(backbone: str) -> str:
    return nearest(backbone, timm.list_models())


def _probe(model: nn.Module, name: str) -> tuple[int, int]:
    """Channels and stride of the feature grid, by one forward."""
    cfg: dict[str, Any] = getattr(model, "default_cfg", {}) or {}
    side = int(cfg.get("input_size", (3, 224, 224))[-1])
    if not cfg.get("fixed_input_size", False):
        side = -(-side // NATURAL) * NATURAL
    training = model.training
    model.eval()
    with torch.no_grad():
        found = model.forward_features(torch.zeros(1, 3, side, side))  # type: ignore[operator]
    model.train(training)
    depth = int(getattr(model, "num_features", 0))
    if not isinstance(found, Tensor) or found.dim() != 4 or found.shape[1] != depth:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise DataFault(
            f"network.backbone: {name!r} gives no (batch, channels, height, width) grid of features "
            f"but {shape}; take a convolutional network, such as resnet50 or tf_efficientnet_lite0"
        )
    return depth, round(side / found.shape[-1])
