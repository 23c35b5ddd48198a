"""Contribution window: how far a pixel's gradient reaches, and what CAM and saliency recover of a digit.

    python -m scripts.experiments.contribution_window.measure --mnist mnist_small.npz

Five stride-1 convolutions of F x F, ReLU after each, global average pooling, a linear head without bias:
a feature cell sees R = 5 (F - 1) + 1 pixels a side. For each F and seed a network is trained and its own maps
are scored: CAM and saliency against the digit (intensity above 0.5), apart for the pixels that its CAM
finds (DR) and those that it misses (NDR). Outside (R - 1) / 2 of every activated cell the gradient is 0
exactly; a zone one pixel too narrow must show gradients. Trained networks and measurements are kept in
--work: after a stop the same command continues.

Source: arXiv 2308.11052, section 5.1; widths, training and ground truth are ours, the paper gives none.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pseudolabel.explain.model import Explained
from pseudolabel.metrics.confusion import Counts
from pseudolabel.metrics.figure_arrays import figure_arrays
from pseudolabel.metrics.regions import discriminative, region_matrices
from pseudolabel.records import Scores
from pseudolabel.runs import disk
from scripts.experiments.cache import Arrays, cached
from scripts.experiments.charts import Panel, panels
from scripts.experiments.contribution_window.digits import (
    BATCH,
    CLASSES,
    NOISE,
    Digits,
    Network,
    Sparse,
    Variant,
    load,
    trained,
)
from scripts.experiments.contribution_window.rows import MAPS, THRESHOLDS, row_of
from scripts.experiments.contribution_window.windows import exact_zeros, keys_of, targets_of
from scripts.experiments.intervals import best_index
from scripts.experiments.results import Experiment, say
from scripts.experiments.voc_maps import bound, refined

NAME = "contribution_window"
NAMES = CLASSES + 1  # with background
NORMALISE = {"cam": "max", "saliency": "quantile"}
SPARSE = 16  # images whose check has few activated cells on a canvas of faint noise
EXAMPLES = 64  # images whose maps are kept


def main(words: Sequence[str] | None = None) -> None:
    """Train, measure, write the result."""
    experiment = Experiment(NAME, words)
    options = _options(experiment)
    began = time.monotonic()
    train, test = load(options.mnist)
    train, test = train.first(options.train), test.first(options.test)
    variants = [Variant(f, False) for f in options.kernels] + [Variant(f, True) for f in options.biased]
    say(f"{len(variants)} networks x {len(options.seeds)} seeds")
    measured: dict[Variant, list[Arrays]] = {variant: [] for variant in variants}
    for number, seed in enumerate(options.seeds):
        for variant in variants:
            network = trained(variant, seed, train, options)
            measured[variant].append(measure(network, variant, seed, test, options))
        left = (time.monotonic() - began) / (number + 1) * (len(options.seeds) - number - 1)
        say(f"seed {seed} done; about {left / 60:.0f} min left (less where results were kept)")
    result = {
        "experiment": "contribution window on MNIST digits",
        **experiment.about(),
        "seconds": round(time.monotonic() - began, 1),
        "epochs": options.epochs,
        "batch": BATCH,
        "seeds": options.seeds,
        "train_images": len(train.digits),
        "test_images": len(test.digits),
        "data_sha256": disk.sha256_file(options.mnist),
        "truth": "intensity above 0.5 is the digit's class, else background",
        "threshold": "largest mIoU on the test images, whose ground truth it sees; per network and map",
        "reference": "CAM of the same network, own class, above 0.25 of its maximum",
        "normalise": NORMALISE,
        "thresholds": list(THRESHOLDS),
        "rows": [row_of(variant, measured[variant]) for variant in variants],
    }
    experiment.write(options.out, result)
    disk.write_bytes(options.work / "example.png", example(measured, test))


def _options(experiment: Experiment) -> argparse.Namespace:
    parser = experiment.parser(__doc__)
    parser.add_argument("--mnist", type=Path, required=True, help="npz with x_train, y_train, x_test, y_test")
    parser.add_argument("--kernels", type=int, nargs="+", default=[1, 3, 5, 7], help="F without bias")
    parser.add_argument(
        "--biased", type=int, nargs="*", default=[1], help="F with bias in the convolutions too"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--train", type=int, help="only the first so many training images")
    parser.add_argument("--test", type=int, help="only the first so many test images")
    parser.add_argument("--checked", type=int, default=100, help="images of the exact-zero check")
    return experiment.options(parser, work="runs/mnist")


def measure(
    network: Network, variant: Variant, seed: int, test: Digits, options: argparse.Namespace
) -> Arrays:
    """Scores, exact-zero check and example maps of one network; kept on disk."""
    key = json.dumps([options.epochs, len(test.digits), options.checked, options.train, THRESHOLDS, NOISE])

    def compute() -> Arrays:
        start = time.monotonic()
        arrays = _scores(network, test)
        checked = exact_zeros(network, variant, test.first(options.checked))
        arrays |= {f"exact_{name}": value for name, value in checked.items()}
        canvas = test.first(min(SPARSE, options.checked)).on_canvas(max(4, variant.window // 2 - 4))
        sparse = exact_zeros(Sparse(network), variant, canvas)
        arrays |= {f"sparse_{name}": value for name, value in sparse.items()}
        seconds = time.monotonic() - start
        say(f"F {variant}, seed {seed}: {arrays['correct'].mean():.1%} correct, measured in {seconds:.1f} s")
        return arrays

    return cached(options.work / f"{variant.stem}-seed{seed}.npz", key, compute)


def _scores(network: Network, test: Digits) -> Arrays:
    """Counts at every threshold over the correct and over all images; at the best one image by image."""
    maps, logits = explain(network, test)
    correct = logits.argmax(dim=1).eq(test.digits).numpy()
    truth = test.truth
    classes = (test.digits + 1).numpy()
    reference = np.stack(
        [
            discriminative(mask, cam[None].numpy(), (int(class_id),))
            for mask, cam, class_id in zip(truth, maps["cam"], classes, strict=True)
        ]
    )
    arrays: Arrays = {"correct": correct, "reference_share": reference.mean()}
    for name in MAPS:
        unit = normalised(maps[name], NORMALISE[name]).numpy()
        arrays[f"{name}_example"] = unit[:EXAMPLES].astype(np.float16)
        for subset, kept in (("correct", correct), ("all", np.ones_like(correct))):
            curve = _curve(unit[kept], classes[kept], truth[kept], reference[kept])
            best = best_index(figure_arrays(curve[:, 0])["miou"]) if kept.any() else 0
            masks = _masks(unit, classes, THRESHOLDS[best])
            each = [
                np.stack(region_matrices(mask, predicted[None], region, NAMES))[:, 0] * int(counted)
                for mask, predicted, region, counted in zip(truth, masks, reference, kept, strict=True)
            ]
            arrays[f"{name}_{subset}_curve"] = curve
            arrays[f"{name}_{subset}_best"] = best
            arrays[f"{name}_{subset}_images"] = np.stack(each).astype(np.int32)
    return arrays


def explain(network: nn.Module, test: Digits) -> tuple[dict[str, Tensor], Tensor]:
    """Raw CAM and saliency (N, 28, 28) of each image's own class, and logits (N, 10)."""
    model = Explained(network, batch=50)
    maps = {}
    for name in MAPS:
        method = bound(name)
        attribution = method.explain(model, test.images, targets_of(test), keys_of(test))
        maps[name] = method.reduce(attribution.values)
    with torch.no_grad():
        logits = torch.cat([network(part) for part in torch.split(test.images, 100)])
    return maps, logits


def normalised(maps: Tensor, method: str) -> Tensor:
    """(N, h, w) raw -> each map in 0..1, by the package's own refiner."""
    image = np.zeros((*maps.shape[1:], 3), np.uint8)
    return refined("normalise", Scores(tuple(range(1, len(maps) + 1)), maps), image, method=method).values


def _masks(unit: NDArray[np.float32], classes: NDArray[np.int64], threshold: float) -> NDArray[np.uint8]:
    masks: NDArray[np.uint8] = ((unit > np.float32(threshold)) * classes[:, None, None]).astype(np.uint8)
    return masks


def _curve(
    unit: NDArray[np.float32],
    classes: NDArray[np.int64],
    truth: NDArray[np.uint8],
    reference: NDArray[np.bool_],
) -> Counts:
    """(thresholds, 3, names, names + 1): whole, DR and NDR over all images."""
    width = truth.shape[2]
    # one tall image, one count
    tall, region = truth.reshape(-1, width), reference.reshape(-1, width)
    counts = []
    for threshold in THRESHOLDS:
        masks = _masks(unit, classes, threshold).reshape(1, -1, width)
        counts.append(np.stack(region_matrices(tall, masks, region, NAMES))[:, 0])
    return np.stack(counts)


def example(measured: Mapping[Variant, Sequence[Arrays]], test: Digits) -> bytes:
    """Maps of three digits of the data set; the picture stays in --work, out of the results."""
    variants = [variant for variant in measured if not variant.bias]
    rows = []
    for index in _examples([measured[variant][0] for variant in variants if variant.kernel > 1], test):
        grey = test.images[index].permute(1, 2, 0).numpy()
        outline = grey[..., 0] > 0.5
        row = [Panel("digit", (255 * grey).astype(np.uint8), outline)]
        for name, title in (("cam", "CAM"), ("saliency", "saliency")):
            row += [
                Panel(
                    f"{title}, R = {variant.window}", measured[variant][0][f"{name}_example"][index], outline
                )
                for variant in variants
            ]
        rows.append(row)
    return panels(rows, 11, 4.6)


def _examples(seeds: Sequence[Arrays], test: Digits) -> list[int]:
    """Three images of different digits that every shown network classifies correctly, or the first ones."""
    count = min(EXAMPLES, len(test.digits))
    right = np.ones(count, dtype=bool)
    for arrays in seeds:
        right &= arrays["correct"][:count]
    chosen: dict[int, int] = {}  # digit -> its first image
    for index in np.flatnonzero(right):
        chosen.setdefault(int(test.digits[index]), int(index))
    return list(chosen.values())[:3] if len(chosen) >= 3 else list(range(min(3, count)))


if __name__ == "__main__":
    main()
