"""The classifier of a recipe, ready to be explained, and its maps of a batch of pictures."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pseudolabel.classifier.checkpoint import Loaded
from pseudolabel.maps._bound import BoundMethod, Key, build
from pseudolabel.maps._explained import Explained, Precision
from pseudolabel.records import Targets
from pseudolabel.schema import MapLine

AUTO = {"cpu": 16, "cuda": 64}  # items of one forward; more than 16 is slower on a CPU (page faults)


@dataclass(frozen=True)
class Maps:
    """What the model tells of a batch.

    Attributes:
        values: for each picture and line of maps (K, h', w') float32, finished, one a label.
        uncovered: for each picture the share of pixels that no view covered, or None.
    """

    values: list[tuple[NDArray[np.float32], ...]]
    uncovered: list[float | None]


class ClassifierOf:
    """A classifier on its device, and the lines of maps of a recipe.

    Attributes:
        model: the frozen classifier.
        methods: of each line the method with its aggregators.
        views: forwards that the dearest line costs for one picture.
        pictures: how many pictures share a call: fewer where one picture costs many forwards.
    """

    def __init__(
        self,
        loaded: Loaded,
        lines: Sequence[MapLine],
        *,
        device: torch.device,
        batch: int | Literal["auto"],
        precision: Precision = "float32",
    ) -> None:
        if batch == "auto":
            batch = AUTO.get(device.type, AUTO["cpu"])
        self.model = Explained(loaded.network, device=device, batch=batch, precision=precision)
        self.methods: list[BoundMethod] = [
            build(one.method.load(), [step.load() for step in one.aggregate]) for one in lines
        ]
        self.views = max(method.views for method in self.methods)
        self.pictures = max(1, batch // self.views)
        self._mean = torch.tensor(loaded.mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(loaded.std, device=device).view(1, 3, 1, 1)

    def inputs(self, pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
        """(B, 3, H, W) float32 normalised, on the device, of pictures (H, W, 3) of one size."""
        stacked = torch.from_numpy(np.stack(pictures)).to(self.model.device)
        return (stacked.permute(0, 3, 1, 2).float() / 255 - self._mean) / self._std

    def predicted(self, inputs: Tensor, threshold: float) -> list[tuple[int, ...] | None]:
        """Classes whose probability exceeds the threshold; None where a logit is not finite."""
        logits = self.model.scores(inputs).cpu()
        return [
            tuple(int(c) + 1 for c in (row.sigmoid() > threshold).nonzero().flatten())
            if bool(row.isfinite().all())
            else None
            for row in logits
        ]

    def maps(self, inputs: Tensor, labels: Sequence[tuple[int, ...]], keys: Sequence[Key]) -> Maps:
        """Maps of all labels of a batch in which every picture has one."""
        ends = np.cumsum([len(row) for row in labels])
        uncovered: list[float | None] = [None] * len(labels)
        lines = []
        for method in self.methods:
            evidence = method.explain(self.model, inputs, Targets.of(labels), keys)
            flat = method.finish(evidence.values).float().cpu().numpy()
            lines.append(np.split(flat, ends[:-1]))
            if evidence.uncovered is not None:
                shares = evidence.uncovered.cpu().tolist()
                worst = [round(shares[end - 1], 6) for end in ends]
                uncovered = [max(a or 0.0, b) for a, b in zip(uncovered, worst, strict=True)]
        return Maps(list(zip(*lines, strict=True)), uncovered)


@contextlib.contextmanager
def exact_kernels() -> Iterator[None]:
    """Float32 as it is, and the same bits every time, on a GPU too."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
