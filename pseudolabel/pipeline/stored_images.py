"""Images whose maps are stored by a run: listed, read, and made into masks without the model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pseudolabel import images
from pseudolabel.errors import DataError, MachineError
from pseudolabel.pipeline import needs
from pseudolabel.pipeline.explaining import FILLS
from pseudolabel.pipeline.postprocessing import ImageMaps, ImageResult, PostprocessingPlan, postprocess_image
from pseudolabel.recipes.loading import plain_data
from pseudolabel.recipes.schema import GenerateRecipe
from pseudolabel.records import Dataset
from pseudolabel.runs import layout
from pseudolabel.runs.run import Run, StoredMaps
from pseudolabel.scoring.truth import size

OWN = {
    "id",
    "labels",
    "height",
    "width",
    "size",
    "sha256",
    "files",
}  # of a manifest line; rewritten by each run


@dataclass(frozen=True)
class StoredImage:
    """One image whose maps are stored: what a worker reads, and what its manifest line keeps."""

    id: str
    labels: tuple[int, ...]
    image: Path
    maps: StoredMaps
    fill: int | None
    facts: dict[str, Any] = field(default_factory=dict)


def stored_images(source: Run, recipe: GenerateRecipe, data: Dataset) -> list[StoredImage]:
    """The images of the list that the run has a mask of, in list order.

    Raises:
        DataError: there is none, or the run stores no maps.
    """
    fill = FILLS.get(recipe.no_label)
    listed = []
    for record in data.records:
        if record.id not in source.manifest:
            continue
        line = source.manifest[record.id]
        facts = {key: value for key, value in line.items() if key not in OWN}
        maps = source.stored(record.id)
        listed.append(StoredImage(record.id, maps.labels, record.image, maps, fill, facts))
    if not listed:
        raise DataError(f"{source.path}: holds no image of the data's list; look at data.split")
    if all(image.maps.sha256 is None for image in listed):
        raise DataError(
            f"{source.path}: stores no maps; run `pl generate {source.path / layout.RECIPE} -o {source.path} "
            "--set output.maps=true` to add them"
        )
    return listed


def fingerprint(
    recipe: GenerateRecipe, names: Sequence[str], listed: Sequence[StoredImage]
) -> dict[str, Any]:
    """All that decides the bytes: the steps after the maps, and the digests of maps and images."""
    plain = needs.decisive(recipe, plain_data(recipe), [image.id for image in listed])
    rows = hashlib.sha256()
    for image in listed:
        row = [image.id, image.maps.sha256 or "", image.facts.get("input_sha256")]
        rows.update(json.dumps(row).encode("utf-8", "surrogatepass"))
    return {
        "refine": [branch["refine"] for branch in plain["maps"]],
        **{key: plain[key] for key in ("background", "postprocess", "no_label")},
        **({"fuse": plain["fuse"]} if plain["fuse"] else {}),
        "classes": list(names),
        "maps": {"count": len(listed), "digest": rows.hexdigest()},
    }


def masked(stored: StoredImage, plan: PostprocessingPlan) -> ImageResult:
    """Read an image and its maps and make the mask: what a worker does."""
    try:
        return postprocess_image(read_maps(stored), plan)
    except (DataError, MachineError) as error:
        return ImageResult(None, fault=str(error))


def read_maps(stored: StoredImage) -> ImageMaps:
    """The image and its maps.

    Raises:
        DataError: one of them is missing, damaged, or another than the run had.
    """
    maps, content = stored.maps.read(), images.read_file(stored.image)
    stored.maps.check_image(stored.image, content)
    image = images.read_image(stored.image, data=content)
    for scores in maps:
        if tuple(scores.values.shape[1:]) != image.shape[:2]:
            wrong, wanted = size(scores.values.shape[1:]), size(image.shape[:2])
            raise DataError(f"{stored.maps.path}: maps are {wrong}, the image {wanted}")
        if scores.ids != stored.labels:
            raise DataError(f"{stored.maps.path}: maps of classes {scores.ids}, {stored.labels} wanted")
    if not stored.labels and stored.fill is None:
        raise DataError(f"{stored.id}: has no label; set no_label: background or ignore")
    values = [scores.values.numpy() for scores in maps] if stored.labels else []
    return ImageMaps(stored.id, stored.labels, image, values, stored.fill or 0, stored.facts)
