"""From the maps of one picture to the bytes of its files: what the worker pool does, on the CPU.

A pure function of the job, in one torch thread wherever it runs: the same bytes with any number of workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pseudolabel import images, line, masks, storage
from pseudolabel.maps._bound import on_image
from pseudolabel.recipe import FinisherStep, RefinerStep, ResolverStep
from pseudolabel.records import Scores

OVERLAY = 0.5  # share of the mask's colour in an overlay


@dataclass(frozen=True)
class Walk:
    """What is done to every picture's maps, and which files are wanted."""

    refiners: Sequence[RefinerStep]
    resolver: ResolverStep
    finish: Sequence[FinisherStep]
    maps: bool
    overlays: bool


@dataclass(frozen=True, eq=False)
class Job:
    """One picture after the model.

    Attributes:
        id: of the picture.
        labels: (K,) ascending class ids.
        pixels: (H, W, 3) uint8.
        maps: (K, h', w') float32, finished, one a label.
        fill: value of the whole mask of a picture without a class.
        facts: what else its manifest line says.
    """

    id: str
    labels: tuple[int, ...]
    pixels: NDArray[np.uint8]
    maps: NDArray[np.float32]
    fill: int = 0
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Made:
    """What came of a job.

    Attributes:
        mask: (H, W) uint8, or None where nothing is to be written.
        files: bytes of the further files by name in the run folder.
        overlay: (H, W, 3) uint8, or None.
        flat: classes whose map is constant.
        fault: why nothing is to be written.
    """

    mask: NDArray[np.uint8] | None
    files: dict[str, bytes] = field(default_factory=dict)
    overlay: NDArray[np.uint8] | None = None
    flat: tuple[int, ...] = ()
    fault: str | None = None


def make(job: Job, walk: Walk) -> Made:
    """Refine, resolve and encode, in one thread of torch."""
    threads = torch.get_num_threads()
    if threads != 1:
        torch.set_num_threads(1)  # sums over pixels must not depend on who does them
    try:
        with torch.no_grad():
            return _make(job, walk)
    finally:
        if threads != 1:
            torch.set_num_threads(threads)


def _make(job: Job, walk: Walk) -> Made:
    height, width = job.pixels.shape[:2]
    values = torch.zeros(0, height, width)
    if job.labels:
        values = on_image(torch.from_numpy(job.maps), (height, width))
    if not bool(values.isfinite().all()):
        broken = [c for c, row in zip(job.labels, values, strict=True) if not bool(row.isfinite().all())]
        return Made(None, fault=f"the map of class {', '.join(map(str, broken))} holds NaN or infinity")
    # a constant map says nothing about where: it becomes zero, however high it is (F6)
    level = values.amin(dim=(1, 2), keepdim=True) == values.amax(dim=(1, 2), keepdim=True)
    values = torch.where(level, 0.0, values)
    flat = tuple(c for c, row in zip(job.labels, level.flatten(), strict=True) if bool(row))
    if job.labels:
        scores = Scores(job.labels, values)
        mask = line.resolve(
            line.refine(scores, job.pixels, walk.refiners), job.pixels, walk.resolver, walk.finish
        )
    else:
        mask = np.full((height, width), job.fill, np.uint8)
    files = {}
    if walk.maps:
        from safetensors.torch import save

        tensors = {"scores": values.contiguous(), "ids": torch.tensor(job.labels, dtype=torch.int64)}
        files[f"maps/{job.id}.safetensors"] = save(tensors)
    overlay = None
    if walk.overlays:
        overlay = _overlay(job.pixels, mask)
    return Made(mask, files, overlay, flat)


def put(folder: Path, job: Job, made: Made) -> dict[str, Any] | None:
    """Write the files of a picture, the mask last; returns its manifest line, None where there is none."""
    if made.mask is None:
        return None
    files = {}
    for name, data in made.files.items():
        storage.write_bytes(folder / name, data)
        files[name] = {"size": len(data), "sha256": storage.sha256_bytes(data)}
    if made.overlay is not None:
        images.write_picture(folder / "overlays" / f"{job.id}.png", made.overlay)
    data = masks.encode_mask(made.mask)
    storage.write_bytes(folder / "masks" / f"{job.id}.png", data)
    height, width = made.mask.shape
    entry: dict[str, Any] = {
        "id": job.id,
        "labels": list(job.labels),
        "height": height,
        "width": width,
        "size": len(data),
        "sha256": storage.sha256_bytes(data),
        **job.facts,
    }
    if files:
        entry["files"] = files
    return entry


def _overlay(pixels: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture with the classes' colours over it; background stays as it is."""
    colours = masks.colour(mask).astype(np.float32)
    blended = ((1 - OVERLAY) * pixels + OVERLAY * colours + 0.5).astype(np.uint8)
    return np.where((mask == 0)[..., None], pixels, blended)
