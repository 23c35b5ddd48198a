"""Contribution window: how far a pixel's gradient reaches, and what CAM and saliency recover of a digit.

python scripts/reproduce_contribution_window.py --mnist mnist_small.npz

Five stride-1 convolutions of F x F, ReLU after each, global average pooling, a linear head without bias:
a feature cell sees R = 5 (F - 1) + 1 pixels a side. For each F and seed a network is trained and its own maps
are scored: CAM and saliency against the digit (intensity above 0.5), apart for the pixels that its CAM
finds (DR) and those that it misses (NDR). Outside (R - 1) / 2 of every activated cell the gradient is 0
exactly; a zone one pixel too narrow must show gradients. What is trained and measured is kept in --work: a
run that was stopped goes on where it was.

Source: arXiv 2308.11052, section 5.1; widths, training and ground truth are ours, the paper gives none.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _experiment import (
    Values,
    between,
    command,
    direct_convolution,
    drawn,
    foreground_precision,
    foreground_recall,
    interval,
    machine,
    miou,
    percent,
    say,
    table,
    times_of,
    write,
)
from numpy.typing import NDArray
from torch import Tensor, nn

from pseudolabel import draws, registry, storage
from pseudolabel.maps._bound import build
from pseudolabel.maps._explained import Explained
from pseudolabel.metrics.confusion import Counts, defined
from pseudolabel.metrics.regions import discriminative, region_matrices
from pseudolabel.records import Scores, Targets

NAME = "contribution_window"
WIDTHS = (16, 32, 32, 64, 64)
DIGITS = 10
NAMES = DIGITS + 1  # with background
BATCH = 16  # 1875 steps in 5 epochs of 6000; the full set in batches of 128 takes 2345
RATE = 1e-3
MAPS = ("cam", "saliency")
NORMALISE = {"cam": "max", "saliency": "quantile"}
THRESHOLDS = tuple(round(0.01 * step, 2) for step in range(100))
FIGURES = ("miou", "ndr_recall", "dr_recall", "fg_precision")
PADDED = 16  # pictures that are also checked on a black canvas that leaves the zone room


class Network(nn.Module):
    """Five convolutions of one size and a linear head; pictures (B, 3, h, w) of three equal channels."""

    def __init__(self, kernel: int, bias: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for width in WIDTHS:
            layers += [nn.Conv2d(before, width, kernel, padding=kernel // 2, bias=bias), nn.ReLU()]
            before = width
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(before, DIGITS, bias=False)

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) in 0..1 -> (B, 64, h, w) >= 0."""
        found: Tensor = self.trunk(images.mean(dim=1, keepdim=True))
        return found

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) -> (B, 10) logits."""
        found: Tensor = self.head(self.features(images).mean(dim=(2, 3)))
        return found


@dataclass(frozen=True)
class Digits:
    """Pictures (N, 3, 28, 28) float32 in 0..1 and digits (N,)."""

    images: Tensor
    digits: Tensor

    def first(self, count: int | None) -> Digits:
        """The first so many."""
        return Digits(self.images[:count], self.digits[:count])

    @property
    def truth(self) -> NDArray[np.uint8]:
        """(N, 28, 28) uint8: digit + 1 where the intensity is above 0.5, else background."""
        inside = self.images[:, 0] > 0.5
        found: NDArray[np.uint8] = (inside * (self.digits + 1)[:, None, None]).to(torch.uint8).numpy()
        return found


@dataclass(frozen=True)
class Kind:
    """One kind of network: its kernel, with or without bias in the convolutions."""

    kernel: int
    bias: bool

    @property
    def window(self) -> int:
        """R, pixels a side that a feature cell sees."""
        return len(WIDTHS) * (self.kernel - 1) + 1

    def __str__(self) -> str:
        return f"{self.kernel}{' with bias' if self.bias else ''}"


def main() -> None:
    """Train, measure, write."""
    options = _options()
    began = time.monotonic()
    train, test = load(options.mnist)
    train, test = train.first(options.train), test.first(options.test)
    kinds = [Kind(f, False) for f in options.kernels] + [Kind(f, True) for f in options.biased]
    say(f"{len(kinds)} kinds x {len(options.seeds)} seeds, {options.epochs} epochs of {len(train.digits)}")
    options.work.mkdir(parents=True, exist_ok=True)
    measured: dict[Kind, list[dict[str, Any]]] = {kind: [] for kind in kinds}
    for number, seed in enumerate(options.seeds):
        for kind in kinds:
            network = trained(kind, seed, train, options)
            measured[kind].append(measure(network, kind, seed, test, options))
        left = (time.monotonic() - began) / (number + 1) * (len(options.seeds) - number - 1)
        say(f"seed {seed} done; about {left / 60:.0f} min left (less where results were kept)")
    result = {
        "experiment": "contribution window on MNIST digits",
        "command": command(),
        **machine(),
        "seconds": round(time.monotonic() - began, 1),
        "epochs": options.epochs,
        "batch": BATCH,
        "seeds": options.seeds,
        "train_images": len(train.digits),
        "test_images": len(test.digits),
        "data_sha256": storage.sha256_file(options.mnist),
        "truth": "intensity above 0.5 is the digit's class, else background",
        "threshold": "largest mIoU on the test pictures, whose ground truth it sees; per network and map",
        "reference": "CAM of the same network, own class, above 0.25 of its maximum",
        "normalise": NORMALISE,
        "thresholds": list(THRESHOLDS),
        "rows": [row_of(kind, measured[kind]) for kind in kinds],
    }
    result["claims"] = claims(result["rows"])
    write(options.out, NAME, result, page(result), figure(result["rows"], measured, test))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--mnist", type=Path, required=True, help="npz with x_train, y_train, x_test, y_test")
    parser.add_argument("--kernels", type=int, nargs="+", default=[1, 3, 5, 7], help="F without bias")
    parser.add_argument(
        "--biased", type=int, nargs="*", default=[1], help="F with bias in the convolutions too"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--train", type=int, help="only the first so many training pictures")
    parser.add_argument("--test", type=int, help="only the first so many test pictures")
    parser.add_argument("--checked", type=int, default=100, help="pictures of the exact-zero check")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--work", type=Path, default=Path("runs/mnist"))
    return parser.parse_args()


def load(path: Path) -> tuple[Digits, Digits]:
    """Training and test digits."""
    with np.load(path, allow_pickle=False) as found:
        parts = []
        for part in ("train", "test"):
            grey = torch.from_numpy(found[f"x_{part}"]).float() / 255
            images = grey[:, None].expand(-1, 3, -1, -1)
            parts.append(Digits(images, torch.from_numpy(found[f"y_{part}"]).long()))
    return parts[0], parts[1]


def trained(kind: Kind, seed: int, train: Digits, options: argparse.Namespace) -> Network:
    """A network after `epochs` of Adam; goes on from the last epoch that is kept."""
    path = options.work / f"{_stem(kind, seed)}.pt"
    torch.manual_seed(draws.seed_of("network", seed, kind.kernel, int(kind.bias)))
    network = Network(kind.kernel, kind.bias).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.Adam(network.parameters(), lr=RATE)
    done = 0
    if path.is_file():
        kept = torch.load(path, weights_only=True)
        if kept["train"] != len(train.digits) or kept["epoch"] > options.epochs:
            raise SystemExit(f"{path}: trained otherwise; take another --work")
        network.load_state_dict(kept["network"])
        optimiser.load_state_dict(kept["optimiser"])
        done = kept["epoch"]
    for epoch in range(done, options.epochs):
        start = time.monotonic()
        order = torch.randperm(len(train.digits), generator=draws.generator("order", seed, epoch))
        losses = []
        for chosen in order.split(BATCH):
            optimiser.zero_grad()
            inputs = train.images[chosen].contiguous(memory_format=torch.channels_last)
            loss = nn.functional.cross_entropy(network(inputs), train.digits[chosen])
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            losses.append(float(loss.detach()))
        kept = {
            "network": network.state_dict(),
            "optimiser": optimiser.state_dict(),
            "epoch": epoch + 1,
            "train": len(train.digits),
        }
        buffer = io.BytesIO()
        torch.save(kept, buffer)
        storage.write_bytes(path, buffer.getvalue())
        seconds = time.monotonic() - start
        say(f"F {kind}, seed {seed}, epoch {epoch + 1}: loss {np.mean(losses):.3f}, {seconds:.1f} s")
    return network.eval()


def measure(
    network: Network, kind: Kind, seed: int, test: Digits, options: argparse.Namespace
) -> dict[str, Any]:
    """Scores, exact-zero check and example maps of one network; kept on disk."""
    path = options.work / f"{_stem(kind, seed)}.npz"
    asked = json.dumps([options.epochs, len(test.digits), options.checked, options.train, THRESHOLDS])
    if path.is_file():
        with np.load(path, allow_pickle=False) as kept:
            if str(kept["asked"]) == asked:
                return {key: kept[key] for key in kept.files}
    start = time.monotonic()
    maps, logits = explain(network, test)
    correct = logits.argmax(dim=1).eq(test.digits).numpy()
    truth = test.truth
    reference = np.stack(
        [
            discriminative(one, cam[None].numpy(), (int(digit) + 1,))
            for one, cam, digit in zip(truth, maps["cam"], test.digits, strict=True)
        ]
    )
    found: dict[str, Any] = {"asked": asked, "correct": correct, "reference_share": reference.mean()}
    for name in MAPS:
        unit = normalised(maps[name], NORMALISE[name])
        found[f"{name}_example"] = unit[: min(64, len(unit))].numpy().astype(np.float16)
        classes = (test.digits + 1).numpy()
        for subset, kept_images in (("correct", correct), ("all", np.ones_like(correct))):
            curve = _curve(unit.numpy(), classes, truth, reference, kept_images)
            found[f"{name}_{subset}_curve"] = curve
            best = int(np.nanargmax(miou(curve[:, 0]))) if kept_images.any() else 0
            found[f"{name}_{subset}_best"] = best
            masks = _masks(unit.numpy(), classes, THRESHOLDS[best])
            found[f"{name}_{subset}_images"] = np.stack(
                [
                    np.stack(region_matrices(t, m[None], r, NAMES))[:, 0] * int(k)
                    for t, m, r, k in zip(truth, masks, reference, kept_images, strict=True)
                ]
            ).astype(np.int32)
    found |= {
        f"exact_{key}": value for key, value in exact(network, kind, test.first(options.checked)).items()
    }
    padded = exact(network, kind, on_canvas(test.first(min(PADDED, options.checked)), kind.window + 3))
    found |= {f"padded_{key}": value for key, value in padded.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **found)
    storage.write_bytes(path, buffer.getvalue())
    say(f"F {kind}, seed {seed}: {correct.mean():.1%} correct, measured in {time.monotonic() - start:.1f} s")
    with np.load(path, allow_pickle=False) as kept:
        return {key: kept[key] for key in kept.files}


def explain(network: nn.Module, test: Digits) -> tuple[dict[str, Tensor], Tensor]:
    """Raw CAM and saliency (N, 28, 28) of each picture's own class, and logits (N, 10)."""
    model = Explained(network, batch=50)
    targets = Targets.of((int(digit) + 1,) for digit in test.digits)
    keys = [(0, index) for index in range(len(test.digits))]
    maps = {}
    for name in MAPS:
        brick = registry.get("methods", name)
        method = build((brick, brick.params()))
        evidence = method.explain(model, test.images, targets, keys)
        maps[name] = method.finish(evidence.values)
    with torch.no_grad():
        logits = torch.cat([network(part) for part in test.images.split(100)])
    return maps, logits


def normalised(maps: Tensor, method: str) -> Tensor:
    """(N, h, w) raw -> each map in 0..1, by the package's own refiner."""
    brick = registry.get("refiners", "normalise")
    ids = tuple(range(1, len(maps) + 1))
    picture = torch.zeros(*maps.shape[1:], 3, dtype=torch.uint8)
    found: Tensor = brick.run(Scores(ids, maps), picture, brick.params(method=method)).values
    return found


def exact(network: nn.Module, kind: Kind, test: Digits) -> dict[str, float | int]:
    """The exact-zero theorem on some pictures, in float64 by direct convolution.

    Returns:
        `pictures`, `pixels` outside the zone, `largest` |gradient| there, `zero_share` of all pixels,
        `control_pixels` outside a zone one pixel too narrow and `control_nonzero` of them (-1 where the
        window has one pixel), `beyond_active`: pixels with a gradient that are not activated themselves.
    """
    import copy

    model = Explained(copy.deepcopy(network).double(), batch=4)
    brick = registry.get("methods", "saliency")
    method = build((brick, brick.params(channels="signed_sum")))
    targets = Targets.of((int(digit) + 1,) for digit in test.digits)
    images = test.images.double()
    keys = [(0, index) for index in range(len(images))]
    with direct_convolution():
        gradient = method.finish(method.explain(model, images, targets, keys).values)
        with torch.no_grad():
            active = torch.cat([(model.features(part) > 0).any(dim=1) for part in images.split(4)])
    radius = (kind.window - 1) // 2
    outside = ~_grown(active, radius)
    found: dict[str, float | int] = {
        "pictures": len(images),
        "pixels": int(outside.sum()),
        "largest": float(gradient[outside].abs().max()) if bool(outside.any()) else 0.0,
        "largest_anywhere": float(gradient.abs().max()),
        "zero_share": float((gradient == 0).double().mean()),
        "active_share": float(active.double().mean()),
        "control_pixels": -1,
        "control_nonzero": -1,
        "beyond_active": int(((gradient != 0) & ~active).sum()),
    }
    if radius > 0:
        narrow = ~_grown(active, radius - 1)
        found["control_pixels"] = int(narrow.sum())
        found["control_nonzero"] = int((gradient[narrow] != 0).sum())
    return found


def on_canvas(test: Digits, margin: int) -> Digits:
    """The pictures with a black margin."""
    return Digits(nn.functional.pad(test.images, (margin,) * 4), test.digits)


def _grown(active: Tensor, radius: int) -> Tensor:
    """Pixels (N, h, w) within a Chebyshev distance of an active one."""
    side = 2 * radius + 1
    return nn.functional.max_pool2d(active[:, None].float(), side, stride=1, padding=radius)[:, 0] > 0


def _masks(
    unit: Values | NDArray[np.float32], classes: NDArray[np.int64], threshold: float
) -> NDArray[np.uint8]:
    masks: NDArray[np.uint8] = ((unit > np.float32(threshold)) * classes[:, None, None]).astype(np.uint8)
    return masks


def _curve(
    unit: NDArray[np.float32],
    classes: NDArray[np.int64],
    truth: NDArray[np.uint8],
    reference: NDArray[np.bool_],
    kept: NDArray[np.bool_],
) -> Counts:
    """(thresholds, 3, names, names + 1): whole, DR and NDR over the pictures that are kept."""
    width = truth.shape[2]
    tall = [array[kept].reshape(-1, width) for array in (truth, reference)]  # one tall picture, one count
    found = []
    for threshold in THRESHOLDS:
        masks = _masks(unit[kept], classes[kept], threshold).reshape(1, -1, width)
        found.append(np.stack(region_matrices(tall[0], masks, tall[1].astype(np.bool_), NAMES))[:, 0])
    return np.stack(found)


def figures_of(counts: Counts) -> dict[str, Values]:
    """(..., 3, names, names + 1) -> each figure (...)."""
    return {
        "miou": miou(counts[..., 0, :, :]),
        "dr_recall": foreground_recall(counts[..., 1, :, :]),
        "ndr_recall": foreground_recall(counts[..., 2, :, :]),
        "fg_precision": foreground_precision(counts[..., 0, :, :]),
    }


def row_of(kind: Kind, seeds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All figures of one kind of network: over seeds, with intervals over pictures."""
    accuracy = [float(one["correct"].mean()) for one in seeds]
    row: dict[str, Any] = {
        "kernel": kind.kernel,
        "bias": kind.bias,
        "window": kind.window,
        "accuracy": _spread(accuracy),
        "exact": _exact_of(seeds, "exact_"),
        "exact_on_black_canvas": _exact_of(seeds, "padded_"),
    }
    for subset in ("correct", "all"):
        row[subset] = {}
        draws_of: dict[str, dict[str, Values]] = {}
        for name in MAPS:
            entry: dict[str, Any] = {}
            best = [int(one[f"{name}_{subset}_best"]) for one in seeds]
            entry["threshold"] = [THRESHOLDS[index] for index in best]
            at_best = [
                figures_of(one[f"{name}_{subset}_curve"][index])
                for one, index in zip(seeds, best, strict=True)
            ]
            draws_of[name] = _drawn(seeds, name, subset)
            for what in FIGURES:
                values = [float(one[what]) for one in at_best]
                entry[what] = {**_spread(values), "interval": interval(draws_of[name][what])}
            curves = [figures_of(one[f"{name}_{subset}_curve"]) for one in seeds]
            entry["curve"] = {
                what: [defined(float(value)) for value in _mean_of([c[what] for c in curves])]
                for what in FIGURES
            }
            row[subset][name] = entry
        row[subset]["saliency_minus_cam"] = {
            what: {
                "mean": _difference(row[subset], what),
                "interval": interval(draws_of["saliency"][what] - draws_of["cam"][what]),
            }
            for what in FIGURES
        }
        row[subset]["ndr_recall_at_cam_precision"] = _at_equal_precision(seeds, subset)
    return row


def _drawn(seeds: Sequence[dict[str, Any]], name: str, subset: str) -> dict[str, Values]:
    """Each figure on drawn sets of pictures, mean over seeds; the same pictures for every seed and map."""
    found: dict[str, list[Values]] = {what: [] for what in FIGURES}
    for one in seeds:
        matrices = one[f"{name}_{subset}_images"].astype(np.int64)
        times = times_of(len(matrices))
        for what in FIGURES:
            found[what].append(drawn(lambda sums, what=what: figures_of(sums)[what], matrices, times))
    return {what: _mean_of(values) for what, values in found.items()}


def _at_equal_precision(seeds: Sequence[dict[str, Any]], subset: str) -> dict[str, Any]:
    """Saliency's NDR-recall at the lowest threshold that is as precise as CAM at its best."""
    values = []
    for one in seeds:
        cam = figures_of(one[f"cam_{subset}_curve"][int(one[f"cam_{subset}_best"])])
        curve = figures_of(one[f"saliency_{subset}_curve"])
        enough = np.flatnonzero(curve["fg_precision"] >= cam["fg_precision"])
        values.append(float(curve["ndr_recall"][enough].max()) if len(enough) else float("nan"))
    return _spread(values)


def _difference(entry: dict[str, Any], what: str) -> float | None:
    one, other = entry["saliency"][what]["mean"], entry["cam"][what]["mean"]
    return None if one is None or other is None else one - other


def _exact_of(seeds: Sequence[dict[str, Any]], prefix: str) -> dict[str, Any]:
    values = {
        key[len(prefix) :]: [one[key].item() if hasattr(one[key], "item") else one[key] for one in seeds]
        for key in seeds[0]
        if key.startswith(prefix)
    }
    pixels = sum(values["pixels"])
    control = [value for value in values["control_nonzero"] if value >= 0]
    return {
        "pictures": sum(values["pictures"]),
        "pixels_checked": pixels,
        "largest_gradient_outside": max(values["largest"]) if pixels else None,
        "largest_gradient_anywhere": max(values["largest_anywhere"]),
        "zero_share": float(np.mean(values["zero_share"])),
        "active_share": float(np.mean(values["active_share"])),
        "control_pixels": sum(values["control_pixels"]) if control else None,
        "control_nonzero": sum(control) if control else None,
        "gradient_beyond_active_pixels": sum(values["beyond_active"]),
    }


def _mean_of(values: Sequence[Values]) -> Values:
    stacked = np.stack(values)
    known = ~np.isnan(stacked)
    count = known.sum(axis=0)
    out: Values = np.full(count.shape, np.nan)
    np.divide(np.where(known, stacked, 0).sum(axis=0), count, out=out, where=count > 0)
    return out


def _spread(values: Sequence[float]) -> dict[str, Any]:
    kept = [value for value in values if not np.isnan(value)]
    return {
        "mean": float(np.mean(kept)) if kept else None,
        "spread": float(np.std(kept, ddof=1)) if len(kept) > 1 else None,
        "seeds": [defined(value) for value in values],
    }


def _label(row: dict[str, Any]) -> str:
    return f"{row['kernel']}{' (bias)' if row['bias'] else ''}"


def claims(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What the figures say, in words, and what speaks against the paper."""
    found = []
    checked = [row for row in rows if not row["bias"]]
    pixels = sum(
        row[where]["pixels_checked"] for row in checked for where in ("exact", "exact_on_black_canvas")
    )
    largest = max(
        (row[where]["largest_gradient_outside"] or 0.0)
        for row in checked
        for where in ("exact", "exact_on_black_canvas")
    )
    found.append(
        f"Outside (R - 1) / 2 of every activated cell the gradient is "
        f"{'exactly 0' if largest == 0 else f'as large as {largest:.3g}, against the theorem'}, "
        f"on {pixels} pixels of networks without bias in their convolutions."
    )
    control = [row for row in checked if row["kernel"] > 1]
    if control:
        seen = ", ".join(
            f"{row['exact_on_black_canvas']['control_nonzero']} (F = {row['kernel']})" for row in control
        )
        found.append(f"With a zone one pixel narrower the same check finds gradients that are not 0: {seen}.")
    one = [row for row in checked if row["kernel"] == 1]
    if one:
        beyond = one[0]["exact"]["gradient_beyond_active_pixels"]
        found.append(f"F = 1: {beyond} pixels have a gradient without being activated themselves.")
    for row in rows:
        entry = row["correct"]
        difference = entry["saliency_minus_cam"]["ndr_recall"]
        if difference["mean"] is None:
            found.append(f"F = {_label(row)}: CAM misses nothing of the digits, so NDR-recall says nothing.")
            continue
        bounds = difference["interval"]
        verdict = (
            "more" if (bounds[0] or 0) > 0 else "less" if (bounds[1] or 0) < 0 else "no more and no less"
        )
        found.append(
            f"F = {_label(row)} (R = {row['window']}): of what CAM misses, saliency recovers "
            f"{percent(entry['saliency']['ndr_recall']['mean'])} %, CAM itself at its best threshold "
            f"{percent(entry['cam']['ndr_recall']['mean'])} %; {verdict} "
            f"({between(bounds, sign=True)} points)."
        )
    plain = [row for row in checked if row["correct"]["saliency"]["ndr_recall"]["mean"] is not None]
    values = [row["correct"]["saliency"]["ndr_recall"]["mean"] for row in plain]
    if len(values) > 1:
        steps = [after - before for before, after in itertools.pairwise(values)]
        rises = all(step > 0 for step in steps)
        shown = ", ".join(f"{percent(v)} (F = {r['kernel']})" for v, r in zip(values, plain, strict=True))
        found.append(
            f"Saliency's NDR-recall with the window: {shown}. The paper says that it rises with the window; "
            + (
                "here it does at every step."
                if rises
                else "here it does not at every step, which contradicts it."
            )
        )
    return found


def page(result: dict[str, Any]) -> str:
    """The results as Markdown."""
    minutes = result["seconds"] / 60
    parts = [
        "# Contribution window: MNIST digits, five convolutions of F x F\n",
        f"```\n{result['command']}\n```\n",
        "\n".join(f"- {claim}" for claim in result["claims"]) + "\n",
        "![NDR-recall over the window, DR- against NDR-recall, and maps of a digit](contribution_window.png)\n",
        "## Correctly classified test pictures\n",
        _scores(result["rows"], "correct"),
        "## All test pictures\n",
        _scores(result["rows"], "all"),
        f"In %, mean over seeds {', '.join(map(str, result['seeds']))}; ± is the standard deviation between "
        'seeds. "at equal precision": saliency\'s NDR-recall at the lowest threshold at which its '
        "FG-precision is that of CAM at its best. The threshold is each map's best one on these pictures "
        "(mIoU), so it has seen their ground truth. R: pixels a side that a feature cell sees.\n",
        "## Exact zeros, float64, direct convolution\n",
        _zeros(result["rows"]),
        "The largest absolute gradient outside (R - 1) / 2 of every activated cell, on the pictures and on the "
        'same pictures with a black margin of R + 3 pixels, which leaves room outside the zone; "not tested" '
        "where no pixel lies outside. Control: pixels with a gradient outside a zone one pixel narrower. With "
        "bias, black pixels are activated as well.\n",
        f"{result['train_images']} training and {result['test_images']} test pictures (no official split), "
        f"{result['epochs']} epochs of Adam in batches of {result['batch']}; reference: {result['reference']}; truth: {result['truth']}. "
        f"{result['machine']}, {result['threads']} threads; this call {minutes:.0f} min "
        "(networks and measurements that were kept from before not counted).\n",
        "Without bias and with F = 1 every cell is its pixel's intensity times one fixed vector: all pictures "
        "get the same answer, CAM is the picture and the gradient is flat, so that row has pictures of one "
        "digit only; the row with bias is beside it for that reason. The paper's own figures for MNIST were "
        "not to be had; what it says is compared in words.\n",
    ]
    return "\n".join(parts)


def _scores(rows: Sequence[dict[str, Any]], subset: str) -> str:
    head = ["F", "R", "accuracy", "map", "mIoU", "NDR-recall", "DR-recall", "FG-precision", "threshold"]
    head += ["NDR-recall, interval", "at equal precision"]
    lines = []
    for row in rows:
        for name in MAPS:
            entry = row[subset][name]
            cells = [_label(row), str(row["window"]), _cell(row["accuracy"]), name]
            cells += [_cell(entry[what]) for what in FIGURES]
            cells.append(", ".join(f"{value:g}" for value in entry["threshold"]))
            cells.append(between(entry["ndr_recall"]["interval"]))
            cells.append(_cell(row[subset]["ndr_recall_at_cam_precision"]) if name == "saliency" else "")
            lines.append(cells)
    return table(head, lines) + "\n"


def _cell(values: dict[str, Any]) -> str:
    spread = values["spread"]
    return percent(values["mean"]) + ("" if spread is None else f" ± {percent(spread)}")


def _zeros(rows: Sequence[dict[str, Any]]) -> str:
    head = ["F", "R", "pictures", "pixels outside", "largest gradient", "of at most", "exactly 0", "control"]
    lines = []
    for row in rows:
        for where, words in (("exact", ""), ("exact_on_black_canvas", " + margin")):
            entry = row[where]
            largest = entry["largest_gradient_outside"]
            lines.append(
                [
                    _label(row) + words,
                    str(row["window"]),
                    str(entry["pictures"]),
                    str(entry["pixels_checked"]),
                    "not tested" if largest is None else f"{largest:.3g}",
                    f"{entry['largest_gradient_anywhere']:.2g}",
                    percent(entry["zero_share"]),
                    "-" if entry["control_nonzero"] is None else str(entry["control_nonzero"]),
                ]
            )
    return table(head, lines) + "\n"


def figure(rows: Sequence[dict[str, Any]], measured: dict[Kind, list[dict[str, Any]]], test: Digits) -> bytes:
    """Maps of three digits, recalls over the window, and DR- against NDR-recall over the threshold."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    colours = {1: "#b03a2e", 3: "#e67e22", 5: "#27ae60", 7: "#1b4f72"}
    plain = [row for row in rows if not row["bias"]]
    picture = Figure(figsize=(11, 8.6), dpi=150, layout="constrained")
    FigureCanvasAgg(picture)
    top, bottom = picture.subfigures(2, 1, height_ratios=[1.15, 1])
    kinds = [kind for kind in measured if not kind.bias]
    shown = _examples([measured[kind][0] for kind in kinds if kind.kernel > 1], test)
    cells = top.subplots(len(shown), 1 + 2 * len(kinds), squeeze=False)
    for line, index in enumerate(shown):
        panels = [("digit", test.images[index, 0].numpy(), "gray")]
        for name, words in (("cam", "CAM"), ("saliency", "saliency")):
            panels += [
                (f"{words}, R = {kind.window}", measured[kind][0][f"{name}_example"][index], "magma")
                for kind in kinds
            ]
        for cell, (title, values, colour) in zip(cells[line], panels, strict=True):
            cell.imshow(np.asarray(values, dtype=np.float32), cmap=colour, vmin=0, vmax=1)
            if colour == "magma":
                cell.contour(test.images[index, 0].numpy(), [0.5], colors="#5dade2", linewidths=0.7)
            cell.set_xticks([])
            cell.set_yticks([])
            if line == 0:
                cell.set_title(title, fontsize=8)
    top.suptitle(
        "What CAM and saliency of the same network see of a digit (its outline in blue)", fontsize=11
    )
    left, right = bottom.subplots(1, 2)
    windows = [row["window"] for row in plain]
    for name, line, marker in (("saliency", "-", "o"), ("cam", "--", "s")):
        for what, colour, words in (("ndr_recall", "#e67e22", "NDR"), ("dr_recall", "#27ae60", "DR")):
            entries = [row["correct"][name][what] for row in plain]
            label = f"{words}-recall, {'CAM' if name == 'cam' else name}"
            left.plot(
                windows, [_points(e["mean"]) for e in entries], line, color=colour, marker=marker, label=label
            )
            for window, entry in zip(windows, entries, strict=True):
                for value in entry["seeds"]:
                    left.plot(window, _points(value), ".", color=colour, alpha=0.35, markersize=4)
    left.set_xlabel("contribution window R, pixels a side")
    left.set_ylabel("%")
    left.set_xticks(windows)
    left.set_ylim(0, 102)
    left.set_title("Recalls at each map's best threshold (dots: seeds)", fontsize=10, loc="left")
    for row in plain:
        for name, line in (("saliency", "-"), ("cam", "--")):
            curve = row["correct"][name]["curve"]
            right.plot(
                [_points(v) for v in curve["dr_recall"]],
                [_points(v) for v in curve["ndr_recall"]],
                line,
                color=colours.get(row["kernel"], "#555555"),
                label=f"F = {row['kernel']}" if name == "saliency" else None,
            )
            best = row["correct"][name]
            right.plot(
                _points(best["dr_recall"]["mean"]),
                _points(best["ndr_recall"]["mean"]),
                "*" if name == "saliency" else "s",
                color=colours.get(row["kernel"], "#555555"),
                markersize=11 if name == "saliency" else 5,
            )
    right.set_xlabel("DR-recall, %")
    right.set_ylabel("NDR-recall, %")
    right.set_title("Every threshold; saliency solid, CAM dashed, marks: best mIoU", fontsize=10, loc="left")
    for axes in (left, right):
        axes.grid(color="#ecf0f1")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    buffer = io.BytesIO()
    picture.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _examples(seeds: Sequence[dict[str, Any]], test: Digits) -> list[int]:
    """Three pictures of different digits that every shown network gets right, or the first ones."""
    count = min(64, len(test.digits))
    right = np.ones(count, dtype=bool)
    for one in seeds:
        right &= one["correct"][:count]
    found: list[int] = []
    for index in np.flatnonzero(right):
        if int(test.digits[index]) not in [int(test.digits[i]) for i in found]:
            found.append(int(index))
        if len(found) == 3:
            return found
    return list(range(min(3, count)))


def _points(value: float | None) -> float:
    return float("nan") if value is None else 100 * value


def _stem(kind: Kind, seed: int) -> str:
    return f"f{kind.kernel}{'-bias' if kind.bias else ''}-seed{seed}"


if __name__ == "__main__":
    main()
