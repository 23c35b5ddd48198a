"""What the experiment scripts share: a clock, the machine in words, intervals over images, result files."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pseudolabel.metrics.confusion import Counts, iou, precision, read, recall
from pseudolabel.runs import disk

Values = NDArray[np.float64]
START = time.monotonic()
DRAWS = 1000  # data sets drawn for an interval
LEVEL = 0.95
FIGURES = ("miou", "ndr_recall", "dr_recall", "fg_precision")
BLOCK = 100  # data sets summed at once: bounds the memory


def say(text: str) -> None:
    """A line of progress on standard error, with minutes and seconds since the start."""
    seconds = int(time.monotonic() - START)
    print(f"[{seconds // 60:3d}:{seconds % 60:02d}] {text}", file=sys.stderr, flush=True)


def command() -> str:
    """The command line as it was typed, from the root of the checkout."""
    script = Path(sys.argv[0])
    return shlex.join(["python", f"{script.parent.name}/{script.name}", *sys.argv[1:]])


def machine() -> dict[str, Any]:
    """Where it ran, in words."""
    return {
        "machine": f"{os.cpu_count()} cores of a server CPU ({platform.machine()}), no GPU",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


@contextlib.contextmanager
def direct_convolution() -> Iterator[None]:
    """Convolutions without the accelerated back end, whose tricks leave dust where a gradient is 0."""
    before = torch.backends.mkldnn.enabled  # `flags()` would set more, and warn about GPUs that are not there
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before


def times_of(images: int, draws: int = DRAWS, seed: int = 0) -> Values:
    """How often each image stands in each drawn data set: (draws, images), rows sum to `images`."""
    random = np.random.default_rng(seed)
    return random.multinomial(images, np.full(images, 1 / images), size=draws).astype(np.float64)


def drawn(matrices: Counts, times: Values, classes: Sequence[int] | None = None) -> dict[str, Values]:
    """Every figure on every drawn data set.

    Args:
        matrices: (images, 3, C+1, C+2) int64: whole, DR and NDR of each image.
        times: from `times_of`; the same for every method that is compared, so that differences are paired.
        classes: see `figures_of`.

    Returns:
        each figure (draws,).
    """
    flat = matrices.reshape(len(matrices), -1).astype(np.float64)
    parts = []
    for start in range(0, len(times), BLOCK):
        sums = np.rint(times[start : start + BLOCK] @ flat).astype(np.int64)
        parts.append(figures_of(sums.reshape(-1, *matrices.shape[1:]), classes))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def interval(values: Values, level: float = LEVEL) -> list[float | None]:
    """Percentile interval of the defined values; [None, None] without any."""
    kept = values[~np.isnan(values)]
    if not len(kept):
        return [None, None]
    low, high = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
    return [float(low), float(high)]


def miou(matrices: Counts) -> Values:
    """(..., C+1, C+2) -> (...) mean IoU over all classes present, background included."""
    return _mean(iou(read(matrices, "background")))


def figures_of(counts: Counts, classes: Sequence[int] | None = None) -> dict[str, Values]:
    """Figures of summed matrices, as `pl evaluate` has them.

    Args:
        counts: (..., 3, C+1, C+2) int64: whole, DR, NDR.
        classes: ids that means are taken over, 0 among them; None for all.

    Returns:
        each figure (...): `miou`, `dr_recall`, `ndr_recall`, `fg_precision`, `ndr_miou_legacy`.
    """
    taken = read(counts, "background")
    ids = np.arange(counts.shape[-2]) if classes is None else np.asarray(classes)
    foreground = ids[ids > 0]
    whole, dr, ndr = (taken[..., index, :, :] for index in range(3))
    return {
        "miou": _mean(iou(whole)[..., ids]),
        "dr_recall": _mean(recall(dr)[..., foreground]),
        "ndr_recall": _mean(recall(ndr)[..., foreground]),
        "fg_precision": _mean(precision(whole)[..., foreground]),
        "ndr_miou_legacy": _mean(iou(ndr)[..., ids]),
    }


def mean_of(values: Sequence[Values]) -> Values:
    """Mean of the defined values over a first axis, for instance over seeds."""
    stacked = np.stack(values)
    known = ~np.isnan(stacked)
    count = known.sum(axis=0)
    out: Values = np.full(count.shape, np.nan)
    np.divide(np.where(known, stacked, 0).sum(axis=0), count, out=out, where=count > 0)
    return out


def _mean(values: Values) -> Values:
    known = ~np.isnan(values)
    count = known.sum(axis=-1)
    total = np.where(known, values, 0.0).sum(axis=-1)
    out: Values = np.full(count.shape, np.nan)
    np.divide(total, count, out=out, where=count > 0)
    return out


def percent(value: float | None, digits: int = 1) -> str:
    """A share in %, `-` where it is undefined."""
    return "-" if value is None or np.isnan(value) else f"{100 * value:.{digits}f}"


def between(bounds: Sequence[float | None], digits: int = 1, sign: bool = False) -> str:
    """An interval of shares in %."""
    if None in bounds:
        return "-"
    return " to ".join(f"{100 * float(b or 0.0):{'+' if sign else ''}.{digits}f}" for b in bounds)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table: the first column to the left, the others to the right."""
    lines = ["| " + " | ".join(head) + " |", "| --- " + "| ---: " * (len(head) - 1) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def write(folder: Path, name: str, result: dict[str, Any], page: str, image: bytes) -> None:
    """`name.json`, `name.md` and `name.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    disk.write_json(folder / f"{name}.json", result)
    disk.write_bytes(folder / f"{name}.md", page.encode())
    disk.write_bytes(folder / f"{name}.png", image)
    say(f"wrote {folder / name}.json, .md, .png")
