"""The frozen model that maps are taken from.

A copy: evaluation mode, parameters without gradient, batch norm folded, channels last. The network that
was handed in is never touched, whatever happens. Forwards hold at most `batch` items; where memory runs
out the batch is halved and the same items are done again.
"""

from __future__ import annotations

import copy
from bisect import bisect_left
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pseudolabel import draws
from pseudolabel.errors import DataFault, EnvironmentFault
from pseudolabel.maps._folding import folded
from pseudolabel.records import Evidence, Targets

PROBE = 64  # pixels a side of the picture that folding and gradient are tried on: two cells at stride 32

Part = Callable[[Tensor, Targets], Evidence]


class Explained:
    """A classifier ready to be explained.

    Args:
        network: module with `features(images) -> (B, D, h', w')` after the last activation, `head`, an
            `nn.Linear(D, C)`, and `forward(images) -> (B, C)` logits = head(mean of features).
        device: where it runs.
        batch: most items (pictures or crops) of one forward, >= 1.
        fold: fold batch norm into convolutions.

    Attributes:
        network: the frozen copy.
        batch: items of one forward now; lower than `asked` once memory ran out.
        asked: the batch that was asked for.
        norms: how many batch norms were folded away.
    """

    def __init__(
        self, network: nn.Module, *, device: torch.device | str = "cpu", batch: int = 16, fold: bool = True
    ) -> None:
        if batch < 1:
            raise ValueError(f"batch {batch} is not above 0 items")
        self.device = torch.device(device)
        self.batch = self.asked = batch
        self.norms = 0
        self._gradient_seen = False
        model = copy.deepcopy(network).eval().requires_grad_(False).to(self.device)
        if fold:
            model, self.norms = folded(model, self._sample(model))
        self.network = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def head(self) -> Tensor:
        """(C, D) weights of the linear head; row c - 1 is class c."""
        weight: Tensor = self.network.head.weight
        return weight

    def place(self, images: Tensor) -> Tensor:
        """Images on the model's device in its layout."""
        return images.to(self.device).contiguous(memory_format=torch.channels_last)

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) normalised -> (B, D, h', w')."""
        found: Tensor = self.network.features(images)
        return found

    def logits_of(self, features: Tensor) -> Tensor:
        """(B, D, h', w') -> (B, C)."""
        found: Tensor = self.network.head(features.mean(dim=(2, 3)))
        return found

    def logits(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) normalised -> (B, C), the graph to the images kept where they ask for it."""
        found: Tensor = self.network(images)
        return found

    def scores(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) normalised -> (B, C) logits without a graph, in parts of at most `batch`."""
        everything = Targets(tuple(range(len(images))), (1,) * len(images))

        def part(pictures: Tensor, targets: Targets) -> Evidence:
            with torch.no_grad():
                logits = self.logits(self.place(pictures))
            return Evidence(logits, logits[:, 0])

        return self.in_parts(images, everything, part).values

    def in_parts(self, images: Tensor, targets: Targets, explain: Part) -> Evidence:
        """Explain a batch in parts of at most `batch` images, halved while memory runs out.

        Args:
            images: (B, 3, h, w).
            targets: T >= 1 targets into them; images without a target are left out.
            explain: (images of the part, their targets) -> evidence of those targets.

        Raises:
            ValueError: no target, or one of a class that the head does not have.
            EnvironmentFault: memory runs out for a single image.
        """
        for label in targets.classes:
            if not 1 <= label <= len(self.head):
                raise ValueError(f"class {label} is not in 1..{len(self.head)}")
        parts: list[Evidence] = []
        start = 0
        while start < len(images):
            stop = min(start + self.batch, len(images))
            wanted = _between(targets, start, stop)
            if wanted.images:
                try:
                    parts.append(explain(images[start:stop], wanted))
                except RuntimeError as error:  # torch.OutOfMemoryError is one
                    if not _out_of_memory(error):
                        raise
                    if stop - start == 1:
                        size = "x".join(map(str, images.shape[2:]))
                        raise EnvironmentFault(
                            f"memory of {self.device} runs out for one image of {size}; "
                            "take smaller pictures or another device"
                        ) from error
                    self.batch = (stop - start) // 2
                    stop = start
            if stop == start and self.device.type == "cuda":
                torch.cuda.empty_cache()
            start = stop
        if not parts:
            raise ValueError("no target to explain")
        return _join(parts)

    def probe(self) -> None:
        """Check once that a gradient reaches the input.

        Raises:
            DataFault: it does not: the graph is cut (`detach`) or every weight is zero.
        """
        if self._gradient_seen:
            return
        with torch.enable_grad():
            sample = self.place(self._sample(self.network)).requires_grad_()
            logits = self.logits(sample)
            found: Tensor | None = None
            if logits.requires_grad:
                (found,) = torch.autograd.grad(logits.square().sum(), sample, allow_unused=True)
        if found is None or not bool((found != 0).any()):
            raise DataFault(
                "classifier: no gradient reaches the input (the graph is cut, or the weights are zero); "
                "a gradient map would be empty: use cam, or train the classifier"
            )
        self._gradient_seen = True

    def _sample(self, model: nn.Module) -> Tensor:
        sample = torch.randn(1, 3, PROBE, PROBE, generator=draws.generator("probe"))
        kind = next((parameter.dtype for parameter in model.parameters()), torch.float32)
        return sample.to(self.device, kind)


def _between(targets: Targets, start: int, stop: int) -> Targets:
    """The targets of images start..stop-1, counted from start."""
    first, last = bisect_left(targets.images, start), bisect_left(targets.images, stop)
    images = tuple(image - start for image in targets.images[first:last])
    return Targets(images, targets.classes[first:last])


def _join(parts: list[Evidence]) -> Evidence:
    if len(parts) == 1:
        return parts[0]
    optional = []
    for name in ("totals", "uncovered"):
        rows = [getattr(part, name) for part in parts]
        optional.append(None if any(row is None for row in rows) else torch.cat(rows))
    values, logits = torch.cat([part.values for part in parts]), torch.cat([part.logits for part in parts])
    return Evidence(values, logits, *optional)


def _out_of_memory(error: RuntimeError) -> bool:
    # the CPU's allocator raises a plain RuntimeError
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
