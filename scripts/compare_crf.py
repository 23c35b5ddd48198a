"""What the lattice of a dense CRF costs: `crf` against `crf_exact` on images, in labels and in mIoU.

    python scripts/compare_crf.py runs/cam --set background.threshold=0.17 -o docs/results/crf_exact.json

Both run on the same small image and label_scores (--side pixels at the longer side, reaches shrunk along), so
that only the kernels differ; labels are compared there, mIoU after going back to full size bilinearly, beside
no CRF and the lattice at full size. Every preset starts from labels (scores beside a constant background are
no probabilities). The run must hold stored maps and its data ground truth.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _experiment import command, interval, machine, miou, say, times_of
from torch import Tensor
from torch.nn import functional

from pseudolabel import images, registry
from pseudolabel.metrics.confusion import confusion
from pseudolabel.pipeline import postprocessing
from pseudolabel.records import LabelScores
from pseudolabel.runs import disk
from pseudolabel.runs.maps import read_maps
from pseudolabel.runs.run import Run
from pseudolabel.scoring.truth import of_reader

PRESETS = ("irn", "psa", "deeplab")
ROWS = ("no CRF", "lattice, full size", "lattice", "exact")


def main() -> None:
    """Compare on some images of a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("-o", "--out", type=Path, required=True)
    given = parser.parse_args()
    recipe = Run.open(given.run).recipe_with(given.overrides)
    judged = of_reader(recipe.data)
    stored = [one for one in judged.records if (given.run / "maps" / f"{one.id}.safetensors").is_file()]
    records = stored[:: max(1, len(stored) // given.images)][: given.images]
    found: dict[str, Any] = {}
    for preset in PRESETS:
        matrices: dict[str, list[Any]] = {name: [] for name in ROWS}
        differ, shift = [], []
        for record in records:
            image = torch.from_numpy(images.read_image(record.image).copy())
            maps = read_maps(given.run / "maps" / f"{record.id}.safetensors")
            if not maps[0].ids:
                continue
            scores = postprocessing.combine(maps, image, [one.refine for one in recipe.maps], recipe.fuse)
            background, params = recipe.background.component, recipe.background.params
            label_scores = background.run(scores, image, params)
            label_scores = {
                "no CRF": label_scores,
                "lattice, full size": _finished("crf", label_scores, image, preset),
            }
            small, little, share = _small(label_scores, image, given.side)
            for name, component in (("lattice", "crf"), ("exact", "crf_exact")):
                label_scores[name] = _finished(component, small, little, preset, share)
            differ.append(
                (label_scores["lattice"].rows() != label_scores["exact"].rows()).float().mean().item()
            )
            shift.append((label_scores["lattice"].values - label_scores["exact"].values).abs().mean().item())
            truth = judged.mask(record)
            for name, one in label_scores.items():
                mask = _at(one, truth.shape).mask().numpy()
                matrices[name].append(confusion(truth, mask, len(judged.space.names)))
        found[preset] = _row(matrices, differ, shift)
        say(f"{preset}: {found[preset]}")
    result = {
        "command": command(),
        **machine(),
        "images": len(differ),
        "side": given.side,
        "presets": found,
    }
    disk.write_json(given.out, result)
    disk.write_text(given.out.with_suffix(".md"), _page(result))


def _small(label_scores: LabelScores, image: Tensor, side: int) -> tuple[LabelScores, Tensor, float]:
    """LabelScores and image with `side` pixels at the longer side, and the share of the size."""
    height, width = image.shape[:2]
    share = min(1.0, side / max(height, width))
    size = (max(1, round(height * share)), max(1, round(width * share)))
    values = functional.interpolate(label_scores.values[None], size=size, mode="bilinear", antialias=True)[0]
    channels = image.permute(2, 0, 1)[None].float()
    little = functional.interpolate(channels, size=size, mode="bilinear", antialias=True)[0]
    keep = torch.ones(size, dtype=torch.bool)
    return LabelScores(label_scores.ids, values, keep), little.permute(1, 2, 0).round().to(torch.uint8), share


def _finished(
    name: str, label_scores: LabelScores, image: Tensor, preset: str, share: float = 1.0
) -> LabelScores:
    component = registry.get("postprocessors", name)
    whole = component.params(preset=preset).settings()  # type: ignore[attr-defined]
    params = component.params(
        preset=preset,
        unary="labels",
        position_xy=whole.position_xy * share,
        colour_xy=whole.colour_xy * share,
    )
    with torch.no_grad():
        finished: LabelScores = component.run(label_scores, image, params)
    return finished


def _at(label_scores: LabelScores, size: tuple[int, ...]) -> LabelScores:
    if label_scores.values.shape[1:] == size:
        return label_scores
    values = functional.interpolate(label_scores.values[None], size=size, mode="bilinear")[0]
    return LabelScores(label_scores.ids, values, torch.ones(size, dtype=torch.bool))


def _row(matrices: dict[str, list[Any]], differ: list[float], shift: list[float]) -> dict[str, Any]:
    """Figures of one preset, with intervals over images; the last is paired."""
    stacks = {name: np.stack(found) for name, found in matrices.items()}
    times = times_of(len(differ))
    drawn = {
        name: miou(np.einsum("di,ijk->djk", times, stack).round().astype(np.int64))
        for name, stack in stacks.items()
    }
    sums = {name: float(miou(stack.sum(0))) for name, stack in stacks.items()}
    return {
        "labels that differ": {"mean": float(np.mean(differ)), "median": float(np.median(differ)),
                               "range": [min(differ), max(differ)]},
        "mean |dQ|": float(np.mean(shift)),
        "miou": sums,
        "exact minus lattice": {"miou": sums["exact"] - sums["lattice"],
                                "interval": interval(drawn["exact"] - drawn["lattice"])},
    }  # fmt: skip


def _page(result: dict[str, Any]) -> str:
    """The figures as a table."""
    lines = [
        "# The lattice of a dense CRF against its exact kernels", "", f"`{result['command']}`", "",
        f"{result['images']} images, {result['side']} pixels at the longer side; mIoU in points.", "",
        "| preset | labels that differ: mean (range) | mean change of Q | " + " | ".join(ROWS)
        + " | exact - lattice |",
        "| --- " * (4 + len(ROWS)) + "|",
    ]  # fmt: skip
    for preset, row in result["presets"].items():
        labels = row["labels that differ"]
        low, high = (f"{100 * end:.1f}" for end in labels["range"])
        gain = row["exact minus lattice"]
        ends = ", ".join(f"{100 * end:+.2f}" for end in gain["interval"])
        cells = [
            preset, f"{100 * labels['mean']:.2f} % ({low} to {high})", f"{row['mean |dQ|']:.4f}",
            *(f"{100 * row['miou'][name]:.2f}" for name in ROWS),
            f"{100 * gain['miou']:+.2f} [{ends}]",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
