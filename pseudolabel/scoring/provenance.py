"""What a score is of: which images, masks made by what, a threshold picked where, and by which versions."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pseudolabel.errors import UsageError
from pseudolabel.recipes import composition
from pseudolabel.records import ImageRecord
from pseudolabel.runs import disk, layout
from pseudolabel.runs.run import Run

if TYPE_CHECKING:
    from pseudolabel.recipes.schema import GenerateRecipe


@dataclass(frozen=True)
class Provenance:
    """What an evaluation says of the masks that it scores, beside reader and split.

    Attributes:
        image_list: `images` scored, `listed` images of the data, `sha256` of the sorted ids.
        labels: where the image labels came from, `given` or `predicted`; None where that is not known.
        labels_from: given by what, see `Dataset`.
        checkpoint: `kind` and `sha256` of the network that made the masks, or None.
        threshold: `key` and `value` of the background rule, and where it was `picked`; None without a rule,
            and `picked` is None where the run does not say.
        postprocess: the postprocessors with their parameters; None where that is not known.
        versions: of the packages that counted.
    """

    image_list: dict[str, Any]
    labels: str | None
    labels_from: str | None
    checkpoint: dict[str, Any] | None
    threshold: dict[str, Any] | None
    postprocess: list[dict[str, Any]] | None
    versions: dict[str, str]


def image_list(ids: Sequence[str], listed: int) -> dict[str, Any]:
    """Number and digest of the scored ids, whatever their order, and how many images the data list."""
    return {"images": len(ids), "listed": listed, "sha256": disk.digest(sorted(ids))}


def versions(own: str) -> dict[str, str]:
    """Of this package (`own`), Python and the packages that a figure depends on."""
    import numpy as np
    import torch

    return {
        "pseudolabel": own,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": str(torch.__version__),
    }


def provenance(
    records: Sequence[ImageRecord], listed: int, run: Run | None, recipe: GenerateRecipe | None, own: str
) -> Provenance:
    """What is known of masks.

    Args:
        records: the scored images.
        listed: images of the data's list.
        run: that made the masks, or None for a folder of them.
        recipe: of the run, or None where it has none.
        own: version of this package.
    """
    classifier = None if run is None else run.classifier
    return Provenance(
        image_list=image_list([record.id for record in records], listed),
        labels=None if recipe is None else recipe.labels.source,
        labels_from=None if run is None else run.labels_from,
        checkpoint=None if classifier is None else {"kind": "classifier", "sha256": classifier},
        threshold=None if run is None or recipe is None else _threshold(run, recipe),
        postprocess=None if recipe is None else [step.model_dump(mode="json") for step in recipe.postprocess],
        versions=versions(own),
    )


def _threshold(run: Run, recipe: GenerateRecipe) -> dict[str, Any] | None:
    """The background rule's key and value; picked by the run's own sweep where that has it as its best."""
    try:
        key = composition.swept_key(recipe.background)
    except UsageError:
        return None
    value, picked = recipe.background.parameters()[key], None
    if (run.path / layout.SWEEP).is_file():
        swept = disk.read_json(run.path / layout.SWEEP)
        if swept["key"] == f"background.{key}" and swept["best"]["threshold"] == value:
            picked = {"by": "pl sweep", **{name: swept[name] for name in ("split", "images", "picked")}}
    return {"key": f"background.{key}", "value": value, "picked": picked}
