"""`pl reference`: the recorded maps that split discriminative from non-discriminative regions.

Single-scale CAM of the original classifier for the classes of each picture, raw (after its ReLU) at feature
size. A pixel is discriminative where the map, upsampled straight to the picture and divided by its largest
value, exceeds the threshold. Recorded once, so that every method is scored against the same split.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pseudolabel import console, storage
from pseudolabel import recipe as recipes
from pseudolabel.errors import DataFault, UsageFault
from pseudolabel.schema import GenerateRecipe, Labels, MapLine
from pseudolabel.tensors import packed

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
    """Record the reference maps of every picture of a recipe's data.

    Args:
        recipe: of `pl generate`; only data, classifier and batch are looked at.
        out: the file, or an existing folder that gets `reference.safetensors`.
        overrides: `data.split=val` and the like.
        device: auto, cpu, cuda or cuda:n.
        workers: threads that read pictures.
        limit: only the first so many pictures of the list.
        quiet: no progress.

    Returns:
        `path`, `sha256`, `images`, `maps`, `threshold`, `rule`, `classifier`. The file holds a tensor
        (K, h', w') float32 for each id with a label; its metadata `ids` (JSON {id: class ids}), `threshold`,
        `rule` and `classifier` (sha256 of its file).

    Raises:
        UsageFault: recipe or limit refused.
        DataFault: data, classifier or a picture refused, or a map is not finite. A split with holes is of
            no use, so nothing is written then.
        Interrupted: a signal came; nothing is written.
    """
    from pseudolabel.recipe import MethodStep
    from pseudolabel.training.device import pick
    from pseudolabel.verbs._chosen import chosen_classifier
    from pseudolabel.verbs._classifier_of import ClassifierOf, exact_kernels

    if limit is not None and limit < 1:
        raise UsageFault(f"--limit {limit}: is not above 0 pictures")
    chosen = recipes.load(recipe, GenerateRecipe, overrides)
    where = pick(device)
    reader, params = chosen.data.load()
    data = reader.run(params)
    for record in data.records[:limit]:
        if record.labels is None:
            raise DataFault(f"{record.id}: nobody said its labels; the reference needs them")
    given = chosen.model_copy(update={"labels": Labels()})
    loaded, data = chosen_classifier(given, data, (lambda text: None) if quiet else console.say)
    records = data.records[:limit]
    line = MapLine(method=MethodStep(name="cam"))
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
    storage.write_bytes(path, encoded)
    return {
        "path": str(path),
        "sha256": storage.sha256_bytes(encoded),
        "images": len(records),
        "maps": sum(len(rows) for rows in maps.values()),
        "threshold": THRESHOLD,
        "rule": RULE,
        "classifier": loaded.sha256,
    }


def _maps(classifier: Any, records: Sequence[Any], workers: int, quiet: bool) -> dict[str, Tensor]:
    """Maps (K, h', w') of every picture with a label."""
    import torch

    from pseudolabel.classifier.feed import ahead
    from pseudolabel.verbs._batches import plan
    from pseudolabel.verbs._pictures import read_batch

    found: dict[str, Tensor] = {}
    read = partial(read_batch, wanted={record.id: True for record in records}, finished={})
    with (
        console.interruptible() as stop,
        console.progress(len(records), "reference maps", quiet) as bar,
    ):
        batches = plan([record for record in records if record.labels], classifier.pictures)
        for batch, pictures in ahead(batches, read, workers=workers, depth=workers + 2):
            if stop.requested:
                raise stop.fault(f"{len(found)} of {len(records)} reference maps", kept=False)
            for picture in pictures:
                if picture.pixels is None:
                    raise DataFault(f"{picture.record.id}: {picture.fault}; mend it or take it off the list")
            inputs = classifier.inputs([picture.pixels for picture in pictures])
            keys = [(0, record.id) for record in batch]  # CAM draws nothing
            values = classifier.maps(inputs, [record.labels for record in batch], keys).values
            for record, (rows,) in zip(batch, values, strict=True):
                tensor = torch.from_numpy(rows.copy())
                if not bool(tensor.isfinite().all()):
                    raise DataFault(f"{record.id}: its map holds NaN or infinity; look at the classifier")
                found[record.id] = tensor
            bar.advance(len(batch))
    return found
