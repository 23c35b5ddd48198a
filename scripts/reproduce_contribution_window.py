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
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _contribution_window import MAPS, THRESHOLDS, Digits, Kind, claims, page, row_of
from _contribution_window_figure import figure, maps
from _experiment import (
    Values,
    command,
    direct_convolution,
    machine,
    miou,
    say,
    write,
)
from numpy.typing import NDArray
from torch import Tensor, nn

from pseudolabel import draws, registry
from pseudolabel.explain.method import build
from pseudolabel.explain.model import Explained
from pseudolabel.metrics.confusion import Counts
from pseudolabel.metrics.regions import discriminative, region_matrices
from pseudolabel.records import Scores, Targets
from pseudolabel.runs import disk

NAME = "contribution_window"
WIDTHS = (16, 32, 32, 64, 64)
DIGITS = 10
NAMES = DIGITS + 1  # with background
BATCH = 16  # 1875 steps in 5 epochs of 6000; the full set in batches of 128 takes 2345
RATE = 1e-3
NORMALISE = {"cam": "max", "saliency": "quantile"}
SPARSE = 16  # images whose check has few activated cells on a canvas of faint noise
NOISE = 0.1  # largest intensity of that noise: enough to keep the inner ReLUs active everywhere
MIDDLE = 2  # cells around the middle one that may stay activated there


class Network(nn.Module):
    """Five convolutions of one size and a linear head; images (B, 3, h, w) of three equal channels."""

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


class Sparse(nn.Module):
    """A network with a bias before its last ReLU, for each image just so low that few cells stay activated.

    Its inner layers stay active everywhere, so that the gradient fills the window of those cells.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network, self.head = network, network.head

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) -> (B, 64, h, w) >= 0, 0 but in the middle."""
        found = self.network.features(images)
        outer = found.detach().clone()
        row, column = found.shape[2] // 2, found.shape[3] // 2
        outer[:, :, row - MIDDLE : row + MIDDLE + 1, column - MIDDLE : column + MIDDLE + 1] = 0
        left = (found - outer.amax(dim=(2, 3), keepdim=True)).relu()
        # where nothing would be left, nothing is taken off
        return torch.where(left.amax(dim=(1, 2, 3), keepdim=True) > 0, left, found)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) -> (B, 10) logits."""
        logits: Tensor = self.head(self.features(images).mean(dim=(2, 3)))
        return logits


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
        "data_sha256": disk.sha256_file(options.mnist),
        "truth": "intensity above 0.5 is the digit's class, else background",
        "threshold": "largest mIoU on the test images, whose ground truth it sees; per network and map",
        "reference": "CAM of the same network, own class, above 0.25 of its maximum",
        "normalise": NORMALISE,
        "thresholds": list(THRESHOLDS),
        "rows": [row_of(kind, measured[kind]) for kind in kinds],
    }
    result["claims"] = claims(result["rows"])
    write(options.out, NAME, result, page(result), figure(result["rows"]))
    disk.write_bytes(options.work / "example.png", maps(measured, test))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
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
    network = Network(kind.kernel, kind.bias)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    done = 0
    if path.is_file():
        kept = torch.load(path, weights_only=True)
        if kept["train"] != [len(train.digits), BATCH] or kept["epoch"] > options.epochs:
            raise SystemExit(f"{path}: trained otherwise; take another --work")
        network.load_state_dict(kept["network"])
        optimizer.load_state_dict(kept["optimizer"])
        done = kept["epoch"]
    for epoch in range(done, options.epochs):
        start = time.monotonic()
        order = torch.randperm(len(train.digits), generator=draws.generator("order", seed, epoch))
        losses = []
        for chosen in torch.split(order, BATCH):
            optimizer.zero_grad()
            inputs = train.images[chosen].contiguous(memory_format=torch.channels_last)
            loss = nn.functional.cross_entropy(network(inputs), train.digits[chosen])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(float(loss.detach()))
        kept = {
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "epoch": epoch + 1,
            "train": [len(train.digits), BATCH],
        }
        buffer = io.BytesIO()
        torch.save(kept, buffer)
        disk.write_bytes(path, buffer.getvalue())
        seconds = time.monotonic() - start
        say(f"F {kind}, seed {seed}, epoch {epoch + 1}: loss {np.mean(losses):.3f}, {seconds:.1f} s")
    network.eval()
    return network


def measure(
    network: Network, kind: Kind, seed: int, test: Digits, options: argparse.Namespace
) -> dict[str, Any]:
    """Scores, exact-zero check and example maps of one network; kept on disk."""
    path = options.work / f"{_stem(kind, seed)}.npz"
    asked = json.dumps([options.epochs, len(test.digits), options.checked, options.train, THRESHOLDS, NOISE])
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
    canvas = on_canvas(test.first(min(SPARSE, options.checked)), max(4, kind.window // 2 - 4))
    sparse = exact(Sparse(network), kind, canvas)
    found |= {f"sparse_{key}": value for key, value in sparse.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **found)
    disk.write_bytes(path, buffer.getvalue())
    say(f"F {kind}, seed {seed}: {correct.mean():.1%} correct, measured in {time.monotonic() - start:.1f} s")
    with np.load(path, allow_pickle=False) as kept:
        return {key: kept[key] for key in kept.files}


def explain(network: nn.Module, test: Digits) -> tuple[dict[str, Tensor], Tensor]:
    """Raw CAM and saliency (N, 28, 28) of each image's own class, and logits (N, 10)."""
    model = Explained(network, batch=50)
    targets = Targets.of((int(digit) + 1,) for digit in test.digits)
    keys = [(0, index) for index in range(len(test.digits))]
    maps = {}
    for name in MAPS:
        component = registry.get("methods", name)
        method = build((component, component.params()))
        attribution = method.explain(model, test.images, targets, keys)
        maps[name] = method.reduce(attribution.values)
    with torch.no_grad():
        logits = torch.cat([network(part) for part in torch.split(test.images, 100)])
    return maps, logits


def normalised(maps: Tensor, method: str) -> Tensor:
    """(N, h, w) raw -> each map in 0..1, by the package's own refiner."""
    component = registry.get("refiners", "normalise")
    ids = tuple(range(1, len(maps) + 1))
    image = torch.zeros(*maps.shape[1:], 3, dtype=torch.uint8)
    found: Tensor = component.run(
        Scores(ids, maps), image, component.params.model_validate({"method": method})
    ).values
    return found


def exact(network: nn.Module, kind: Kind, test: Digits) -> dict[str, float | int]:
    """The exact-zero theorem on some images, in float64 by direct convolution.

    Returns:
        `images`, `pixels` outside the zone, `largest` |gradient| there, `zero_share` of all pixels,
        `control_pixels` outside a zone one pixel too narrow and `control_nonzero` of them (-1 where the
        window has one pixel), `beyond_active`: pixels with a gradient that are not activated themselves.
    """
    import copy

    model = Explained(copy.deepcopy(network).double(), batch=4)
    component = registry.get("methods", "saliency")
    method = build((component, component.params.model_validate({"channels": "signed_sum"})))
    targets = Targets.of((int(digit) + 1,) for digit in test.digits)
    images = test.images.double()
    keys = [(0, index) for index in range(len(images))]
    with direct_convolution():
        gradient = method.reduce(method.explain(model, images, targets, keys).values)
        with torch.no_grad():
            active = torch.cat([(model.features(part) > 0).any(dim=1) for part in torch.split(images, 4)])
    radius = (kind.window - 1) // 2
    outside = ~_grown(active, radius)
    found: dict[str, float | int] = {
        "images": len(images),
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
    """The images with a margin, faint noise all over."""
    framed = nn.functional.pad(test.images, (margin,) * 4)
    noise = torch.rand(framed[:, :1].shape, generator=draws.generator("canvas", margin))
    return Digits(torch.maximum(framed, NOISE * noise), test.digits)


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
    """(thresholds, 3, names, names + 1): whole, DR and NDR over the images that are kept."""
    width = truth.shape[2]
    # one tall image, one count
    tall, region = truth[kept].reshape(-1, width), reference[kept].reshape(-1, width)
    found = []
    for threshold in THRESHOLDS:
        masks = _masks(unit[kept], classes[kept], threshold).reshape(1, -1, width)
        found.append(np.stack(region_matrices(tall, masks, region, NAMES))[:, 0])
    return np.stack(found)


def _stem(kind: Kind, seed: int) -> str:
    return f"f{kind.kernel}{'-bias' if kind.bias else ''}-seed{seed}"


if __name__ == "__main__":
    main()
