"""`pl reference`: the recorded maps that split discriminative from non-discriminative regions.

Single-scale CAM of the original classifier for the classes of each image, raw (after its ReLU) at feature
size. A pixel is discriminative where the map, upsampled straight to the image and divided by its largest
value, exceeds the threshold. Recorded once, so that every method is scored against the same split.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pseudolabel import console
from pseudolabel.errors import DataError
from pseudolabel.pipeline.driver import NotDone
from pseudolabel.pipeline.explaining import Prepared, check_limit, explained, prepare, read_recipe
from pseudolabel.pipeline.postprocessing import ImageMaps
from pseudolabel.recipes.overrides import Overrides
from pseudolabel.recipes.schema import Branch, GenerateRecipe, Labels
from pseudolabel.recipes.steps import MethodStep
from pseudolabel.runs import disk
from pseudolabel.runs.tensors import packed

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FILE = "reference.safetensors"
THRESHOLD = 0.25  # share of a map's maximum; inferred from the authors' threshold sweep
RULE = "own"  # a class's own map decides, not the strongest of those present


@dataclass(frozen=True)
class ReferenceSummary:
    """What `pl reference` returns.

    Attributes:
        path, sha256: the file.
        images: images of the list; those without a label have no map.
        maps: maps of all classes of all images.
        threshold: share of a map's maximum above which a pixel is discriminative.
        rule: `own`, a class's own map decides.
        classifier: sha256 of its file.
    """

    path: str
    sha256: str
    images: int
    maps: int
    threshold: float
    rule: str
    classifier: str

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def reference(  # most of it is its arguments and what they mean
    recipe: Path | str | Mapping[str, Any] | GenerateRecipe,
    out: Path | str,
    *,
    overrides: Overrides = (),
    device: str = "auto",
    workers: int = 2,
    limit: int | None = None,
    quiet: bool = False,
) -> ReferenceSummary:
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
        What was recorded. The file holds a tensor (K, h', w') float32 for each id with a label; its metadata
        are `ids` (JSON {id: class ids}), `classes` (JSON list of names, background first), `threshold`,
        `rule` and `classifier` (sha256 of its file).

    Raises:
        UsageError: recipe or limit refused.
        DataError: data, classifier or an image refused, or a map is not finite. A split with holes is of
            no use, so nothing is written then.
        Interrupted: a signal came; nothing is written.
    """
    from pseudolabel.pipeline.explained_classifier import exact_kernels
    from pseudolabel.training.device import pick

    check_limit(limit)
    settled, data = read_recipe(recipe, overrides)
    where = pick(device)
    for record in data.records[:limit]:
        if record.labels is None:
            raise DataError(f"{record.id}: no labels given; the reference needs them")
    cam = settled.model_copy(
        update={"labels": Labels(), "maps": (Branch(method=MethodStep(name="cam")),), "precision": "float32"}
    )
    prepared = prepare(cam, data, (lambda text: None) if quiet else console.say)
    with exact_kernels():
        maps = _maps(prepared, where, limit, workers, quiet)
    records = prepared.data.records[:limit]
    about = {
        "ids": json.dumps({record.id: list(record.labels or ()) for record in records}),
        "threshold": str(THRESHOLD),
        "rule": RULE,
        "classifier": prepared.loaded.sha256,
        "classes": json.dumps(prepared.loaded.space.names),
    }
    path = Path(out)
    if path.is_dir():
        path = path / FILE
    encoded = packed(maps, about)
    disk.write_bytes(path, encoded)
    return ReferenceSummary(
        path=str(path),
        sha256=disk.sha256_bytes(encoded),
        images=len(records),
        maps=sum(len(rows) for rows in maps.values()),
        threshold=THRESHOLD,
        rule=RULE,
        classifier=prepared.loaded.sha256,
    )


def _maps(
    prepared: Prepared, device: torch.device, limit: int | None, workers: int, quiet: bool
) -> dict[str, Tensor]:
    """Maps (K, h', w') of every image with a label."""
    import torch

    labelled = [record for record in prepared.data.records[:limit] if record.labels]
    maps: dict[str, Tensor] = {}
    with (
        console.interruptible() as stop,
        console.progress(len(labelled), "reference maps", quiet) as bar,
    ):
        for event in explained(prepared, prepared.lanes(device), labelled, stop, workers=workers):
            if isinstance(event, NotDone):
                raise DataError(f"{event.id}: {event.what}; mend it or take it off the list")
            assert isinstance(event, ImageMaps)
            values = torch.from_numpy(event.maps[0].copy())
            if not bool(values.isfinite().all()):
                raise DataError(f"{event.id}: its map holds NaN or infinity; look at the classifier")
            maps[event.id] = values
            bar.advance()
        if stop.requested:
            raise stop.fault(f"{len(maps)} of {len(labelled)} reference maps", kept=False)
    return maps
