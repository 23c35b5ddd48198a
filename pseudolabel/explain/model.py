"""The frozen model that maps are taken from.

A copy: evaluation mode, parameters without gradient, batch norm folded, channels last. The network that
was handed in is never touched, whatever happens. Forwards hold at most `batch` items; where memory runs
out the batch is halved and the same items are done again.
"""

from __future__ import annotations

import copy
from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from pseudolabel import draws
from pseudolabel.errors import DataError, Interrupted, MachineError
from pseudolabel.explain.folding import folded
from pseudolabel.explain.groups import Groups
from pseudolabel.explain.layers import LAST, Activations, full, resolve, starting_at
from pseudolabel.records import Attribution, Targets

PROBE = 64  # pixels a side of the image that folding and gradient are tried on: two cells at stride 32

Part = Callable[[Tensor, Targets], Attribution]
Precision = Literal["float32", "bf16"]


class ExplainableNetwork(Protocol):
    """An `nn.Module` that can be explained.

    A network of features (B, D, h', w') after the last activation, their mean over the grid and a linear
    head needs `features`, `head` and `forward` alone; the rest has the defaults that fit it.

    Attributes:
        head: its `out_features` is R, the number of raw logits; an `nn.Linear` where `pooled`.
        pooled: raw logits == head(mean of the features over their grid), exactly. Default True.
        target: dotted name of the module whose output Grad-CAM and its kin explain unless told; None is
            the last features. Default None.
        side: pixels a side of an image that it surely takes. Default 64.
    """

    head: Any
    pooled: bool
    target: str | None
    side: int

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) normalised -> the last features: (B, D, h', w') where pooled, else any shape."""

    def classify(self, features: Tensor) -> Tensor:
        """Last features -> (B, R) raw logits. Default: the head on their mean."""

    def grid(self, values: Tensor, size: tuple[int, int]) -> Tensor:
        """Output of any module, or its gradient, -> (B, D, h', w'), given the input's (h, w).

        Default: what has four axes is one. Raises DataError where there is no grid.
        """

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) -> (B, R), classify(features(images))."""


class Explained:
    """A classifier ready to be explained.

    Args:
        network: see `ExplainableNetwork`.
        device: where it runs.
        batch: most items (images or crops) of one forward, >= 1.
        fold: fold batch norm into convolutions.
        groups: raw logit indices, counted from 0, of each class 1..C, whose logit is their logsumexp;
            None where raw logit c - 1 is class c.
        precision: of the forwards (and so of their backwards); results are float32 in any case.

    Attributes:
        network: the frozen copy.
        classes: C.
        batch: items of one forward now; lower than `asked` once memory ran out.
        asked: the batch that was asked for.
        norms: how many batch norms were folded away.
        leave: asked before every part; where it says yes the call raises Interrupted.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        device: torch.device | str = "cpu",
        batch: int = 16,
        fold: bool = True,
        groups: Sequence[Sequence[int]] | None = None,
        precision: Precision = "float32",
    ) -> None:
        if batch < 1:
            raise ValueError(f"batch {batch} is not above 0 items")
        self.device = torch.device(device)
        self.batch = self.asked = batch
        self.precision = precision
        self.leave: Callable[[], bool] = lambda: False
        self._gradient_seen = False
        self._shared: tuple[Tensor, dict[Hashable, Any]] | None = None
        model = copy.deepcopy(network).eval().requires_grad_(False).to(self.device)
        model, self._folds = folded(model, self._sample(model)) if fold else (model, [])
        self.norms = len(self._folds)
        self.network = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        raw: int = self.network.head.out_features
        self._groups = None if groups is None else Groups(groups, raw, self.device)
        self.classes = raw if self._groups is None else self._groups.count

    def on_device(self, images: Tensor) -> Tensor:
        """Images on the model's device in its layout."""
        return images.to(self.device).contiguous(memory_format=torch.channels_last)

    @contextmanager
    def sharing(self, images: Tensor) -> Iterator[None]:
        """Within this block several methods explain these images and share what `keep` was given.

        Args:
            images: (B, 3, h, w), on the device; parts of them are recognised by their memory.
        """
        before, self._shared = self._shared, (images, {})
        try:
            yield
        finally:
            self._shared = before

    def shares(self, images: Tensor) -> bool:
        """Whether these images are (a part of) those of `sharing`."""
        if self._shared is None:
            return False
        storage = self._shared[0].untyped_storage().data_ptr()
        return images.untyped_storage().data_ptr() == storage

    def keep(self, images: Tensor, name: Hashable, value: Any) -> None:
        """Keep something computed of shared images for the next method; nothing for others."""
        if self._shared is not None and self.shares(images):
            self._shared[1][name, images.data_ptr(), tuple(images.shape)] = value

    def kept(self, images: Tensor, name: Hashable) -> Any:
        """What was kept of these images under a name, or None."""
        if self._shared is None or not self.shares(images):
            return None
        return self._shared[1].get((name, images.data_ptr(), tuple(images.shape)))

    def features_and_raw(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, h, w) normalised, on the device -> last features and (B, R) raw logits.

        The graph to the images is kept where they ask for it. Shared images have one forward.
        """
        kept = self.kept(images, "features")
        if kept is not None and not images.requires_grad:
            features, raw = kept
            return features, raw
        features = self.features(images)
        raw = self.raw(features)
        self.keep(images, "features", (features.detach(), raw.detach()))
        return features, raw

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) normalised -> the last features, (B, D, h', w') where pooled."""
        with self._cast():
            return full(self.network.features(images))

    def from_features(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Last features -> logits (B, C) and totals (B,), as `outputs` gives them."""
        return self.grouped(self.raw(features))

    def raw(self, features: Tensor) -> Tensor:
        """Last features -> (B, R) raw logits."""
        classify: Any = getattr(self.network, "classify", None)
        with self._cast():
            if classify is not None:
                return full(classify(features))
            return full(self.network.head(features.mean(dim=(2, 3))))

    def grouped(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """(B, R) raw logits -> logits (B, C) and totals (B,)."""
        return (raw if self._groups is None else self._groups.logits(raw)), raw.logsumexp(dim=1)

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, h, w) normalised -> logits (B, C) and totals (B,), logsumexp over all raw logits.

        The graph to the images is kept where they ask for it.
        """
        with self._cast():
            raw = full(self.network(images))
        return self.grouped(raw)

    def logits(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) normalised -> (B, C), the graph to the images kept where they ask for it."""
        return self.outputs(images)[0]

    def rows(self, raw: Tensor, columns: Tensor) -> Tensor:
        """Weights of targets on the features of a pooled network, the gradient of logit by pooled feature.

        Args:
            raw: (T, R) raw logits of each target's image; only looked at with groups.
            columns: (T,) class id - 1.

        Returns:
            (T, D) rows of the head, with groups their mean weighted by softmax within the group.
        """
        weight: Tensor = self.network.head.weight
        return weight[columns] if self._groups is None else self._groups.rows(raw, columns, weight)

    def scores(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) normalised -> (B, C) logits without a graph, in parts of at most `batch`."""
        return self._of_all(images, lambda logits, totals: logits)

    def probabilities(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) normalised -> (B, C) without a graph, in parts of at most `batch`.

        Sigmoid of the logit; with groups the class's share of the softmax over all raw logits.
        """
        if self._groups is None:
            return self.scores(images).sigmoid()
        return self._of_all(images, lambda logits, totals: (logits - totals[:, None]).exp())

    def index(self, targets: Targets) -> tuple[Tensor, Tensor]:
        """Image (T,) and column of the logits (T,) of each target, on the model's device."""
        rows = torch.tensor(targets.images, device=self.device)
        return rows, torch.tensor(targets.classes, device=self.device) - 1

    def activations(self, images: Tensor, layer: str | None = None) -> Activations:
        """One forward with a graph from a layer's output to the logits; nothing before it is kept.

        Args:
            images: (B, 3, h, w) normalised, placed.
            layer: a module's name, see `layer_name`; None chooses.

        Raises:
            DataError: no such layer, it does not run, or the logits do not depend on it.
        """
        name, size = self.layer_name(layer), (int(images.shape[2]), int(images.shape[3]))
        images = images.detach()
        if name == LAST:
            with torch.no_grad():
                kept = self.kept(images, "features")
                output = self.features(images) if kept is None else kept[0].detach()
            with torch.enable_grad():
                logits, totals = self.from_features(output.requires_grad_())
        else:
            with torch.enable_grad(), starting_at(self.network, name, self._folds) as start:
                logits, totals = self.outputs(images)
            if not start.outputs:
                raise DataError(f"layer: {name!r} does not run when the network classifies; take another")
            output = start.outputs[-1]
        if not logits.requires_grad:
            raise DataError(f"layer: the logits do not depend on {name!r} (the graph is cut); take another")
        return Activations(output, logits, totals.detach(), lambda values: self._grid(values, size))

    def layer_name(self, layer: str | None = None) -> str:
        """The module whose output is explained: the one named, the network's own choice, or `last features`.

        Args:
            layer: dotted name of a module, or an end of it that is unique; None chooses.

        Raises:
            DataError: no such module; the nearest is named.
        """
        chosen: str | None = getattr(self.network, "target", None) if layer is None else layer
        return LAST if chosen is None else resolve(self.network, chosen)

    def in_parts(self, images: Tensor, targets: Targets, explain: Part) -> Attribution:
        """Explain a batch in parts of at most `batch` images, halved while memory runs out.

        Args:
            images: (B, 3, h, w).
            targets: T >= 1 targets into them; images without a target are left out.
            explain: (images of the part, their targets) -> attribution of those targets.

        Raises:
            ValueError: no target, or one of a class that the head does not have.
            MachineError: memory runs out for a single image.
            Interrupted: `leave` says so.
        """
        for label in targets.classes:
            if not 1 <= label <= self.classes:
                raise ValueError(f"class {label} is not in 1..{self.classes}")
        parts: list[Attribution] = []
        start = 0
        while start < len(images):
            if self.leave():
                raise Interrupted("left in the middle of a batch", 130)
            stop = min(start + self.batch, len(images))
            wanted = _between(targets, start, stop)
            if wanted.images:
                try:
                    parts.append(explain(images[start:stop], wanted))
                except RuntimeError as error:  # torch.OutOfMemoryError is one
                    if not out_of_memory(error):
                        raise
                    if stop - start == 1:
                        size = "x".join(map(str, images.shape[2:]))
                        raise MachineError(
                            f"memory of {self.device} runs out for one image of {size}; "
                            "take smaller images or another device"
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
            DataError: it does not: the graph is cut (`detach`) or every weight is zero.
        """
        if self._gradient_seen:
            return
        with torch.enable_grad():
            sample = self.on_device(self._sample(self.network)).requires_grad_()
            logits = self.logits(sample)
            gradient: Tensor | None = None
            if logits.requires_grad:
                (gradient,) = torch.autograd.grad(logits.square().sum(), sample, allow_unused=True)
        if gradient is None or not bool((gradient != 0).any()):
            raise DataError(
                "classifier: no gradient reaches the input (the graph is cut, or the weights are zero); "
                "a gradient map would be empty: use cam, or train the classifier"
            )
        self._gradient_seen = True

    def _cast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    def _grid(self, values: Tensor, size: tuple[int, int]) -> Tensor:
        grid: Any = getattr(self.network, "grid", None)
        if grid is not None:
            cells: Tensor = grid(values, size)
            return cells
        if values.dim() != 4:
            raise DataError(
                f"layer: an output of shape {tuple(values.shape)} is no grid of features; take another layer"
            )
        return values

    def _of_all(self, images: Tensor, of: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """(B, C) made of logits and totals of every image, in parts."""
        everything = Targets(tuple(range(len(images))), (1,) * len(images))

        def part(images: Tensor, targets: Targets) -> Attribution:
            with torch.no_grad():
                rows = of(*self.outputs(self.on_device(images)))
            return Attribution(rows, rows[:, 0])

        return self.in_parts(images, everything, part).values

    def _sample(self, model: nn.Module) -> Tensor:
        side = int(getattr(model, "side", PROBE))
        sample = torch.randn(1, 3, side, side, generator=draws.generator("probe"))
        kind = next((parameter.dtype for parameter in model.parameters()), torch.float32)
        return sample.to(self.device, kind)


def _between(targets: Targets, start: int, stop: int) -> Targets:
    """The targets of images start..stop-1, counted from start."""
    first, last = bisect_left(targets.images, start), bisect_left(targets.images, stop)
    images = tuple(image - start for image in targets.images[first:last])
    return Targets(images, targets.classes[first:last])


def _join(parts: list[Attribution]) -> Attribution:
    if len(parts) == 1:
        return parts[0]
    optional = []
    for name in ("totals", "uncovered"):
        rows = [getattr(part, name) for part in parts]
        optional.append(None if any(row is None for row in rows) else torch.cat(rows))
    values, logits = torch.cat([part.values for part in parts]), torch.cat([part.logits for part in parts])
    return Attribution(values, logits, *optional)


def out_of_memory(error: RuntimeError) -> bool:
    """Whether a device, or the CPU, has no memory left."""
    # the CPU's allocator raises a plain RuntimeError
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
