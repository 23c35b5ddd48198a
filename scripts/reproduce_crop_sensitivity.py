"""Crop sensitivity: how many crops, of which sizes, and how much of it is the size of a chunk.

python scripts/reproduce_crop_sensitivity.py runs/voc/classifier --root VOC2012

Ten ranges of scale x 100, 150 and 200 crops of ratio 1, weighted by the class score or not, signs summed in
chunks of 50, 100 or 200 crops or not at all: all of it from one pass over 200 crops an image, since crop k
is the same for every count. Maps compete, are normalised and meet a constant threshold, nothing else. Each
cell is kept in --work: a run that was stopped goes on where it was.

Source: the authors' grid (sammarfy/WS3_lib), arXiv 2308.11052 section 7; chunks of 50 and 200 are ours.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _crop_sensitivity import CELLS, COUNTS, EXAMPLE, SHOWN, Cell, page, results, sums
from _crop_sensitivity_figure import figure, maps
from _experiment import command, machine, say, write
from _voc_maps import (
    AVERAGED,
    LEVELS,
    Images,
    InputImage,
    Subject,
    bound,
    counts,
    draw_images,
    matrices,
    unit,
)

from pseudolabel import registry
from pseudolabel.aggregators.random_crop import RandomCrop
from pseudolabel.explain.views import explain_together
from pseudolabel.records import Targets
from pseudolabel.runs import disk

NAME = "crop_sensitivity"
PACE = 8  # images between two lines of progress


def main() -> None:
    """Measure every cell, write."""
    options = _options()
    began = time.monotonic()
    subject = Subject(options.classifier, options.batch)
    chosen = draw_images(subject, options.root, options.split, options.images, options.average_over.split())
    options.work.mkdir(parents=True, exist_ok=True)
    wanted = [(scale, 0) for scale in (CELLS[index] for index in options.cells)]
    wanted += [(CELLS[options.seeds_cell], seed) for seed in options.seeds if seed != 0]
    say(f"{len(chosen.images)} images, {len(wanted)} cells of {max(COUNTS)} crops, {options.size} pixels")
    cells: dict[Cell, dict[str, Any]] = {}
    for number, cell in enumerate(wanted):
        left = len(wanted) - number
        cells[cell] = measured(cell, subject, chosen, options, left)
    result = {
        "experiment": "crop sensitivity on VOC",
        "command": command(),
        **machine(),
        **chosen.about,
        "crop_size": options.size,
        "ratio": [1, 1],
        "thresholds": [LEVELS[0], LEVELS[-1], len(LEVELS)],
        "picked": "best threshold: largest mIoU on these images, whose ground truth it sees",
        "post_processing": "competition of the raw maps, 0.995 quantile, constant background",
        "seconds": round(time.monotonic() - began, 1),
        **results(cells, cam_of(subject, chosen), chosen, CELLS[options.seeds_cell]),
    }
    example = cells.get((EXAMPLE, 0)) or next(iter(cells.values()))
    write(options.out, NAME, result, page(result), figure(result))
    disk.write_bytes(options.work / "example.png", maps(example, chosen.images[0]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("classifier", type=Path, help="a run of `pl train`")
    parser.add_argument("--root", type=Path, required=True, help="data set in VOC layout")
    parser.add_argument("--split", default="train")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--size", type=int, default=128, help="pixels a side that a crop is resized to")
    parser.add_argument("--cells", type=int, nargs="+", default=list(range(len(CELLS))), help="0..9")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="of one cell")
    parser.add_argument("--seeds-cell", type=int, default=CELLS.index(EXAMPLE), help="that cell, 0..9")
    parser.add_argument("--average-over", default=AVERAGED, help="names of the classes of the means")
    parser.add_argument("--batch", type=int, default=25, help="crops of one forward; changes no result")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--work", type=Path, default=Path("runs/crop-sensitivity"))
    return parser.parse_args()


def measured(
    cell: Cell, subject: Subject, chosen: Images, options: argparse.Namespace, left: int
) -> dict[str, Any]:
    """Counts of every sum on every image; kept on disk."""
    (low, high), seed = cell
    path = options.work / f"scale{low:.2f}-{high:.2f}-seed{seed}.npz"
    names = list(sums())
    asked = json.dumps([chosen.about["list_sha256"], subject.loaded.sha256, options.size, names, LEVELS])
    if path.is_file():
        with np.load(path, allow_pickle=False) as kept:
            if str(kept["asked"]) == asked:
                return {key: kept[key] for key in kept.files}
    shared: dict[str, Any] = {"scale": (low, high), "ratio": (1.0, 1.0), "size": options.size}
    crops = registry.get("aggregators", "random_crop")
    saliency = bound("saliency")
    methods = [crops.run(saliency, RandomCrop(**shared, **keys)) for keys in sums().values()]
    found: dict[str, Any] = {"asked": asked}
    seconds, uncovered = [], []
    began = time.monotonic()
    for index, image in enumerate(chosen.images):
        start = time.monotonic()
        targets = Targets.of([image.labels])
        key = (seed, image.record.id)
        attribution = explain_together(methods, subject.model, subject.input(image.pixels), targets, [key])
        seconds.append(time.monotonic() - start)
        units = [unit(one.values[:, 0], image, "saliency") for one in attribution]
        found[f"counts_{index}"] = np.stack([counts(one, image) for one in units])
        shares = dict(zip(names, (one.uncovered for one in attribution), strict=True))
        uncovered.append([_first(shares[name]) for name in (f"{count}-sigmoid-abs" for count in COUNTS)])
        if index == 0:
            for name in SHOWN:
                found[f"example_{name}"] = units[names.index(name)].values[0].numpy().astype(np.float16)
        if (index + 1) % PACE == 0 or index + 1 == len(chosen.images):
            took = (time.monotonic() - began) / (index + 1)
            rest = took * (left * len(chosen.images) - index - 1)
            say(
                f"{low:.2f}-{high:.2f} seed {seed}: {index + 1} images, {took:.1f} s each, "
                f"about {rest / 60:.0f} min left for {left} cells"
            )
    found |= {"seconds": np.asarray(seconds), "uncovered": np.asarray(uncovered)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **found)
    disk.write_bytes(path, buffer.getvalue())
    return found


def _first(shares: torch.Tensor | None) -> float:
    assert shares is not None
    return float(shares[0])


def cam_of(subject: Subject, chosen: Images) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Matrices (images, thresholds, 3, C+1, C+2) of single-scale CAM on the same images."""
    method = bound("cam")

    def one(image: InputImage) -> np.ndarray[Any, np.dtype[np.int64]]:
        compact = counts(unit(subject.maps(method, image, 0), image, "cam"), image)
        return matrices(compact, image.ids, len(chosen.space.names))

    return np.stack([one(image) for image in chosen.images])


if __name__ == "__main__":
    main()
