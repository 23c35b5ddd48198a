"""Views of images (crops, scales, noisy or masked copies), explained in batches and given back one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from pseudolabel.errors import MachineError
from pseudolabel.explain.method import BoundMethod, ImageReduce, Key, on_image
from pseudolabel.explain.model import Explained, out_of_memory
from pseudolabel.explain.resize import Resize
from pseudolabel.records import Attribution, Targets

View = tuple[int, int]  # image in the batch, index of the view
See = Callable[[Tensor], Tensor]  # (..., H, W) of the image -> (..., h, w) of the view


def rows_of(targets: Targets) -> dict[int, range]:
    """Targets of each image that has some; they stand together."""
    rows: dict[int, range] = {}
    for target, image in enumerate(targets.images):
        start = rows[image].start if image in rows else target
        rows[image] = range(start, target + 1)
    return rows


def each(
    inner: BoundMethod,
    model: Explained,
    targets: Targets,
    keys: Sequence[Key],
    views: Sequence[View],
    made: Callable[[View], Tensor],
    see: Callable[[View], See] | None = None,
) -> Iterator[tuple[View, Attribution]]:
    """Attribution of each view, in order.

    Args:
        inner: explains a view.
        model: the frozen classifier; its batch bounds the items of a forward, whatever `inner` costs.
        targets: of the images; every image of `views` has one.
        keys: one an image; a view's is its image's and the view's index.
        views: all of one size.
        made: the image (3, h, w) of a view.
        see: where views are other places of the image: what a view sees of it.

    Yields:
        The view and the attribution of its image's targets.
    """
    labels = rows_of(targets)
    # maps reduced inside look at the view of the image, which is another one each time
    apart = see is not None and inner.done and isinstance(inner.innermost, ImageReduce)
    start = 0
    while start < len(views):
        # asked anew each time: it shrinks where memory ran out
        part = views[start : start + (1 if apart else max(1, model.batch // inner.views))]
        start += len(part)
        wanted = Targets.of([targets.classes[t] for t in labels[image]] for image, _ in part)
        method = inner.seen(see(part[0])) if see is not None and apart else inner
        try:
            images = torch.stack([made(view) for view in part])
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if len(part) == 1:
                raise MachineError(
                    f"memory of {model.device} runs out for one view of an image; "
                    "take a smaller scale or size, smaller images, or another device"
                ) from error
            model.batch = max(1, model.batch // 2)
            start -= len(part)
            continue
        attribution = method.explain(model, images, wanted, [(*keys[image], index) for image, index in part])
        at = 0
        for view in part:
            rows = slice(at, at + len(labels[view[0]]))
            at = rows.stop
            yield view, _part(attribution, rows)


def projected(inner: BoundMethod, values: Tensor, resize: Resize) -> Tensor:
    """Attribution (T, c, h', w') of a view at the place (T, c, H, W) that the view was resized from."""
    if inner.project == "adjoint":
        return resize.back(values)
    return on_image(values.flatten(0, 1), resize.source).reshape(*values.shape[:2], *resize.source)


class Means:
    """Means over views of what stands beside the maps.

    Args:
        count: T targets.
        views: views of each.
    """

    def __init__(self, count: int, views: int, device: torch.device) -> None:
        self.views = views
        self.logits = torch.zeros(count, device=device)
        self.totals: Tensor | None = torch.zeros(count, device=device)
        self.uncovered: Tensor | None = torch.zeros(count, device=device)

    def add(self, rows: range, attribution: Attribution) -> None:
        """One view of the targets `rows`."""
        chosen = slice(rows.start, rows.stop)
        self.logits[chosen] += attribution.logits / self.views
        if attribution.totals is None:
            self.totals = None
        elif self.totals is not None:
            self.totals[chosen] += attribution.totals / self.views
        if attribution.uncovered is None:
            self.uncovered = None
        elif self.uncovered is not None:
            self.uncovered[chosen] += attribution.uncovered / self.views


def _part(attribution: Attribution, rows: slice) -> Attribution:
    totals = None if attribution.totals is None else attribution.totals[rows]
    uncovered = None if attribution.uncovered is None else attribution.uncovered[rows]
    return Attribution(attribution.values[rows], attribution.logits[rows], totals, uncovered)
