"""`pl reference`: the recorded maps that split discriminative from non-discriminative regions.

Single-scale CAM of the original classifier for the classes of each image, raw (after its ReLU) at feature
size. A pixel is discriminative where the map, upsampled straight to the image and divided by its largest
value, exceeds the threshold. Recorded once, so that every method is scored against the same split.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pseudolabel import console
from pseudolabel.errors import DataError, UsageError
from pseudolabel.recipes.loading import load_recipe
from pseudolabel.recipes.schema import Branch, GenerateRecipe, Labels
from pseudolabel.recipes.steps import MethodStep
from pseudolabel.runs import disk
from pseudolabel.runs.tensors import packed

if TYPE_CHECKING:
    from torch import Tensor

FILE = "reference.safetensors"
THRESHOLD = 0.25  # share of a map's maximum; inferred from the authors' threshold sweep
RULE = "own"  # a class's own map decides, not the strongest of those present


def reference(
    recipe: Path | str | Mapping[str, Any] | GenerateRecipe,
    out: Path | str,
    *,
    overrides: Sequence[str] = (),
    device: str = "auto",
    workers: int = 2,
    limit: int | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Record the reference maps of every image of a recipe's data.

    Args:
        recipe: of `pl generate`; only data, classifier and batch are looked at.
        out: the file, or an existing folder that gets `reference.safetensors`.
        overrides: `data.split=val` and the like.
        device: auto, cpu, cuda or cuda:n.
        workers: threads that read images.
        limit: only the first so many images of the list.
        quiet: no progress.

    Returns:
        `path`, `sha256`, `images`, `maps`, `threshold`, `rule`, `classifier`. The file holds a tensor
        (K, h', w') float32 for each id with a label; its metadata `ids` (JSON {id: class ids}), `threshold`,
        `rule` and `classifier` (sha256 of its file).

    Raises:
        UsageError: recipe or limit refused.
        DataError: data, classifier or an image refused, or a map is not finite. A split with holes is of
            no use, so nothing is written then.
        Interrupted: a signal came; nothing is written.
    """
    from pseudolabel.pipeline.chosen import chosen_classifier
    from pseudolabel.pipeline.explaining import ClassifierOf, exact_kernels
    from pseudolabel.training.device import pick

    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit}: is not above 0 images")
    chosen = load_recipe(recipe, GenerateRecipe, overrides)
    where = pick(device)
    reader, params = chosen.data.component, chosen.data.params
    data = reader.run(params)
    for record in data.records[:limit]:
        if record.labels is None:
            raise DataError(f"{record.id}: nobody said its labels; the reference needs them")
    given = chosen.model_copy(update={"labels": Labels()})
    loaded, data = chosen_classifier(given, data, (lambda text: None) if quiet else console.say)
    records = data.records[:limit]
    line = Branch(method=MethodStep(name="cam"))
    classifier = ClassifierOf(loaded, [line], device=where, batch=chosen.batch)
    with exact_kernels():
        maps = _maps(classifier, records, workers, quiet)
    about = {
        "ids": json.dumps({record.id: list(record.labels or ()) for record in records}),
        "threshold": str(THRESHOLD),
        "rule": RULE,
        "classifier": loaded.sha256,
    }
    path = Path(out)
    if path.is_dir():
        path = path / FILE
    encoded = packed(maps, about)
    disk.write_bytes(path, encoded)
    return {
        "path": str(path),
        "sha256": disk.sha256_bytes(encoded),
        "images": len(records),
        "maps": sum(len(rows) for rows in maps.values()),
        "threshold": THRESHOLD,
        "rule": RULE,
        "classifier": loaded.sha256,
    }


def _maps(classifier: Any, records: Sequence[Any], workers: int, quiet: bool) -> dict[str, Tensor]:
    """Maps (K, h', w') of every image with a label."""
    import torch

    from pseudolabel.classifier.feed import ahead
    from pseudolabel.pipeline.batches import plan
    from pseudolabel.pipeline.reading import read_batch

    found: dict[str, Tensor] = {}
    read = partial(read_batch, wanted={record.id: True for record in records}, finished={})
    with (
        console.interruptible() as stop,
        console.progress(len(records), "reference maps", quiet) as bar,
    ):
        batches = plan([record for record in records if record.labels], classifier.images)
        for batch, images in ahead(batches, read, workers=workers, depth=workers + 2):
            if stop.requested:
                raise stop.fault(f"{len(found)} of {len(records)} reference maps", kept=False)
            for image in images:
                if image.pixels is None:
                    raise DataError(f"{image.record.id}: {image.fault}; mend it or take it off the list")
            inputs = classifier.inputs([image.pixels for image in images])
            keys = [(0, record.id) for record in batch]  # CAM draws nothing
            values = classifier.maps(inputs, [record.labels for record in batch], keys).values
            for record, (rows,) in zip(batch, values, strict=True):
                tensor = torch.from_numpy(rows.copy())
                if not bool(tensor.isfinite().all()):
                    raise DataError(f"{record.id}: its map holds NaN or infinity; look at the classifier")
                found[record.id] = tensor
            bar.advance(len(batch))
    return found
