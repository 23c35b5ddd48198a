"""Views of images (crops, scales, noisy copies), explained in batches; several methods share their forwards.

An aggregator plans groups of views and adds up what comes back. Methods whose aggregators plan the same
group see
the same views: each view is made once, its forward runs once, and every method takes from it what it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence

import torch
from torch import Tensor

from pseudolabel.errors import MachineError
from pseudolabel.explain.method import (
    Aggregate,
    BoundMethod,
    ImageReduce,
    Key,
    Reduce,
    View,
    ViewGroup,
    on_image,
)
from pseudolabel.explain.model import Explained, out_of_memory
from pseudolabel.explain.resize import Resize
from pseudolabel.records import Attribution, Targets

See = Callable[[Tensor], Tensor]  # (..., H, W) of the image -> (..., h, w) of the view


def rows_of(targets: Targets) -> dict[int, range]:
    """Targets of each image that has some; they stand together."""
    rows: dict[int, range] = {}
    for target, image in enumerate(targets.images):
        start = rows[image].start if image in rows else target
        rows[image] = range(start, target + 1)
    return rows


def explain_together(
    methods: Sequence[BoundMethod],
    model: Explained,
    images: Tensor,
    targets: Targets,
    keys: Sequence[Key],
) -> list[Attribution]:
    """Attribution of several methods; those that see the same views of the images share one forward.

    Args:
        methods: at least one.
        model: the frozen classifier.
        images: (B, 3, h, w) normalised.
        targets: T >= 1 targets.
        keys: one an image, root of its random draws.

    Returns:
        One attribution a method. Of a single method it is what `explain` gives, bit by bit.
    """
    results: dict[int, Attribution] = {}
    aggregations = {
        index: method.aggregation(model, images, targets, keys)
        for index, method in enumerate(methods)
        if method.aggregation is not None
    }
    planned: dict[Hashable, list[tuple[int, ViewGroup]]] = {}
    for index, aggregation in aggregations.items():
        for group in aggregation.groups():
            planned.setdefault(group.key, []).append((index, group))
    for members in planned.values():
        longest = max((group for _, group in members), key=lambda group: len(group.views))
        inner = [aggregations[index].inner for index, _ in members]
        for view, attributions in each(inner, model, images, targets, keys, longest):
            for (index, group), attribution in zip(members, attributions, strict=True):
                aggregations[index].add(group, view, attribution)
    for index, aggregation in aggregations.items():
        results[index] = aggregation.result()
    leaves = [index for index in range(len(methods)) if index not in aggregations]
    if len(leaves) == 1:
        results[leaves[0]] = methods[leaves[0]].explain(model, images, targets, keys)
    elif leaves:
        placed = model.on_device(images)
        with model.sharing(placed):
            # a gradient's forward leaves the features that an activation map needs, not the other way round
            for index in sorted(leaves, key=lambda leaf: methods[leaf].project != "adjoint"):
                same = next((done for done in results if methods[done] is methods[index]), None)
                results[index] = (
                    methods[index].explain(model, placed, targets, keys) if same is None else results[same]
                )
    return [results[index] for index in range(len(methods))]


def aggregated(
    inner: BoundMethod,
    aggregation: Aggregate,
    *,
    reduce: Reduce,
    count: int,
    rebuilt: Callable[[BoundMethod], BoundMethod],
) -> BoundMethod:
    """The method that an aggregator makes of another one.

    Args:
        inner: explains a view.
        aggregation: begins a call.
        reduce: of the attribution that the aggregation gives.
        count: views of one image.
        rebuilt: makes the same of another inner method.
    """

    def explain(model: Explained, images: Tensor, targets: Targets, keys: Sequence[Key]) -> Attribution:
        return explain_together([method], model, images, targets, keys)[0]

    method = BoundMethod(
        explain=explain,
        reduce=reduce,
        project=inner.project,
        views=inner.views * count,
        inner=inner,
        rebuilt=rebuilt,
        aggregation=aggregation,
    )
    return method


def each(
    methods: Sequence[BoundMethod],
    model: Explained,
    images: Tensor,
    targets: Targets,
    keys: Sequence[Key],
    group: ViewGroup,
) -> Iterator[tuple[View, list[Attribution]]]:
    """Attribution of each view by each method, in order.

    Args:
        methods: explain a view.
        model: the frozen classifier; its batch bounds the items of a forward and, by the area of the images,
            their pixels, whatever a method costs.
        images: (B, 3, H, W) that the views are of.
        targets: of the images; every image of the views has one.
        keys: one an image; a view's is its image's and the view's index.
        group: views of one size.

    Yields:
        The view and, of each method, the attribution of its image's targets.
    """
    labels = rows_of(targets)
    see = group.see
    # maps reduced inside look at the view of the image, which is another one each time
    apart = see is not None and any(
        method.done and isinstance(method.innermost, ImageReduce) for method in methods
    )
    start = 0
    while start < len(group.views):
        # asked anew each time: it shrinks where memory ran out
        part = group.views[start : start + (1 if apart else _count(methods, model, images, group.size))]
        start += len(part)
        wanted = Targets.of([targets.classes[t] for t in labels[image]] for image, _ in part)
        try:
            views = torch.stack([group.make(view) for view in part])
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
        shown = [method.of_view(see(part[0])) if see is not None and apart else method for method in methods]
        own_keys = [(*keys[image], index) for image, index in part]
        attributions = explain_together(shown, model, views, wanted, own_keys)
        first = 0
        for view in part:
            rows = slice(first, first + len(labels[view[0]]))
            first = rows.stop
            yield view, [_part(attribution, rows) for attribution in attributions]


def _count(methods: Sequence[BoundMethod], model: Explained, images: Tensor, size: tuple[int, int]) -> int:
    """Views of one forward: at most the model's batch, and no more pixels than a batch of the images has."""
    dearest = max(method.views for method in methods)
    area = model.batch * images.shape[2] * images.shape[3]
    return max(1, min(model.batch // dearest, area // (size[0] * size[1])))


def projected(inner: BoundMethod, values: Tensor, resize: Resize) -> Tensor:
    """Attribution (T, c, h', w') of a view where the view was resized from: (T, c, H, W)."""
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
