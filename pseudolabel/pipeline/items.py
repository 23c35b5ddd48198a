"""From the maps of one image to the bytes of its files: what the worker pool does, on the CPU.

A pure function of the job, in one torch thread wherever it runs: the same bytes with any number of workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pseudolabel import images, masks
from pseudolabel.errors import DataError
from pseudolabel.explain.method import on_image
from pseudolabel.figures.overlays import overlay
from pseudolabel.pipeline import postprocessing
from pseudolabel.recipes.schema import Fuse, GenerateRecipe
from pseudolabel.recipes.steps import BackgroundStep, PostprocessorStep, RefinerStep
from pseudolabel.records import Scores
from pseudolabel.runs import disk, writing
from pseudolabel.superpixels.engine import kept_in


@dataclass(frozen=True)
class Walk:
    """What is done to every image's maps (refiners by line), and what is wanted beside the mask.

    `maps` and `overlays` are files; `scores` hands the maps back before and after the refiners. `superpixels`
    is the folder that keeps them, or None.
    """

    refiners: Sequence[Sequence[RefinerStep]]
    fuse: Fuse | None
    background: BackgroundStep
    postprocess: Sequence[PostprocessorStep]
    maps: bool
    overlays: bool
    scores: bool = False
    superpixels: Path | None = None

    @staticmethod
    def of(recipe: GenerateRecipe) -> Walk:
        """What a recipe does after the maps."""
        refiners = tuple(one.refine for one in recipe.maps)
        output = recipe.output
        return Walk(
            refiners,
            recipe.fuse,
            recipe.background,
            recipe.postprocess,
            output.maps,
            output.overlays,
            superpixels=None if output.superpixels is None else Path(output.superpixels),
        )

    def needs_processes(self) -> bool:
        """Whether a component says that it runs on the CPU and may hold the interpreter's lock."""
        fused = self.fuse.refine if self.fuse else ()
        steps = [
            *(step for line in self.refiners for step in line),
            *fused,
            self.background,
            *self.postprocess,
        ]
        return any(step.component.device == "cpu" for step in steps)


@dataclass(frozen=True, eq=False)
class Job:
    """One image after the model.

    Attributes:
        id: of the image.
        labels: (K,) ascending class ids.
        pixels: (H, W, 3) uint8.
        maps: for each branch (K, h', w') float32, finished, one a label.
        fill: value of the whole mask of an image without a class.
        facts: what else its manifest line says.
    """

    id: str
    labels: tuple[int, ...]
    pixels: NDArray[np.uint8]
    maps: Sequence[NDArray[np.float32]]
    fill: int = 0
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Made:
    """What came of a job.

    Attributes:
        mask: (H, W) uint8, or None where nothing is to be written.
        maps: bytes of the file of stored maps, or None.
        overlay: (H, W, 3) uint8, or None.
        flat: classes whose map is constant.
        fault: why nothing is to be written.
        raw, refined: maps of each line at image size, and what the background rule took; empty unless asked
            for.
    """

    mask: NDArray[np.uint8] | None
    maps: bytes | None = None
    overlay: NDArray[np.uint8] | None = None
    flat: tuple[int, ...] = ()
    fault: str | None = None
    raw: tuple[Scores, ...] = ()
    refined: Scores | None = None


def make(job: Job, walk: Walk) -> Made:
    """Refine, resolve and encode, in one thread of torch."""
    threads = torch.get_num_threads()
    if threads != 1:
        torch.set_num_threads(1)  # sums over pixels must not depend on who does them
    try:
        with torch.no_grad(), kept_in(walk.superpixels):
            return _make(job, walk)
    finally:
        if threads != 1:
            torch.set_num_threads(threads)


def _make(job: Job, walk: Walk) -> Made:
    height, width = job.pixels.shape[:2]
    maps: list[Scores] = []
    flat: set[int] = set()
    for one in job.maps:
        values = on_image(torch.from_numpy(one), (height, width))
        low, high = values.amin(dim=(1, 2)), values.amax(dim=(1, 2))
        whole = (low.isfinite() & high.isfinite()).tolist()  # NaN is in both
        if not all(whole):
            broken = [str(c) for c, fine in zip(job.labels, whole, strict=True) if not fine]
            return Made(None, fault=f"the map of class {', '.join(broken)} holds NaN or infinity")
        # a constant map says nothing about where: it becomes zero, however high it is (F6)
        level = low == high
        maps.append(Scores(job.labels, values.masked_fill(level[:, None, None], 0.0)))
        flat |= {c for c, same in zip(job.labels, level.tolist(), strict=True) if same}
    scores = None
    if job.labels:
        scores = postprocessing.combine(maps, job.pixels, walk.refiners, walk.fuse)
        mask = postprocessing.resolve(scores, job.pixels, walk.background, walk.postprocess)
    else:
        maps = [Scores((), torch.zeros(0, height, width)) for _ in walk.refiners]
        mask = np.full((height, width), job.fill, np.uint8)
    stored = None
    if walk.maps:
        from safetensors.torch import save

        tensors = {"ids": torch.tensor(job.labels, dtype=torch.int64)}
        tensors |= {stored_name(index): one.values.contiguous() for index, one in enumerate(maps)}
        stored = save(tensors)
    seen = overlay(job.pixels, mask) if walk.overlays else None
    made = Made(mask, stored, seen, tuple(sorted(flat)))
    return replace(made, raw=tuple(maps), refined=scores) if walk.scores else made


def stored_name(index: int) -> str:
    """The tensor of a branch in maps/<id>.safetensors: scores, scores_1, scores_2, ..."""
    return "scores" if index == 0 else f"scores_{index}"


def read_maps(path: Path) -> list[Scores]:
    """Stored raw maps of one image.

    Returns:
        For each branch Scores (K, H, W) float32 on the CPU; K = 0 for an image without a class.

    Raises:
        DataError: the file is damaged or holds something else.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = load_file(path)
        ids = tuple(found.pop("ids").tolist())
        return [Scores(ids, found[stored_name(index)].float()) for index in range(len(found) or 1)]
    except (SafetensorError, KeyError, OSError) as error:
        raise DataError(f"{path}: cannot be read as stored maps ({error}); make the maps again") from error


def put(folder: writing.RunFolder, job: Job, made: Made) -> dict[str, Any] | None:
    """Write the files of an image, the mask last; returns its manifest line, None where there is none.

    Raises:
        DataError: the id makes no file name inside the folder.
        MachineError: a file cannot be written.
    """
    if made.mask is None:
        return None
    files = {}
    if made.maps is not None:
        disk.write_bytes(folder.file("maps", job.id, ".safetensors"), made.maps)
        about = {"size": len(made.maps), "sha256": disk.sha256_bytes(made.maps)}
        files[f"maps/{job.id}.safetensors"] = about
    if made.overlay is not None:
        images.write_image(folder.file("overlays", job.id, ".png"), made.overlay)
    data = masks.encode_mask(made.mask)
    disk.write_bytes(folder.file("masks", job.id, ".png"), data)
    height, width = made.mask.shape
    entry: dict[str, Any] = {
        "id": job.id,
        "labels": list(job.labels),
        "height": height,
        "width": width,
        "size": len(data),
        "sha256": disk.sha256_bytes(data),
        **job.facts,
    }
    if files:
        entry["files"] = files
    return entry
