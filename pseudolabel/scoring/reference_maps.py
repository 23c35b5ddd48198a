"""Reference maps: single-scale CAMs of the original classifier, which tell DR from NDR.

DR is the discriminative region of an object, the part that the classifier looks at; NDR is the rest of it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from pseudolabel.errors import DataError
from pseudolabel.metrics.regions import RULES, Rule, discriminative
from pseudolabel.records import LabelSpace
from pseudolabel.runs import disk, layout
from pseudolabel.runs.run import Run
from pseudolabel.scoring.truth import Mask, listed

FILE = "reference.safetensors"


class ReferenceMaps:
    """A file of `pl reference`.

    Attributes:
        threshold: share of a map's largest value above which a pixel is discriminative.
        rule: `own` or `any`.
        classes: {id: class ids of its maps}.
        space: the class names that these ids stand for.
        classifier: sha256 of the classifier that made them.
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        """Open a reference file, or the one in a folder.

        Raises:
            DataError: it is missing, damaged, or holds no reference maps.
        """
        from safetensors import SafetensorError, safe_open

        if path.is_dir():
            path = path / FILE
        if not path.is_file():
            raise DataError(f"{path}: no reference maps; make them with `pl reference RECIPE -o {path.name}`")
        try:
            self._file = cast("Any", safe_open(path, framework="pt"))
            meta: dict[str, Any] = self._file.metadata() or {}
            self.threshold = float(meta["threshold"])
            self.rule: Rule = meta["rule"]
            self.classes = {item: tuple(ids) for item, ids in json.loads(meta["ids"]).items()}
            self.classifier = str(meta["classifier"])
            self.space = LabelSpace(tuple(json.loads(meta["classes"])))
        except (SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path}: holds no reference maps ({type(error).__name__}: {error}); make them with "
                "`pl reference RECIPE -o FILE`"
            ) from error
        if self.rule not in RULES:
            raise DataError(f"{path}: rule {self.rule!r} is not one of {', '.join(RULES)}")
        self.path = path

    @functools.cached_property
    def sha256(self) -> str:
        """sha256 of the file."""
        return disk.sha256_file(self.path)

    def require(self, ids: Iterable[str]) -> None:
        """Refuse a reference that lacks an image.

        Raises:
            DataError: the images without reference maps, counted and the first named.
        """
        missing = [item for item in ids if item not in self.classes]
        if missing:
            raise DataError(
                f"{self.path.name}: {len(missing)} images have no reference maps: {listed(missing)}; make "
                "the reference from the list that is scored"
            )

    def check_classes(self, space: LabelSpace) -> None:
        """Refuse a reference whose class ids mean other classes than those of the data.

        Raises:
            DataError: the first difference.
        """
        difference = self.space.difference(space)
        if difference is not None:
            raise DataError(
                f"{self.path}: its classes are not those of the data: {difference}; make the reference from "
                "the data that is scored, with `pl reference RECIPE -o FILE`"
            )

    def check_classifier(self, run: Run) -> None:
        """Refuse a reference that another classifier made than the run's, where the run says which it was.

        Raises:
            DataError: both classifiers, and how the right reference is made.
        """
        if run.classifier is None or run.classifier == self.classifier:
            return
        raise DataError(
            f"{self.path}: made by the classifier {self.classifier[:12]}, the maps of {run.path} by "
            f"{run.classifier[:12]}; `pl reference {run.path / layout.RECIPE} -o FILE` makes the right one, "
            "--other-classifier takes this one on purpose, for instance that of the original classifier for "
            "a run of one trained with noise"
        )

    def region(self, record_id: str, truth: Mask) -> NDArray[np.bool_]:
        """Discriminative region (H, W) bool of one image: its CAMs upsampled straight to (H, W).

        Args:
            record_id: the image.
            truth: (H, W) uint8 ground truth.
        """
        from torch.nn import functional

        ids = self.classes[record_id]
        if not ids:
            return np.zeros(truth.shape, dtype=np.bool_)
        maps = self._file.get_tensor(record_id).float()
        full = functional.interpolate(maps[None], size=truth.shape, mode="bilinear", align_corners=False)
        return discriminative(truth, full[0].numpy(), ids, self.threshold, self.rule)

    def as_dict(self) -> dict[str, Any]:
        """What an evaluation records of it."""
        return {
            "maps": self.path.name,
            "threshold": self.threshold,
            "rule": self.rule,
            "sha256": self.sha256,
            "classifier": self.classifier,
        }


def opened(path: Path) -> ReferenceMaps:
    """The reference maps of a file, opened once in a process: a worker asks for them with every image."""
    about = path.stat()
    return _opened(path, about.st_ino, about.st_mtime_ns, about.st_size)


@functools.lru_cache(maxsize=1)
def _opened(path: Path, *about: int) -> ReferenceMaps:
    return ReferenceMaps(path)
