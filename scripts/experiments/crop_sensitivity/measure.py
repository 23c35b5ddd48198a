"""Crop sensitivity: the number of crops, their sizes, and the part that the size of a chunk has in it.

    python -m scripts.experiments.crop_sensitivity.measure runs/voc/classifier --root VOC2012

Ten ranges of scale x 100, 150 and 200 crops of ratio 1, weighted by the class score or not, signs summed in
chunks of 50, 100 or 200 crops or not at all: all of it from one pass over 200 crops an image, since crop k
is the same for every count. Maps compete, are normalised and meet a constant threshold, nothing else. Each
cell is kept in --work: after a stop the same command continues.

Source: the authors' grid (sammarfy/WS3_lib), arXiv 2308.11052 section 7; chunks of 50 and 200 are ours.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pseudolabel.explain.views import explain_together
from pseudolabel.metrics.confusion import Counts
from pseudolabel.records import Targets
from pseudolabel.runs import disk
from scripts.experiments.cache import Arrays, cached
from scripts.experiments.charts import Panel, panels
from scripts.experiments.crop_sensitivity.grid import COUNTS, EXAMPLE, SCALES, SHOWN, Cell, results, sums
from scripts.experiments.results import Experiment, say
from scripts.experiments.voc_maps import (
    LEVELS,
    Images,
    InputImage,
    Subject,
    add_options,
    aggregated,
    bound,
    counts,
    draw_images,
    matrices,
    unit,
)

NAME = "crop_sensitivity"
PACE = 8  # images between two lines of progress


def main(words: Sequence[str] | None = None) -> None:
    """Measure every cell, write the result."""
    experiment = Experiment(NAME, words)
    options = _options(experiment)
    began = time.monotonic()
    subject = Subject(options.classifier, options.batch)
    chosen = draw_images(subject, options.root, options.split, options.images, options.average_over.split())
    repeated = SCALES[options.seeds_cell]
    wanted: list[Cell] = [(SCALES[index], 0) for index in options.cells]
    wanted += [(repeated, seed) for seed in options.seeds if seed != 0]
    say(f"{len(chosen.images)} images, {len(wanted)} cells of {max(COUNTS)} crops, {options.size} pixels")
    cells = {
        cell: measured(cell, subject, chosen, options, len(wanted) - index)
        for index, cell in enumerate(wanted)
    }
    result = {
        "experiment": "crop sensitivity on VOC",
        **experiment.about(),
        **chosen.about,
        "crop_size": options.size,
        "ratio": [1, 1],
        "thresholds": [LEVELS[0], LEVELS[-1], len(LEVELS)],
        "picked": "best threshold: largest mIoU on these images, whose ground truth it sees",
        "post_processing": "competition of the raw maps, 0.995 quantile, constant background",
        "seconds": round(time.monotonic() - began, 1),
        **results(cells, cam_of(subject, chosen), chosen, repeated),
    }
    experiment.write(options.out, result)
    shown = cells.get((EXAMPLE, 0)) or next(iter(cells.values()))
    disk.write_bytes(options.work / "example.png", example(shown, chosen.images[0]))


def _options(experiment: Experiment) -> argparse.Namespace:
    parser = experiment.parser(__doc__)
    last = len(SCALES) - 1
    parser.add_argument("classifier", type=Path, help="a run of `pl train`")
    add_options(parser, images=64, size=128)
    parser.add_argument("--cells", type=int, nargs="+", default=list(range(len(SCALES))), help=f"0..{last}")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="of one cell")
    parser.add_argument("--seeds-cell", type=int, default=SCALES.index(EXAMPLE), help=f"that cell, 0..{last}")
    parser.add_argument("--batch", type=int, default=25, help="crops of one forward; changes no result")
    return experiment.options(parser, work="runs/crop-sensitivity")


def measured(cell: Cell, subject: Subject, chosen: Images, options: argparse.Namespace, left: int) -> Arrays:
    """Counts of every sum on every image, `left` cells before the end; kept on disk."""
    (low, high), seed = cell
    key = json.dumps([chosen.about["list_sha256"], subject.loaded.sha256, options.size, list(sums()), LEVELS])
    path = options.work / f"scale{low:.2f}-{high:.2f}-seed{seed}.npz"
    return cached(path, key, lambda: _measured(cell, subject, chosen, options.size, left))


def _measured(cell: Cell, subject: Subject, chosen: Images, size: int, left: int) -> Arrays:
    (low, high), seed = cell
    names = list(sums())
    shared: dict[str, Any] = {"scale": (low, high), "ratio": (1.0, 1.0), "size": size}
    saliency = bound("saliency")
    methods = [aggregated(saliency, "random_crop", {**shared, **keys}) for keys in sums().values()]
    arrays: Arrays = {}
    seconds, uncovered = [], []
    began = time.monotonic()
    for index, image in enumerate(chosen.images):
        start = time.monotonic()
        targets = Targets.of([image.labels])
        key = (seed, image.record.id)
        attributions = explain_together(methods, subject.model, subject.input(image.image), targets, [key])
        seconds.append(time.monotonic() - start)
        scores = [unit(attribution.values[:, 0], image, "saliency") for attribution in attributions]
        arrays[f"counts_{index}"] = np.stack([counts(each, image) for each in scores])
        shares = dict(zip(names, (attribution.uncovered for attribution in attributions), strict=True))
        uncovered.append([_first(shares[f"{count}-sigmoid-abs"]) for count in COUNTS])
        if index == 0:
            for name in SHOWN:
                arrays[f"example_{name}"] = scores[names.index(name)].values[0].numpy().astype(np.float16)
        if (index + 1) % PACE == 0 or index + 1 == len(chosen.images):
            pace = (time.monotonic() - began) / (index + 1)
            rest = pace * (left * len(chosen.images) - index - 1)
            say(
                f"{low:.2f}-{high:.2f} seed {seed}: {index + 1} images, {pace:.1f} s each, "
                f"about {rest / 60:.0f} min left for {left} cells"
            )
    return {**arrays, "seconds": np.asarray(seconds), "uncovered": np.asarray(uncovered)}


def _first(shares: Tensor | None) -> float:
    assert shares is not None
    return float(shares[0])


def cam_of(subject: Subject, chosen: Images) -> Counts:
    """Matrices (images, thresholds, 3, C+1, C+2) of single-scale CAM on the same images."""
    method = bound("cam")
    names = len(chosen.space.names)
    each: list[Counts] = []
    for image in chosen.images:
        scores = unit(subject.maps(method, image, 0), image, "cam")
        each.append(matrices(counts(scores, image), image.ids, names))
    return np.stack(each)


def example(arrays: Mapping[str, Any], image: InputImage) -> bytes:
    """Maps of one image of the data set; the picture stays in --work, out of the results."""
    outline = image.truth == image.labels[0]
    titles = ("100 crops, one chunk", "150 crops, one chunk", "150 crops, 100 + 50", "200 crops, no chunk")
    row = [Panel("image, truth outlined", image.image, outline)]
    row += [
        Panel(title, arrays[f"example_{name}"], outline) for name, title in zip(SHOWN, titles, strict=True)
    ]
    return panels([row], 12, 2.2)


if __name__ == "__main__":
    main()
