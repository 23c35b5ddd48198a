"""Noise or crops: SmoothGrad, BinaryMask and random crops at equal numbers of backward passes.

    python -m scripts.experiments.noise_vs_crops.measure --classifier runs/voc/classifier
        --gaussian runs/voc/classifier-gaussian --mask runs/voc/classifier-bernoulli --root VOC2012

Each row is a method on one classifier: the original one, or one that was trained with the noise that the
method adds. Several noise levels on the original classifier, the matched level on the tuned one. Maps
compete (CAM not), are normalised and meet a constant threshold, nothing else. DR and NDR come from the
original classifier's CAM for all rows. Rows with two seeds show how stable they are. Each row and seed is
kept in --work: after a stop the same command continues.

Source: arXiv 2308.11052, sections 6 and 7, and the authors' code (sammarfy/WS3_lib); crops of CAM are ours.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pseudolabel.runs import disk
from scripts.experiments.cache import Arrays, cached
from scripts.experiments.charts import Panel, panels
from scripts.experiments.noise_vs_crops.rows import SHOWN, Row, results, rows
from scripts.experiments.results import Experiment, say
from scripts.experiments.voc_maps import (
    LEVELS,
    Images,
    InputImage,
    Subject,
    add_options,
    bound,
    counts,
    draw_images,
    strongest,
    unit,
)

NAME = "noise_vs_crops"
PACE = 10  # images between two lines of progress


def main(words: Sequence[str] | None = None) -> None:
    """Measure every row, write the result."""
    experiment = Experiment(NAME, words)
    options = _options(experiment)
    began = time.monotonic()
    paths = {"original": options.classifier, "gaussian": options.gaussian, "mask": options.mask}
    subjects = {name: Subject(path, options.batch) for name, path in paths.items() if path is not None}
    original = subjects["original"]
    chosen = draw_images(original, options.root, options.split, options.images, options.average_over.split())
    wanted = [row for row in rows(options.passes, options.size) if row.classifier in subjects]
    jobs = [(row, seed) for row in wanted for seed in (options.seeds if row.repeated else options.seeds[:1])]
    if options.kept:
        jobs = [(row, seed) for row, seed in jobs if _path(row, seed, options).is_file()]
        wanted = [row for row in wanted if row in [kept for kept, _ in jobs]]
    passes = sum(row.passes for row, _ in jobs)
    say(f"{len(chosen.images)} images, {len(wanted)} rows, {passes} passes an image over all seeds")
    measured: dict[str, list[Arrays]] = {}
    for number, (row, seed) in enumerate(jobs):
        start = time.monotonic()
        measured.setdefault(row.name, []).append(
            measure(row, seed, subjects[row.classifier], chosen, _path(row, seed, options))
        )
        seconds = time.monotonic() - start
        left = sum(other.passes for other, _ in jobs[number + 1 :]) * seconds / row.passes
        say(f"{row.name}, seed {seed}: {seconds:.0f} s; at this rate {left / 60:.0f} min left")
    result = {
        "experiment": "noise against crops on VOC",
        **experiment.about(),
        **chosen.about,
        "classifiers": {name: subject.loaded.sha256 for name, subject in subjects.items()},
        "passes": options.passes,
        "crop_size": options.size,
        "seeds": options.seeds,
        "picked": "threshold of the largest mIoU on these images, whose truth it sees; per row, seed",
        "seconds": round(time.monotonic() - began, 1),
        **results(wanted, measured, chosen),
    }
    experiment.write(options.out, result)
    disk.write_bytes(options.work / "example.png", example(measured, chosen.images[0]))


def _options(experiment: Experiment) -> argparse.Namespace:
    parser = experiment.parser(__doc__)
    parser.add_argument("--classifier", type=Path, required=True, help="a run of `pl train`: the original")
    parser.add_argument("--gaussian", type=Path, help="the one trained with Gaussian noise of sigma 0.15")
    parser.add_argument("--mask", type=Path, help="the one trained with masks that keep 0.9")
    add_options(parser, images=40, size=128)
    parser.add_argument("--passes", type=int, default=20, help="backward passes a class and image")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="of the rows that have several")
    parser.add_argument("--batch", type=int, default=5, help="images of one forward; changes no result")
    parser.add_argument("--kept", action="store_true", help="measure no row that --work does not have")
    return experiment.options(parser, work="runs/noise-vs-crops")


def _path(row: Row, seed: int, options: argparse.Namespace) -> Path:
    path: Path = options.work / f"{row.stem}-seed{seed}.npz"
    return path


def measure(row: Row, seed: int, subject: Subject, chosen: Images, path: Path) -> Arrays:
    """Counts, predictions and maps of one row and seed; kept on disk."""
    images = [chosen.about["list_sha256"], chosen.about["classifier_sha256"]]
    key = json.dumps([*images, subject.loaded.sha256, row.method, row.aggregators, LEVELS])
    return cached(path, key, lambda: _measure(row, seed, subject, chosen))


def _measure(row: Row, seed: int, subject: Subject, chosen: Images) -> Arrays:
    method = bound(row.method, *row.aggregators)
    assert method.views == row.passes, f"{row.name}: {method.views} passes, not {row.passes}"
    levels = np.asarray(LEVELS, np.float32)
    arrays: Arrays = {}
    seconds = []
    for index, image in enumerate(chosen.images):
        start = time.monotonic()
        raw = subject.maps(method, image, seed)
        seconds.append(time.monotonic() - start)
        scores = unit(raw, image, row.method)
        arrays[f"counts_{index}"] = counts(scores, image)
        label, top = strongest(scores)
        arrays[f"label_{index}"] = label
        arrays[f"exceeded_{index}"] = np.searchsorted(levels, top, side="left").astype(np.uint8)
        # only ranks are used: float16 of the share of the largest value is enough for them
        arrays[f"raw_{index}"] = (raw / raw.abs().amax().clamp(min=1e-30)).numpy().astype(np.float16)
        if index == 0:
            arrays["example"] = scores.values[0].numpy().astype(np.float16)
        if (index + 1) % PACE == 0:
            say(f"{row.name}, seed {seed}: {index + 1} images, {np.mean(seconds):.1f} s each")
    return {**arrays, "seconds": np.asarray(seconds)}


def example(measured: dict[str, list[Arrays]], image: InputImage) -> bytes:
    """Maps of one image of the data set; the picture stays in --work, out of the results."""
    outline = image.truth == image.labels[0]
    cells = [Panel("image, truth outlined", image.image, outline)]
    cells += [Panel(name, measured[name][0]["example"], outline) for name in SHOWN if name in measured]
    columns = -(-len(cells) // 2)
    return panels([cells[:columns], cells[columns:]], 12, 4)


if __name__ == "__main__":
    main()
