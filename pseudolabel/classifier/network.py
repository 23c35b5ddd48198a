"""The classifier: a backbone's feature grid, global average pooling, a linear head without bias.

    logit_c = w_c . mean_{y,x} A(y, x),   A = features, (D, h', w')

so the class activation map of class c is w_c . A(y, x). Source: Zhou et al. 2016 (arXiv 1512.04150).
The features of a vision transformer are the patch tokens after its last norm, laid out as they lie in the
image; its other tokens (class, distillation, registers) are left aside.
"""

from __future__ import annotations

from typing import Any

import pseudolabel._torchvision  # noqa: F401

# isort: split
import timm
from torch import Tensor, nn

from pseudolabel.classifier._build import NATURAL, create
from pseudolabel.classifier._layout import SIZES, Size, layout_of
from pseudolabel.errors import DataError


class Classifier(nn.Module):
    """Multi-label classifier over C foreground classes; column c - 1 of the logits is class c.

    Args:
        backbone: name of a timm model, or `torchvision/NAME`.
        classes: C.
        output_stride: pixels of the input a feature cell stands for; below the backbone's own by dilation.

    Attributes:
        stride: the output stride as measured.
        depth: D, channels of the features.
        pooled, target, side: see `pseudolabel.explain.model.ExplainableNetwork`.

    Raises:
        DataError: no such backbone, it gives no feature grid, or it cannot have this output stride.
    """

    pooled = True
    target: str | None = None
    side = min(SIZES[0])

    def __init__(self, backbone: str, classes: int, *, output_stride: int = NATURAL) -> None:
        super().__init__()
        self.name = backbone
        self.classes = classes
        self.output_stride = output_stride
        network: Any = create(backbone, output_stride, "network", headless=True)
        self.backbone = network
        self.layout = layout_of(network, network.forward_features, backbone, "network")
        self.depth, self.stride = self.layout.depth, self.layout.stride
        if self.stride != output_stride:
            raise DataError(
                f"network.output_stride: {backbone!r} has {self.stride} and cannot be made {output_stride}; "
                f"write {self.stride} or take another backbone"
            )
        self.head = nn.Linear(self.depth, classes, bias=False)

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) normalised images -> (B, D, h', w') features after the last activation."""
        return self.grid(self.backbone.forward_features(images), (images.shape[2], images.shape[3]))

    def classify(self, features: Tensor) -> Tensor:
        """(B, D, h', w') features -> (B, C) logits."""
        logits: Tensor = self.head(features.mean(dim=(2, 3)))
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) normalised images -> (B, C) logits."""
        return self.classify(self.features(images))

    def grid(self, values: Tensor, size: Size) -> Tensor:
        """Output of any module as (B, D, h', w'), given the (h, w) of the input.

        Raises:
            DataError: it has no grid.
        """
        return self.layout.grid(values, size)

    def hold_norm(self) -> None:
        """Batch norm keeps and uses its running statistics, until `train()`; its affine part still learns.

        Other norms have no statistics and are as they were.
        """
        for module in self.backbone.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()

    def hold_first(self, *, stem: bool, stages: int) -> None:
        """The stem, and this many stages after it, do not learn; stages above 0 hold the stem as well.

        The stem of a transformer is its patch embedding, its stages are its blocks.
        """
        for parameter in self._first(stages + 1 if stem or stages else 0):
            parameter.requires_grad_(False)

    def _first(self, groups: int) -> list[nn.Parameter]:
        """Parameters of the first groups of layers: the stem, then stage by stage."""
        if not groups:
            return []
        matcher = getattr(self.backbone, "group_matcher", None)
        if matcher is None:
            raise DataError(
                f"optimizer.frozen_stem: {self.name!r} does not say what its stem is; write false"
            )
        layer = timm.models.group_parameters(self.backbone, matcher(coarse=True), reverse=True)
        return [parameter for name, parameter in self.backbone.named_parameters() if layer[name] < groups]
