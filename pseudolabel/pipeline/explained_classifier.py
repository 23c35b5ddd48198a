"""The classifier of a recipe, ready to be explained, and its maps of a batch of images."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pseudolabel.classifier.checkpoint import LoadedClassifier
from pseudolabel.explain.layers import LAST
from pseudolabel.explain.method import BoundMethod, Key, build
from pseudolabel.explain.model import Explained, Precision
from pseudolabel.explain.views import explain_together
from pseudolabel.recipes.schema import Branch
from pseudolabel.records import Targets

AUTO = {"cpu": 4, "cuda": 64}  # items of one forward; on a CPU every lane has as many, and more are slower


@dataclass(frozen=True)
class Maps:
    """What the model tells of a batch.

    Attributes:
        values: for each image and branch (K, h', w') float32, reduced, one a label.
        uncovered: for each image the share of pixels that no view covered, or None.
    """

    values: list[tuple[NDArray[np.float32], ...]]
    uncovered: list[float | None]


class ExplainedClassifier:
    """A classifier on its device, and the branches of a recipe.

    Attributes:
        model: the frozen classifier.
        methods: of each line the method with its aggregators.
        views: forwards that the dearest branch costs for one image.
        images: how many images share a call: fewer where one image costs many forwards.
    """

    def __init__(
        self,
        loaded: LoadedClassifier,
        branches: Sequence[Branch],
        *,
        device: torch.device,
        batch: int | Literal["auto"],
        precision: Precision = "float32",
    ) -> None:
        if batch == "auto":
            batch = AUTO.get(device.type, AUTO["cpu"])
        self.model = Explained(
            loaded.network, device=device, batch=batch, precision=precision, groups=loaded.groups
        )
        self._steps = [(branch.method.component, branch.method.params) for branch in branches]
        known = range(1, loaded.space.foreground + 1) if loaded.known is None else loaded.known
        self._ids = tuple(known)  # class id of each logit
        self._logit = {label: place for place, label in enumerate(known, start=1)}
        self.methods: list[BoundMethod] = [
            build(method, [(step.component, step.params) for step in branch.aggregate])
            for method, branch in zip(self._steps, branches, strict=True)
        ]
        self.views = max(method.views for method in self.methods)
        self.images = max(1, batch // self.views)
        self._mean = torch.tensor(loaded.mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(loaded.std, device=device).view(1, 3, 1, 1)

    def inputs(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """(B, 3, H, W) float32 normalised, on the device, of images (H, W, 3) of one size."""
        stacked = torch.from_numpy(np.stack(images)).to(self.model.device)
        return (stacked.permute(0, 3, 1, 2).float() / 255 - self._mean) / self._std

    def predicted(self, inputs: Tensor, threshold: float) -> list[tuple[int, ...] | None]:
        """Classes whose probability exceeds the threshold; None where one is not finite.

        The probability is the sigmoid of a trained class's logit, and a published classifier's softmax
        share of all that belongs to the class.
        """
        return [
            tuple(self._ids[int(place)] for place in (row > threshold).nonzero().flatten())
            if bool(row.isfinite().all())
            else None
            for row in self.model.probabilities(inputs).cpu()
        ]

    def layers(self) -> list[str]:
        """Of each line that explains a layer of the network, that layer's name."""
        return [
            self.model.layer_name(getattr(params, "layer", None))
            for component, params in self._steps
            if component.traits["project"] == "paste"
        ]

    def targets(self) -> list[str]:
        """A line of text on each layer that is explained, found by one small forward.

        Raises:
            DataError: no such layer, or one without a grid.
        """
        lines = []
        side = int(getattr(self.model.network, "side", 64))
        image = self.model.on_device(torch.zeros(1, 3, side, side))
        for layer in dict.fromkeys(self.layers()):
            activations = self.model.activations(image, None if layer == LAST else layer)
            depth, height = activations.grid(activations.output).shape[1:3]
            lines.append(f"target layer: {layer} ({depth} channels, {round(side / height)} pixels a cell)")
        return lines

    def maps(self, inputs: Tensor, labels: Sequence[tuple[int, ...]], keys: Sequence[Key]) -> Maps:
        """Maps of all labels of a batch in which every image has one."""
        targets = Targets.of([self._logit[label] for label in row] for row in labels)
        ends = np.cumsum([len(row) for row in labels])
        uncovered: list[float | None] = [None] * len(labels)
        attributions = explain_together(self.methods, self.model, inputs, targets, keys)
        branches = []
        for method, attribution in zip(self.methods, attributions, strict=True):
            flat = method.reduce(attribution.values).float().cpu().numpy()
            branches.append(np.split(flat, ends[:-1]))
            if attribution.uncovered is not None:
                shares = attribution.uncovered.cpu().tolist()
                worst = [round(shares[end - 1], 6) for end in ends]
                uncovered = [max(a or 0.0, b) for a, b in zip(uncovered, worst, strict=True)]
        return Maps(list(zip(*branches, strict=True)), uncovered)


@contextlib.contextmanager
def exact_kernels() -> Iterator[None]:
    """Float32 as it is, and the same bits every time, on a GPU too."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
