"""Noise or crops: SmoothGrad, BinaryMask and random crops at equal numbers of backward passes.

python scripts/reproduce_noise_vs_crops.py --classifier runs/voc/classifier \\
    --gaussian runs/voc/classifier-gaussian --mask runs/voc/classifier-bernoulli --root VOC2012

Each row is a method on one classifier: the original one, or one that was trained with the noise that the
method makes. Several noise levels on the original classifier, the matched level on the tuned one. Maps
compete (CAM not), are normalised and meet a constant threshold, nothing else. DR and NDR come from the
original classifier's CAM for all rows. Rows with two seeds tell how stable they are. Each row and seed is
kept in --work: a run that was stopped goes on where it was.

Source: arXiv 2308.11052, sections 6 and 7, and the authors' code (sammarfy/WS3_lib); crops of CAM are ours.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from _experiment import command, machine, say, write
from _noise_vs_crops import Row, figure, maps, page, results, rows
from _voc_maps import AVERAGED, LEVELS, Images, Subject, bound, counts, draw_images, strongest, unit

from pseudolabel.runs import disk

NAME = "noise_vs_crops"
PACE = 10  # images between two lines of progress


def main() -> None:
    """Measure every row, write."""
    options = _options()
    began = time.monotonic()
    paths = {"original": options.classifier, "gaussian": options.gaussian, "mask": options.mask}
    subjects = {name: Subject(path, options.batch) for name, path in paths.items() if path is not None}
    original = subjects["original"]
    chosen = draw_images(original, options.root, options.split, options.images, options.average_over.split())
    options.work.mkdir(parents=True, exist_ok=True)
    wanted = [row for row in rows(options.passes, options.size) if row.classifier in subjects]
    jobs = [(row, seed) for row in wanted for seed in (options.seeds if row.repeated else options.seeds[:1])]
    if options.kept:
        jobs = [(row, seed) for row, seed in jobs if _path(row, seed, options).is_file()]
        wanted = [row for row in wanted if row in [one for one, _ in jobs]]
    passes = sum(row.passes for row, _ in jobs)
    say(f"{len(chosen.images)} images, {len(wanted)} rows, {passes} passes an image over all seeds")
    measured: dict[str, list[dict[str, Any]]] = {}
    for number, (row, seed) in enumerate(jobs):
        start = time.monotonic()
        kept = measure(row, seed, subjects[row.classifier], chosen, options)
        measured.setdefault(row.name, []).append(kept)
        took = time.monotonic() - start
        left = sum(other.passes for other, _ in jobs[number + 1 :]) * took / row.passes
        say(f"{row.name}, seed {seed}: {took:.0f} s; at this rate {left / 60:.0f} min left")
    result = {
        "experiment": "noise against crops on VOC",
        "command": command(),
        **machine(),
        **chosen.about,
        "classifiers": {name: subject.loaded.sha256 for name, subject in subjects.items()},
        "passes": options.passes,
        "crop_size": options.size,
        "seeds": options.seeds,
        "picked": "threshold of the largest mIoU on these images, whose truth it sees; per row, seed",
        "seconds": round(time.monotonic() - began, 1),
        **results(wanted, measured, chosen),
    }
    write(options.out, NAME, result, page(result), figure(result))
    disk.write_bytes(options.work / "example.png", maps(result, measured, chosen.images[0]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--classifier", type=Path, required=True, help="a run of `pl train`: the original")
    parser.add_argument("--gaussian", type=Path, help="the one trained with Gaussian noise of sigma 0.15")
    parser.add_argument("--mask", type=Path, help="the one trained with masks that keep 0.9")
    parser.add_argument("--root", type=Path, required=True, help="data set in VOC layout")
    parser.add_argument("--split", default="train")
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--passes", type=int, default=20, help="backward passes a class and image")
    parser.add_argument("--size", type=int, default=128, help="pixels a side that a crop is resized to")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="of the rows that have several")
    parser.add_argument("--average-over", default=AVERAGED, help="names of the classes of the means")
    parser.add_argument("--batch", type=int, default=5, help="images of one forward; changes no result")
    parser.add_argument("--kept", action="store_true", help="write what --work has; measure no other row")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--work", type=Path, default=Path("runs/noise-vs-crops"))
    return parser.parse_args()


def _path(row: Row, seed: int, options: argparse.Namespace) -> Path:
    path: Path = options.work / f"{row.stem}-seed{seed}.npz"
    return path


def measure(
    row: Row, seed: int, subject: Subject, chosen: Images, options: argparse.Namespace
) -> dict[str, Any]:
    """Counts, predictions and maps of one row and seed; kept on disk."""
    path = _path(row, seed, options)
    asked = json.dumps(
        [
            chosen.about["list_sha256"],
            chosen.about["classifier_sha256"],
            subject.loaded.sha256,
            row.method,
            row.aggregators,
            LEVELS,
        ]
    )
    if path.is_file():
        with np.load(path, allow_pickle=False) as kept:
            if str(kept["asked"]) == asked:
                return {key: kept[key] for key in kept.files}
    method = bound(row.method, *row.aggregators)
    assert method.views == row.passes, f"{row.name}: {method.views} passes, not {row.passes}"
    found: dict[str, Any] = {"asked": asked}
    seconds = []
    for index, image in enumerate(chosen.images):
        start = time.monotonic()
        raw = subject.maps(method, image, seed)
        seconds.append(time.monotonic() - start)
        scores = unit(raw, image, row.method)
        found[f"counts_{index}"] = counts(scores, image)
        label, top = strongest(scores)
        found[f"label_{index}"] = label
        levels = np.asarray(LEVELS, np.float32)
        found[f"exceeded_{index}"] = np.searchsorted(levels, top, side="left").astype(np.uint8)
        # ranks are all that is wanted of them: float16 of the largest value keeps those that count
        found[f"raw_{index}"] = (raw / raw.abs().amax().clamp(min=1e-30)).numpy().astype(np.float16)
        if index == 0:
            found["example"] = scores.values[0].numpy().astype(np.float16)
        if (index + 1) % PACE == 0:
            say(f"{row.name}, seed {seed}: {index + 1} images, {np.mean(seconds):.1f} s each")
    found["seconds"] = np.asarray(seconds)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **found)
    disk.write_bytes(path, buffer.getvalue())
    return found


if __name__ == "__main__":
    main()
