"""A finished run: what stands in its folder, only read.

    run = Run.open("runs/mine/masks")
    run.ids, run.mask("cat 1"), run.maps("cat 1"), run.summary

Nothing but ids and offsets is held in memory, and nothing is opened before it is asked for.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pseudolabel import masks
from pseudolabel.errors import DataError, UsageError
from pseudolabel.records import LabelSpace
from pseudolabel.runs import disk, layout
from pseudolabel.runs.manifest import Manifest
from pseudolabel.runs.maps import decode_maps

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pseudolabel.recipes.overrides import Overrides
    from pseudolabel.recipes.schema import GenerateRecipe
    from pseudolabel.records import Scores

KINDS = ("generate", "refine", "import")  # commands whose folders hold masks in the form that is read here
AGAIN = "run the same command again"


@dataclass(frozen=True)
class StoredMaps:
    """The stored maps of one image and what the manifest says of them: all that a worker needs to read them.

    Attributes:
        path: the file, there or not.
        sha256: of the file; None where the run stored no maps of this image.
        image_sha256: of the image that they were made from; None where the manifest does not say.
        labels: (K,) ascending ids of their classes.
    """

    path: Path
    sha256: str | None
    image_sha256: str | None
    labels: tuple[int, ...]

    def read(self, *, verify: bool = True) -> list[Scores]:
        """For each branch of the recipe Scores (K, H, W) float32 on the CPU.

        Raises:
            DataError: there is no file, it is damaged, or (`verify`) it is not the one that the run has made.
        """
        if self.sha256 is None or not self.path.is_file():
            raise DataError(
                f"{self.path}: no stored maps of this image; `pl generate --set output.maps=true` into the "
                "same folder adds them"
            )
        data = self.path.read_bytes()
        if verify and disk.sha256_bytes(data) != self.sha256:
            raise _changed(self.path)
        return decode_maps(data, self.path)

    def check_image(self, image: Path, content: bytes) -> None:
        """See that the content of an image's file is what the maps were made from.

        Raises:
            DataError: it has changed since.
        """
        if self.image_sha256 is not None and disk.sha256_bytes(content) != self.image_sha256:
            raise DataError(f"{image}: has changed since the maps were made")


class Run:
    """A finished run of `pl generate`, `pl refine` or `pl import`; see `Run.open`.

    Attributes:
        path: the folder.
        manifest: a line an image that has a mask, by id.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(cls, path: Path | str) -> Run:
        """Open the folder of a finished run.

        Raises:
            UsageError: there is no such folder, or no such command has made it.
            DataError: the run is not finished, or its manifest is damaged.
        """
        path = Path(path).expanduser()
        if not path.is_dir():
            raise UsageError(f"{path}: is no folder; give a run of `pl generate`")
        present = [
            name for name in (layout.FINGERPRINT, layout.RECIPE, layout.MANIFEST) if (path / name).is_file()
        ]
        if not present:
            raise UsageError(
                f"{path}: no {layout.MANIFEST} and no {layout.RECIPE}, so this is no run of `pl generate`; "
                "`pl evaluate` scores a folder of masks with --masks DIR --truth DIR --classes FILE"
            )
        if layout.FINGERPRINT in present:
            kind = disk.read_json(path / layout.FINGERPRINT).get("kind")
            if kind not in KINDS:
                raise UsageError(f"{path}: made by {kind!r}; give a run of `pl generate`")
        if layout.MANIFEST not in present:
            raise DataError(f"{path}: no {layout.MANIFEST}, so the run is not finished; {AGAIN}")
        return cls(path, Manifest(path / layout.MANIFEST))

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of the images that have a mask, in the order of the run's list."""
        return tuple(self.manifest)

    @functools.cached_property
    def listed(self) -> frozenset[str]:
        """Ids of the images that the run was asked for, within its limit; also those without a mask."""
        return frozenset(self.ids) | {str(row["file"]) for row in self.problems if "item" not in row}

    @functools.cached_property
    def classes(self) -> LabelSpace:
        """The classes of the masks.

        Raises:
            DataError: the list is missing or damaged.
        """
        return LabelSpace.read(self.path / layout.CLASSES)

    @functools.cached_property
    def recipe(self) -> GenerateRecipe:
        """What the run was made from.

        Raises:
            UsageError: the folder holds no recipe.
        """
        return self.recipe_with(())

    def recipe_with(self, overrides: Overrides) -> GenerateRecipe:
        """The recipe with some keys replaced, as `data.root=...`.

        Raises:
            UsageError: the folder holds no recipe, or an override is refused.
        """
        from pseudolabel.recipes.loading import load_recipe
        from pseudolabel.recipes.schema import GenerateRecipe

        path = self.path / layout.RECIPE
        if not path.is_file():
            raise UsageError(f"{self.path}: no {layout.RECIPE}, so nothing says what images it was made from")
        return load_recipe(path, GenerateRecipe, overrides)

    @functools.cached_property
    def fingerprint(self) -> dict[str, Any]:
        """All that decided the bytes."""
        return dict(disk.read_json(self.path / layout.FINGERPRINT))

    @functools.cached_property
    def summary(self) -> dict[str, Any]:
        """What the last call did, and on what machine."""
        return dict(disk.read_json(self.path / layout.SUMMARY))

    @property
    def classifier(self) -> str | None:
        """sha256 of the classifier that made the maps; None where the run does not say."""
        own = self.fingerprint if (self.path / layout.FINGERPRINT).is_file() else {}
        if "classifier" not in own:
            own = self.summary if (self.path / layout.SUMMARY).is_file() else {}
        sha256 = own.get("classifier")
        return None if sha256 is None else str(sha256)

    @property
    def labels_from(self) -> str | None:
        """What gave the image labels, `csv` or the like; None if predicted or not known."""
        known = self.summary.get("labels_from") if (self.path / layout.SUMMARY).is_file() else None
        return None if known is None else str(known)

    @functools.cached_property
    def problems(self) -> tuple[dict[str, Any], ...]:
        """What went wrong: file, code, what, remedy; `item` is the id of an image that has a mask."""
        path = self.path / layout.PROBLEMS
        return tuple(disk.read_json_lines(path)) if path.exists() else ()

    def mask_path(self, item: str) -> Path:
        """The file of an image's mask, there or not."""
        return self.path / layout.mask_file(item)

    def mask(self, item: str, *, verify: bool = False) -> NDArray[np.uint8]:
        """The mask of an image.

        Args:
            item: its id.
            verify: see that the file is the one that the run has made.

        Returns:
            (H, W) uint8: 0 background, 1..C, 255 ignore.

        Raises:
            DataError: the run has no such image, or its file is missing, changed or damaged.
        """
        line, path = self._line(item), self.mask_path(item)
        if not path.exists():
            raise DataError(f"{path}: is missing; {AGAIN}, it makes what is missing")
        if verify and disk.sha256_file(path) != line["sha256"]:
            raise _changed(path)
        return masks.read_mask(path)

    def stored(self, item: str) -> StoredMaps:
        """Where an image's maps are stored and what they must be."""
        line, name = self._line(item), layout.maps_file(item)
        known = line.get("files", {}).get(name, {})
        labels = tuple(line.get("labels", ()))
        return StoredMaps(self.path / name, known.get("sha256"), line.get("input_sha256"), labels)

    def maps(self, item: str, *, verify: bool = False) -> list[Scores]:
        """The stored raw maps of an image.

        Args:
            item: its id.
            verify: see that the file is the one that the run has made.

        Returns:
            For each branch of the recipe Scores (K, H, W) float32 on the CPU.

        Raises:
            DataError: the run has no such image or stored no maps of it, or the file is missing, changed or
                damaged.
        """
        return self.stored(item).read(verify=verify)

    def digest(self, *, maps: bool = False) -> str:
        """sha256 over ids and digests of the masks, in order; on request of the stored maps as well."""
        rows = hashlib.sha256()
        for line in self.manifest.lines():
            row = [line["id"], line["sha256"], line.get("files", {}) if maps else {}]
            rows.update(disk.json_line(row))
        return rows.hexdigest()

    def _line(self, item: str) -> dict[str, Any]:
        if item not in self.manifest:
            raise DataError(f"{self.path}: has no mask of {item!r}; see {layout.PROBLEMS}")
        return self.manifest[item]


def _changed(path: Path) -> DataError:
    return DataError(f"{path}: has changed since the run made it; {AGAIN}")
